//! Solver of symmetric positive definite linear systems: blocked Cholesky factorization, so that
//! nearly all of it is matrix products. Double precision; blocks of rows run in parallel.

use crate::linalg::{View, multiply};
use rayon::prelude::*;

/// Columns that are eliminated at a time.
const BLOCK: usize = 96;
/// Rows of one parallel task.
const ROWS: usize = 96;

/// Lower triangle `L` of `A = L Lᵀ`.
pub(crate) struct Cholesky {
    size: usize,
    /// Row-major matrix; entries above the diagonal are unspecified.
    lower: Vec<f64>,
}

impl Cholesky {
    /// Factors a symmetric `size` x `size` matrix, row-major, reading only its lower triangle.
    /// Returns `None` if the matrix is not positive definite.
    pub(crate) fn new(mut matrix: Vec<f64>, size: usize) -> Option<Self> {
        assert!(matrix.len() == size * size, "a square matrix");
        let mut panel = Vec::new();
        for start in (0..size).step_by(BLOCK) {
            let end = (start + BLOCK).min(size);
            let (top, below) = matrix.split_at_mut(end * size);
            factor_diagonal(&mut top[start * size..], size, start..end)?;
            let diagonal = &top[start * size..];
            below.par_chunks_mut(size).for_each(|row| {
                substitute(diagonal, size, start..end, row);
            });
            let width = end - start;
            panel.clear();
            below.chunks(size).for_each(|row| panel.extend_from_slice(&row[start..end]));
            let rest = size - end;
            below.par_chunks_mut(ROWS * size).enumerate().for_each(|(chunk, rows)| {
                let first = chunk * ROWS;
                let last = (first + ROWS).min(rest);
                let panel = View::new(&panel, rest, width);
                // Only the lower triangle is updated.
                let (left, right) =
                    (panel.part(first..last, 0..width), panel.part(0..last, 0..width).t());
                multiply(-1.0, left, right, 1.0, &mut rows[end..], size);
            });
        }
        Some(Self { size, lower: matrix })
    }

    /// Returns the triangle as a row-major square matrix; entries above the diagonal are
    /// unspecified.
    pub(crate) fn lower(&self) -> &[f64] {
        &self.lower
    }

    /// Replaces every row of `rows` (each of the matrix's size) by the solution `x` of `A x = row`.
    pub(crate) fn solve_rows(&self, rows: &mut [f64]) {
        let size = self.size;
        if size == 0 {
            return;
        }
        let lower = View::new(&self.lower, size, size);
        rows.par_chunks_mut(ROWS.min(32) * size).for_each(|rows| {
            let count = rows.len() / size;
            let mut sum = vec![0.0; count * BLOCK];
            let mut subtract =
                |rows: &mut [f64], start: usize, end: usize, sums: View<'_, f64>, over| {
                    let width = end - start;
                    let all = View::new(rows, count, size);
                    multiply(1.0, all.part(0..count, over), sums, 0.0, &mut sum, width);
                    for (row, sum) in rows.chunks_mut(size).zip(sum.chunks(width)) {
                        row[start..end].iter_mut().zip(sum).for_each(|(x, sum)| *x -= sum);
                    }
                };
            for start in (0..size).step_by(BLOCK) {
                let end = (start + BLOCK).min(size);
                subtract(rows, start, end, lower.part(start..end, 0..start).t(), 0..start);
                let diagonal = &self.lower[start * size..];
                rows.chunks_mut(size).for_each(|row| substitute(diagonal, size, start..end, row));
            }
            for start in (0..size).step_by(BLOCK).rev() {
                let end = (start + BLOCK).min(size);
                subtract(rows, start, end, lower.part(end..size, start..end), end..size);
                for row in rows.chunks_mut(size) {
                    for i in (start..end).rev() {
                        let x = row[i] / self.lower[i * size + i];
                        row[i] = x;
                        let above = &self.lower[i * size..][start..i];
                        row[start..i].iter_mut().zip(above).for_each(|(y, l)| *y -= l * x);
                    }
                }
            }
        });
    }
}

/// Factors a block on the diagonal; `rows` begins with the row of the block's first column.
fn factor_diagonal(rows: &mut [f64], size: usize, block: std::ops::Range<usize>) -> Option<()> {
    for i in block.clone() {
        let (above, row) = rows.split_at_mut((i - block.start) * size);
        substitute(above, size, block.start..i, row);
        let square: f64 = row[block.start..i].iter().map(|x| x * x).sum();
        let pivot = row[i] - square;
        // This is also false if the pivot is NaN.
        if !(pivot > 0.0 && pivot.is_finite()) {
            return None;
        }
        row[i] = pivot.sqrt();
    }
    Some(())
}

/// Solves `L y = x` for the columns of a diagonal block of `L`, in place in `row`.
fn substitute(diagonal: &[f64], size: usize, block: std::ops::Range<usize>, row: &mut [f64]) {
    for i in block.clone() {
        let lower = &diagonal[(i - block.start) * size..][block.start..=i];
        let known = &row[block.start..i];
        let sum: f64 = lower.iter().zip(known).map(|(l, y)| l * y).sum();
        row[i] = (row[i] - sum) / lower[i - block.start];
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    #[test]
    fn solutions_solve() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        for size in [1, 5, BLOCK, BLOCK + 1, 2 * BLOCK + 37] {
            let root: Vec<f64> = (0..size * size).map(|_| random.random_range(-1.0..1.0)).collect();
            let mut matrix = vec![0.0; size * size];
            let view = View::new(&root, size, size);
            multiply(1.0, view, view.t(), 0.0, &mut matrix, size);
            (0..size).for_each(|i| matrix[i * size + i] += 1.0);
            let wanted: Vec<f64> = (0..3 * size).map(|_| random.random_range(-1.0..1.0)).collect();
            let mut rows = vec![0.0; 3 * size];
            multiply(
                1.0,
                View::new(&wanted, 3, size),
                View::new(&matrix, size, size),
                0.0,
                &mut rows,
                size,
            );
            Cholesky::new(matrix, size).unwrap().solve_rows(&mut rows);
            let error =
                rows.iter().zip(&wanted).fold(0.0f64, |most, (a, b)| most.max((a - b).abs()));
            assert!(error < 1e-8, "{size}: {error}");
        }
    }

    #[test]
    fn indefinite_matrices_are_noticed() {
        assert!(Cholesky::new(vec![1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(Cholesky::new(vec![f64::NAN], 1).is_none());
    }
}
