"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const METRICS = ["accuracy", "latency", "size", "memory"];
const front = data.front,
  baseline = front.baseline;
const state = { x: "latency", y: "accuracy", trials: true, id: data.chosen };

/* Formats figures with units. */
function unit(metric, value) {
  value = Math.abs(value);
  if (metric.startsWith("accuracy")) return ["%", 100];
  if (metric === "latency")
    return value >= 1 ? ["s", 1] : value >= 1e-6 || value === 0 ? ["ms", 1e3] : ["µs", 1e6];
  return value >= 1e9
    ? ["GB", 1e-9]
    : value >= 1e6
      ? ["MB", 1e-6]
      : value >= 1e3
        ? ["kB", 1e-3]
        : ["B", 1];
}
function digits(value) {
  if (!Number.isFinite(value)) return "-";
  if (value === 0) return "0";
  return value.toFixed(Math.min(8, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))))));
}
function show(metric, value) {
  if (value === null || value === undefined) return "-";
  const [sign, scale] = unit(metric, value);
  return (
    (sign === "%"
      ? (value * scale).toFixed(1)
      : sign === "B"
        ? value.toFixed(0)
        : digits(value * scale)) +
    " " +
    sign
  );
}
function versus(metric, value, base) {
  if (metric === "accuracy") {
    const points = (value - base) * 100;
    return Math.abs(points) < 0.05
      ? "the same"
      : (points > 0 ? "+" : "") + points.toFixed(1) + " points";
  }
  const gain = base / value,
    factor = Math.max(gain, 1 / gain);
  if (Math.abs(gain - 1) < 0.005) return "the same";
  const text =
    factor < 1.995 ? factor.toFixed(2) : factor < 9.95 ? factor.toFixed(1) : factor.toFixed(0);
  const words = metric === "latency" ? ["faster", "slower"] : ["smaller", "larger"];
  return text + "x " + words[gain > 1 ? 0 : 1];
}
function worse(metric, value, base) {
  return metric === "accuracy" ? value < base - 5e-4 : value > base * 1.005;
}
function element(name, attributes, text) {
  const node = document.createElement(name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  return node;
}
function shape(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  return node;
}

/* All marks of the plot: kind, metrics, and data for the tooltip. */
const points = front.points.slice();
if (front.nearest_miss && !points.some(p => p.id === front.nearest_miss.id))
  points.push(front.nearest_miss);
const marks = [];
for (const trial of data.trials)
  if (!points.some(p => p.id === trial.id))
    marks.push({
      kind: "trial",
      metrics: trial.metrics,
      feasible: trial.feasible,
      id: trial.id,
      origin: trial.origin,
    });
for (const technique of data.techniques)
  marks.push({
    kind: "technique",
    metrics: technique.metrics,
    id: technique.id,
    origin: technique.name,
    label: technique.label,
  });
marks.push({
  kind: "baseline",
  metrics: baseline,
  id: "baseline",
  origin: "baseline",
  label: "baseline",
});
for (const p of points.slice().sort((a, b) => a.best - b.best || a.feasible - b.feasible))
  marks.push({
    kind: "front",
    metrics: p.metrics,
    feasible: p.feasible,
    best: p.best,
    id: p.id,
    origin: p.origin,
    point: p,
  });

const limits = front.limits.map(limit =>
  limit.metric === "accuracy-drop"
    ? {
        metric: "accuracy",
        above: false,
        value: baseline.accuracy - limit.value,
        text: "accuracy drop <" + show("accuracy", limit.value),
      }
    : {
        metric: limit.metric,
        above: limit.op === "<",
        value: limit.value,
        text: limit.metric + " " + limit.op + show(limit.metric, limit.value),
      },
);

function axis(metric, from, to) {
  let values = marks.filter(m => m.kind !== "trial").map(m => m.metrics[metric]);
  const tried = marks
    .filter(m => m.kind === "trial")
    .map(m => m.metrics[metric])
    .sort((a, b) => a - b);
  const cut = Math.floor(tried.length / 20);
  if (state.trials) values = values.concat(tried.slice(cut, tried.length - cut));
  let low = Math.min(...values),
    high = Math.max(...values);
  for (const limit of limits.filter(l => l.metric === metric))
    if (
      metric === "accuracy"
        ? Math.abs(limit.value - low) < high - low
        : limit.value > low / 10 && limit.value < high * 10
    ) {
      low = Math.min(low, limit.value);
      high = Math.max(high, limit.value);
    }
  const log = metric !== "accuracy" && low > 0 && high / low > 8;
  const f = log ? Math.log : v => v;
  let a = f(low),
    b = f(high);
  const margin = (b > a ? b - a : Math.abs(b) * 0.1 || 1) * 0.06;
  a -= margin;
  b += margin;
  if (!log && low >= 0) a = Math.max(a, 0);
  const [sign, scale] = unit(metric, high);
  const place = v => from + ((f(v) - a) / (b - a)) * (to - from);
  const ticks = [];
  if (log) {
    for (
      let decade = Math.floor(Math.log10(Math.exp(a) * scale));
      decade <= Math.ceil(Math.log10(Math.exp(b) * scale));
      decade++
    )
      for (const factor of (b - a) / Math.LN10 > 3 ? [1] : [1, 2, 5])
        ticks.push(factor * 10 ** decade);
  } else {
    const rough = ((b - a) * scale) / 7,
      decade = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map(s => s * decade).find(s => s >= rough);
    for (let i = Math.ceil((a * scale) / step); i * step <= b * scale; i++) ticks.push(i * step);
  }
  const inside = ticks
    .map(t => [place(t / scale), +t.toPrecision(6)])
    .filter(t => (t[0] - from) * (t[0] - to) <= 0);
  return {
    metric,
    place,
    ticks: inside,
    title: metric + " (" + sign + (log ? ", log scale" : "") + ")",
    inside: v => (place(v) - from) * (place(v) - to) <= 0,
  };
}

const W = 820,
  H = 520,
  L = 66,
  T = 14,
  R = W - 14,
  B = H - 52;
let placed = [];
function draw() {
  const svg = shape("svg", {
    viewBox: `0 0 ${W} ${H}`,
    role: "img",
    "aria-label": state.y + " over " + state.x,
  });
  const x = axis(state.x, L, R),
    y = axis(state.y, B, T);
  for (const [at, text] of x.ticks) {
    svg.append(shape("line", { class: "gridline", x1: at, x2: at, y1: T, y2: B }));
    svg.append(shape("text", { class: "tick", x: at, y: B + 18, "text-anchor": "middle" }, text));
  }
  for (const [at, text] of y.ticks) {
    svg.append(shape("line", { class: "gridline", x1: L, x2: R, y1: at, y2: at }));
    svg.append(shape("text", { class: "tick", x: L - 8, y: at + 4, "text-anchor": "end" }, text));
  }
  svg.append(
    shape("text", { id: "xtitle", x: (L + R) / 2, y: H - 12, "text-anchor": "middle" }, x.title),
  );
  svg.append(
    shape(
      "text",
      {
        id: "ytitle",
        transform: `translate(16 ${(T + B) / 2}) rotate(-90)`,
        "text-anchor": "middle",
      },
      y.title,
    ),
  );
  for (const limit of limits) {
    const along = limit.metric === x.metric ? x : limit.metric === y.metric ? y : null;
    if (!along) continue;
    const vertical = along === x,
      at = Math.min(vertical ? R : B, Math.max(vertical ? L : T, along.place(limit.value)));
    const rect = vertical
      ? limit.above
        ? [at, T, R - at, B - T]
        : [L, T, at - L, B - T]
      : limit.above
        ? [L, T, R - L, at - T]
        : [L, at, R - L, B - at];
    svg.append(
      shape("rect", {
        class: "shade",
        x: rect[0],
        y: rect[1],
        width: Math.max(0, rect[2]),
        height: Math.max(0, rect[3]),
      }),
    );
    if (!along.inside(limit.value)) continue;
    svg.append(
      shape(
        "line",
        vertical
          ? { class: "limit", x1: at, x2: at, y1: T, y2: B }
          : { class: "limit", x1: L, x2: R, y1: at, y2: at },
      ),
    );
    svg.append(
      vertical
        ? shape(
            "text",
            {
              class: "label",
              x: at + (at > W * 0.7 ? -6 : 6),
              y: B - 8,
              "text-anchor": at > W * 0.7 ? "end" : "start",
            },
            limit.text,
          )
        : shape("text", { class: "label", x: R - 6, y: at - 5, "text-anchor": "end" }, limit.text),
    );
  }
  svg.append(shape("rect", { class: "frame", x: L, y: T, width: R - L, height: B - T }));
  const cost = (m, metric) => (metric === "accuracy" ? -m.metrics[metric] : m.metrics[metric]);
  const any = marks.some(m => m.kind === "front" && m.feasible);
  let lowest = Infinity;
  const join = marks
    .filter(m => m.kind === "front" && (m.feasible || !any))
    .sort((a, b) => cost(a, x.metric) - cost(b, x.metric) || cost(a, y.metric) - cost(b, y.metric))
    .filter(m => cost(m, y.metric) < lowest && ((lowest = cost(m, y.metric)), true));
  svg.append(
    shape("polyline", {
      class: "join",
      points: join
        .map(
          m =>
            x.place(m.metrics[x.metric]).toFixed(1) + "," + y.place(m.metrics[y.metric]).toFixed(1),
        )
        .join(" "),
    }),
  );
  placed = [];
  for (const mark of marks) {
    if (mark.kind === "trial" && !state.trials) continue;
    const px = x.place(mark.metrics[x.metric]),
      py = y.place(mark.metrics[y.metric]);
    if (px < L - 1 || px > R + 1 || py < T - 1 || py > B + 1) continue;
    placed.push({ mark, px, py });
    const missed = mark.feasible === false ? " missed" : "";
    if (mark.kind === "trial")
      svg.append(shape("circle", { class: "trial" + missed, cx: px, cy: py, r: 2.6 }));
    if (mark.kind === "baseline")
      svg.append(
        shape("rect", { class: "baseline", x: px - 5.5, y: py - 5.5, width: 11, height: 11 }),
      );
    if (mark.kind === "technique")
      svg.append(
        shape("path", {
          class: "technique",
          d: `M${px} ${py - 6.5}L${px + 6.5} ${py}L${px} ${py + 6.5}L${px - 6.5} ${py}Z`,
        }),
      );
    if (mark.kind === "front") {
      for (const [a, horizontal] of [
        [x, true],
        [y, false],
      ]) {
        const spread = mark.point.spread[a.metric];
        if (!spread) continue;
        const [u, v] = spread.map(s =>
          Math.min(horizontal ? R : B, Math.max(horizontal ? L : T, a.place(s))),
        );
        svg.append(
          shape(
            "line",
            horizontal
              ? { class: "whisker", x1: u, x2: v, y1: py, y2: py }
              : { class: "whisker", x1: px, x2: px, y1: u, y2: v },
          ),
        );
      }
      const node = shape("circle", {
        class: (mark.best ? "best" : "front") + missed,
        cx: px,
        cy: py,
        r: mark.best ? 7 : 5,
        tabindex: 0,
        "data-id": mark.id,
        "aria-label": METRICS.map(m => m + " " + show(m, mark.metrics[m])).join(", "),
      });
      node.addEventListener("keydown", e => {
        if (e.key === "Enter" || e.key === " ") {
          e.preventDefault();
          choose(mark.id);
        }
      });
      svg.append(node);
    }
    if (mark.id === state.id)
      svg.append(shape("circle", { class: "chosen", cx: px, cy: py, r: 11 }));
  }
  const boxes = [];
  for (const { mark, px, py } of placed) {
    const text = mark.label || (mark.best ? "best" : null);
    if (!text) continue;
    const end = px > W * 0.7,
      width = text.length * 7,
      left = end ? px - 10 - width : px + 10;
    let ty = py < T + 22 ? py + 18 : py - 8;
    for (
      let tries = 0;
      tries < 8 &&
      boxes.some(b => left < b[0] + b[2] && left + width > b[0] && Math.abs(ty - b[1]) < 13);
      tries++
    )
      ty += 13;
    boxes.push([left, ty, width]);
    svg.append(
      shape(
        "text",
        { class: "label", x: end ? px - 10 : px + 10, y: ty, "text-anchor": end ? "end" : "start" },
        text,
      ),
    );
  }
  document.getElementById("plot").replaceChildren(svg);
}

const tip = document.getElementById("tip");
function nearest(event) {
  const svg = document.querySelector("#plot svg"),
    box = svg.getBoundingClientRect(),
    scale = W / box.width;
  const px = (event.clientX - box.left) * scale,
    py = (event.clientY - box.top) * scale;
  let found = null,
    distance = 14;
  for (const p of placed) {
    const d = Math.hypot(p.px - px, p.py - py) - (p.mark.kind === "trial" ? 0 : 4);
    if (d <= distance) {
      found = p.mark;
      distance = d;
    }
  }
  return found;
}
document.getElementById("plot").addEventListener("mousemove", event => {
  const mark = nearest(event);
  if (!mark) {
    tip.style.display = "none";
    return;
  }
  tip.replaceChildren(
    element(
      "b",
      {},
      mark.kind === "baseline"
        ? "baseline"
        : mark.kind === "technique"
          ? mark.origin + " alone"
          : mark.id.slice(0, 8) + (mark.best ? " (best)" : "") + " by " + mark.origin,
    ),
  );
  for (const metric of METRICS)
    tip.append(
      element(
        "div",
        {},
        metric +
          " " +
          show(metric, mark.metrics[metric]) +
          (mark.kind === "baseline"
            ? ""
            : ", " + versus(metric, mark.metrics[metric], baseline[metric])),
      ),
    );
  if (mark.feasible === false) tip.append(element("div", { class: "bad" }, "misses a limit"));
  tip.style.display = "block";
  tip.style.left = Math.min(event.clientX + 14, innerWidth - 340) + "px";
  tip.style.top = Math.min(event.clientY + 14, innerHeight - 150) + "px";
});
document.getElementById("plot").addEventListener("mouseleave", () => {
  tip.style.display = "none";
});
document.getElementById("plot").addEventListener("click", event => {
  const mark = nearest(event);
  if (mark && mark.kind === "front") choose(mark.id);
});

function choose(id) {
  state.id = id;
  draw();
  details();
}

function details() {
  const p = points.find(q => q.id === state.id),
    panel = document.getElementById("point");
  if (!p) {
    panel.replaceChildren(element("p", { class: "soft" }, "No point is known."));
    return;
  }
  panel.replaceChildren(
    element(
      "h3",
      {},
      p.id.slice(0, 8) + (p.best ? ", the best" : p.feasible ? "" : ", misses a limit"),
    ),
  );
  panel.append(element("div", { class: "soft" }, "proposed by " + (p.origin || "?")));
  const table = element("table", {});
  for (const metric of METRICS) {
    const row = element("tr", {}),
      spread = p.spread[metric];
    row.append(
      element("td", {}, metric),
      element("td", { class: "num" }, show(metric, p.metrics[metric])),
    );
    row.append(
      element(
        "td",
        { class: worse(metric, p.metrics[metric], baseline[metric]) ? "bad" : "good" },
        versus(metric, p.metrics[metric], baseline[metric]),
      ),
    );
    table.append(row);
    if (spread) {
      const r = element("tr", {});
      r.append(
        element("td", { class: "soft" }, ""),
        element(
          "td",
          { class: "soft num", colspan: 2 },
          "95 %: " + show(metric, spread[0]) + " to " + show(metric, spread[1]),
        ),
      );
      table.append(r);
    }
  }
  panel.append(table);
  for (const metric in p.violation)
    panel.append(
      element(
        "div",
        { class: "bad" },
        metric + ": misses its limit by " + (p.violation[metric] * 100).toFixed(1) + " % of it",
      ),
    );
  panel.append(
    element("p", { class: "soft" }, "export it:"),
    element("code", {}, data.export + (p.best ? "" : " --pick " + p.id.slice(0, 8))),
  );
  const choices = data.choices[p.id],
    box = document.getElementById("choices");
  document.getElementById("choices-of").textContent = p.id.slice(0, 8) + (p.best ? " (best)" : "");
  box.replaceChildren();
  if (!choices) return;
  box.append(element("p", {}, choices.global.map(g => g[0] + " " + g[1]).join(", ")));
  const kept = choices.channels.filter(c => +c[1] < 1);
  box.append(
    element(
      "p",
      {},
      kept.length
        ? "channels kept: " + kept.map(c => c[0] + " " + (c[1] * 100).toFixed(0) + " %").join(", ")
        : "no channel is removed",
    ),
  );
  const layers = element("table", {}),
    head = element("tr", {});
  const costs = data.costs[p.id] || [],
    total = costs.reduce((sum, step) => sum + step.seconds, 0);
  const heads = ["layer", "bits", "zero weights", "algorithm"].concat(
    costs.length ? ["time", "share", "bytes", "of ceiling"] : [],
    ["tunables"],
  );
  for (const text of heads) head.append(element("th", {}, text));
  layers.append(head);
  for (const layer of choices.layers) {
    const row = element("tr", {});
    row.append(
      element("td", {}, layer.name),
      element("td", {}, layer.bits),
      element("td", {}, +layer.sparsity ? (layer.sparsity * 100).toFixed(0) + " %" : ""),
      element("td", {}, layer.algorithm),
    );
    if (costs.length) {
      const cost = costs.find(step => step.name === layer.name),
        share = element("td", {});
      if (cost) {
        share.append(
          element("span", {
            class: "bar",
            style: "width:" + ((90 * cost.seconds) / total).toFixed(1) + "px",
          }),
          " " + ((100 * cost.seconds) / total).toFixed(1) + " %",
        );
        row.append(
          element("td", {}, show("latency", cost.seconds)),
          share,
          element("td", {}, show("size", cost.weight_bytes)),
          element(
            "td",
            {},
            cost.ceiling_share ? (100 * cost.ceiling_share).toFixed(0) + " %" : "-",
          ),
        );
      } else for (let i = 0; i < 4; i++) row.append(element("td", {}, "-"));
    }
    row.append(element("td", { class: "soft" }, layer.tunables));
    layers.append(row);
  }
  box.append(layers);
}

function table(id, heads, rows) {
  const node = document.getElementById(id),
    head = element("tr", {});
  heads.forEach((text, i) => head.append(element("th", i ? { class: "num" } : {}, text)));
  node.append(head);
  for (const row of rows) {
    const line = element("tr", { class: (row.strong ? "strong " : "") + (row.id ? "pick" : "") });
    row.cells.forEach((cell, i) =>
      line.append(
        element(
          "td",
          { class: (i ? "num " : "") + (cell.class || "") },
          cell.text === undefined ? cell : cell.text,
        ),
      ),
    );
    if (row.id) line.addEventListener("click", () => choose(row.id));
    node.append(line);
  }
}

/* Static parts of the page. */
const best = points.find(p => p.best) || front.nearest_miss;
if (best)
  for (const metric of METRICS) {
    const card = element("div", { class: "card" });
    const bad = worse(metric, best.metrics[metric], baseline[metric]);
    card.append(
      element("div", { class: "n" }, metric),
      element("div", { class: "v" }, show(metric, best.metrics[metric])),
      element(
        "div",
        { class: bad ? "g worse" : "g" },
        versus(metric, best.metrics[metric], baseline[metric]) +
          " (baseline " +
          show(metric, baseline[metric]) +
          ")",
      ),
    );
    document.getElementById("cards").append(card);
  }
function compared(name, metrics, strong) {
  return {
    strong,
    cells: [name].concat(
      METRICS.flatMap(m => [
        show(m, metrics[m]),
        {
          text: strong === "base" ? "" : versus(m, metrics[m], baseline[m]),
          class: worse(m, metrics[m], baseline[m]) ? "bad" : "soft",
        },
      ]),
    ),
  };
}
table(
  "compare",
  ["", "accuracy", "", "latency", "", "size", "", "memory", ""],
  [compared("baseline", baseline, "base")].concat(
    data.techniques.map(t => compared(t.name + " alone", t.metrics)),
    best ? [compared(best.best ? "chosen: all together" : "nearest miss", best.metrics, true)] : [],
  ),
);
table(
  "spread",
  [
    "point",
    "accuracy",
    "95 % interval",
    "latency",
    "95 % interval",
    "size",
    "memory",
    "meets limits",
  ],
  points.map(p => ({
    id: p.id,
    strong: p.best,
    cells: [
      p.id.slice(0, 8),
      show("accuracy", p.metrics.accuracy),
      p.spread.accuracy ? p.spread.accuracy.map(v => (v * 100).toFixed(1)).join(" to ") : "-",
      show("latency", p.metrics.latency),
      p.spread.latency
        ? p.spread.latency.map(v => digits(v * unit("latency", p.metrics.latency)[1])).join(" to ")
        : "-",
      show("size", p.metrics.size),
      show("memory", p.metrics.memory),
      p.feasible ? "yes" : { text: "no: " + Object.keys(p.violation).join(", "), class: "bad" },
    ],
  })),
);

for (const key of ["x", "y"]) {
  const select = document.getElementById("axis-" + key);
  for (const metric of METRICS) select.append(element("option", { value: metric }, metric));
  select.addEventListener("change", () => {
    const other = key === "x" ? "y" : "x";
    if (select.value === state[other]) {
      state[other] = state[key];
      document.getElementById("axis-" + other).value = state[other];
    }
    state[key] = select.value;
    draw();
  });
}
document.getElementById("trials").addEventListener("change", event => {
  state.trials = event.target.checked;
  draw();
});
for (const part of location.hash.slice(1).split("&")) {
  const [key, value] = part.split("=");
  if ((key === "x" || key === "y") && METRICS.includes(value)) state[key] = value;
  if (key === "id" && points.some(p => p.id.startsWith(value)))
    state.id = points.find(p => p.id.startsWith(value)).id;
}
document.getElementById("axis-x").value = state.x;
document.getElementById("axis-y").value = state.y;
draw();
details();
