//! Pruning by exact elimination, one unit at a time: the next unit is always the one of least
//! increase in output error after all other weights compensate for it (ExactOBS: Frantar and
//! Alistarh, "Optimal Brain Compression", NeurIPS 2022, with blocks of rows that share their
//! zeros).
//!
//! A band of rows that share their zeros shares the inverse too, so blocks are cheaper than single
//! weights.

use crate::linalg::{add_scaled, dot};
use rayon::prelude::*;

use super::quadratic::Quadratic;
use super::units::Units;
use crate::error::CompressError;

/// Largest number of multiply-adds for which one layer is pruned exactly.
const MAX_MULTIPLY_ADDS: f64 = 1.2e11;

/// Order in which one band loses its units, with the cost of each.
struct Trace {
    units: Vec<usize>,
    costs: Vec<f64>,
}

/// Returns whether a layer is small enough for exact elimination.
pub(super) fn is_affordable(rows: usize, size: usize, units: &Units) -> bool {
    let bands = rows.div_ceil(units.rows) as f64;
    bands * (size as f64).powi(3) / 3.0 <= MAX_MULTIPLY_ADDS
}

/// Returns the mask of `weights` (rows times columns) for each of the ascending `levels`. The
/// fraction of zeros holds for the whole layer; costs decide how many each band loses.
pub(super) fn masks(
    quadratic: &Quadratic,
    weights: &[f32],
    units: &Units,
    levels: &[f64],
) -> Result<Vec<Vec<bool>>, CompressError> {
    let size = quadratic.size;
    let rows = weights.len() / size.max(1);
    let inverse = quadratic.inverse(0.0)?;
    let largest_level = levels.iter().copied().fold(0.0, f64::max);
    let bands: Vec<_> = units.bands(rows).collect();
    let traces: Vec<Trace> = bands
        .par_iter()
        .map(|band| {
            trace(
                &inverse,
                &weights[band.start * size..band.end * size],
                size,
                units,
                largest_level,
            )
        })
        .collect();
    let mut keep = vec![true; weights.len()];
    let mut next = vec![0; bands.len()];
    let mut removed = 0;
    // The costs of a band ascend. If removing one unit made the next cheaper, both are removed
    // together.
    let mut masks = Vec::with_capacity(levels.len());
    let cost =
        |band: usize, next: usize| traces[band].costs.get(next).copied().unwrap_or(f64::INFINITY);
    let mut heap: std::collections::BinaryHeap<std::cmp::Reverse<(Cost, usize)>> =
        (0..bands.len()).map(|band| std::cmp::Reverse((Cost(cost(band, 0)), band))).collect();
    for &level in levels {
        let targets = match units.n_of_m {
            Some(_) => usize::MAX,
            None => (level * weights.len() as f64).round() as usize,
        };
        while removed < targets
            && let Some(std::cmp::Reverse((Cost(least), band))) = heap.pop()
            && least.is_finite()
        {
            let unit = &units.columns[traces[band].units[next[band]]];
            next[band] += 1;
            for row in bands[band].clone() {
                unit.iter().for_each(|&column| keep[row * size + column] = false);
            }
            removed += unit.len() * bands[band].len();
            heap.push(std::cmp::Reverse((Cost(cost(band, next[band]).max(least)), band)));
        }
        masks.push(keep.clone());
    }
    Ok(masks)
}

/// Cost with a total order; never NaN for finite weights.
#[derive(PartialEq)]
struct Cost(f64);

impl Eq for Cost {}

impl PartialOrd for Cost {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Cost {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Removes units of one band until the fraction `largest_level` is gone and some more, because
/// bands lose unequal fractions.
fn trace(
    inverse: &[f32],
    weights: &[f32],
    size: usize,
    units: &Units,
    largest_level: f64,
) -> Trace {
    let rows = weights.len() / size.max(1);
    let mut state = Elimination {
        inverse: inverse.to_vec(),
        stride: size,
        columns: (0..size).collect(),
        places: (0..size).map(Some).collect(),
        weights: weights.to_vec(),
        rows,
        pivot: Vec::new(),
    };
    let mut quotas = units.quotas();
    let mut alive: Vec<usize> = (0..units.columns.len()).collect();
    let removals = match units.n_of_m {
        Some(_) => quotas.iter().sum(),
        None => ((0.5 + 0.5 * largest_level) * alive.len() as f64).ceil() as usize,
    };
    let mut trace =
        Trace { units: Vec::with_capacity(removals), costs: Vec::with_capacity(removals) };
    for _ in 0..removals.min(alive.len()) {
        let mut least = (f64::INFINITY, 0);
        for (index, &unit) in alive.iter().enumerate() {
            if !quotas.is_empty() && quotas[units.runs[unit]] == 0 {
                continue;
            }
            let cost = state.cost(&units.columns[unit]);
            if cost < least.0 {
                least = (cost, index);
            }
        }
        if least.0 == f64::INFINITY {
            break;
        }
        let unit = alive.swap_remove(least.1);
        units.columns[unit].iter().for_each(|&column| state.remove(column));
        if !quotas.is_empty() {
            quotas[units.runs[unit]] -= 1;
        }
        trace.units.push(unit);
        trace.costs.push(least.0);
    }
    trace
}

/// State of a band during elimination: weights and inverse over the remaining columns, packed
/// together.
struct Elimination {
    inverse: Vec<f32>,
    stride: usize,
    /// Column that is stored at each place.
    columns: Vec<usize>,
    /// Place of each column; `None` once it is removed.
    places: Vec<Option<usize>>,
    /// Weights by row and place, with row length `stride`.
    weights: Vec<f32>,
    rows: usize,
    pivot: Vec<f32>,
}

impl Elimination {
    /// Returns the cost of removing the unit.
    fn cost(&self, unit: &[usize]) -> f64 {
        if let [column] = unit {
            let Some(place) = self.places[*column] else { return f64::INFINITY };
            let square: f32 =
                (0..self.rows).map(|row| self.weights[row * self.stride + place].powi(2)).sum();
            return f64::from(square)
                / f64::from(self.inverse[place * self.stride + place]).max(1e-30);
        }
        let places: Vec<usize> = unit.iter().filter_map(|&column| self.places[column]).collect();
        let count = places.len();
        // Eliminates the unit's own columns from a copy of their part.
        let mut part: Vec<f64> = Vec::with_capacity(count * count);
        for &row in &places {
            part.extend(
                places.iter().map(|&column| f64::from(self.inverse[row * self.stride + column])),
            );
        }
        let mut values: Vec<f64> = Vec::with_capacity(self.rows * count);
        for row in 0..self.rows {
            values.extend(
                places.iter().map(|&place| f64::from(self.weights[row * self.stride + place])),
            );
        }
        let mut cost = 0.0;
        for pivot in 0..count {
            let diagonal = part[pivot * count + pivot].max(1e-30);
            for row in values.chunks_mut(count) {
                cost += row[pivot] * row[pivot] / diagonal;
                let factor = row[pivot] / diagonal;
                for other in pivot + 1..count {
                    row[other] -= factor * part[pivot * count + other];
                }
            }
            for row in pivot + 1..count {
                let factor = part[row * count + pivot] / diagonal;
                for column in pivot + 1..count {
                    part[row * count + column] -= factor * part[pivot * count + column];
                }
            }
        }
        cost
    }

    /// Sets one column to zero in all rows, lets the others compensate for it, and drops it.
    fn remove(&mut self, column: usize) {
        let Some(place) = self.places[column].take() else { return };
        let (stride, count) = (self.stride, self.columns.len());
        self.pivot.clear();
        self.pivot.extend_from_slice(&self.inverse[place * stride..][..count]);
        let inverse = self.pivot[place].max(1e-30).recip();
        for weights in self.weights.chunks_mut(stride) {
            let factor = weights[place] * inverse;
            add_scaled(&mut weights[..count], -factor, &self.pivot);
        }
        for (row, values) in self.inverse.chunks_mut(stride).enumerate().take(count) {
            let factor = self.pivot[row] * inverse;
            add_scaled(&mut values[..count], -factor, &self.pivot);
        }
        // The last place moves into the free one.
        let removals = count - 1;
        self.columns.swap_remove(place);
        if place != removals {
            self.places[self.columns[place]] = Some(place);
            self.inverse.copy_within(removals * stride..removals * stride + count, place * stride);
            for values in self.inverse.chunks_mut(stride).take(removals) {
                values[place] = values[removals];
            }
            for weights in self.weights.chunks_mut(stride) {
                weights[place] = weights[removals];
            }
        }
    }
}

/// Returns the optimal weights among those that are zero outside of `keep`.
pub(super) fn solve_support(
    quadratic: &Quadratic,
    weights: &[f32],
    keep: &[bool],
    units: &Units,
) -> Result<Vec<f32>, CompressError> {
    let size = quadratic.size;
    let mut fitted = vec![0.0f32; weights.len()];
    let bands: Vec<_> = units.bands(weights.len() / size.max(1)).collect();
    let results: Vec<Result<(), CompressError>> = fitted
        .par_chunks_mut(units.rows * size)
        .zip(&bands)
        .map(|(fitted, band)| {
            let keep = &keep[band.start * size..][..size];
            let support: Vec<usize> = (0..size).filter(|&column| keep[column]).collect();
            if support.is_empty() {
                return Ok(());
            }
            let factor = quadratic.factor(&support)?;
            let mut targets = Vec::with_capacity(band.len() * support.len());
            for row in band.clone() {
                let weights = &weights[row * size..][..size];
                targets.extend(
                    support.iter().map(|&column| f64::from(dot(quadratic.row(column), weights))),
                );
            }
            factor.solve_rows(&mut targets);
            for (fitted, solution) in fitted.chunks_mut(size).zip(targets.chunks(support.len())) {
                support.iter().zip(solution).for_each(|(&column, &x)| fitted[column] = x as f32);
            }
            Ok(())
        })
        .collect();
    results.into_iter().collect::<Result<(), _>>()?;
    Ok(fitted)
}
