//! Posterior density of the hyperparameters, and its gradient.

use super::kernel::{Hyperparameters, Kernel, NOISE_VARIANCE, PRIOR_VARIANCE, Tables};
use crate::model::cholesky::{Factor, dot};

/// Process with given hyperparameters, conditioned on data.
pub(super) struct Conditioned {
    factor: Factor,
    /// Values of the data after whitening.
    whitened: Vec<f64>,
    /// Variance of the signal, which is integrated out.
    variance: f64,
    /// Logarithm of the marginal likelihood, up to a constant.
    pub(super) likelihood: f64,
}

impl Conditioned {
    /// Conditions the process on data; `None` if the covariance cannot be factored.
    pub(super) fn on(
        tables: &Tables,
        hyperparameters: &Hyperparameters,
        rows: &[Vec<u16>],
        values: &[f64],
    ) -> Option<Conditioned> {
        let n = rows.len();
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..i {
                matrix[i * n + j] = tables.correlate(&rows[i], &rows[j]).correlation;
            }
            matrix[i * n + i] = 1.0 + hyperparameters.noise.exp() + 1e-9;
        }
        let factor = Factor::of(&matrix, n)?;
        let mut whitened = values.to_vec();
        factor.forward(&mut whitened);
        let variance = (dot(&whitened, &whitened) + 2.0) / (n as f64 + 2.0);
        let likelihood = -0.5 * (n as f64 + 2.0) * variance.ln() - factor.half_log_determinant();
        likelihood.is_finite().then_some(Conditioned { factor, whitened, variance, likelihood })
    }
}

impl Hyperparameters {
    /// Returns all logarithms as one vector: terms, orders, noise.
    pub(super) fn numbers(&self) -> Vec<f64> {
        self.terms.iter().chain(&self.orders).copied().chain([self.noise]).collect()
    }

    /// Converts from a vector of logarithms, clamped so that exponentials stay finite.
    pub(super) fn of(numbers: &[f64]) -> Hyperparameters {
        let (terms, [alone, pairs, noise]) =
            numbers.split_last_chunk().unwrap_or((numbers, &[0.0; 3]));
        let terms = terms.iter().map(|w| w.clamp(-14.0, 5.0)).collect();
        let orders = [alone, pairs].map(|w| w.clamp(-8.0, 5.0));
        Hyperparameters { terms, orders, noise: noise.clamp(-14.0, 0.0) }
    }
}

/// Returns the logarithm of the posterior density, up to a constant, and its gradient in the order
/// of [`Hyperparameters::numbers`].
pub(super) fn gradient_of(
    kernel: &Kernel,
    hyperparameters: &Hyperparameters,
    prior: &Hyperparameters,
    rows: &[Vec<u16>],
    values: &[f64],
) -> Option<(f64, Vec<f64>)> {
    let n = rows.len();
    let tables = kernel.tables(hyperparameters);
    let Conditioned { factor, whitened: mut alpha, variance, likelihood: mut density } =
        Conditioned::on(&tables, hyperparameters, rows, values)?;
    factor.backward(&mut alpha);
    let inverse = factor.inverse();
    // Sums over pairs of points are collected by parameter and pair of values, so that each pair of
    // points is visited once.
    let relevant = &kernel.features.relevant;
    let mut sums: Vec<Vec<f64>> =
        tables.tables.iter().map(|t| vec![0.0; t.slots * t.slots]).collect();
    let mut orders = [0.0; 2];
    for i in 0..n {
        for j in 0..i {
            let pull = alpha[i] * alpha[j] / variance - inverse[i * n + j];
            tables.add_gradient((&rows[i], &rows[j]), pull, &mut sums, &mut orders);
        }
    }
    let mut gradient = Vec::with_capacity(kernel.terms.len() + 3);
    for (number, term) in kernel.terms.iter().enumerate() {
        let at = relevant.binary_search(&term.parameter).unwrap_or(0);
        let slots = tables.tables[at].slots;
        let mut total = 0.0;
        for a in 0..slots {
            for b in 0..slots {
                if a != b {
                    total += sums[at][a * slots + b] * kernel.distance(*term, a, b);
                }
            }
        }
        // The priors on logarithms are normal: wide for weights, wider for the noise.
        let off = hyperparameters.terms[number] - prior.terms[number];
        density -= 0.5 * off * off / PRIOR_VARIANCE;
        gradient.push(total * hyperparameters.terms[number].exp() - off / PRIOR_VARIANCE);
    }
    for (number, sum) in orders.into_iter().enumerate() {
        let off = hyperparameters.orders[number] - prior.orders[number];
        density -= 0.5 * off * off / PRIOR_VARIANCE;
        gradient.push(sum - off / PRIOR_VARIANCE);
    }
    let trace: f64 = (0..n).map(|i| alpha[i] * alpha[i] / variance - inverse[i * n + i]).sum();
    let off = hyperparameters.noise - prior.noise;
    density -= 0.5 * off * off / NOISE_VARIANCE;
    gradient.push(0.5 * trace * hyperparameters.noise.exp() - off / NOISE_VARIANCE);
    density.is_finite().then_some((density, gradient))
}
