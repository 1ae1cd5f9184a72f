//! Error of a layer's output as a quadratic form in the error of its weights.

use super::inputs::GroupInputs;
use crate::error::CompressError;
use crate::linalg::cholesky::Cholesky;

/// Fraction of the mean variance that is added to every column's own. Inputs that never vary on the
/// calibration images must not look free, and the matrix must have an inverse.
const DAMPING: f64 = 2e-3;

/// Damped covariance of the inputs of some rows of weights.
pub(super) struct Quadratic {
    /// Number of rows and columns.
    pub(super) size: usize,
    /// Symmetric, positive definite matrix, row-major.
    pub(super) matrix: Vec<f32>,
}

impl Quadratic {
    pub(super) fn new(inputs: &GroupInputs, patches: u64) -> Self {
        let size = inputs.mean.len();
        // Covariances of few patches are mostly chance: they are scaled by a factor that shrinks
        // like Stein's.
        let together = (patches as f64 / (patches as f64 + size as f64)) as f32;
        let diagonal = |row: usize| f64::from(inputs.covariance[row * (row + 1) / 2 + row]);
        let mean = (0..size).map(diagonal).sum::<f64>() / size.max(1) as f64;
        let damping = if mean > 0.0 && mean.is_finite() { DAMPING * mean } else { 1.0 };
        let mut matrix = vec![0.0; size * size];
        for row in 0..size {
            for column in 0..=row {
                let x = inputs.covariance[row * (row + 1) / 2 + column];
                let x = if row == column { x } else { x * together };
                matrix[row * size + column] = x;
                matrix[column * size + row] = x;
            }
            matrix[row * size + row] += damping as f32;
        }
        Self { size, matrix }
    }

    /// Returns one row of the matrix.
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.matrix[row * self.size..][..self.size]
    }

    /// Iterates over the diagonal of the matrix.
    pub(super) fn diagonal(&self) -> impl Iterator<Item = f32> + '_ {
        (0..self.size).map(|index| self.matrix[index * self.size + index])
    }

    /// Returns the rows and columns of `order`, which may be fewer than all.
    pub(super) fn permuted(&self, order: &[usize]) -> Vec<f64> {
        let mut permuted = Vec::with_capacity(order.len() * order.len());
        for &row in order {
            let row = self.row(row);
            permuted.extend(order.iter().map(|&column| f64::from(row[column])));
        }
        permuted
    }

    /// Computes the Cholesky factorization of the rows and columns of `order`, which may be fewer
    /// than all.
    pub(super) fn factor(&self, order: &[usize]) -> Result<Cholesky, CompressError> {
        Cholesky::new(self.permuted(order), order.len()).ok_or_else(|| {
            CompressError::Calibration(
                "the inputs of a layer are not finite, or vary by dozens of orders of magnitude"
                    .into(),
            )
        })
    }

    /// Computes the inverse of the matrix with `shift` added to its diagonal.
    pub(super) fn inverse(&self, shift: f64) -> Result<Vec<f32>, CompressError> {
        let size = self.size;
        let mut matrix: Vec<f64> = self.matrix.iter().map(|&x| f64::from(x)).collect();
        (0..size).for_each(|index| matrix[index * size + index] += shift);
        let factor = Cholesky::new(matrix, size).ok_or_else(|| {
            CompressError::Calibration(
                "the inputs of a layer are not finite, or vary by dozens of orders of magnitude"
                    .into(),
            )
        })?;
        let mut inverse = vec![0.0f32; size * size];
        // A few rows at a time, because a whole identity in double precision would double the
        // memory.
        for first in (0..size).step_by(512) {
            let rows = 512.min(size - first);
            let mut part = vec![0.0f64; rows * size];
            (0..rows).for_each(|row| part[row * size + first + row] = 1.0);
            factor.solve_rows(&mut part);
            let place = &mut inverse[first * size..][..rows * size];
            place.iter_mut().zip(&part).for_each(|(x, &y)| *x = y as f32);
        }
        Ok(inverse)
    }
}
