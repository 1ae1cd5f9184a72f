//! Pruning by the alternating direction method of multipliers (ADMM), for layers that are too large
//! for elimination. All of it is matrix products.
//!
//! Each iteration updates dense weights, sparse weights, and the multipliers that pull the former
//! towards the latter, while the fraction of zeros grows (Boža, "Fast and Effective Weight Update
//! for Pruned Large Language Models", TMLR 2024). One inverse serves all rows and all levels.

use crate::linalg::{View, multiply};
use rayon::prelude::*;

use super::quadratic::Quadratic;
use super::units::Units;
use crate::error::CompressError;

/// Iterations that choose zeros, for the first level and for each later one.
const MASK_ITERATIONS: [usize; 2] = [12, 6];
/// Iterations with a fixed mask, in which the remaining weights settle.
const WEIGHT_ITERATIONS: usize = 10;
/// Rows of one parallel task.
const TASK_ROWS: usize = 32;

/// Returns the weights (rows times columns) for each of the ascending `levels`.
pub(super) fn prune(
    quadratic: &Quadratic,
    weights: &[f32],
    units: &Units,
    levels: &[f64],
) -> Result<Vec<Vec<f32>>, CompressError> {
    let size = quadratic.size;
    // Columns are scaled to equal variance, so that sizes of weights can be compared.
    let spread: Vec<f32> = quadratic.diagonal().map(f32::sqrt).collect();
    let mut even = vec![0.0; size * size];
    even.par_chunks_mut(size).enumerate().for_each(|(row, even)| {
        for (column, x) in even.iter_mut().enumerate() {
            *x = quadratic.matrix[row * size + column] / (spread[row] * spread[column]);
        }
    });
    let even = Quadratic { size, matrix: even };
    let wanted: Vec<f32> =
        weights.chunks(size).flat_map(|row| row.iter().zip(&spread).map(|(w, s)| w * s)).collect();
    let target = product(&wanted, &even.matrix, size);
    let inverse = even.inverse(1.0)?;
    drop(even);

    let mut free = wanted;
    let mut multipliers = vec![0.0f32; free.len()];
    let mut keep = vec![true; free.len()];
    let mut before = 0.0f64;
    let mut found = Vec::with_capacity(levels.len());
    for (index, &level) in levels.iter().enumerate() {
        let mask_iterations = MASK_ITERATIONS[index.min(1)];
        for iteration in 0..mask_iterations + WEIGHT_ITERATIONS {
            if iteration < mask_iterations {
                // The fraction grows fast at first, when removal costs nothing.
                let fraction = ((iteration + 1) as f64 / mask_iterations as f64).cbrt();
                let fraction = before + (level - before) * fraction;
                keep = units.largest(free.len() / size, size, fraction, |index| {
                    (free[index] + multipliers[index]).powi(2)
                });
            }
            let pull: Vec<f32> = free
                .par_iter()
                .zip(&mut multipliers)
                .zip(&target)
                .zip(&keep)
                .with_min_len(1 << 14)
                .map(|(((&w, u), &target), &keep)| {
                    let z = if keep { w + *u } else { 0.0 };
                    *u += w - z;
                    target + z - *u
                })
                .collect();
            free = product(&pull, &inverse, size);
        }
        before = level;
        let fitted: Vec<f32> = free
            .iter()
            .zip(&multipliers)
            .zip(&keep)
            .enumerate()
            .map(|(index, ((w, u), &keep))| if keep { (w + u) / spread[index % size] } else { 0.0 })
            .collect();
        found.push(fitted);
    }
    Ok(found)
}

/// Multiplies rows by a symmetric matrix.
pub(super) fn product(rows: &[f32], matrix: &[f32], size: usize) -> Vec<f32> {
    let mut product = vec![0.0; rows.len()];
    product.par_chunks_mut(TASK_ROWS * size).zip(rows.par_chunks(TASK_ROWS * size)).for_each(
        |(product, rows)| {
            let count = rows.len() / size;
            multiply(
                1.0,
                View::new(rows, count, size),
                View::new(matrix, size, size),
                0.0,
                product,
                size,
            );
        },
    );
    product
}
