//! The archive as a plot of two metrics: one self-contained SVG file for a white background.

use std::fmt::Write;

use paretune_record::front::{Front, FrontPoint};
use paretune_record::limit::Limit;
use paretune_record::metric::{Metric, Metrics};

use super::axis::Axis;
use super::techniques::Technique;
use super::units;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 480.0;
/// Frame of the plot: left, top, right, bottom.
const FRAME: (f64, f64, f64, f64) = (78.0, 64.0, 700.0, 424.0);

const STYLE: &str = "\
text{font:12px system-ui,Helvetica,Arial,DejaVu Sans,sans-serif;fill:#333}\
.title{font-size:15px;font-weight:600}.grid{stroke:#e4e4e4}.frame{fill:none;stroke:#888}\
.front{fill:none;stroke:#1b7837;stroke-width:1.5;stroke-dasharray:5 3}.feasible{fill:#1b7837}\
.infeasible{fill:#fff;stroke:#b2182b;stroke-width:1.5}.best{fill:#1b7837;stroke:#000}\
.baseline{fill:#2166ac}.technique{fill:#8a5a00}.limit{stroke:#b2182b;stroke-width:1.5}\
.beyond{fill:#b2182b;fill-opacity:.07}.whisker{stroke:#ccc}.strong{font-weight:600}";

/// Draws the points of `front` over the metrics `x` and `y` (`accuracy`, `latency`, `size`,
/// `memory`).
///
/// Single techniques are labelled. The dashed line joins the points that no other point beats in
/// these two metrics, among those that meet every limit (among all if none does). An unknown metric
/// results in an empty plot.
#[must_use]
pub fn svg(front: &Front, techniques: &[Technique], x: Metric, y: Metric) -> String {
    let miss = front
        .nearest_miss
        .iter()
        .filter(|miss| front.points.iter().all(|point| point.id != miss.id));
    let points: Vec<&FrontPoint> = front.points.iter().chain(miss).collect();
    let alone = || techniques.iter().map(|technique| &technique.metrics);
    let all = || points.iter().map(|point| &point.metrics).chain(alone()).chain([&front.baseline]);
    let limits: Vec<(&Limit, Limit)> =
        front.limits.iter().map(|limit| (limit, limit.drawn(Some(&front.baseline)))).collect();
    let axis = |metric: Metric| {
        let values = all().filter_map(|metrics| metrics.get(metric));
        Axis::with_limits(
            metric,
            values,
            limits.iter().filter(|(_, drawn)| drawn.metric == metric).map(|(_, drawn)| drawn.value),
        )
    };
    let plot = Plot { x: axis(x), y: axis(y) };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        escaped(&format!("{}: {y} over {x}", front.model.name))
    );
    plot.heading(&mut out, front);
    plot.axes(&mut out);
    for (limit, drawn) in &limits {
        plot.limit(&mut out, drawn, &units::limit(limit));
    }
    plot.line(&mut out, &points);
    for technique in techniques {
        let Some((x, y)) = plot.position(&technique.metrics) else { continue };
        let _ = writeln!(
            out,
            "<path class=\"technique\" d=\"M{x:.1} {:.1}l5.5 5.5l-5.5 5.5l-5.5 -5.5z\">\
             <title>{}</title></path>",
            y - 5.5,
            escaped(&figures(&format!("{} alone", technique.name), &technique.metrics))
        );
        plot.label(&mut out, x, y, &technique.label, "");
    }
    // The best point is drawn last, so that no other covers it.
    let mut ordered = points.clone();
    ordered.sort_by_key(|point| (point.best, point.feasible));
    for point in ordered {
        plot.point(&mut out, point, &front.baseline);
    }
    if let Some((x, y)) = plot.position(&front.baseline) {
        let _ = writeln!(
            out,
            "<rect class=\"baseline\" x=\"{:.1}\" y=\"{:.1}\" width=\"9\" \
             height=\"9\"><title>{}</title></rect>",
            x - 4.5,
            y - 4.5,
            escaped(&figures("baseline", &front.baseline))
        );
        plot.label(&mut out, x, y, "baseline", "");
    }
    out.push_str("</svg>\n");
    out
}

struct Plot {
    x: Axis,
    y: Axis,
}

impl Plot {
    fn position(&self, metrics: &Metrics) -> Option<(f64, f64)> {
        let (left, top, right, bottom) = FRAME;
        let x = self.x.position(metrics.get(self.x.metric)?)?;
        let y = self.y.position(metrics.get(self.y.metric)?)?;
        Some((left + x * (right - left), bottom - y * (bottom - top)))
    }

    fn heading(&self, out: &mut String, front: &Front) {
        let (left, ..) = FRAME;
        let title = escaped(&format!("{} on {}", front.model.name, front.hardware.cpu));
        let below = escaped(&format!(
            "{} trials in {}; limits: {}",
            front.trials,
            units::duration(front.seconds),
            units::limits(&front.limits)
        ));
        let _ = writeln!(out, "<text class=\"title\" x=\"{left}\" y=\"24\">{title}</text>");
        let _ = writeln!(out, "<text x=\"{left}\" y=\"44\">{below}</text>");
    }

    fn axes(&self, out: &mut String) {
        let (left, top, right, bottom) = FRAME;
        for (place, text) in self.x.ticks(8) {
            let x = left + place * (right - left);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                bottom + 17.0
            );
        }
        for (place, text) in self.y.ticks(7) {
            let y = bottom - place * (bottom - top);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{left}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                left - 7.0,
                y + 4.0
            );
        }
        let (width, height) = (right - left, bottom - top);
        let _ = writeln!(
            out,
            "<rect class=\"frame\" x=\"{left}\" y=\"{top}\" width=\"{width}\" \
             height=\"{height}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(20 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (left + right) / 2.0,
            bottom + 40.0,
            escaped(&self.x.title()),
            (top + bottom) / 2.0,
            escaped(&self.y.title())
        );
    }

    /// Draws the line of a limit with its forbidden side tinted. A limit outside of the plot has no
    /// line; the plot is tinted completely if all of it is forbidden.
    fn limit(&self, out: &mut String, limit: &Limit, text: &str) {
        let (left, top, right, bottom) = FRAME;
        let vertical = limit.metric == self.x.metric;
        let axis = if vertical { &self.x } else { &self.y };
        if axis.metric != limit.metric {
            return;
        }
        let Some(place) = axis.position(limit.value) else { return };
        let at = place.clamp(0.0, 1.0);
        let (x, y) = (left + at * (right - left), bottom - at * (bottom - top));
        let (x0, y0, x1, y1) = match (vertical, limit.is_upper()) {
            (true, true) => (x, top, right, bottom),
            (true, false) => (left, top, x, bottom),
            (false, true) => (left, top, right, y),
            (false, false) => (left, y, right, bottom),
        };
        let _ = writeln!(
            out,
            "<rect class=\"beyond\" x=\"{x0:.1}\" y=\"{y0:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            x1 - x0,
            y1 - y0
        );
        if at != place {
            return;
        }
        let text = escaped(text);
        let _ = if vertical {
            let (anchor, shift) = if at > 0.7 { ("end", -5.0) } else { ("start", 5.0) };
            writeln!(
                out,
                "<line class=\"limit\" x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>",
                x + shift,
                top + 14.0
            )
        } else {
            let shift = if at > 0.9 { 14.0 } else { -5.0 };
            writeln!(
                out,
                "<line class=\"limit\" x1=\"{left}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                right - 5.0,
                y + shift
            )
        };
    }

    /// Draws the line through the points that are not dominated in these two metrics.
    fn line(&self, out: &mut String, points: &[&FrontPoint]) {
        let any_feasible = points.iter().any(|point| point.feasible);
        let cost = |point: &FrontPoint, metric: Metric| {
            point.metrics.get(metric).map(|value| metric.cost(value))
        };
        let mut kept: Vec<(f64, f64, &Metrics)> = points
            .iter()
            .filter(|point| point.feasible || !any_feasible)
            .filter_map(|point| {
                Some((cost(point, self.x.metric)?, cost(point, self.y.metric)?, &point.metrics))
            })
            .collect();
        kept.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut lowest = f64::INFINITY;
        kept.retain(|(_, y, _)| {
            let better = *y < lowest;
            lowest = lowest.min(*y);
            better
        });
        let places: Vec<_> = kept
            .iter()
            .filter_map(|(.., metrics)| self.position(metrics))
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        if places.len() > 1 {
            let _ = writeln!(out, "<polyline class=\"front\" points=\"{}\"/>", places.join(" "));
        }
    }

    fn point(&self, out: &mut String, point: &FrontPoint, baseline: &Metrics) {
        let Some((x, y)) = self.position(&point.metrics) else { return };
        self.whiskers(out, point, x, y);
        let class = match (point.best, point.feasible) {
            (true, _) => "best",
            (false, true) => "feasible",
            (false, false) => "infeasible",
        };
        let mut title = figures(units::short_id(&point.id), &point.metrics);
        if let Some(versus) = units::versus(Metric::Latency, &point.metrics, baseline) {
            let _ = write!(title, " ({versus})");
        }
        let radius = if point.best { 6.5 } else { 4.0 };
        let _ = writeln!(
            out,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" \
             r=\"{radius}\"><title>{}</title></circle>",
            escaped(&title)
        );
        if point.best {
            let shown = |metric: Metric| {
                units::value(metric, point.metrics.get(metric).unwrap_or(f64::NAN))
            };
            let text = format!("best: {}, {}", shown(self.x.metric), shown(self.y.metric));
            self.label(out, x, y, &text, "strong");
        }
    }

    /// Draws the intervals of both metrics, clipped to the frame.
    fn whiskers(&self, out: &mut String, point: &FrontPoint, x: f64, y: f64) {
        let (left, top, right, bottom) = FRAME;
        let ends = |axis: &Axis| {
            let [low, high] = point.spread.get(&axis.metric)?;
            Some((axis.position(*low)?.clamp(0.0, 1.0), axis.position(*high)?.clamp(0.0, 1.0)))
        };
        let mut line = |x1: f64, y1: f64, x2: f64, y2: f64| {
            let _ = writeln!(
                out,
                "<line class=\"whisker\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" \
                 y2=\"{y2:.1}\"/>"
            );
        };
        if let Some((low, high)) = ends(&self.x) {
            line(left + low * (right - left), y, left + high * (right - left), y);
        }
        if let Some((low, high)) = ends(&self.y) {
            line(x, bottom - low * (bottom - top), x, bottom - high * (bottom - top));
        }
    }

    /// Draws a text beside a mark, on the side with more space.
    fn label(&self, out: &mut String, x: f64, y: f64, text: &str, class: &str) {
        let (left, top, right, _) = FRAME;
        let (anchor, shift) =
            if x > (left + right) / 2.0 { ("end", -10.0) } else { ("start", 10.0) };
        let y = if y - top < 20.0 { y + 18.0 } else { y - 8.0 };
        // A white outline keeps the text readable over points.
        let _ = writeln!(
            out,
            "<text class=\"{class}\" x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" \
             stroke=\"#fff\" \
             stroke-width=\"3\" paint-order=\"stroke\">{}</text>",
            x + shift,
            escaped(text)
        );
    }
}

fn figures(name: &str, metrics: &Metrics) -> String {
    let shown: Vec<_> = Metric::objectives()
        .filter_map(|metric| {
            Some(format!("{metric} {}", units::value(metric, metrics.get(metric)?)))
        })
        .collect();
    format!("{name}: {}", shown.join(", "))
}

pub(super) fn escaped(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .map(|c| match c {
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '&' => "&amp;".to_owned(),
            '"' => "&quot;".to_owned(),
            other => other.to_string(),
        })
        .collect()
}
