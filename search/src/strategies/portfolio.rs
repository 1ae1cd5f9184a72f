//! Portfolio of strategies on one archive: a strategy that improves the archive gets more of the
//! trials.
//!
//! No strategy wins everywhere, and the search itself shows which one suits a space. Every answer
//! is told to all strategies, so that each knows everything. A strategy's credit is its gain in
//! hypervolume (with one objective: in rank), which decays slowly. Trials are divided in proportion
//! to credit, with a guaranteed minimum for each strategy.

use rand::{Rng, RngExt};

use crate::history::{History, Trial};
use crate::strategy::{Strategy, Suggestion};

/// Fraction of old credit that remains after each trial of an arm.
const CREDIT_DECAY: f64 = 0.9;

struct Arm {
    strategy: Box<dyn Strategy>,
    /// Guaranteed minimum of trials, relative to those of the other arms.
    minimum: f64,
    credit: f64,
    /// Number of trials that the arm is still due.
    due: f64,
}

/// Several strategies that minimum an archive.
pub struct Portfolio {
    name: &'static str,
    arms: Vec<Arm>,
    /// Number of trials for which the first arm decides alone.
    opening: usize,
}

impl Portfolio {
    /// Creates a portfolio of strategies, each with its guaranteed minimum of trials relative to
    /// the others. The first strategy decides alone while fewer than `opening` trials are known.
    #[must_use]
    pub fn new(
        name: &'static str,
        opening: usize,
        strategies: Vec<(Box<dyn Strategy>, f64)>,
    ) -> Portfolio {
        let arms = strategies.into_iter().map(|(strategy, minimum)| Arm {
            strategy,
            minimum,
            credit: 0.0,
            due: 0.0,
        });
        Portfolio { name, opening, arms: arms.collect() }
    }

    /// Returns the fractions in which trials are divided now.
    fn weights(&self) -> Vec<f64> {
        let minimums: f64 = self.arms.iter().map(|a| a.minimum).sum();
        let credits: f64 = self.arms.iter().map(|a| a.credit).sum();
        // Half of the trials follow the guaranteed minimum, and half follow the credit.
        let earned =
            |a: &Arm| if credits > 1e-12 { a.credit / credits } else { a.minimum / minimums };
        self.arms.iter().map(|a| 0.5 * a.minimum / minimums + 0.5 * earned(a)).collect()
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
            arm.due += weight;
        }
        // Division by due trials varies less than random choice. Ties and near ties are drawn.
        let noise: Vec<f64> = self.arms.iter().map(|_| rng.random_range(0.0..0.25)).collect();
        let mut order: Vec<usize> = (0..self.arms.len()).collect();
        order.sort_by(|a, b| {
            (self.arms[*b].due + noise[*b]).total_cmp(&(self.arms[*a].due + noise[*a]))
        });
        for at in order {
            if let Some(suggestion) = self.arms[at].strategy.ask(history, rng) {
                self.arms[at].due -= 1.0;
                return Some(suggestion);
            }
        }
        None
    }

    fn tell(&mut self, history: &History, trial: &Trial) {
        let gain = gain(history, trial);
        for arm in &mut self.arms {
            if arm.strategy.name() == trial.origin {
                arm.credit = arm.credit * CREDIT_DECAY + gain * (1.0 - CREDIT_DECAY);
            }
            arm.strategy.tell(history, trial);
        }
    }
}

/// Returns the gain of a trial, from 0 to 1.
fn gain(history: &History, trial: &Trial) -> f64 {
    let Some(standing) = &trial.standing else { return 0.0 };
    if history.archive().front().is_empty() {
        // While nothing is feasible, coming nearer to it counts.
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
            // Late gains are small; their roots still distinguish the arms.
            crate::hypervolume::contribution(&others, &own, &reference).sqrt()
        }
        _ => 1.0,
    }
}
