//! Gaussian process regression over mixed, conditional parameters.
//!
//! The kernel is a sum of effects of single parameters, of pairs, and of all parameters together,
//! each a Matérn 5/2 function of weighted distances per parameter. Values of any kind differ or
//! not; sizes also have a squared distance on their scale. An inactive parameter differs from every
//! active one.
//!
//! Hyperparameters follow from the marginal likelihood with a log-normal prior whose mean shrinks
//! with the number of parameters. That prior alone makes the process fit for many parameters
//! (Hvarfner, Hellsten and Nardi, 2024). The process uses the most likely hyperparameters, found by
//! a quasi-Newton method of `argmin`, and draws from their posterior. The variance of the signal is
//! integrated out in closed form. Noise stands for unknown but repeatable influences, so it adds to
//! the uncertainty of unmeasured configurations.

mod density;
mod kernel;
mod learn;
mod sample;

#[cfg(test)]
mod tests;

use paretune_spaces::Point;

use self::kernel::Tables;
pub use self::kernel::{Hyperparameters, Kernel};
use super::cholesky::{Factor, dot};
use super::{Model, Prediction};

/// Gaussian process that is fitted to data.
#[derive(Clone, Debug)]
pub struct Gaussian {
    kernel: Kernel,
    tables: Tables,
    points: Vec<Vec<u16>>,
    factor: Factor,
    alpha: Vec<f64>,
    center: f64,
    /// Variance of the signal, in squared units of the metric.
    variance: f64,
    /// Variance of the noise, relative to that of the signal.
    noise: f64,
}

/// Data that are scaled to mean 0 and standard deviation 1.
struct Standard {
    center: f64,
    scale: f64,
    values: Vec<f64>,
}

fn standardize(values: &[f64]) -> Standard {
    let n = values.len() as f64;
    let center = values.iter().sum::<f64>() / n;
    let square = values.iter().map(|v| (v - center).powi(2)).sum::<f64>() / n;
    let scale = if square > 0.0 && square.sqrt().is_normal() { square.sqrt() } else { 1.0 };
    Standard { center, scale, values: values.iter().map(|v| (v - center) / scale).collect() }
}

impl Gaussian {
    /// Conditions the process with given hyperparameters on data. `None` if there are no data, or
    /// if the covariance cannot be factored even with much noise.
    #[must_use]
    pub fn fit(
        kernel: &Kernel,
        hyperparameters: &Hyperparameters,
        points: &[&Point],
        values: &[f64],
    ) -> Option<Gaussian> {
        if points.is_empty() {
            return None;
        }
        let standard = standardize(values);
        let rows: Vec<Vec<u16>> = points.iter().map(|p| kernel.slots(p)).collect();
        let tables = kernel.tables(hyperparameters);
        let n = rows.len();
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                matrix[i * n + j] = tables.correlate(&rows[i], &rows[j]).correlation;
            }
        }
        let mut noise = hyperparameters.noise.exp();
        let factor = loop {
            for i in 0..n {
                matrix[i * n + i] = 1.0 + noise;
            }
            match Factor::of(&matrix, n) {
                Some(factor) => break factor,
                None if noise < 1.0 => noise *= 10.0,
                None => return None,
            }
        };
        let mut whitened = standard.values.clone();
        factor.forward(&mut whitened);
        // A weak prior keeps the variance sensible for a handful of points.
        let variance =
            (dot(&whitened, &whitened) + 2.0) / (n as f64 + 2.0) * standard.scale * standard.scale;
        let mut alpha = whitened;
        factor.backward(&mut alpha);
        alpha.iter_mut().for_each(|a| *a *= standard.scale);
        Some(Gaussian {
            kernel: kernel.clone(),
            tables,
            points: rows,
            factor,
            alpha,
            center: standard.center,
            variance,
            noise,
        })
    }
}

impl Model for Gaussian {
    fn predict(&self, point: &Point) -> Prediction {
        let slots = self.kernel.slots(point);
        let mut k: Vec<f64> =
            self.points.iter().map(|p| self.tables.correlate(p, &slots).correlation).collect();
        let mean = self.center + dot(&k, &self.alpha);
        self.factor.forward(&mut k);
        let left = (1.0 - dot(&k, &k)).max(1e-9) + self.noise;
        Prediction { mean, deviation: (self.variance * left).sqrt() }
    }
}
