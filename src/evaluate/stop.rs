//! Stop criteria: rules that end the measurement of a candidate early.

use paretune_record::metric::{Metric, Metrics, Quantity};
use paretune_record::score::Score;
use serde::{Deserialize, Serialize};

/// Everything that ends the measurement of a candidate early.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StopCriteria {
    /// Values at which the candidate is rejected.
    pub upper: UpperBounds,
    /// Points that the candidate must beat. It is dropped as soon as one of them surely is at least
    /// as good in everything.
    pub incumbents: Vec<Incumbent>,
    /// Limits on the accuracy. Candidates close to them are scored on more images.
    pub accuracy: AccuracyBounds,
}

impl StopCriteria {
    /// Returns whether an incumbent surely beats a candidate with these costs at their lower ends
    /// and this accuracy at its upper end.
    #[must_use]
    pub fn is_beaten(&self, costs: &Metrics, accuracy_high: f64) -> bool {
        self.incumbents.iter().any(|incumbent| incumbent.surely_beats(costs, accuracy_high))
    }

    /// Returns how many of `[few, most]` images are enough for a candidate with these costs: `few`
    /// if an incumbent is at least as good in everything but the accuracy, else `most`.
    #[must_use]
    pub fn enough_images(&self, [few, most]: [u64; 2], costs: &Metrics) -> u64 {
        if self.incumbents.iter().any(|incumbent| incumbent.surely_costs_less(costs)) {
            few
        } else {
            most
        }
    }
}

/// Values at and beyond which a candidate is rejected with as little work as possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpperBounds(pub Metrics);

impl UpperBounds {
    /// Factor on a bound of time up to which a candidate is still timed. Interference never slows
    /// the fastest of a few runs by more.
    const TIMING_SLACK: f64 = 2.0;

    /// Returns whether the metrics seen so far are enough to reject a candidate. Times are those of
    /// the fastest of a few runs.
    #[must_use]
    pub fn reject(&self, seen: &Metrics) -> bool {
        self.0.iter().any(|(metric, bound)| {
            let slack =
                if metric.quantity() == Quantity::Seconds { Self::TIMING_SLACK } else { 1.0 };
            seen.get(metric).is_some_and(|value| value >= slack * bound)
        })
    }
}

/// Limits on the accuracy, judged on the pessimistic end of its interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccuracyBounds {
    /// Lower bound of the accuracy, exclusive.
    pub lower: Option<f64>,
    /// Upper bound of the accuracy drop against the baseline, exclusive.
    pub drop: Option<f64>,
}

impl AccuracyBounds {
    /// Returns whether `score` leaves it open whether a limit is met.
    #[must_use]
    pub fn undecided(&self, score: &Score) -> bool {
        let [low, high] = score.interval();
        let (_, [least, most]) = score.drop();
        !self.missed(score)
            && (self.lower.is_some_and(|bound| low <= bound && bound < high)
                || self.drop.is_some_and(|bound| least < bound && bound <= most))
    }

    /// Returns whether a limit is surely missed.
    #[must_use]
    pub fn missed(&self, score: &Score) -> bool {
        let (_, [least, _]) = score.drop();
        self.lower.is_some_and(|bound| score.interval()[1] <= bound)
            || self.drop.is_some_and(|bound| least >= bound)
    }

    /// Returns whether `score` is complete: it covers `images` and decides every limit, or it
    /// covers `most` images.
    #[must_use]
    pub fn enough(&self, score: &Score, images: u64, most: u64) -> bool {
        score.total >= images && (score.total >= most || !self.undecided(score))
    }
}

/// A point that a candidate must beat in at least one objective.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incumbent {
    /// Lower end of its accuracy's interval.
    pub accuracy: f64,
    /// Upper ends of its other objectives. A metric without a value is no objective and cannot save
    /// the candidate.
    pub costs: Metrics,
}

impl Incumbent {
    /// Returns whether a candidate with these lower ends of the costs and this upper end of the
    /// accuracy cannot be better in any objective.
    #[must_use]
    pub fn surely_beats(&self, costs: &Metrics, accuracy_high: f64) -> bool {
        self.surely_costs_less(costs) && self.accuracy > accuracy_high
    }

    /// Returns whether a candidate with these lower ends of the costs cannot be better in any
    /// objective but the accuracy. A cost that is not known of the candidate may be better.
    fn surely_costs_less(&self, costs: &Metrics) -> bool {
        let at_most = |metric: Metric, bound: f64| {
            costs.get(metric).is_some_and(|value| metric.cost(bound) <= metric.cost(value))
        };
        self.costs.iter().all(|(metric, bound)| at_most(metric, bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_candidates_surely_beyond_a_bound_are_rejected() {
        let upper = UpperBounds([(Metric::Latency, 1e-3), (Metric::Size, 1e6)].into());
        let seen = |size: f64, latency: Option<f64>| {
            Metrics::from([(Metric::Size, size), (Metric::Memory, 1e12)])
                .with(Metric::Latency, latency)
        };
        assert!(!upper.reject(&seen(9.9e5, None)));
        assert!(upper.reject(&seen(1e6, None)));
        // A few runs cannot reject a candidate that is only slightly too slow.
        assert!(!upper.reject(&seen(1e5, Some(1.5e-3))));
        assert!(upper.reject(&seen(1e5, Some(2.1e-3))));
        assert!(!UpperBounds::default().reject(&seen(1e12, Some(1e3))));
    }

    #[test]
    fn an_incumbent_must_be_as_good_in_every_objective() {
        let incumbent = Incumbent {
            accuracy: 0.9,
            costs: [(Metric::Latency, 1e-3), (Metric::Size, 1e6)].into(),
        };
        let costs = Metrics::from([(Metric::Latency, 2e-3), (Metric::Size, 1e6)]);
        assert!(incumbent.surely_beats(&costs, 0.89));
        assert!(!incumbent.surely_beats(&costs, 0.91));
        assert!(!incumbent.surely_beats(&costs.with(Metric::Size, 9e5), 0.89));
        assert!(!incumbent.surely_beats(&costs.with(Metric::Size, None), 0.89));
    }
}
