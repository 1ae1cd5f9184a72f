//! Limits and objectives as the search and the worker need them.

use paretune_evaluate::stop::{AccuracyBounds, Incumbent, UpperBounds};
use paretune_record::limit::Limit;
use paretune_record::metric::{Metric, Quantity};
use paretune_search::Objective;

/// Converts objectives to those of the search crate.
#[must_use]
pub fn search_objectives(objectives: &[Metric]) -> Vec<Objective> {
    let convert = |metric: &Metric| {
        let name = metric.name();
        let objective = if metric.is_maximized() {
            Objective::maximize(name)
        } else {
            Objective::minimize(name)
        };
        if metric.is_logarithmic() { objective.log() } else { objective }
    };
    objectives.iter().map(convert).collect()
}

/// Converts limits to those of the search crate.
#[must_use]
pub fn search_limits(limits: &[Limit]) -> Vec<paretune_search::Limit> {
    let convert = |limit: &Limit| paretune_search::Limit {
        metric: limit.metric.name().to_owned(),
        relation: limit.relation,
        value: limit.value,
    };
    limits.iter().map(convert).collect()
}

/// Factor on the value of a limit up to which a candidate outside of the limit is still measured
/// completely: points near the limit help the model.
const NEAR: f64 = 1.05;

/// Lists the upper limits on metrics other than the accuracy, with their relaxed values.
fn relaxed(limits: &[Limit]) -> impl Iterator<Item = (Metric, f64)> + '_ {
    let costs = limits
        .iter()
        .filter(|limit| limit.is_upper() && limit.metric.quantity() != Quantity::Fraction);
    costs.map(|limit| (limit.metric, NEAR * limit.value))
}

/// Builds one incumbent for every upper limit on a cost. A candidate that exceeds such a limit is
/// dropped early, whatever its accuracy. Used once some point meets all `limits`.
#[must_use]
pub fn limit_incumbents(limits: &[Limit]) -> Vec<Incumbent> {
    relaxed(limits).map(|limit| Incumbent { accuracy: 2.0, costs: [limit].into() }).collect()
}

/// Returns upper bounds of the costs beyond which a candidate is not worth building, timing or
/// scoring. Used once some point meets all `limits`.
#[must_use]
pub fn upper_bounds(limits: &[Limit]) -> UpperBounds {
    let mut bounds = UpperBounds::default();
    for (metric, value) in relaxed(limits) {
        let tightest = bounds.0.get(metric).map_or(value, |known| known.min(value));
        bounds.0.set(metric, tightest);
    }
    bounds
}

/// Returns the tightest lower bound of the accuracy and upper bound of its drop in `limits`.
#[must_use]
pub fn accuracy_bounds(limits: &[Limit]) -> AccuracyBounds {
    let of = |metric: Metric, upper: bool| {
        let limits =
            limits.iter().filter(move |limit| limit.metric == metric && limit.is_upper() == upper);
        limits.map(|limit| limit.value)
    };
    AccuracyBounds {
        lower: of(Metric::Accuracy, false).reduce(f64::max),
        drop: of(Metric::AccuracyDrop, true).reduce(f64::min),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paretune_record::metric::Metrics;
    use paretune_record::score::Score;
    use paretune_search::Relation;

    fn limit(metric: Metric, relation: Relation, value: f64) -> Limit {
        Limit { metric, relation, value }
    }

    #[test]
    fn only_what_is_surely_outside_is_beyond_the_limits() {
        let limits = [
            limit(Metric::Latency, Relation::Less, 1e-3),
            limit(Metric::Size, Relation::Less, 1e6),
            limit(Metric::Accuracy, Relation::Greater, 0.8),
            limit(Metric::AccuracyDrop, Relation::Less, 0.01),
        ];
        let incumbents = limit_incumbents(&limits);
        let beyond = |latency_low: f64, size: f64, accuracy_high: f64| {
            let costs = Metrics::from([
                (Metric::Latency, latency_low),
                (Metric::Size, size),
                (Metric::Memory, 1e6),
            ]);
            incumbents.iter().any(|incumbent| incumbent.surely_beats(&costs, accuracy_high))
        };
        assert!(!beyond(1.04e-3, 1.04e6, 0.81));
        assert!(beyond(1.06e-3, 1e3, 1.0) && beyond(1e-6, 1.06e6, 1.0) && !beyond(1e-6, 1e3, 0.79));
        // Accuracy is estimated from images: from as many as decide the limit, and from no more
        // than the usual number where nothing is to be decided.
        let bounds = accuracy_bounds(&limits);
        let score = |total: u64, lost: u64| Score {
            total,
            correct: total - total / 20 - lost,
            lost,
            gained: 0,
        };
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
                (bounds.missed(&score), bounds.enough(&score, 500, 4000)),
                (missed, enough),
                "{score:?}"
            );
        }
    }
}
