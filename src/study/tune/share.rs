//! How a tuning's time is shared between layers: in proportion to what each can still gain.

/// What is known of a layer's prospects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prospect {
    /// How often the layer occurs in the network: as many schedules of it can be tried in one run.
    pub places: usize,
    /// Seconds of its best schedule so far, once; infinite before anything was measured.
    pub best: f64,
    /// Seconds that the hardware needs at least, once.
    pub least: f64,
    /// Schedules tried since the last one that was better than all before.
    pub in_vain: usize,
    /// Whether every schedule there is has been tried.
    pub exhausted: bool,
}

/// Schedules in vain after which a layer is expected to gain half of what it was.
const PATIENCE: f64 = 24.0;

/// Every layer that is not exhausted gets at least this part of what the most promising one gets.
const LEAST: f64 = 0.25;

impl Prospect {
    /// Seconds of the whole network that may still be gained here: the distance from what the hardware could do, which
    /// counts for less the longer nothing was found.
    fn gain(&self) -> f64 {
        if self.exhausted {
            return 0.0;
        }
        if self.best.is_infinite() {
            return f64::INFINITY;
        }
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let (places, in_vain) = (self.places as f64, self.in_vain as f64);
        // No layer is so good that nothing can be gained.
        let distance = (self.best - self.least).max(0.05 * self.best);
        places * distance * PATIENCE / (PATIENCE + in_vain)
    }
}

/// Shares out tries, round by round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shares {
    credit: Vec<f64>,
}

impl Shares {
    /// How many schedules of each layer the next run tries: the most promising one as many as it has places, the others
    /// a part of their places in proportion to what they can gain, which may come to one now and then.
    pub fn next(&mut self, prospects: &[Prospect]) -> Vec<usize> {
        self.credit.resize(prospects.len(), 0.0);
        let most = prospects.iter().map(Prospect::gain).fold(0.0, f64::max);
        let mut tries = Vec::with_capacity(prospects.len());
        for (prospect, credit) in prospects.iter().zip(&mut self.credit) {
            if prospect.exhausted || most <= 0.0 {
                tries.push(0);
                continue;
            }
            let share = match (prospect.gain().is_finite(), most.is_finite()) {
                (false, _) => 1.0,
                (true, false) => LEAST,
                (true, true) => (prospect.gain() / most).max(LEAST),
            };
            #[expect(clippy::cast_precision_loss, reason = "small counts")]
            let places = prospect.places as f64;
            *credit += share * places;
            let whole = credit.floor().min(places);
            *credit -= whole;
            *credit = credit.min(1.0);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
            tries.push(whole as usize);
        }
        // Nobody had saved enough: the one that has saved most goes first.
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

    fn prospect(places: usize, best: f64, least: f64) -> Prospect {
        Prospect { places, best, least, in_vain: 0, exhausted: false }
    }

    fn total(prospects: &[Prospect], rounds: usize) -> Vec<usize> {
        let mut shares = Shares::default();
        let mut sum = vec![0; prospects.len()];
        for _ in 0..rounds {
            for (sum, tries) in sum.iter_mut().zip(shares.next(prospects)) {
                *sum += tries;
            }
        }
        sum
    }

    #[test]
    fn tries_follow_what_can_be_gained() {
        // Gains of 4, 2 and 1 seconds, and one at its ceiling.
        let prospects =
            [prospect(1, 5.0, 1.0), prospect(1, 3.0, 1.0), prospect(1, 2.0, 1.0), prospect(1, 1.0, 1.0)];
        assert_eq!(total(&prospects, 100), [100, 50, 25, 25]);
    }

    #[test]
    fn a_layer_has_no_more_tries_than_places() {
        let prospects = [prospect(6, 2.0, 1.0), prospect(1, 7.0, 1.0)];
        assert_eq!(total(&prospects, 10), [60, 10]);
        // Alone, it always goes on.
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
