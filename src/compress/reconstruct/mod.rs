//! Second-order reconstruction: chooses a layer's weights with fewer bits or many zeros so that the
//! layer's output changes least, given the covariance of its inputs on calibration images.
//!
//! [`Inputs`] sums up the inputs of a layer, and [`Layer`] makes compressed weights from them.
//! [`super::database`] keeps the results.

mod admm;
mod elimination;
mod inputs;
mod quadratic;
mod rounding;
#[cfg(test)]
mod tests;
mod units;

use std::sync::Arc;

use paretune_kernels::weights::{Grid, IntegerWeights, Pattern};
use paretune_kernels::{WeightValues, Weights};
use rayon::prelude::*;

pub(crate) use inputs::{Inputs, MAX_PATCHES};
pub(crate) use rounding::clipped_scale;
pub(crate) use units::Units;

use self::quadratic::Quadratic;
use self::rounding::Rounder;
use super::channels::f32_weights;
use super::error::CompressError;
use super::recipe::LayerRecipe;

/// Layer with the statistics of its inputs.
pub(crate) struct Layer<'a> {
    name: &'a str,
    weights: &'a Weights,
    values: &'a [f32],
    inputs: &'a Inputs,
    /// Quadratic form of each group.
    quadratics: Vec<Quadratic>,
}

/// Reconstructed weights and their error.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reconstruction {
    /// Weights, with a bias that compensates for the mean error.
    pub(crate) weights: Weights,
    /// Mean squared error of the layer's output, relative to the variance of the output.
    pub(crate) error: f64,
}

impl<'a> Layer<'a> {
    /// Creates the layer called `name`, whose weights are in single precision.
    pub(crate) fn new(
        name: &'a str,
        weights: &'a Weights,
        inputs: &'a Inputs,
    ) -> Result<Self, CompressError> {
        let values = f32_weights(name, weights)?;
        let groups = inputs.groups.len();
        let columns: usize = weights.dims[1..].iter().product();
        let fits = groups > 0
            && weights.dims[0].is_multiple_of(groups)
            && inputs.groups.iter().all(|group| {
                group.mean.len() == columns && group.covariance.len() == columns * (columns + 1) / 2
            });
        if !fits {
            return Err(CompressError::Calibration(format!(
                "the inputs of layer `{name}` have other dimensions"
            )));
        }
        if values.iter().any(|x| !x.is_finite()) {
            return Err(CompressError::plan(name, "a weight is not finite"));
        }
        let quadratics =
            inputs.groups.iter().map(|group| Quadratic::new(group, inputs.patches)).collect();
        Ok(Self { name, weights, values, inputs, quadratics })
    }

    /// Estimates the multiply-adds that `recipe` takes.
    pub(crate) fn work(&self, recipe: &LayerRecipe) -> f64 {
        let (rows, columns) = (self.weights.dims[0] as f64, self.quadratics[0].size as f64);
        let rounding =
            if recipe.numbers.is_integer() { 20.0 * rows * columns * columns } else { 0.0 };
        let bands = match recipe.pattern {
            Pattern::Blocks { outputs, .. } => (rows / f64::from(outputs.max(1))).ceil(),
            _ => rows,
        };
        let removing = if recipe.sparsity > 0.0 { bands * columns.powi(3) } else { 0.0 };
        rounding + removing + columns.powi(3)
    }

    /// Returns weights with the fraction of zeros of each of `levels`, which ascend. A pattern of N
    /// of M has only one level.
    pub(crate) fn pruned(
        &self,
        pattern: Pattern,
        levels: &[f64],
    ) -> Result<Vec<Reconstruction>, CompressError> {
        let [_, channels, height, width] = self.weights.dims;
        let (Some(units), [quadratic]) =
            (Units::new(pattern, channels, height * width), &self.quadratics[..])
        else {
            return Err(CompressError::Recipe(format!(
                "layer `{}` has no zeros in pattern {pattern}",
                self.name
            )));
        };
        let rows = self.weights.dims[0];
        let pruned = if elimination::is_affordable(rows, quadratic.size, &units) {
            let masks = elimination::masks(quadratic, self.values, &units, levels)?;
            masks
                .iter()
                .map(|keep| elimination::solve_support(quadratic, self.values, keep, &units))
                .collect::<Result<_, _>>()?
        } else {
            admm::prune(quadratic, self.values, &units, levels)?
        };
        Ok(pruned
            .into_iter()
            .map(|values| {
                self.with_compensated_bias(
                    &values.clone(),
                    WeightValues::F32(values.into()),
                    pattern,
                )
            })
            .collect())
    }

    /// Returns weights on `grid`. If `sparse` is given, its zeros stay zero and its pattern is
    /// kept.
    pub(crate) fn rounded(
        &self,
        grid: Grid,
        sparse: Option<&Weights>,
    ) -> Result<Reconstruction, CompressError> {
        let rows = self.weights.dims[0] / self.quadratics.len();
        let (pattern, keep): (Pattern, Option<Vec<bool>>) = match sparse {
            None => (self.weights.pattern, None),
            Some(sparse) => (
                sparse.pattern,
                Some(f32_weights(self.name, sparse)?.iter().map(|&x| x != 0.0).collect()),
            ),
        };
        let size = rows * self.quadratics[0].size;
        let round = |(group, quadratic): (usize, &Quadratic)| {
            let keep = keep.as_ref().map(|keep| &keep[group * size..][..size]);
            Ok(Rounder::new(quadratic)?.round(&self.values[group * size..][..size], keep, grid))
        };
        let parts: Vec<Result<_, CompressError>> =
            self.quadratics.par_iter().enumerate().map(round).collect();
        let (mut values, mut scales) = (Vec::with_capacity(self.values.len()), Vec::new());
        for part in parts {
            let part = part?;
            values.extend(part.values);
            scales.extend(part.scales);
        }
        let columns = self.quadratics[0].size;
        let real: Vec<f32> = values
            .iter()
            .enumerate()
            .map(|(index, &q)| f32::from(q) * scales[index / columns])
            .collect();
        let integer = IntegerWeights { values: values.into(), scales: scales.into(), grid };
        Ok(self.with_compensated_bias(&real, WeightValues::Integer(integer), pattern))
    }

    /// Returns `values`, whose real numbers are `real`, with the bias that compensates for the mean
    /// error.
    fn with_compensated_bias(
        &self,
        real: &[f32],
        values: WeightValues,
        pattern: Pattern,
    ) -> Reconstruction {
        let groups = self.quadratics.len();
        let columns = self.quadratics[0].size;
        let rows = self.weights.dims[0] / groups;
        let lost: Vec<f32> = self.values.iter().zip(real).map(|(x, y)| x - y).collect();
        let mut error = [0.0f64; 2];
        for (group, quadratic) in self.quadratics.iter().enumerate() {
            let part = group * rows * columns..(group + 1) * rows * columns;
            for (sum, values) in error.iter_mut().zip([&lost, self.values]) {
                let values = &values[part.clone()];
                let products = admm::product(values, &quadratic.matrix, columns);
                *sum += values.iter().zip(&products).map(|(x, y)| f64::from(x * y)).sum::<f64>();
            }
        }
        let bias: Arc<[f32]> = lost
            .chunks(columns)
            .enumerate()
            .map(|(row, lost)| {
                let mean = &self.inputs.groups[row / rows].mean;
                let shift: f64 = lost.iter().zip(mean).map(|(&x, mean)| f64::from(x) * mean).sum();
                let old = self.weights.bias.as_ref().map_or(0.0, |bias| f64::from(bias[row]));
                (old + shift) as f32
            })
            .collect();
        let weights = Weights { dims: self.weights.dims, values, pattern, bias: Some(bias) };
        Reconstruction {
            weights,
            error: if error[1] > 0.0 { (error[0] / error[1]).max(0.0) } else { 0.0 },
        }
    }
}
