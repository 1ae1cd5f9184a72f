//! Effect of relaxing one limit: the best known point that misses only this limit.

use paretune_record::archive::preferred;
use paretune_record::front::{FrontLimit, FrontPoint, Metrics};

use super::units;

/// The best known point beyond one limit.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Relaxation {
    /// The current limit: `latency <0.5 ms`.
    pub limit: String,
    /// Content hash of the point that would be the best; `None` if no better point is known.
    pub id: Option<String>,
    /// A sentence: `latency up to 0.62 ms would allow accuracy 91.4 % (+0.3 points)`.
    pub text: String,
}

/// Finds the best point beyond each limit. `points` are all known points, and `best` is the point
/// that would be exported now, if there is one.
#[must_use]
pub fn relaxations(
    points: &[&FrontPoint],
    best: Option<&FrontPoint>,
    limits: &[FrontLimit],
    baseline: &Metrics,
    prefer: &str,
    objectives: &[String],
) -> Vec<Relaxation> {
    limits
        .iter()
        .map(|limit| {
            let only = |point: &&&FrontPoint| point.violation.keys().all(|missed| *missed == limit.metric);
            let allowed: Vec<&FrontPoint> = points.iter().filter(only).copied().collect();
            let found = preferred(&allowed, prefer, objectives)
                .filter(|found| !found.violation.is_empty() && best.is_none_or(|best| best.id != found.id));
            match found {
                None => {
                    let text =
                        format!("relaxing {} alone would allow no better known point", units::limit(limit));
                    Relaxation { limit: units::limit(limit), id: None, text }
                }
                Some(found) => Relaxation {
                    limit: units::limit(limit),
                    id: Some(found.id.clone()),
                    text: sentence(limit, found, best, baseline, prefer),
                },
            }
        })
        .collect()
}

/// Formats the sentence of a [`Relaxation`].
fn sentence(
    limit: &FrontLimit,
    found: &FrontPoint,
    best: Option<&FrontPoint>,
    baseline: &Metrics,
    prefer: &str,
) -> String {
    let pessimistic = |name: &str, upper: bool| {
        let middle = match name {
            "accuracy-drop" => baseline.accuracy - found.metrics.accuracy,
            name => found.metrics.get(name).unwrap_or(f64::NAN),
        };
        found.spread.get(name).map_or(middle, |interval| interval[usize::from(upper)])
    };
    let upper = limit.op == "<";
    let needed = units::value(&limit.metric, pessimistic(&limit.metric, upper));
    let needed = format!("{} {}{needed}", limit.metric, if upper { "up to " } else { "down to " });
    let Some(best) = best else {
        return format!("{needed} would be enough: {} then meets every limit", units::short_id(&found.id));
    };
    let metric = if prefer == "knee" { "accuracy" } else { prefer };
    let value = units::value(metric, found.metrics.get(metric).unwrap_or(f64::NAN));
    let gain = units::versus(metric, &found.metrics, &best.metrics).unwrap_or_default();
    format!("{needed} would allow {metric} {value} ({gain})")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn point(id: &str, accuracy: f64, latency: f64, missed: &[&str]) -> FrontPoint {
        FrontPoint {
            id: id.into(),
            feasible: missed.is_empty(),
            best: false,
            metrics: Metrics { accuracy, latency, size: 1e6, memory: 1e6 },
            spread: BTreeMap::new(),
            violation: missed.iter().map(|name| ((*name).to_owned(), 0.1)).collect(),
            origin: String::new(),
            config: paretune_spaces::Configuration::new(),
        }
    }

    #[test]
    fn each_limit_tells_what_lies_beyond_it_alone() {
        let limit = |metric: &str, value: f64| FrontLimit {
            metric: metric.into(),
            op: "<".into(),
            value,
            unit: String::new(),
        };
        let limits = [limit("latency", 1e-3), limit("size", 5e5)];
        let points = [
            point("best", 0.90, 0.9e-3, &[]),
            point("slow", 0.92, 1.5e-3, &["latency"]),
            point("both", 0.95, 2e-3, &["latency", "size"]),
        ];
        let all: Vec<&FrontPoint> = points.iter().collect();
        let objectives = ["accuracy", "latency"].map(str::to_owned);
        let found = relaxations(&all, Some(&points[0]), &limits, &points[0].metrics, "accuracy", &objectives);
        assert_eq!(found[0].id.as_deref(), Some("slow"));
        assert_eq!(found[0].text, "latency up to 1.50 ms would allow accuracy 92.0 % (+2.0 points)");
        assert_eq!(found[1].id, None);
    }
}
