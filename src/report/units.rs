//! Figures as people read them: `0.310 ms`, `3.10 MB`, `90.5 %`, `latency <20 ms`.
//!
//! All values inside the program are in seconds, bytes and fractions. They are converted here when
//! they are printed.

use paretune_record::front::FrontPoint;
use paretune_record::limit::{Limit, sign};
use paretune_record::metric::{Metric, Metrics, Quantity, Words};

/// A unit for printed values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    /// Symbol of the unit: `ms`, `MB`, `%`.
    pub sign: &'static str,
    /// Factor from the SI value to this unit.
    pub scale: f64,
}

const fn unit(sign: &'static str, scale: f64) -> Unit {
    Unit { sign, scale }
}

/// Returns the unit that suits a value of this metric.
#[must_use]
pub fn unit_for(metric: Metric, value: f64) -> Unit {
    let value = value.abs();
    match metric.quantity() {
        Quantity::Fraction => unit("%", 100.0),
        Quantity::Seconds if value >= 1.0 => unit("s", 1.0),
        // Below 10 µs, milliseconds would need more digits than the columns have space for.
        Quantity::Seconds if value >= 1e-5 || value == 0.0 => unit("ms", 1e3),
        Quantity::Seconds => unit("µs", 1e6),
        Quantity::Bytes if value >= 1e9 => unit("GB", 1e-9),
        Quantity::Bytes if value >= 1e6 => unit("MB", 1e-6),
        Quantity::Bytes if value >= 1e3 => unit("kB", 1e-3),
        Quantity::Bytes => unit("B", 1.0),
    }
}

/// Formats a value with three significant digits, in scientific notation only if it is tiny.
#[must_use]
pub fn digits(value: f64) -> String {
    let magnitude = value.abs();
    if !value.is_finite() {
        return "-".to_owned();
    }
    let decimals = match magnitude {
        0.0 => 0,
        m if m < 1e-6 => return format!("{value:.1e}"),
        m => (2 - m.log10().floor() as i64).clamp(0, 8) as usize,
    };
    format!("{value:.decimals$}")
}

/// Formats a value with as few digits as it needs, for limits and ticks.
#[must_use]
pub fn short(value: f64) -> String {
    let text = format!("{value:.9}");
    let rounded = text.trim_end_matches('0').trim_end_matches('.');
    if rounded.is_empty() || rounded == "-0" { "0".to_owned() } else { rounded.to_owned() }
}

/// Formats a value with its unit.
#[must_use]
pub fn value(metric: Metric, value: f64) -> String {
    let unit = unit_for(metric, value);
    let scaled = value * unit.scale;
    match unit.sign {
        "%" => format!("{scaled:.1} %"),
        "B" => format!("{scaled:.0} B"),
        "" => digits(scaled),
        sign => format!("{} {sign}", digits(scaled)),
    }
}

/// Formats a metric of a configuration, `-` if it is not known.
#[must_use]
pub fn shown(metric: Metric, metrics: &Metrics) -> String {
    metrics.get(metric).map_or_else(|| "-".to_owned(), |known| value(metric, known))
}

/// Formats a value with the half width of its interval: `90.5 ±0.8 %`, `0.710 ms ±2 %`; without an
/// interval, just the value.
#[must_use]
pub fn with_spread(point: &FrontPoint, metric: Metric) -> String {
    let Some(middle) = point.metrics.get(metric) else { return "-".to_owned() };
    let Some([low, high]) = point.spread.get(&metric) else { return value(metric, middle) };
    let half = (high - low) / 2.0;
    if metric.quantity() == Quantity::Fraction {
        return format!("{:.1} ±{:.1} %", middle * 100.0, half * 100.0);
    }
    let share = if middle > 0.0 { half / middle * 100.0 } else { 0.0 };
    format!(
        "{} ±{}%",
        value(metric, middle),
        if share < 9.95 { format!("{share:.1}") } else { format!("{share:.0}") }
    )
}

/// Formats a limit with its metric: `latency <20 ms`.
#[must_use]
pub fn limit(limit: &Limit) -> String {
    format!("{} {}", limit.metric, bound(limit))
}

/// Formats a limit without its metric: `<20 ms`.
#[must_use]
pub fn bound(limit: &Limit) -> String {
    let unit = unit_for(limit.metric, limit.value);
    let space = if unit.sign.is_empty() { "" } else { " " };
    format!("{}{}{space}{}", sign(limit.relation), short(limit.value * unit.scale), unit.sign)
}

/// Formats all limits in one line, or `none`.
#[must_use]
pub fn limits(limits: &[Limit]) -> String {
    if limits.is_empty() {
        return "none".to_owned();
    }
    limits.iter().map(limit).collect::<Vec<_>>().join(", ")
}

/// Compares a metric with the baseline: `4.4x faster`, `14.4x smaller`, `-0.5 points`.
#[must_use]
pub fn versus(metric: Metric, metrics: &Metrics, baseline: &Metrics) -> Option<String> {
    let (value, base) = (metrics.get(metric)?, baseline.get(metric)?);
    if metric.quantity() == Quantity::Fraction {
        let points = (value - base) * 100.0;
        return Some(if points.abs() < 0.05 {
            "the same".to_owned()
        } else {
            format!("{points:+.1} points")
        });
    }
    if !(value > 0.0 && base > 0.0) {
        return None;
    }
    let Words { better, worse, .. } = metric.row().words;
    let gain = base / value;
    Some(if (0.995..1.005).contains(&gain) {
        "the same".to_owned()
    } else if gain > 1.0 {
        format!("{}x {better}", factor(gain))
    } else {
        format!("{}x {worse}", factor(1.0 / gain))
    })
}

/// Formats a ratio of at least one: `1.05`, `4.4`, `310`.
#[must_use]
pub fn factor(ratio: f64) -> String {
    match ratio {
        r if r < 1.995 => format!("{r:.2}"),
        r if r < 9.95 => format!("{r:.1}"),
        r => format!("{r:.0}"),
    }
}

/// Describes by how much a value misses a limit: `latency 0.310 ms misses <0.001 ms by 310x`;
/// `None` if it meets it.
///
/// Points are judged on intervals. `violated` says that the interval misses the limit; if the value
/// itself meets it, the sentence says so.
#[must_use]
pub fn miss(
    limit: &Limit,
    metrics: &Metrics,
    baseline: &Metrics,
    violated: bool,
) -> Option<String> {
    let text = value(limit.metric, actual(limit, metrics, baseline)?);
    let (metric, bound) = (limit.metric, bound(limit));
    match missed_by(limit, metrics, baseline) {
        Some(by) => Some(format!("{metric} {text} misses {bound} by {by}")),
        None => {
            violated.then(|| format!("{metric} {text} meets {bound} only within its uncertainty"))
        }
    }
}

/// Returns the value that a limit bounds.
fn actual(limit: &Limit, metrics: &Metrics, baseline: &Metrics) -> Option<f64> {
    metrics.against(limit.metric, Some(baseline))
}

/// Formats the distance to a limit: `12.0%` or `3.2x` of the limit, `0.4 points` of accuracy;
/// `None` if the value meets it.
fn missed_by(limit: &Limit, metrics: &Metrics, baseline: &Metrics) -> Option<String> {
    let actual = actual(limit, metrics, baseline)?;
    let above = limit.is_upper();
    if limit.excess(actual) < 0.0 {
        return None;
    }
    if limit.metric.quantity() == Quantity::Fraction {
        return Some(format!("{:.1} points", (actual - limit.value).abs() * 100.0));
    }
    let ratio = if above { actual / limit.value } else { limit.value / actual };
    Some(match ratio {
        r if !r.is_finite() => "any factor".to_owned(),
        r if r < 2.0 => format!("{:.1}%", (r - 1.0) * 100.0),
        r => format!("{}x", factor(r)),
    })
}

/// Describes every limit that a point misses in a sentence.
#[must_use]
pub fn misses(point: &FrontPoint, limits: &[Limit], baseline: &Metrics) -> Vec<String> {
    let violated = |limit: &Limit| point.violation.contains_key(&limit.metric);
    limits
        .iter()
        .filter_map(|limit| miss(limit, &point.metrics, baseline, violated(limit)))
        .collect()
}

/// Lists every limit that a point misses in short form: `latency 12.0%, size 3.2x, drop 0.4 pts`.
#[must_use]
pub fn misses_short(point: &FrontPoint, limits: &[Limit], baseline: &Metrics) -> String {
    let violated = |limit: &Limit| point.violation.contains_key(&limit.metric);
    let parts = limits.iter().filter_map(|limit| {
        let by = missed_by(limit, &point.metrics, baseline);
        let name = limit.metric.row().short_name;
        match by {
            Some(by) => Some(format!("{name} {}", by.replace("points", "pts"))),
            None => violated(limit).then(|| format!("{name} uncertain")),
        }
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// Formats a duration: `7 s`, `1:23`, `2:03:07`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".to_owned();
    }
    let whole = seconds.round() as u64;
    match whole {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{}:{:02}", s / 60, s % 60),
        s => format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60),
    }
}

/// Returns the first characters of an id, which are shown instead of all of it.
#[must_use]
pub fn short_id(id: &str) -> &str {
    id.char_indices().nth(8).map_or(id, |(end, _)| &id[..end])
}

#[cfg(test)]
mod tests {
    use paretune_record::limit::Relation;

    use super::*;

    fn below(metric: Metric, value: f64) -> Limit {
        Limit { metric, relation: Relation::Less, value }
    }

    #[test]
    fn values_are_read_in_fitting_units() {
        let shown = [
            value(Metric::Latency, 0.00031),
            value(Metric::Latency, 2.5),
            value(Metric::Latency, 2e-7),
            value(Metric::Latency, 8.23e-6),
            value(Metric::Latency, 1e-5),
            value(Metric::Size, 44_600_000.0),
            value(Metric::Size, 310_000.0),
            value(Metric::Memory, 12.0),
            value(Metric::Accuracy, 0.9049),
        ];
        assert_eq!(
            shown,
            [
                "0.310 ms",
                "2.50 s",
                "0.200 µs",
                "8.23 µs",
                "0.0100 ms",
                "44.6 MB",
                "310 kB",
                "12 B",
                "90.5 %"
            ]
        );
        assert_eq!(duration(59.6), "1:00");
        assert_eq!(duration(7387.0), "2:03:07");
        assert_eq!(bound(&below(Metric::Latency, 0.02)), "<20 ms");
        assert_eq!(bound(&below(Metric::AccuracyDrop, 0.01)), "<1 %");
    }

    #[test]
    fn misses_say_by_how_much() {
        let base = Metrics::from([
            (Metric::Accuracy, 0.91),
            (Metric::Latency, 3e-3),
            (Metric::Size, 4e7),
            (Metric::Memory, 6e7),
        ]);
        let point = Metrics::from([
            (Metric::Accuracy, 0.85),
            (Metric::Latency, 3.1e-4),
            (Metric::Size, 1.1e7),
            (Metric::Memory, 5e6),
        ]);
        let text = |metric, op, value, violated| {
            miss(&Limit { metric, relation: op, value }, &point, &base, violated)
        };
        assert_eq!(
            text(Metric::Latency, Relation::Less, 1e-6, true).as_deref(),
            Some("latency 0.310 ms misses <1 µs by 310x")
        );
        assert_eq!(
            text(Metric::Size, Relation::Less, 1e7, true).as_deref(),
            Some("size 11.0 MB misses <10 MB by 10.0%")
        );
        assert_eq!(
            text(Metric::Accuracy, Relation::Greater, 0.9, true).as_deref(),
            Some("accuracy 85.0 % misses >90 % by 5.0 points")
        );
        let drop = text(Metric::AccuracyDrop, Relation::Less, 0.01, true);
        assert_eq!(drop.as_deref(), Some("accuracy-drop 6.0 % misses <1 % by 5.0 points"));
        assert_eq!(text(Metric::Memory, Relation::Less, 1e7, false), None);
        assert!(
            text(Metric::Memory, Relation::Less, 1e7, true)
                .is_some_and(|text| text.contains("uncertainty"))
        );
    }
}
