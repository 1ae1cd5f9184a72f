//! Effect of relaxing one limit: the best known point that misses only this limit.

use paretune_record::archive::preferred;
use paretune_record::front::FrontPoint;
use paretune_record::limit::Limit;
use paretune_record::metric::{Metric, Metrics};
use paretune_record::preference::Preference;

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
    limits: &[Limit],
    baseline: &Metrics,
    prefer: Preference,
    objectives: &[Metric],
) -> Vec<Relaxation> {
    limits
        .iter()
        .map(|limit| {
            let only =
                |point: &&&FrontPoint| point.violation.keys().all(|missed| *missed == limit.metric);
            let allowed: Vec<&FrontPoint> = points.iter().filter(only).copied().collect();
            let found = preferred(&allowed, prefer, objectives).filter(|found| {
                !found.violation.is_empty() && best.is_none_or(|best| best.id != found.id)
            });
            match found {
                None => {
                    let text = format!(
                        "relaxing {} alone would allow no better known point",
                        units::limit(limit)
                    );
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
    limit: &Limit,
    found: &FrontPoint,
    best: Option<&FrontPoint>,
    baseline: &Metrics,
    prefer: Preference,
) -> String {
    let upper = limit.is_upper();
    let middle = found.metrics.against(limit.metric, Some(baseline)).unwrap_or(f64::NAN);
    let pessimistic =
        found.spread.get(&limit.metric).map_or(middle, |ends| ends[usize::from(upper)]);
    let needed = units::value(limit.metric, pessimistic);
    let needed = format!("{} {}{needed}", limit.metric, if upper { "up to " } else { "down to " });
    let Some(best) = best else {
        return format!(
            "{needed} would be enough: {} then meets every limit",
            units::short_id(&found.id)
        );
    };
    let metric = prefer.metric();
    let value = units::value(metric, found.metrics.get(metric).unwrap_or(f64::NAN));
    let gain = units::versus(metric, &found.metrics, &best.metrics).unwrap_or_default();
    format!("{needed} would allow {metric} {value} ({gain})")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use paretune_record::limit::Relation;

    use super::*;

    fn point(id: &str, accuracy: f64, latency: f64, missed: &[Metric]) -> FrontPoint {
        FrontPoint {
            id: id.into(),
            feasible: missed.is_empty(),
            best: false,
            confirmed: true,
            metrics: Metrics::from([
                (Metric::Accuracy, accuracy),
                (Metric::Latency, latency),
                (Metric::Size, 1e6),
                (Metric::Memory, 1e6),
            ]),
            spread: BTreeMap::new(),
            violation: missed.iter().map(|metric| (*metric, 0.1)).collect(),
            origin: String::new(),
            config: paretune_spaces::Configuration::new(),
        }
    }

    #[test]
    fn each_limit_tells_what_lies_beyond_it_alone() {
        let limit = |metric: Metric, value: f64| Limit { metric, relation: Relation::Less, value };
        let limits = [limit(Metric::Latency, 1e-3), limit(Metric::Size, 5e5)];
        let points = [
            point("best", 0.90, 0.9e-3, &[]),
            point("slow", 0.92, 1.5e-3, &[Metric::Latency]),
            point("both", 0.95, 2e-3, &[Metric::Latency, Metric::Size]),
        ];
        let all: Vec<&FrontPoint> = points.iter().collect();
        let objectives = [Metric::Accuracy, Metric::Latency];
        let found = relaxations(
            &all,
            Some(&points[0]),
            &limits,
            &points[0].metrics,
            Preference::default(),
            &objectives,
        );
        assert_eq!(found[0].id.as_deref(), Some("slow"));
        assert_eq!(
            found[0].text,
            "latency up to 1.50 ms would allow accuracy 92.0 % (+2.0 points)"
        );
        assert_eq!(found[1].id, None);
    }
}
