//! The error of a layer's output as a quadratic form in the error of its weights.

use super::inputs::GroupInputs;
use crate::compress::error::CompressError;
use crate::compress::linear::Cholesky;

/// Share of the mean variance that is added to every column's own: what is not seen on the calibration images
/// must not look free, and the matrix must have an inverse.
const DAMPING: f64 = 2e-3;

/// The covariance of what some rows of weights are multiplied with, damped.
pub(super) struct Quadratic {
    /// Number of columns.
    pub(super) size: usize,
    /// Symmetric, row-major, positive definite.
    pub(super) matrix: Vec<f32>,
}

impl Quadratic {
    pub(super) fn new(inputs: &GroupInputs, patches: u64) -> Self {
        let size = inputs.mean.len();
        // What few patches say of how columns go together is mostly chance: a share that shrinks as Stein's does.
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

    /// Row of the matrix.
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.matrix[row * self.size..][..self.size]
    }

    /// The diagonal.
    pub(super) fn diagonal(&self) -> impl Iterator<Item = f32> + '_ {
        (0..self.size).map(|index| self.matrix[index * self.size + index])
    }

    /// Rows and columns in another order, and possibly fewer.
    pub(super) fn permuted(&self, order: &[usize]) -> Vec<f64> {
        let mut permuted = Vec::with_capacity(order.len() * order.len());
        for &row in order {
            let row = self.row(row);
            permuted.extend(order.iter().map(|&column| f64::from(row[column])));
        }
        permuted
    }

    /// Cholesky's factorization with rows and columns in another order, and possibly fewer.
    pub(super) fn factor(&self, order: &[usize]) -> Result<Cholesky, CompressError> {
        Cholesky::new(self.permuted(order), order.len()).ok_or_else(|| {
            CompressError::Calibration(
                "what a layer reads is not finite, or varies by dozens of orders".into(),
            )
        })
    }

    /// The inverse of the whole, plus `shift` on the diagonal.
    pub(super) fn inverse(&self, shift: f64) -> Result<Vec<f32>, CompressError> {
        let size = self.size;
        let mut matrix: Vec<f64> = self.matrix.iter().map(|&x| f64::from(x)).collect();
        (0..size).for_each(|index| matrix[index * size + index] += shift);
        let factor = Cholesky::new(matrix, size).ok_or_else(|| {
            CompressError::Calibration(
                "what a layer reads is not finite, or varies by dozens of orders".into(),
            )
        })?;
        let mut inverse = vec![0.0f32; size * size];
        // A few rows at a time: a whole identity in double precision would double the memory.
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
