//! The most likely hyperparameters, by a quasi-Newton method.

use std::cell::RefCell;

use argmin::core::{CostFunction, Error, Executor, Gradient};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use paretune_spaces::Point;

use super::density::gradient_of;
use super::kernel::{Hyperparameters, Kernel};
use super::{Gaussian, standardize};

impl Gaussian {
    /// Climbs the posterior density of the hyperparameters from `start` with at most `evaluations`
    /// evaluations, and returns the best that was found.
    #[must_use]
    pub fn learn(
        kernel: &Kernel,
        start: &Hyperparameters,
        points: &[&Point],
        values: &[f64],
        evaluations: usize,
    ) -> Hyperparameters {
        if points.len() < 3 || kernel.terms.is_empty() {
            return start.clone();
        }
        let posterior = Posterior {
            kernel,
            prior: kernel.prior(),
            rows: points.iter().map(|p| kernel.slots(p)).collect(),
            values: standardize(values).values,
            seen: RefCell::new(Evaluations { left: evaluations, last: None, best: None }),
        };
        let solver = LBFGS::new(MoreThuenteLineSearch::new(), LBFGS_MEMORY);
        let numbers = start.numbers();
        let run = Executor::new(&posterior, solver)
            .configure(|state| state.param(numbers).max_iters(evaluations as u64))
            .timer(false)
            .run();
        // The run ends with an error as a rule: the evaluations are used up, or a line search
        // fails. The best point counts in any case.
        drop(run);
        let best = posterior.seen.into_inner().best;
        best.map_or_else(|| start.clone(), |(_, hyperparameters)| hyperparameters)
    }
}

/// Number of steps that the quasi-Newton method remembers.
const LBFGS_MEMORY: usize = 6;

/// Posterior density of the hyperparameters as a cost function of `argmin`: the negative logarithm,
/// per point.
struct Posterior<'k> {
    kernel: &'k Kernel,
    prior: Hyperparameters,
    rows: Vec<Vec<u16>>,
    values: Vec<f64>,
    seen: RefCell<Evaluations>,
}

/// Evaluations so far. Density and gradient are computed together but requested one after the
/// other.
struct Evaluations {
    left: usize,
    last: Option<(Vec<f64>, f64, Vec<f64>)>,
    best: Option<(f64, Hyperparameters)>,
}

impl Posterior<'_> {
    fn look(&self, numbers: &[f64]) -> Result<(f64, Vec<f64>), Error> {
        let mut seen = self.seen.borrow_mut();
        if let Some((at, cost, gradient)) = &seen.last
            && at == numbers
        {
            return Ok((*cost, gradient.clone()));
        }
        seen.left =
            seen.left.checked_sub(1).ok_or_else(|| Error::msg("has looked often enough"))?;
        let hyperparameters = Hyperparameters::of(numbers);
        let (density, gradient) =
            gradient_of(self.kernel, &hyperparameters, &self.prior, &self.rows, &self.values)
                .ok_or_else(|| Error::msg("the covariance cannot be factored"))?;
        if seen.best.as_ref().is_none_or(|(best, _)| density > *best) {
            seen.best = Some((density, hyperparameters));
        }
        let scale = -1.0 / self.rows.len() as f64;
        let gradient: Vec<f64> = gradient.into_iter().map(|g| g * scale).collect();
        seen.last = Some((numbers.to_vec(), density * scale, gradient.clone()));
        Ok((density * scale, gradient))
    }
}

impl CostFunction for &Posterior<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, numbers: &Vec<f64>) -> Result<f64, Error> {
        Ok(self.look(numbers)?.0)
    }
}

impl Gradient for &Posterior<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, numbers: &Vec<f64>) -> Result<Vec<f64>, Error> {
        Ok(self.look(numbers)?.1)
    }
}
