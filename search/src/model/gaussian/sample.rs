//! Draws from the posterior of the hyperparameters, by elliptical slice sampling.

use paretune_spaces::Point;
use rand::{Rng, RngExt};

use super::density::Conditioned;
use super::kernel::{Hyperparameters, Kernel, NOISE_VARIANCE, PRIOR_VARIANCE};
use super::{Gaussian, standardize};

/// Number of steps of the chain from one draw to the next.
const STEPS_PER_DRAW: usize = 12;

/// Number of times that a slice is narrowed before the chain stays in place.
const MAX_SHRINKS: usize = 24;

impl Gaussian {
    /// Draws `count` hyperparameters from their posterior, by a chain that begins at `start`.
    /// Elliptical slice sampling (Murray, Adams and MacKay, 2010) asks only for normal priors,
    /// which the logarithms have.
    #[must_use]
    pub fn sample(
        kernel: &Kernel,
        start: &Hyperparameters,
        points: &[&Point],
        values: &[f64],
        count: usize,
        rng: &mut dyn Rng,
    ) -> Vec<Hyperparameters> {
        if count == 0 {
            return Vec::new();
        }
        let rows: Vec<Vec<u16>> = points.iter().map(|p| kernel.slots(p)).collect();
        let values = standardize(values).values;
        let center = kernel.prior().numbers();
        let look = |numbers: &[f64]| {
            let hyperparameters = Hyperparameters::of(numbers);
            Some(
                Conditioned::on(
                    &kernel.tables(&hyperparameters),
                    &hyperparameters,
                    &rows,
                    &values,
                )?
                .likelihood,
            )
        };
        let mut at = start.numbers();
        let Some(mut height) = look(&at) else { return vec![start.clone(); count] };
        let mut draws = Vec::with_capacity(count);
        for step in 1..=count * STEPS_PER_DRAW {
            let last = at.len() - 1;
            let deviation =
                |i: usize| if i == last { NOISE_VARIANCE.sqrt() } else { PRIOR_VARIANCE.sqrt() };
            let ellipse: Vec<f64> = (0..at.len()).map(|i| deviation(i) * normal(rng)).collect();
            let floor = height + rng.random_range(f64::MIN_POSITIVE..1.0).ln();
            let mut angle = rng.random_range(0.0..std::f64::consts::TAU);
            let (mut low, mut high) = (angle - std::f64::consts::TAU, angle);
            for _ in 0..MAX_SHRINKS {
                let (sin, cos) = angle.sin_cos();
                let moved: Vec<f64> = at
                    .iter()
                    .zip(&center)
                    .zip(&ellipse)
                    .map(|((a, c), e)| c + (a - c) * cos + e * sin)
                    .collect();
                if let Some(here) = look(&moved).filter(|here| *here > floor) {
                    (at, height) = (moved, here);
                    break;
                }
                if angle < 0.0 {
                    low = angle
                } else {
                    high = angle
                }
                angle = rng.random_range(low..high);
            }
            if step % STEPS_PER_DRAW == 0 {
                draws.push(Hyperparameters::of(&at));
            }
        }
        draws
    }
}

/// Draws a standard normal number (Box and Muller, 1958).
fn normal(rng: &mut dyn Rng) -> f64 {
    let radius = (-2.0 * rng.random_range(f64::MIN_POSITIVE..1.0).ln()).sqrt();
    radius * rng.random_range(0.0..std::f64::consts::TAU).cos()
}
