//! Several strategies on one archive: whoever improves it gets more of the trials.
//!
//! Nothing wins everywhere, and which strategy suits a space shows only while it is searched. Every answer is told to
//! all, so that none works from less than everything that is known. Credit is the gain in hypervolume (with one
//! objective: in rank), forgotten slowly; arms are drawn in proportion to it, each with a share that it cannot lose.

use rand::{Rng, RngExt};

use crate::history::{History, Trial};
use crate::strategy::{Strategy, Suggestion};

/// What remains of old credit after each trial of an arm.
const MEMORY: f64 = 0.9;

struct Arm {
    strategy: Box<dyn Strategy>,
    /// Share of trials that it gets at least, relative to the other arms' shares.
    share: f64,
    credit: f64,
    /// Trials that it would be due.
    debt: f64,
}

/// A team of strategies.
pub struct Portfolio {
    name: &'static str,
    arms: Vec<Arm>,
    /// Trials for which the first arm is alone.
    opening: usize,
}

impl Portfolio {
    /// A team; the numbers are the shares that each gets at least, relative to each other. The first opens: it
    /// decides alone as long as fewer than `opening` trials are known.
    #[must_use]
    pub fn new(name: &'static str, opening: usize, strategies: Vec<(Box<dyn Strategy>, f64)>) -> Portfolio {
        let arms =
            strategies.into_iter().map(|(strategy, share)| Arm { strategy, share, credit: 0.0, debt: 0.0 });
        Portfolio { name, opening, arms: arms.collect() }
    }

    /// How trials are to be divided now.
    fn weights(&self) -> Vec<f64> {
        let shares: f64 = self.arms.iter().map(|a| a.share).sum();
        let credits: f64 = self.arms.iter().map(|a| a.credit).sum();
        // Half of the trials are divided as agreed, half by what was achieved.
        let earned = |a: &Arm| if credits > 1e-12 { a.credit / credits } else { a.share / shares };
        self.arms.iter().map(|a| 0.5 * a.share / shares + 0.5 * earned(a)).collect()
    }
}

impl Strategy for Portfolio {
    fn name(&self) -> &str {
        self.name
    }

    fn ask(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Suggestion> {
        if history.known() < self.opening {
            return self.arms.first_mut()?.strategy.ask(history, rng);
        }
        let weights = self.weights();
        for (arm, weight) in self.arms.iter_mut().zip(weights) {
            arm.debt += weight;
        }
        // Debts even out what chance would not; ties and near ties are drawn.
        let noise: Vec<f64> = self.arms.iter().map(|_| rng.random_range(0.0..0.25)).collect();
        let mut order: Vec<usize> = (0..self.arms.len()).collect();
        order.sort_by(|a, b| (self.arms[*b].debt + noise[*b]).total_cmp(&(self.arms[*a].debt + noise[*a])));
        for at in order {
            if let Some(suggestion) = self.arms[at].strategy.ask(history, rng) {
                self.arms[at].debt -= 1.0;
                return Some(suggestion);
            }
        }
        None
    }

    fn tell(&mut self, history: &History, trial: &Trial) {
        let gain = gain(history, trial);
        for arm in &mut self.arms {
            if arm.strategy.name() == trial.origin {
                arm.credit = arm.credit * MEMORY + gain * (1.0 - MEMORY);
            }
            arm.strategy.tell(history, trial);
        }
    }
}

/// What a trial was good for, from 0 to 1.
fn gain(history: &History, trial: &Trial) -> f64 {
    let Some(standing) = &trial.standing else { return 0.0 };
    if history.archive().front().is_empty() {
        // Nothing feasible yet: coming nearer counts.
        let nearest = history.archive().nearest_miss().is_some_and(|e| e.point == trial.point);
        return f64::from(u8::from(nearest));
    }
    if !trial.entered {
        return 0.0;
    }
    match history.archive().normalization() {
        Some(n) if standing.objectives.len() > 1 => {
            let reference = vec![1.0; standing.objectives.len()];
            let own = n.apply(&standing.objectives);
            let others: Vec<Vec<f64>> =
                history.archive().normalized().into_iter().filter(|p| *p != own).collect();
            // Late gains are small: their roots still tell arms apart.
            crate::hypervolume::contribution(&others, &own, &reference).sqrt()
        }
        _ => 1.0,
    }
}
