//! Rounding to a grid so that the layer's output changes least.
//!
//! Columns are rounded one after another, and each compensates for the errors of those before it:
//! OBQ with a fixed order (Frantar et al., "GPTQ", ICLR 2023), computed as Babai's nearest plane on
//! the Cholesky factor, which is equivalent and needs no inverse (Chen et al., "The Geometry of LLM
//! Quantization", 2025). Columns of large variance come first. Then single values move by
//! coordinate descent while that helps, alternating with the best scale for the values found.
//! Several scales are tried, of both signs if the grid is not symmetric.

use crate::linalg::{View, add_scaled, dot, multiply};
use paretune_kernels::weights::Grid;
use rayon::prelude::*;

use super::quadratic::Quadratic;
use crate::error::CompressError;

/// Rows that are rounded together.
const TASK_ROWS: usize = 16;
/// Columns between two matrix products.
const BLOCK: usize = 64;
/// Rounds of descent, each with a new scale.
const ROUNDS: usize = 4;
/// Passes over all columns in one round.
const SWEEPS: usize = 3;
/// Multiply-adds above which fewer starting scales are tried.
const FEW_STARTS_ABOVE: f64 = 2e10;

/// Rows of weights on a grid.
pub(super) struct Rounded {
    /// Values as rows times columns.
    pub(super) values: Vec<i8>,
    /// Scale of each row of values.
    pub(super) scales: Vec<f32>,
}

/// Quadratic form prepared for rounding any number of times.
pub(super) struct Rounder<'q> {
    quadratic: &'q Quadratic,
    /// Column at each place; the last is rounded first.
    order: Vec<usize>,
    /// Lower triangle in that order, row-major.
    lower: Vec<f32>,
}

impl<'q> Rounder<'q> {
    pub(super) fn new(quadratic: &'q Quadratic) -> Result<Self, CompressError> {
        let diagonal: Vec<f32> = quadratic.diagonal().collect();
        let mut order: Vec<usize> = (0..quadratic.size).collect();
        order.sort_by(|&a, &b| diagonal[a].total_cmp(&diagonal[b]).then(a.cmp(&b)));
        let factor = quadratic.factor(&order)?;
        let lower = factor.lower().iter().map(|&x| x as f32).collect();
        Ok(Self { quadratic, order, lower })
    }

    /// Rounds `weights`, rows times columns. Weights outside of `keep` become zero.
    pub(super) fn round(&self, weights: &[f32], keep: Option<&[bool]>, grid: Grid) -> Rounded {
        let size = self.quadratic.size;
        let rows = weights.len() / size.max(1);
        let starts: &[f32] = match (grid, rows as f64 * (size * size) as f64 > FEW_STARTS_ABOVE) {
            (Grid::Bits8 | Grid::Bits6, _) => &[1.0],
            (Grid::Bits4, true) => &[1.0],
            (_, true) => &[1.0, 1.15],
            (Grid::Bits4, false) => &[1.0, 0.92, 1.08],
            (_, false) => &[1.0, 0.8, 0.9, 1.1, 1.2, 1.35, 1.5],
        };
        let parts: Vec<Rounded> = weights
            .par_chunks(TASK_ROWS * size)
            .enumerate()
            .map(|(index, part)| {
                let keep = keep.map(|keep| &keep[index * TASK_ROWS * size..][..part.len()]);
                self.chunk(part, keep, grid, starts)
            })
            .collect();
        let mut all =
            Rounded { values: Vec::with_capacity(weights.len()), scales: Vec::with_capacity(rows) };
        for part in parts {
            all.values.extend(part.values);
            all.scales.extend(part.scales);
        }
        all
    }

    fn chunk(&self, weights: &[f32], keep: Option<&[bool]>, grid: Grid, starts: &[f32]) -> Rounded {
        let size = self.quadratic.size;
        let rows = weights.len() / size;
        let matrix = View::new(&self.quadratic.matrix, size, size);
        let mut gradient = vec![0.0; weights.len()];
        multiply(1.0, View::new(weights, rows, size), matrix, 0.0, &mut gradient, size);
        let diagonal: Vec<f32> = self.quadratic.diagonal().collect();
        let clipped: Vec<f32> = (0..rows)
            .map(|row| {
                let keep = keep.map(|keep| &keep[row * size..][..size]);
                clipped_scale(&weights[row * size..][..size], keep, &diagonal, grid)
            })
            .collect();
        let mut best: Option<(Vec<f64>, Rounded)> = None;
        for &start in starts {
            let mut scales: Vec<f32> = clipped.iter().map(|scale| scale * start).collect();
            let mut values = self.nearest_plane(weights, keep, grid, &scales);
            let real: Vec<f32> = values.iter().map(|&q| f32::from(q)).collect();
            let mut products = vec![0.0; weights.len()];
            multiply(1.0, View::new(&real, rows, size), matrix, 0.0, &mut products, size);
            let mut errors = Vec::with_capacity(rows);
            for row in 0..rows {
                let at = row * size..(row + 1) * size;
                errors.push(self.descend(
                    &gradient[at.clone()],
                    &mut products[at.clone()],
                    keep.map(|keep| &keep[at.clone()]),
                    &mut values[at],
                    &mut scales[row],
                    grid,
                ));
            }
            match &mut best {
                None => best = Some((errors, Rounded { values, scales })),
                Some((least, found)) => {
                    for row in 0..rows {
                        if errors[row] >= least[row] {
                            continue;
                        }
                        least[row] = errors[row];
                        found.scales[row] = scales[row];
                        found.values[row * size..][..size]
                            .copy_from_slice(&values[row * size..][..size]);
                    }
                }
            }
        }
        best.map_or(Rounded { values: Vec::new(), scales: Vec::new() }, |(_, found)| found)
    }

    /// Rounds column by column, in blocks.
    fn nearest_plane(
        &self,
        weights: &[f32],
        keep: Option<&[bool]>,
        grid: Grid,
        scales: &[f32],
    ) -> Vec<i8> {
        let size = self.quadratic.size;
        let rows = scales.len();
        let mut values = vec![0i8; weights.len()];
        // Rounding errors, in the order of `self.order`.
        let mut errors = vec![0.0f32; weights.len()];
        let mut carried = vec![0.0f32; rows * BLOCK];
        let lower = View::new(&self.lower, size, size);
        for first in (0..size.div_ceil(BLOCK)).rev().map(|block| block * BLOCK) {
            let last = (first + BLOCK).min(size);
            let width = last - first;
            let done = View::new(&errors, rows, size).part(0..rows, last..size);
            multiply(1.0, done, lower.part(last..size, first..last), 0.0, &mut carried, width);
            let block = transposed(&self.lower, size, first..last);
            for row in 0..rows {
                let errors = &mut errors[row * size..][first..last];
                for place in (0..width).rev() {
                    let column = row * size + self.order[first + place];
                    let factors = &block[place * width..][..width];
                    let after = place + 1..width;
                    let sum =
                        carried[row * width + place] + dot(&factors[after.clone()], &errors[after]);
                    if keep.is_none_or(|keep| keep[column]) {
                        let wanted = weights[column] + sum / factors[place];
                        values[column] = on_grid(wanted / scales[row], grid);
                    }
                    errors[place] = weights[column] - f32::from(values[column]) * scales[row];
                }
            }
        }
        values
    }

    /// Improves one row by coordinate descent, given `gradient`, the matrix times the weights, and
    /// `products`, the matrix times the values. Returns the error up to a constant.
    fn descend(
        &self,
        gradient: &[f32],
        products: &mut [f32],
        keep: Option<&[bool]>,
        values: &mut [i8],
        scale: &mut f32,
        grid: Grid,
    ) -> f64 {
        for round in 0..ROUNDS {
            let (onto, square) = projections(values, gradient, products);
            if square > 0.0 && onto != 0.0 {
                *scale = (onto / square) as f32;
            }
            let mut moved = false;
            for _ in 0..SWEEPS {
                let mut changes = 0;
                for column in 0..values.len() {
                    if keep.is_some_and(|keep| !keep[column]) {
                        continue;
                    }
                    let row = self.quadratic.row(column);
                    let step = (gradient[column] / *scale - products[column]) / row[column];
                    let old = values[column];
                    let new = on_grid(f32::from(old) + step, grid);
                    if new != old {
                        values[column] = new;
                        let change = f32::from(new) - f32::from(old);
                        add_scaled(products, change, row);
                        changes += 1;
                    }
                }
                if changes == 0 {
                    break;
                }
                moved = true;
            }
            if !moved && round > 0 {
                break;
            }
        }
        let (onto, square) = projections(values, gradient, products);
        if square > 0.0 && onto != 0.0 {
            *scale = (onto / square) as f32;
        }
        let scale = f64::from(*scale);
        scale * scale * square - 2.0 * scale * onto
    }
}

/// Returns the values' product with the weights, and with themselves.
fn projections(values: &[i8], gradient: &[f32], products: &[f32]) -> (f64, f64) {
    let mut sums = (0.0, 0.0);
    for ((&q, &v), &p) in values.iter().zip(gradient).zip(products) {
        let q = f64::from(q);
        sums.0 += q * f64::from(v);
        sums.1 += q * f64::from(p);
    }
    sums
}

/// Returns a transposed copy of a block on the diagonal.
fn transposed(lower: &[f32], size: usize, block: std::ops::Range<usize>) -> Vec<f32> {
    let width = block.len();
    let mut copy = vec![0.0; width * width];
    for (row, lower) in lower[block.start * size..].chunks(size).take(width).enumerate() {
        for (column, &x) in lower[block.clone()].iter().enumerate().take(row + 1) {
            copy[column * width + row] = x;
        }
    }
    copy
}

fn on_grid(x: f32, grid: Grid) -> i8 {
    let (low, high) = grid.levels();
    x.round_ties_even().clamp(f32::from(low), f32::from(high)) as i8
}

/// Returns the squared error, weighted by `importance`, of rounding to whole multiples of `scale`
/// within `ends`.
fn rounding_error(weights: &[f32], importance: &[f32], scale: f32, ends: [f32; 2]) -> f32 {
    const LANES: usize = 16;
    /// Adding and subtracting this constant rounds numbers below 2^22 to the nearest, ties to even,
    /// without a call.
    const ROUNDING_OFFSET: f32 = 12_582_912.0;
    let inverse = scale.recip();
    let lost = |x: f32, importance: f32| {
        let inside = (x * inverse).max(ends[0]).min(ends[1]);
        let lost = x - ((inside + ROUNDING_OFFSET) - ROUNDING_OFFSET) * scale;
        importance * lost * lost
    };
    let mut sums = [0.0f32; LANES];
    let (parts, rest) = weights.as_chunks::<LANES>();
    let (important, important_rest) = importance[..weights.len()].as_chunks::<LANES>();
    for (weights, importance) in parts.iter().zip(important) {
        for lane in 0..LANES {
            sums[lane] += lost(weights[lane], importance[lane]);
        }
    }
    let rest = rest.iter().zip(important_rest).map(|(&x, &importance)| lost(x, importance));
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

/// Returns the scale of least rounding error without compensation between columns. It is negative
/// if positive weights make better use of the longer end of the grid.
pub(crate) fn clipped_scale(
    weights: &[f32],
    keep: Option<&[bool]>,
    importance: &[f32],
    grid: Grid,
) -> f32 {
    let kept = |column: usize| keep.is_none_or(|keep| keep[column]);
    let (mut least, mut most) = (0.0f32, 0.0f32);
    for (column, &x) in weights.iter().enumerate() {
        if kept(column) {
            least = least.min(x);
            most = most.max(x);
        }
    }
    let importance: Vec<f32> = importance
        .iter()
        .enumerate()
        .map(|(column, &x)| if kept(column) { x } else { 0.0 })
        .collect();
    let (low, high) = grid.levels();
    let (low, high) = (-f32::from(low), f32::from(high));
    let signs: &[f32] = if low == high { &[1.0] } else { &[1.0, -1.0] };
    let mut best = (f64::INFINITY, 1.0);
    for &sign in signs {
        let widest = if sign > 0.0 {
            (most / high).max(-least / low)
        } else {
            (-least / high).max(most / low)
        };
        // Smaller weights underflow in single precision when multiplied with activations.
        if widest < 1e-30 {
            continue;
        }
        let (steps, by) =
            if matches!(grid, Grid::Bits8 | Grid::Bits6) { (16, 0.03) } else { (40, 0.02) };
        for ratio in 0..steps {
            let scale = sign * widest * (1.0 - by * ratio as f32);
            let error = rounding_error(weights, &importance, scale, [-low, high]);
            if f64::from(error) < best.0 {
                best = (f64::from(error), scale);
            }
        }
    }
    best.1
}
