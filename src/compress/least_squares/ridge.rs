//! Ridge regression for the filters of a layer.

use crate::linalg::{View, multiply};
use rayon::prelude::*;

use crate::linalg::cholesky::Cholesky;

/// Damping of the fit relative to the mean power of the inputs. It keeps weights of little
/// influence from moving.
const DAMPING: f64 = 3e-2;
/// Smallest number of rows of the Gram matrix in one parallel task.
const TASK_ROWS: usize = 128;

/// Least-squares problem for the filters of one group.
pub(super) struct Problem {
    /// Number of weights of a filter.
    pub(super) depth: usize,
    /// Number of filters of the group.
    pub(super) rows: usize,
    /// Number of samples, that is, of patches.
    pub(super) count: usize,
    /// Unfolded inputs of the samples as `[sample][weight]`.
    pub(super) patches: Vec<f32>,
    /// Wanted outputs as `[sample][filter]`, without the residual.
    pub(super) targets: Vec<f32>,
}

impl Problem {
    /// Returns weights and biases of less error than the given ones; `None` if the inputs do not
    /// determine them.
    pub(super) fn solve(
        mut self,
        mut weights: Vec<f32>,
        mut bias: Vec<f32>,
    ) -> Option<(Vec<f32>, Vec<f32>)> {
        let Self { depth, rows, count, .. } = self;
        if count == 0 || depth == 0 {
            return None;
        }
        let means = column_means(&self.patches, depth);
        self.patches.par_chunks_mut(depth).for_each(|patch| {
            patch.iter_mut().zip(&means).for_each(|(x, mean)| *x -= mean);
        });
        // In terms of centered inputs, the bias is the mean of the targets.
        let shift = |weights: &[f32]| -> Vec<f32> {
            weights
                .chunks(depth)
                .map(|filter| filter.iter().zip(&means).map(|(w, x)| w * x).sum())
                .collect()
        };
        bias.iter_mut().zip(shift(&weights)).for_each(|(bias, shift)| *bias += shift);
        let power = self.patches.par_chunks(depth).map(squares).sum::<f64>() / depth as f64;
        if !(power > 0.0 && power.is_finite()) {
            return None;
        }
        // The unknowns are steps from the current weights, so that damping keeps weights of little
        // influence where they were.
        let mut errors = self.errors(&weights, &bias);
        let mean = column_means(&errors, rows);
        errors.par_chunks_mut(rows).for_each(|errors| {
            errors.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean);
        });
        let steps = ridge(&self.patches, &errors, [count, depth, rows], DAMPING * power)?;
        weights.iter_mut().zip(&steps).for_each(|(weight, step)| *weight += step);
        bias.iter_mut().zip(&mean).for_each(|(bias, mean)| *bias += mean);
        bias.iter_mut().zip(shift(&weights)).for_each(|(bias, shift)| *bias -= shift);
        Some((weights, bias))
    }

    /// Returns the remaining errors to the targets as `[sample][filter]`.
    fn errors(&self, weights: &[f32], bias: &[f32]) -> Vec<f32> {
        let Self { depth, rows, count, .. } = *self;
        let mut errors = vec![0.0; count * rows];
        let part = count.div_ceil(rayon::current_num_threads().max(1)).max(1);
        let chunks = errors.par_chunks_mut(part * rows).enumerate();
        chunks.for_each(|(chunk, errors)| {
            let first = chunk * part;
            let samples = errors.len() / rows;
            let patches = View::new(&self.patches[first * depth..], samples, depth);
            multiply(1.0, patches, View::new(weights, rows, depth).t(), 0.0, errors, rows);
            let targets = self.targets[first * rows..].chunks(rows);
            for (errors, targets) in errors.chunks_mut(rows).zip(targets) {
                let pairs = errors.iter_mut().zip(targets).zip(bias);
                pairs.for_each(|((error, target), bias)| *error = target - *error - bias);
            }
        });
        errors
    }
}

/// Solves the ridge regression for the `rows` x `depth` matrix `W` that minimizes `|E - X Wᵀ|² +
/// damping |W|²`, with `X` of `count` x `depth` and `E` of `count` x `rows`. Returns `None` if the
/// matrix is not numerically positive definite.
///
/// Of the two forms of the solution, `Wᵀ = (XᵀX + λ)⁻¹ XᵀE = Xᵀ (XXᵀ + λ)⁻¹ E`, it uses the one
/// with the smaller matrix: late layers have many more weights than positions.
fn ridge(
    x: &[f32],
    errors: &[f32],
    [count, depth, rows]: [usize; 3],
    damping: f64,
) -> Option<Vec<f32>> {
    let all = View::new(x, count, depth);
    let size = count.min(depth);
    let mut gram = gram(if count < depth { all } else { all.t() }, size);
    (0..size).for_each(|i| gram[i * size + i] += damping);
    let factors = Cholesky::new(gram, size)?;
    if count < depth {
        let mut steps: Vec<f64> = (0..rows * count)
            .into_par_iter()
            .map(|at| f64::from(errors[at % count * rows + at / count]))
            .collect();
        factors.solve_rows(&mut steps);
        let steps: Vec<f32> = steps.into_iter().map(|x| x as f32).collect();
        Some(product(View::new(&steps, rows, count), all))
    } else {
        let mut steps: Vec<f64> =
            product(View::new(errors, count, rows).t(), all).into_iter().map(f64::from).collect();
        factors.solve_rows(&mut steps);
        Some(steps.into_iter().map(|x| x as f32).collect())
    }
}

fn squares(numbers: &[f32]) -> f64 {
    numbers.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

fn column_means(data: &[f32], columns: usize) -> Vec<f32> {
    let count = (data.len() / columns.max(1)).max(1);
    let sums = data
        .par_chunks(columns * 1024)
        .map(|part| {
            let mut sums = vec![0.0f64; columns];
            part.chunks(columns).for_each(|row| {
                sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x))
            });
            sums
        })
        .reduce(
            || vec![0.0; columns],
            |mut left, right| {
                left.iter_mut().zip(&right).for_each(|(left, right)| *left += right);
                left
            },
        );
    sums.iter().map(|sum| (sum / count as f64) as f32).collect()
}

/// Computes the lower triangle of `A Aᵀ` for a matrix with `size` rows.
fn gram(matrix: View<'_, f32>, size: usize) -> Vec<f64> {
    let inner = matrix.columns();
    let mut single = vec![0.0f32; size * size];
    // Each part packs all that it is multiplied with.
    let part = (size / (4 * rayon::current_num_threads().max(1))).clamp(TASK_ROWS, 4 * TASK_ROWS);
    single.par_chunks_mut((part * size).max(1)).enumerate().for_each(|(chunk, rows)| {
        let range = chunk * part..(chunk * part + part).min(size);
        let right = matrix.part(0..range.end, 0..inner).t();
        multiply(1.0, matrix.part(range, 0..inner), right, 0.0, rows, size);
    });
    single.into_par_iter().map(f64::from).collect()
}

/// Computes the matrix product `A B`.
fn product(left: View<'_, f32>, right: View<'_, f32>) -> Vec<f32> {
    let [rows, inner, columns] = [left.rows(), left.columns(), right.columns()];
    let mut product = vec![0.0f32; rows * columns];
    let part = rows.div_ceil(rayon::current_num_threads().max(1)).clamp(1, 4 * TASK_ROWS);
    product.par_chunks_mut((part * columns).max(1)).enumerate().for_each(|(chunk, product)| {
        let range = chunk * part..(chunk * part + part).min(rows);
        multiply(1.0, left.part(range, 0..inner), right, 0.0, product, columns);
    });
    product
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    /// Both forms of the solution satisfy the normal equations.
    #[test]
    fn ridge_solves_its_equations() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
        for [count, depth, rows] in
            [[40, 23, 5], [23, 40, 5], [300, 280, 3], [280, 300, 3], [1, 4, 1]]
        {
            let mut numbers = |len: usize| -> Vec<f32> {
                (0..len).map(|_| random.random_range(-1.0..1.0)).collect()
            };
            let (x, errors) = (numbers(count * depth), numbers(count * rows));
            let damping = 0.1 * count as f64;
            let found =
                ridge(&x, &errors, [count, depth, rows], damping).expect("positive definite");
            for row in 0..rows {
                let w = |column: usize| f64::from(found[row * depth + column]);
                let missing = |at: usize| {
                    let sum: f64 = (0..depth)
                        .map(|column| f64::from(x[at * depth + column]) * w(column))
                        .sum();
                    f64::from(errors[at * rows + row]) - sum
                };
                let missing: Vec<f64> = (0..count).map(missing).collect();
                for column in 0..depth {
                    let pull: f64 =
                        (0..count).map(|at| f64::from(x[at * depth + column]) * missing[at]).sum();
                    assert!(
                        (pull - damping * w(column)).abs() < 1e-3,
                        "{count} {depth}: {pull} {}",
                        w(column)
                    );
                }
            }
        }
    }
}
