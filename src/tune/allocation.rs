//! Divides a tuning's time between layers, in proportion to the improvement that each may still
//! bring.

/// Improvement that a layer may still bring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prospect {
    /// Number of steps with this shape, which is the number of schedules that one run can try.
    pub steps: usize,
    /// Seconds of one step with the best schedule so far; infinite before the first measurement.
    pub best: f64,
    /// Lower bound of one step's seconds by the hardware's ceilings.
    pub least: f64,
    /// Number of schedules tried since the last improvement.
    pub in_vain: usize,
    /// Whether every schedule of the space has been tried.
    pub exhausted: bool,
}

/// Number of tries without an improvement that halves the expected one.
const HALVING_TRIES: f64 = 24.0;

/// Smallest number of tries of a layer that is not exhausted, as a fraction of the most promising
/// layer's.
const MIN_FRACTION: f64 = 0.25;

impl Prospect {
    /// Returns the expected improvement in seconds of the whole network: the distance from the
    /// lower bound, which counts for less after tries without an improvement.
    fn gain(&self) -> f64 {
        if self.exhausted {
            return 0.0;
        }
        if self.best.is_infinite() {
            return f64::INFINITY;
        }
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let (steps, in_vain) = (self.steps as f64, self.in_vain as f64);
        // A layer close to its bound may still improve by 5 %.
        let distance = (self.best - self.least).max(0.05 * self.best);
        steps * distance * HALVING_TRIES / (HALVING_TRIES + in_vain)
    }
}

/// Divides tries between layers, round by round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocation {
    credit: Vec<f64>,
}

impl Allocation {
    /// Returns how many schedules of each layer the next run tries. The most promising layer tries
    /// as many as it has steps. The others try a fraction in proportion to their expected
    /// improvement, which may be less than one per round.
    pub fn next(&mut self, prospects: &[Prospect]) -> Vec<usize> {
        self.credit.resize(prospects.len(), 0.0);
        let most = prospects.iter().map(Prospect::gain).fold(0.0, f64::max);
        let mut tries = Vec::with_capacity(prospects.len());
        for (prospect, credit) in prospects.iter().zip(&mut self.credit) {
            if prospect.exhausted || most <= 0.0 {
                tries.push(0);
                continue;
            }
            let fraction = match (prospect.gain().is_finite(), most.is_finite()) {
                (false, _) => 1.0,
                (true, false) => MIN_FRACTION,
                (true, true) => (prospect.gain() / most).max(MIN_FRACTION),
            };
            #[expect(clippy::cast_precision_loss, reason = "small counts")]
            let steps = prospect.steps as f64;
            *credit += fraction * steps;
            let whole = credit.floor().min(steps);
            *credit -= whole;
            *credit = credit.min(1.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small count"
            )]
            tries.push(whole as usize);
        }
        // No layer has a whole try, so the one with the largest credit goes first.
        if tries.iter().all(|count| *count == 0) {
            let able = (0..tries.len()).filter(|index| !prospects[*index].exhausted);
            if let Some(first) = able.max_by(|a, b| self.credit[*a].total_cmp(&self.credit[*b])) {
                tries[first] = 1;
                self.credit[first] = 0.0;
            }
        }
        tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prospect(steps: usize, best: f64, least: f64) -> Prospect {
        Prospect { steps, best, least, in_vain: 0, exhausted: false }
    }

    fn total(prospects: &[Prospect], rounds: usize) -> Vec<usize> {
        let mut allocation = Allocation::default();
        let mut sum = vec![0; prospects.len()];
        for _ in 0..rounds {
            for (sum, tries) in sum.iter_mut().zip(allocation.next(prospects)) {
                *sum += tries;
            }
        }
        sum
    }

    #[test]
    fn tries_follow_what_can_be_gained() {
        // Expected improvements of 4, 2 and 1 seconds, and a layer at its bound.
        let prospects = [
            prospect(1, 5.0, 1.0),
            prospect(1, 3.0, 1.0),
            prospect(1, 2.0, 1.0),
            prospect(1, 1.0, 1.0),
        ];
        assert_eq!(total(&prospects, 100), [100, 50, 25, 25]);
    }

    #[test]
    fn a_layer_has_no_more_tries_than_steps() {
        let prospects = [prospect(6, 2.0, 1.0), prospect(1, 7.0, 1.0)];
        assert_eq!(total(&prospects, 10), [60, 10]);
        // A layer alone always continues.
        assert_eq!(total(&[prospect(3, 1.0, 1.0)], 4), [12]);
    }

    #[test]
    fn what_found_nothing_for_long_waits() {
        let tired = Prospect { in_vain: 72, ..prospect(1, 5.0, 1.0) };
        assert_eq!(total(&[tired, prospect(1, 5.0, 1.0)], 100), [25, 100]);
    }

    #[test]
    fn the_exhausted_get_nothing_and_the_unknown_go_first() {
        let done = Prospect { exhausted: true, ..prospect(2, 5.0, 1.0) };
        let unknown = prospect(2, f64::INFINITY, 1.0);
        assert_eq!(total(&[done, unknown, prospect(1, 5.0, 1.0)], 100), [0, 200, 25]);
        assert_eq!(total(&[done, done], 5), [0, 0]);
        assert_eq!(total(&[], 5), Vec::<usize>::new());
    }
}
