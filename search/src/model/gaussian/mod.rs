//! Gaussian process regression over mixed, conditional parameters.
//!
//! The kernel is a sum of what parameters do alone, in pairs and all together, each Matérn 5/2 over weighted per-parameter
//! distances: for every parameter whether the values differ, for ordered ones also how far apart they are, squared. What
//! is inactive differs from everything active.
//! Weights follow from the marginal likelihood with a log-normal prior whose mean shrinks with the number of parameters
//! (Hvarfner, Hellsten and Nardi, 2024: that alone makes the process fit for many parameters): the most likely ones
//! by a quasi-Newton method of `argmin`, and draws from the posterior around them. The signal's variance is
//! integrated out in closed form. Noise is what else decides a value and will do so again: it counts as doubt about
//! configurations that were not measured.

mod kernel;
mod posterior;

use paretune_spaces::Point;

use self::kernel::Tables;
pub use self::kernel::{Kernel, Weights};
use super::cholesky::{Factor, dot};
use super::{Model, Prediction};

/// A fitted process.
#[derive(Clone, Debug)]
pub struct Gaussian {
    kernel: Kernel,
    tables: Tables,
    points: Vec<Vec<u16>>,
    factor: Factor,
    alpha: Vec<f64>,
    center: f64,
    /// Variance of the signal.
    variance: f64,
    /// Of the noise, relative to the signal's.
    noise: f64,
}

/// Data brought to mean 0 and deviation 1.
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
    /// Conditions the process with these weights on data. `None` without data, or where the matrix is beyond
    /// repair.
    #[must_use]
    pub fn fit(kernel: &Kernel, weights: &Weights, points: &[&Point], values: &[f64]) -> Option<Gaussian> {
        if points.is_empty() {
            return None;
        }
        let standard = standardize(values);
        let rows: Vec<Vec<u16>> = points.iter().map(|p| kernel.slots(p)).collect();
        let tables = kernel.tables(weights);
        let n = rows.len();
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                matrix[i * n + j] = tables.common(&rows[i], &rows[j]).correlation;
            }
        }
        let mut noise = weights.noise.exp();
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
        let mut half = standard.values.clone();
        factor.forward(&mut half);
        // A weak prior keeps the variance sensible for a handful of points.
        let variance = (dot(&half, &half) + 2.0) / (n as f64 + 2.0) * standard.scale * standard.scale;
        let mut alpha = half;
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
        let mut k: Vec<f64> = self.points.iter().map(|p| self.tables.common(p, &slots).correlation).collect();
        let mean = self.center + dot(&k, &self.alpha);
        self.factor.forward(&mut k);
        let left = (1.0 - dot(&k, &k)).max(1e-9) + self.noise;
        Prediction { mean, deviation: (self.variance * left).sqrt() }
    }
}
