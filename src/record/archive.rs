//! The archive: points of the front, limits judged on intervals, dominance and preference.

use std::collections::BTreeMap;

use paretune_spaces::Configuration;

use crate::front::FrontPoint;
use crate::limit::Limit;
use crate::measurement::Measurement;
use crate::metric::{Metric, Metrics};
use crate::preference::Preference;

/// Builds the point of the front for a measured configuration. Feasibility is judged on the
/// pessimistic end of every interval. A limit on a metric that was not measured is not met.
#[must_use]
pub fn point(
    configuration: &Configuration,
    origin: &str,
    measurement: &Measurement,
    limits: &[Limit],
) -> FrontPoint {
    let uncertain = measurement.estimates().filter(|(metric, _)| metric.row().is_uncertain);
    let spread =
        uncertain.map(|(metric, estimate)| (metric, [estimate.low, estimate.high])).collect();
    let violation = violations(limits, |limit| violation_of(limit, measurement));
    FrontPoint {
        id: configuration.id(),
        feasible: violation.is_empty(),
        best: false,
        confirmed: true,
        metrics: measurement.metrics(),
        spread,
        violation,
        origin: origin.to_owned(),
        config: configuration.clone(),
    }
}

/// Judges `point` again under other `limits`, by its own figures.
#[must_use]
pub fn judge(point: &FrontPoint, limits: &[Limit]) -> FrontPoint {
    let interval = |metric: Metric| {
        let exact = || point.metrics.get(metric).map(|value| [value, value]);
        point.spread.get(&metric).copied().or_else(exact)
    };
    let violation = violations(limits, |limit| {
        interval(limit.metric).map_or(1.0, |[low, high]| relative_excess(limit, low, high))
    });
    FrontPoint { feasible: violation.is_empty(), violation, best: false, ..point.clone() }
}

/// Returns the worst violation of each metric that misses one of the `limits`.
fn violations(limits: &[Limit], violation_of: impl Fn(&Limit) -> f64) -> BTreeMap<Metric, f64> {
    let mut violations = BTreeMap::new();
    for limit in limits {
        let relative = violation_of(limit);
        if relative > 0.0 {
            let worst: &mut f64 = violations.entry(limit.metric).or_insert(0.0);
            *worst = worst.max(relative);
        }
    }
    violations
}

/// Returns by how much the pessimistic end of the interval misses `limit`, relative to it; negative
/// if it meets the limit.
#[must_use]
pub fn violation_of(limit: &Limit, measurement: &Measurement) -> f64 {
    let Some(estimate) = measurement.estimate(limit.metric) else { return 1.0 };
    relative_excess(limit, estimate.low, estimate.high)
}

/// Returns by how much the pessimistic one of two ends misses `limit`, relative to it.
fn relative_excess(limit: &Limit, low: f64, high: f64) -> f64 {
    let excess = limit.excess(if limit.is_upper() { high } else { low });
    if limit.value > 0.0 { excess / limit.value } else { excess }
}

/// Adds `point` to `front` unless another point there dominates it or is as good. Returns whether
/// it entered, and the points that it displaced.
pub fn enter(
    front: &mut Vec<FrontPoint>,
    point: FrontPoint,
    objectives: &[Metric],
) -> (bool, Vec<FrontPoint>) {
    let beats = |left: &FrontPoint, right: &FrontPoint| match (left.feasible, right.feasible) {
        (true, false) => true,
        (false, true) => false,
        (true, true) => dominates(&left.metrics, &right.metrics, objectives),
        (false, false) => {
            total_violation(left) <= total_violation(right)
                && dominates(&left.metrics, &right.metrics, objectives)
        }
    };
    if front.iter().any(|other| beats(other, &point)) {
        return (false, Vec::new());
    }
    let alike = |other: &FrontPoint| {
        other.feasible
            && !beats(&point, other)
            && covers(&other.metrics, &point.metrics, objectives)
    };
    if point.feasible && front.iter().any(alike) {
        return (false, Vec::new());
    }
    let (displaced, kept) = front.drain(..).partition(|other| beats(&point, other));
    *front = kept;
    front.push(point);
    (true, displaced)
}

/// Returns whether `left` is at least as good as `right` in all `objectives` and better in one.
#[must_use]
pub fn dominates(left: &Metrics, right: &Metrics, objectives: &[Metric]) -> bool {
    let mut better = false;
    for &metric in objectives {
        let (Some(left), Some(right)) = (left.get(metric), right.get(metric)) else { continue };
        let (left, right) = (metric.cost(left), metric.cost(right));
        if left > right {
            return false;
        }
        better |= left < right;
    }
    better
}

/// Returns whether `left` is as good as `right` in all `objectives` within the tolerances of the
/// metrics. An archive that refuses covered points is not filled by noise (epsilon-dominance;
/// Laumanns et al., Evolutionary Computation 10(3), 2002).
#[must_use]
pub fn covers(left: &Metrics, right: &Metrics, objectives: &[Metric]) -> bool {
    objectives.iter().all(|&metric| match (left.get(metric), right.get(metric)) {
        (Some(left), Some(right)) => metric.is_as_good(left, right),
        _ => true,
    })
}

/// Computes the exact hypervolume of `points` between two fixed corners, so that values of
/// different moments and strategies compare. The bad corner has the baseline's latency, size and
/// memory, and an accuracy 20 points below the baseline's. The good corner has a hundredth of each,
/// and an accuracy 2 points above. Latency, size and memory count on a logarithmic scale. Points
/// outside of the box are moved to its border.
#[must_use]
pub fn hypervolume(points: &[Metrics], baseline: &Metrics, objectives: &[Metric]) -> f64 {
    let normalized = |point: &Metrics| -> Vec<f64> {
        let fractions = objectives.iter().map(|&metric| {
            let value = point.get(metric).unwrap_or(0.0);
            let before = baseline.get(metric).unwrap_or(0.0);
            let fraction = if metric.is_logarithmic() {
                1.0 + (value.max(f64::MIN_POSITIVE) / before.max(f64::MIN_POSITIVE)).log10() / 2.0
            } else {
                (before + 0.02 - value) / 0.22
            };
            fraction.clamp(0.0, 1.0)
        });
        fractions.collect()
    };
    let points: Vec<Vec<f64>> = points.iter().map(normalized).collect();
    paretune_search::hypervolume::hypervolume(&points, &vec![1.0; objectives.len()])
}

/// Returns the preferred one among `points`. Ties are broken by the other objectives in order.
#[must_use]
pub fn preferred<'p>(
    points: &[&'p FrontPoint],
    prefer: Preference,
    objectives: &[Metric],
) -> Option<&'p FrontPoint> {
    let first = match prefer {
        Preference::Knee => return knee(points, objectives),
        Preference::Metric(metric) => metric,
    };
    let order: Vec<Metric> = [first]
        .into_iter()
        .chain(objectives.iter().copied().filter(|&metric| metric != first))
        .collect();
    let cost =
        |point: &FrontPoint, metric: Metric| metric.cost(point.metrics.get(metric).unwrap_or(0.0));
    points.iter().copied().min_by(|left, right| {
        order
            .iter()
            .map(|&metric| cost(left, metric).total_cmp(&cost(right, metric)))
            .find(|order| order.is_ne())
            .unwrap_or_else(|| left.id.cmp(&right.id))
    })
}

/// Returns the cost of a point in `metric`, on the scale of the metric.
fn scaled_cost(point: &FrontPoint, metric: Metric) -> f64 {
    metric.scaled_cost(point.metrics.get(metric).unwrap_or(0.0))
}

/// Returns the point whose normalized objectives (on their scales) have the smallest sum: of all
/// planes parallel to the one through the extremes, it lies on the lowest (Das, "On characterizing
/// the knee of the Pareto curve", 1999).
fn knee<'p>(points: &[&'p FrontPoint], objectives: &[Metric]) -> Option<&'p FrontPoint> {
    let ranges: Vec<(f64, f64)> = objectives
        .iter()
        .map(|&metric| {
            let costs = points.iter().map(|point| scaled_cost(point, metric));
            costs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), cost| {
                (low.min(cost), high.max(cost))
            })
        })
        .collect();
    let sum = |point: &FrontPoint| -> f64 {
        let fractions = objectives.iter().zip(&ranges).map(|(&metric, (low, high))| {
            if high > low { (scaled_cost(point, metric) - low) / (high - low) } else { 0.0 }
        });
        fractions.sum()
    };
    points
        .iter()
        .copied()
        .min_by(|left, right| sum(left).total_cmp(&sum(right)).then_with(|| left.id.cmp(&right.id)))
}

/// Sums the relative violations of all limits.
#[must_use]
pub fn total_violation(point: &FrontPoint) -> f64 {
    point.violation.values().sum()
}

/// Selects at most `count` of `points` that span the front: first the preferred one and its
/// runners-up, then the extremes, then repeatedly the point farthest from all chosen ones
/// (normalized objectives, logarithmic except the accuracy).
#[must_use]
pub fn representatives(
    points: &[FrontPoint],
    count: usize,
    prefer: Preference,
    objectives: &[Metric],
) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    let mut rest: Vec<&FrontPoint> = points.iter().filter(|point| point.feasible).collect();
    for _ in 0..3.min(count) {
        let Some(best) = preferred(&rest, prefer, objectives) else { break };
        rest.retain(|point| point.id != best.id);
        chosen.extend(points.iter().position(|point| point.id == best.id));
    }
    let least = (0..points.len()).min_by(|&left, &right| {
        total_violation(&points[left]).total_cmp(&total_violation(&points[right]))
    });
    let add = |index: usize, chosen: &mut Vec<usize>| {
        if chosen.len() < count && !chosen.contains(&index) {
            chosen.push(index);
        }
    };
    if let Some(least) = least {
        add(least, &mut chosen);
    }
    let mut coordinates = vec![Vec::with_capacity(objectives.len()); points.len()];
    for &metric in objectives {
        let costs: Vec<f64> = points.iter().map(|point| scaled_cost(point, metric)).collect();
        let low = costs.iter().copied().fold(f64::INFINITY, f64::min);
        let range =
            (costs.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low).max(f64::MIN_POSITIVE);
        for (coordinates, cost) in coordinates.iter_mut().zip(&costs) {
            coordinates.push((cost - low) / range);
        }
        if let Some(extreme) =
            (0..points.len()).min_by(|&left, &right| costs[left].total_cmp(&costs[right]))
        {
            add(extreme, &mut chosen);
        }
    }
    let distance = |left: usize, right: usize| -> f64 {
        coordinates[left].iter().zip(&coordinates[right]).map(|(a, b)| (a - b) * (a - b)).sum()
    };
    while chosen.len() < count.min(points.len()) {
        let gap = |index: usize| {
            chosen.iter().map(|&other| distance(index, other)).fold(f64::INFINITY, f64::min)
        };
        let farthest = (0..points.len())
            .filter(|index| !chosen.contains(index))
            // Feasible points come first, because the user asked for them.
            .max_by(|&left, &right| {
                points[left]
                    .feasible
                    .cmp(&points[right].feasible)
                    .then(gap(left).total_cmp(&gap(right)))
            });
        match farthest {
            Some(index) => chosen.push(index),
            None => break,
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Relation;
    use crate::score::Score;

    fn measured(correct: u64, latency: f64) -> Measurement {
        let score = Score { total: 1000, correct, lost: 950 - correct.min(950), gained: 0 };
        Measurement {
            score,
            latency: [latency, latency * 0.99, latency * 1.01],
            size: 1e6,
            memory: 2e6,
        }
    }

    fn below(metric: Metric, value: f64) -> Limit {
        Limit { metric, relation: Relation::Less, value }
    }

    #[test]
    fn limits_are_judged_on_the_pessimistic_end() {
        let configuration = Configuration::default();
        let inside =
            point(&configuration, "x", &measured(900, 1.0), &[below(Metric::Latency, 1.02)]);
        assert!(inside.feasible);
        let lucky =
            point(&configuration, "x", &measured(900, 1.0), &[below(Metric::Latency, 1.005)]);
        assert!(!lucky.feasible);
        assert!((lucky.violation[&Metric::Latency] - (1.01 / 1.005 - 1.0)).abs() < 1e-9);
    }

    #[test]
    fn a_point_is_judged_again_as_it_was_measured() {
        let known = measured(900, 1.0);
        let limits = [
            below(Metric::Latency, 1.005),
            below(Metric::AccuracyDrop, 0.03),
            below(Metric::Size, 9e5),
            Limit { metric: Metric::Accuracy, relation: Relation::Greater, value: 0.9 },
        ];
        for limit in limits {
            let fresh = point(&Configuration::default(), "x", &known, &[limit]);
            let again = judge(&point(&Configuration::default(), "x", &known, &[]), &[limit]);
            assert_eq!((&again, again.feasible), (&fresh, false), "{limit:?}");
        }
    }

    #[test]
    fn what_cannot_be_told_apart_is_covered() {
        let objectives: Vec<Metric> = Metric::objectives().collect();
        let base = Metrics::from([
            (Metric::Accuracy, 0.9),
            (Metric::Latency, 1e-3),
            (Metric::Size, 1e6),
            (Metric::Memory, 2e6),
        ]);
        let noise = base.with(Metric::Accuracy, 0.9005).with(Metric::Latency, 0.995e-3);
        assert!(covers(&base, &noise, &objectives) && covers(&noise, &base, &objectives));
        for better in [
            base.with(Metric::Accuracy, 0.902),
            base.with(Metric::Latency, 0.98e-3),
            base.with(Metric::Size, 0.99e6),
            base.with(Metric::Memory, 1.9e6),
        ] {
            assert!(
                !covers(&base, &better, &objectives) && covers(&better, &base, &objectives),
                "{better:?}"
            );
        }
        // A metric that is no objective does not count.
        assert!(covers(&base, &base.with(Metric::Memory, 1e6), &objectives[..3]));
    }

    #[test]
    fn preference_and_knee() {
        let objectives = [Metric::Accuracy, Metric::Latency];
        let mut points = Vec::new();
        for (index, (correct, latency)) in
            [(950, 8.0), (940, 2.0), (600, 1.0)].into_iter().enumerate()
        {
            let mut configuration = Configuration::default();
            configuration.insert("i", i64::try_from(index).unwrap());
            points.push(point(&configuration, "x", &measured(correct, latency), &[]));
        }
        let all: Vec<&FrontPoint> = points.iter().collect();
        assert_eq!(
            preferred(&all, Preference::Metric(Metric::Accuracy), &objectives).unwrap().id,
            points[0].id
        );
        assert_eq!(
            preferred(&all, Preference::Metric(Metric::Latency), &objectives).unwrap().id,
            points[2].id
        );
        assert_eq!(preferred(&all, Preference::Knee, &objectives).unwrap().id, points[1].id);
        assert_eq!(
            representatives(&points, 8, Preference::Metric(Metric::Accuracy), &objectives).len(),
            3
        );
        assert!(dominates(&points[1].metrics, &points[0].metrics, &objectives[1..]));
        assert!(!dominates(&points[1].metrics, &points[0].metrics, &objectives));
    }
}
