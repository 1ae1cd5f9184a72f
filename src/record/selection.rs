//! Selection of the points of a front among those that were measured at the end and those that were
//! not.
//!
//! Points compare on equal terms alone: two confirmed points by their final figures, which come
//! from the same images and from timings in turns, all others by the figures of the search.

use crate::archive;
use crate::front::FrontPoint;
use crate::metric::{Metric, Metrics};
use crate::preference::Preference;

/// A point that may be on a front, with its figures of the search.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The point as it is shown.
    pub point: FrontPoint,
    /// The point with the figures of the search, the only ones that choices may use.
    pub search: FrontPoint,
}

impl Candidate {
    /// Creates the candidate of a point of the search that has no final figures.
    #[must_use]
    pub fn unconfirmed(point: FrontPoint) -> Self {
        Self { point: FrontPoint { confirmed: false, ..point.clone() }, search: point }
    }

    /// Returns the point with the accuracy by which it is chosen: the one on the search images, so
    /// that no choice uses the accuracy that is shown for it.
    fn for_choice(&self) -> FrontPoint {
        let mut point = self.point.clone();
        point.metrics.set(Metric::Accuracy, self.search.metrics.get(Metric::Accuracy));
        point
    }
}

/// Rules of a selection.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'r> {
    /// Objectives that decide which points are dominated.
    pub objectives: &'r [Metric],
    /// Criterion of the best feasible point.
    pub prefer: Preference,
    /// Metrics of the baseline, for the hypervolume.
    pub baseline: Metrics,
    /// Whether a point without final figures is the best one only if no other is feasible.
    pub confirmed_first: bool,
}

/// Points of a front.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// Points that are not dominated, best first.
    pub points: Vec<FrontPoint>,
    /// Confirmed points that are dominated.
    pub dominated: Vec<FrontPoint>,
    /// The point that misses the limits by least, if no point meets all of them.
    pub nearest_miss: Option<FrontPoint>,
    /// Hypervolume of the feasible points.
    pub hypervolume: f64,
}

/// Selects the points that are not dominated, and marks the best one.
#[must_use]
pub fn select(candidates: &[Candidate], rules: &Rules<'_>) -> Selection {
    let beats = |winner: &Candidate, loser: &Candidate| {
        if !winner.point.feasible && loser.point.feasible {
            return false;
        }
        match (winner.point.confirmed, loser.point.confirmed) {
            (true, true) => {
                archive::dominates(&winner.point.metrics, &loser.point.metrics, rules.objectives)
            }
            (false, true) => false,
            (_, false) => {
                archive::dominates(&winner.search.metrics, &loser.search.metrics, rules.objectives)
            }
        }
    };
    let (kept, beaten): (Vec<&Candidate>, Vec<&Candidate>) = candidates
        .iter()
        .partition(|candidate| !candidates.iter().any(|other| beats(other, candidate)));
    let best = best(&kept, rules);
    let mut points: Vec<FrontPoint> = kept
        .into_iter()
        .map(|candidate| FrontPoint {
            best: best.as_ref() == Some(&candidate.point.id),
            ..candidate.point.clone()
        })
        .collect();
    let figure = |point: &FrontPoint, metric| point.metrics.get(metric).unwrap_or_default();
    points.sort_by(|left, right| {
        let latency = |point| figure(point, Metric::Latency);
        (right.best, right.feasible)
            .cmp(&(left.best, left.feasible))
            .then(figure(right, Metric::Accuracy).total_cmp(&figure(left, Metric::Accuracy)))
            .then(latency(left).total_cmp(&latency(right)))
    });
    let nearest = || {
        candidates.iter().map(|candidate| &candidate.point).min_by(|left, right| {
            archive::total_violation(left).total_cmp(&archive::total_violation(right))
        })
    };
    let feasible: Vec<Metrics> =
        points.iter().filter(|point| point.feasible).map(|point| point.metrics).collect();
    Selection {
        nearest_miss: if best.is_none() { nearest().cloned() } else { None },
        dominated: beaten
            .into_iter()
            .map(|candidate| FrontPoint { best: false, ..candidate.point.clone() })
            .filter(|point| point.confirmed)
            .collect(),
        hypervolume: archive::hypervolume(&feasible, &rules.baseline, rules.objectives),
        points,
    }
}

/// Returns the id of the preferred feasible point among `kept`.
fn best(kept: &[&Candidate], rules: &Rules<'_>) -> Option<String> {
    let feasible: Vec<FrontPoint> = kept
        .iter()
        .map(|candidate| candidate.for_choice())
        .filter(|point| point.feasible)
        .collect();
    let confirmed = || feasible.iter().filter(|point| point.confirmed).collect::<Vec<_>>();
    let among = match confirmed() {
        confirmed if rules.confirmed_first && !confirmed.is_empty() => confirmed,
        _ => feasible.iter().collect(),
    };
    archive::preferred(&among, rules.prefer, rules.objectives).map(|point| point.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::Measurement;
    use crate::score::Score;
    use paretune_spaces::Configuration;

    fn point(number: i64, correct: u64, latency: f64) -> FrontPoint {
        let mut configuration = Configuration::default();
        configuration.insert("number", number);
        let score = Score { total: 1000, correct, lost: 950 - correct.min(950), gained: 0 };
        let latency = [latency, latency * 0.99, latency * 1.01];
        let known = Measurement { score, latency, size: 1e6, memory: 2e6 };
        archive::point(&configuration, "x", &known, &[])
    }

    fn selected(candidates: &[Candidate], confirmed_first: bool) -> Selection {
        let objectives = [Metric::Accuracy, Metric::Latency];
        let prefer = Preference::Metric(Metric::Accuracy);
        let baseline = point(0, 950, 3.0).metrics;
        select(candidates, &Rules { objectives: &objectives, prefer, baseline, confirmed_first })
    }

    #[test]
    fn points_compare_on_equal_terms_alone() {
        // On other images, the unconfirmed point looks better than the confirmed one.
        let confirmed = Candidate { point: point(1, 860, 1.0), search: point(1, 900, 1.0) };
        let unconfirmed = Candidate::unconfirmed(point(2, 880, 1.1));
        let found = selected(&[unconfirmed.clone(), confirmed.clone()], false);
        assert_eq!(found.points.len(), 1, "by the figures of the search it is dominated");
        assert!(found.points[0].best && found.points[0].confirmed);
        // A point that only looks better by the search does not remove a confirmed one.
        let better = Candidate::unconfirmed(point(3, 910, 0.9));
        let found = selected(&[better.clone(), confirmed.clone()], true);
        assert_eq!(found.points.len(), 2);
        assert!(found.points[0].best && found.points[0].confirmed);
        let found = selected(&[better.clone(), confirmed], false);
        assert!(found.points[0].best && !found.points[0].confirmed);
        // Without any confirmed point, the search's best one is the best.
        let found = selected(&[unconfirmed, better], true);
        assert!(found.points.iter().all(|point| !point.confirmed));
        assert_eq!(found.points.iter().filter(|point| point.best).count(), 1);
    }
}
