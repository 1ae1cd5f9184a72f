//! Limits as the search and the worker see them.

use paretune_evaluate::protocol::{Ceilings, Floors, Rival};
use paretune_record::front::FrontLimit;
use paretune_search::{Limit, Objective, Relation};

/// Builds the search's objectives from their `names`. All but the accuracy are minimized on a
/// logarithmic scale.
#[must_use]
pub fn objectives(names: &[String]) -> Vec<Objective> {
    names
        .iter()
        .map(|name| match name.as_str() {
            "accuracy" => Objective::maximize(name),
            _ => Objective::minimize(name).log(),
        })
        .collect()
}

/// Converts `limits` to the limits of the search crate.
#[must_use]
pub fn search_limits(limits: &[FrontLimit]) -> Vec<Limit> {
    limits
        .iter()
        .map(|limit| Limit {
            metric: limit.metric.clone(),
            relation: if limit.op == "<" { Relation::Less } else { Relation::Greater },
            value: limit.value,
        })
        .collect()
}

/// Factor on the value of a limit up to which a candidate outside of the limit is still measured
/// completely: points near the border help the model.
const NEAR: f64 = 1.05;

/// Builds one incumbent for every upper limit on latency, size or memory. A candidate that exceeds
/// such a limit is dropped early, whatever its accuracy. Used once some point meets all `limits`.
#[must_use]
pub fn borders(limits: &[FrontLimit]) -> Vec<Rival> {
    let anything = Rival { accuracy: 2.0, latency: 0.0, size: 0.0, memory: 0.0 };
    limits
        .iter()
        .filter_map(|limit| match (limit.metric.as_str(), limit.op.as_str()) {
            ("latency", "<") => Some(Rival { latency: NEAR * limit.value, ..anything }),
            ("size", "<") => Some(Rival { size: NEAR * limit.value, ..anything }),
            ("memory", "<") => Some(Rival { memory: NEAR * limit.value, ..anything }),
            _ => None,
        })
        .collect()
}

/// Returns upper bounds of latency, size and memory beyond which a candidate is not worth building,
/// timing or scoring. Used once some point meets all `limits`.
#[must_use]
pub fn ceilings(limits: &[FrontLimit]) -> Ceilings {
    let ceiling = |metric: &str| {
        let values = limits.iter().filter(|limit| limit.metric == metric).map(|limit| NEAR * limit.value);
        values.reduce(f64::min)
    };
    Ceilings { latency: ceiling("latency"), size: ceiling("size"), memory: ceiling("memory") }
}

/// Returns the tightest lower bound of the accuracy and upper bound of its drop in `limits`.
#[must_use]
pub fn floors(limits: &[FrontLimit]) -> Floors {
    let of = |metric: &str, op: &str| {
        let limits = limits.iter().filter(|limit| limit.metric == metric && limit.op == op);
        limits.map(|limit| limit.value).collect::<Vec<f64>>()
    };
    Floors {
        accuracy: of("accuracy", ">").into_iter().reduce(f64::max),
        drop: of("accuracy-drop", "<").into_iter().reduce(f64::min),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paretune_record::score::Score;

    fn limit(metric: &str, op: &str, value: f64) -> FrontLimit {
        FrontLimit { metric: metric.into(), op: op.into(), value, unit: String::new() }
    }

    #[test]
    fn only_what_is_surely_outside_is_beyond_the_borders() {
        let limits = [
            limit("latency", "<", 1e-3),
            limit("size", "<", 1e6),
            limit("accuracy", ">", 0.8),
            limit("accuracy-drop", "<", 0.01),
        ];
        let borders = borders(&limits);
        let beyond = |latency_low: f64, size: f64, accuracy_high: f64| {
            borders.iter().any(|border| border.surely_beats(latency_low, size, 1e6, accuracy_high))
        };
        assert!(!beyond(1.04e-3, 1.04e6, 0.81));
        assert!(beyond(1.06e-3, 1e3, 1.0) && beyond(1e-6, 1.06e6, 1.0) && !beyond(1e-6, 1e3, 0.79));
        // Accuracy is estimated from images: from as many as decide the limit, and from no more
        // than the usual number where nothing is to be decided.
        let floors = floors(&limits);
        let score =
            |total: u64, lost: u64| Score { total, correct: total - total / 20 - lost, lost, gained: 0 };
        for (total, lost, missed, enough) in [
            (500, 4, false, false),
            (2000, 4, false, true),
            (2000, 20, false, false),
            (4000, 40, false, true),
            (500, 50, true, true),
            (300, 30, true, false),
        ] {
            let score = score(total, lost);
            assert_eq!(
                (floors.missed(&score), floors.enough(&score, 500, 4000)),
                (missed, enough),
                "{score:?}"
            );
        }
    }
}
