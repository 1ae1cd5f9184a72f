#!/usr/bin/env python3
"""Compares searches of one network by the hypervolume of the feasible points over time.

Each argument is NAME=PATH: the folder of a study, or the output of optuna_search.py. Points count
with their accuracy on search images. The corners are those of `paretune`: the bad one has the
baseline's latency, size and memory and an accuracy 20 points below it; the good one has a hundredth
of each and an accuracy 2 points above. Scales are logarithmic. Baseline and limits are those of the
first study, so that all searches are measured alike.

    hypervolumes.py auto=studies/auto nsga2=studies/nsga2 optuna-tpe=tpe.jsonl
"""

import json
import math
import os
import sys

TIMES = [60, 120, 180, 300, 600, 900, 1200, 1500, 1800]


def read(path):
    """Returns seconds and metrics of complete trials, and baseline and limits if recorded."""
    trials, baseline, limits = [], None, None
    name = os.path.join(path, "journal.jsonl") if os.path.isdir(path) else path
    for line in open(name, encoding="utf-8"):
        event = json.loads(line)
        if event.get("event") == "started" and limits is None:
            limits = event["limits"]
        if event.get("event") == "trial_finished":
            if event.get("point"):
                trials.append((event["elapsed"], event["point"]["metrics"]))
            baseline = event.get("baseline") or baseline
        elif "event" not in event and event.get("metrics"):
            trials.append((event["elapsed"], event["metrics"]))
    return trials, baseline, limits


def normalized(metrics, baseline):
    numbers = [(baseline["accuracy"] + 0.02 - metrics["accuracy"]) / 0.22]
    numbers += [1 + math.log10(metrics[n] / baseline[n]) / 2 for n in ("latency", "size", "memory")]
    return tuple(min(max(n, 0.0), 1.0) for n in numbers)


def feasible(metrics, baseline, limits):
    def value(name):
        return (
            baseline["accuracy"] - metrics["accuracy"] if name == "accuracy-drop" else metrics[name]
        )

    return all(
        value(l["metric"]) < l["value"] if l["op"] == "<" else value(l["metric"]) > l["value"]
        for l in limits
    )


def hypervolume(points):
    """Computes the exact hypervolume by slicing along the last objective; the reference is 1."""
    points = [p for p in set(points) if all(x < 1 for x in p)]
    if not points:
        return 0.0
    if len(points[0]) == 1:
        return 1 - min(p[0] for p in points)
    points.sort(key=lambda p: p[-1])
    total, slab = 0.0, []
    for i, point in enumerate(points):
        if not any(all(a <= b for a, b in zip(q, point[:-1])) for q in slab):
            slab = [q for q in slab if not all(a <= b for a, b in zip(point[:-1], q))] + [
                point[:-1]
            ]
        upper = points[i + 1][-1] if i + 1 < len(points) else 1.0
        if upper > point[-1]:
            total += (upper - point[-1]) * hypervolume(slab)
    return total


def front(points):
    return [
        p for p in points if not any(q != p and all(a <= b for a, b in zip(q, p)) for q in points)
    ]


def main():
    runs = [argument.split("=", 1) for argument in sys.argv[1:]]
    if not runs or any(len(run) != 2 for run in runs):
        sys.exit(__doc__)
    loaded = [(name, *read(path)) for name, path in runs]
    baseline = next(b for _, _, b, _ in loaded if b)
    limits = next(l for _, _, _, l in loaded if l is not None)
    print("| search | trials | " + " | ".join(f"{t // 60} min" for t in TIMES) + " |")
    print("| --- |" + " --- |" * (len(TIMES) + 1))
    for name, trials, _, _ in loaded:
        last = max((seconds for seconds, _ in trials), default=0.0)
        cells = []
        for at in TIMES:
            known = [m for seconds, m in trials if seconds <= at]
            points = [normalized(m, baseline) for m in known if feasible(m, baseline, limits)]
            cells.append(f"{hypervolume(front(list(set(points)))):.4f}" if last > 0.8 * at else "")
        print(f"| {name} | {len(trials)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
