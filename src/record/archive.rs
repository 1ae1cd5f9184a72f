//! Converts measured trials to what the search and users need: metrics in a fixed order, points of
//! the front, limits judged on intervals, and the preferred point.

use std::collections::BTreeMap;

use paretune_spaces::Configuration;

use crate::front::{FrontLimit, FrontPoint, Metrics};
use crate::measurement::Known;

/// Names of the metrics that every complete trial reports to the search, in this order.
pub const METRICS: [&str; 5] = ["accuracy", "latency", "size", "memory", "accuracy-drop"];

/// Returns three vectors in the order of [`METRICS`]: the values, the lower ends and the upper ends
/// of their intervals.
#[must_use]
pub fn intervals(known: &Known) -> [Vec<f64>; 3] {
    let accuracy = known.score.interval();
    let (drop, drop_interval) = known.score.drop();
    let [median, low, high] = known.latency;
    [
        vec![known.score.accuracy(), median, known.size, known.memory, drop],
        vec![accuracy[0], low, known.size, known.memory, drop_interval[0]],
        vec![accuracy[1], high, known.size, known.memory, drop_interval[1]],
    ]
}

/// Builds the point of the front for a measured configuration. Feasibility is judged on the
/// pessimistic end of every interval.
#[must_use]
pub fn point(
    configuration: &Configuration,
    origin: &str,
    known: &Known,
    limits: &[FrontLimit],
) -> FrontPoint {
    let [values, low, high] = intervals(known);
    let spread: BTreeMap<String, [f64; 2]> = ["accuracy", "latency", "accuracy-drop"]
        .into_iter()
        .filter_map(|name| {
            let index = METRICS.iter().position(|metric| *metric == name)?;
            Some((name.to_owned(), [low[index], high[index]]))
        })
        .collect();
    let mut violation = BTreeMap::new();
    for limit in limits {
        let Some(index) = METRICS.iter().position(|metric| *metric == limit.metric) else { continue };
        let miss = if limit.op == "<" { high[index] - limit.value } else { limit.value - low[index] };
        if miss > 0.0 {
            let relative = if limit.value > 0.0 { miss / limit.value } else { miss };
            let worst: &mut f64 = violation.entry(limit.metric.clone()).or_insert(0.0);
            *worst = worst.max(relative);
        }
    }
    FrontPoint {
        id: configuration.id(),
        feasible: violation.is_empty(),
        best: false,
        metrics: Metrics { accuracy: values[0], latency: values[1], size: values[2], memory: values[3] },
        spread,
        violation,
        origin: origin.to_owned(),
        config: configuration.clone(),
    }
}

/// Sums the relative violations of all limits.
#[must_use]
pub fn total_violation(point: &FrontPoint) -> f64 {
    point.violation.values().sum()
}

/// Returns whether `left` is at least as good as `right` in all `objectives` and better in one.
#[must_use]
pub fn dominates(left: &Metrics, right: &Metrics, objectives: &[String]) -> bool {
    let mut better = false;
    for name in objectives {
        let (Some(left), Some(right)) = (left.get(name), right.get(name)) else { continue };
        let (left, right) = if name == "accuracy" { (-left, -right) } else { (left, right) };
        if left > right {
            return false;
        }
        better |= left < right;
    }
    better
}

/// Smallest difference in accuracy (a fraction) that counts. A smaller one cannot be resolved by an
/// affordable number of images.
const SAME_ACCURACY: f64 = 0.001;
/// Smallest relative difference in latency and memory that counts. Timing is no more precise.
const SAME_SPEED: f64 = 0.01;
/// Smallest relative difference in size that counts. Sizes are exact, but a smaller saving is of no
/// use.
const SAME_SIZE: f64 = 0.002;

/// Returns whether `left` is as good as `right` in all `objectives` within the tolerances of the
/// metrics. An archive that refuses covered points is not filled by noise (epsilon-dominance;
/// Laumanns et al., Evolutionary Computation 10(3), 2002).
#[must_use]
pub fn covers(left: &Metrics, right: &Metrics, objectives: &[String]) -> bool {
    objectives.iter().all(|name| {
        let (Some(left), Some(right)) = (left.get(name), right.get(name)) else { return true };
        match name.as_str() {
            "accuracy" => left >= right - SAME_ACCURACY,
            "size" => left <= right * (1.0 + SAME_SIZE),
            _ => left <= right * (1.0 + SAME_SPEED),
        }
    })
}

/// Computes the exact hypervolume of `points` between two fixed corners, so that values of
/// different moments and strategies compare. The bad corner has the baseline's latency, size and
/// memory, and an accuracy 20 points below the baseline's. The good corner has a hundredth of each,
/// and an accuracy 2 points above. Latency, size and memory count on a logarithmic scale. Points
/// outside of the box are moved to its border.
#[must_use]
pub fn hypervolume(points: &[Metrics], untouched: &Metrics, objectives: &[String]) -> f64 {
    let normalized: Vec<Vec<f64>> = points
        .iter()
        .map(|point| {
            objectives
                .iter()
                .map(|name| {
                    let value = point.get(name).unwrap_or(0.0);
                    let before = untouched.get(name).unwrap_or(0.0);
                    let share = if name == "accuracy" {
                        (before + 0.02 - value) / 0.22
                    } else {
                        1.0 + (value.max(f64::MIN_POSITIVE) / before.max(f64::MIN_POSITIVE)).log10() / 2.0
                    };
                    share.clamp(0.0, 1.0)
                })
                .collect()
        })
        .collect();
    paretune_search::hypervolume::hypervolume(&normalized, &vec![1.0; objectives.len()])
}

/// Returns the preferred one among `points`: the best in the objective called `prefer`, ties broken
/// by the other objectives in order. With `knee`, the one farthest below the plane through the
/// extremes.
#[must_use]
pub fn preferred<'p>(
    points: &[&'p FrontPoint],
    prefer: &str,
    objectives: &[String],
) -> Option<&'p FrontPoint> {
    if prefer == "knee" {
        return knee(points, objectives);
    }
    let mut order: Vec<&str> = vec![prefer];
    order.extend(objectives.iter().map(String::as_str).filter(|name| *name != prefer));
    let cost = |point: &FrontPoint, name: &str| {
        let value = point.metrics.get(name).unwrap_or(0.0);
        if name == "accuracy" { -value } else { value }
    };
    points.iter().copied().min_by(|left, right| {
        order
            .iter()
            .map(|name| cost(left, name).total_cmp(&cost(right, name)))
            .find(|order| order.is_ne())
            .unwrap_or_else(|| left.id.cmp(&right.id))
    })
}

/// Returns the point whose normalized objectives (logarithmic except the accuracy) have the
/// smallest sum: of all planes parallel to the one through the extremes, it lies on the lowest
/// (Das, "On characterizing the knee of the Pareto curve", 1999).
fn knee<'p>(points: &[&'p FrontPoint], objectives: &[String]) -> Option<&'p FrontPoint> {
    let cost = |point: &FrontPoint, name: &str| {
        let value = point.metrics.get(name).unwrap_or(0.0);
        if name == "accuracy" { -value } else { value.max(f64::MIN_POSITIVE).ln() }
    };
    let ranges: Vec<(f64, f64)> = objectives
        .iter()
        .map(|name| {
            points
                .iter()
                .map(|point| cost(point, name))
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                    (low.min(value), high.max(value))
                })
        })
        .collect();
    let sum = |point: &FrontPoint| -> f64 {
        objectives
            .iter()
            .zip(&ranges)
            .map(
                |(name, (low, high))| if high > low { (cost(point, name) - low) / (high - low) } else { 0.0 },
            )
            .sum()
    };
    points
        .iter()
        .copied()
        .min_by(|left, right| sum(left).total_cmp(&sum(right)).then_with(|| left.id.cmp(&right.id)))
}

/// Selects at most `count` of `points` that span the front: first the preferred one and its
/// runners-up, then the extremes, then repeatedly the point farthest from all chosen ones
/// (normalized objectives, logarithmic except the accuracy).
#[must_use]
pub fn representatives(
    points: &[FrontPoint],
    count: usize,
    prefer: &str,
    objectives: &[String],
) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    let mut rest: Vec<&FrontPoint> = points.iter().filter(|point| point.feasible).collect();
    for _ in 0..3.min(count) {
        let Some(best) = preferred(&rest, prefer, objectives) else { break };
        rest.retain(|point| point.id != best.id);
        chosen.extend(points.iter().position(|point| point.id == best.id));
    }
    let least = (0..points.len())
        .min_by(|&left, &right| total_violation(&points[left]).total_cmp(&total_violation(&points[right])));
    let add = |index: usize, chosen: &mut Vec<usize>| {
        if chosen.len() < count && !chosen.contains(&index) {
            chosen.push(index);
        }
    };
    if let Some(least) = least {
        add(least, &mut chosen);
    }
    let cost = |point: &FrontPoint, name: &str| {
        let value = point.metrics.get(name).unwrap_or(0.0);
        if name == "accuracy" { -value } else { value.max(f64::MIN_POSITIVE).ln() }
    };
    let mut coordinates = vec![Vec::with_capacity(objectives.len()); points.len()];
    for name in objectives {
        let costs: Vec<f64> = points.iter().map(|point| cost(point, name)).collect();
        let low = costs.iter().copied().fold(f64::INFINITY, f64::min);
        let range = (costs.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low).max(f64::MIN_POSITIVE);
        for (coordinates, cost) in coordinates.iter_mut().zip(&costs) {
            coordinates.push((cost - low) / range);
        }
        if let Some(extreme) = (0..points.len()).min_by(|&left, &right| costs[left].total_cmp(&costs[right]))
        {
            add(extreme, &mut chosen);
        }
    }
    let distance = |left: usize, right: usize| -> f64 {
        coordinates[left].iter().zip(&coordinates[right]).map(|(a, b)| (a - b) * (a - b)).sum()
    };
    while chosen.len() < count.min(points.len()) {
        let gap =
            |index: usize| chosen.iter().map(|&other| distance(index, other)).fold(f64::INFINITY, f64::min);
        let farthest = (0..points.len())
            .filter(|index| !chosen.contains(index))
            // Feasible points come first, because the user asked for them.
            .max_by(|&left, &right| {
                points[left].feasible.cmp(&points[right].feasible).then(gap(left).total_cmp(&gap(right)))
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
    use crate::score::Score;

    fn known(correct: u64, latency: f64) -> Known {
        let score = Score { total: 1000, correct, lost: 950 - correct.min(950), gained: 0 };
        Known { score, latency: [latency, latency * 0.99, latency * 1.01], size: 1e6, memory: 2e6 }
    }

    fn limit(metric: &str, op: &str, value: f64) -> FrontLimit {
        FrontLimit { metric: metric.into(), op: op.into(), value, unit: String::new() }
    }

    #[test]
    fn limits_are_judged_on_the_pessimistic_end() {
        let configuration = Configuration::default();
        let inside = point(&configuration, "x", &known(900, 1.0), &[limit("latency", "<", 1.02)]);
        assert!(inside.feasible);
        let lucky = point(&configuration, "x", &known(900, 1.0), &[limit("latency", "<", 1.005)]);
        assert!(!lucky.feasible);
        assert!((lucky.violation["latency"] - (1.01 / 1.005 - 1.0)).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_told_apart_is_covered() {
        let names = ["accuracy", "latency", "size", "memory"].map(str::to_owned);
        let base = Metrics { accuracy: 0.9, latency: 1e-3, size: 1e6, memory: 2e6 };
        let noise = Metrics { accuracy: 0.9005, latency: 0.995e-3, ..base };
        assert!(covers(&base, &noise, &names) && covers(&noise, &base, &names));
        for better in [
            Metrics { accuracy: 0.902, ..base },
            Metrics { latency: 0.98e-3, ..base },
            Metrics { size: 0.99e6, ..base },
            Metrics { memory: 1.9e6, ..base },
        ] {
            assert!(!covers(&base, &better, &names) && covers(&better, &base, &names), "{better:?}");
        }
        // A metric that is no objective does not count.
        assert!(covers(&base, &Metrics { memory: 1e6, ..base }, &names[..3]));
    }

    #[test]
    fn preference_and_knee() {
        let names = ["accuracy".to_owned(), "latency".to_owned()];
        let mut points = Vec::new();
        for (index, (correct, latency)) in [(950, 8.0), (940, 2.0), (600, 1.0)].into_iter().enumerate() {
            let mut configuration = Configuration::default();
            configuration.insert("i", i64::try_from(index).unwrap());
            points.push(point(&configuration, "x", &known(correct, latency), &[]));
        }
        let all: Vec<&FrontPoint> = points.iter().collect();
        assert_eq!(preferred(&all, "accuracy", &names).unwrap().id, points[0].id);
        assert_eq!(preferred(&all, "latency", &names).unwrap().id, points[2].id);
        assert_eq!(preferred(&all, "knee", &names).unwrap().id, points[1].id);
        assert_eq!(representatives(&points, 8, "accuracy", &names).len(), 3);
        assert!(dominates(&points[1].metrics, &points[0].metrics, &names[1..]));
        assert!(!dominates(&points[1].metrics, &points[0].metrics, &names));
    }
}
