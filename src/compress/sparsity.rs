//! Magnitude pruning: sets the smallest weights to zero, singly or in the units of a pattern.

use paretune_kernels::weights::Pattern;
use paretune_kernels::{WeightValues, Weights};

use super::channels::f32_weights;
use super::error::CompressError;
use super::reconstruct::Units;

/// Sets the fraction `sparsity` of the weights to zero, the smallest first. Among equal weights the
/// last ones go first. A pattern of N of M fixes the fraction itself.
///
/// With `mean`, the inputs' means per input channel, the bias absorbs the mean contribution of the
/// removed weights (exact away from padded borders).
pub(super) fn sparsify(
    step: &str,
    weights: &Weights,
    pattern: Pattern,
    sparsity: f64,
    mean: Option<&[f64]>,
) -> Result<Weights, CompressError> {
    let mut values = f32_weights(step, weights)?.to_vec();
    if values.iter().any(|x| !x.is_finite()) {
        return Err(CompressError::plan(step, "a weight is not finite"));
    }
    let [rows, channels, height, width] = weights.dims;
    let taps = height * width;
    let units = Units::new(pattern, channels, taps).ok_or_else(|| {
        CompressError::Recipe(format!("layer `{step}`: pattern {pattern} has no zeros"))
    })?;
    let keep =
        units.largest(rows, channels * taps, sparsity, |index| values[index] * values[index]);
    let mut lost = vec![0.0; rows];
    for (index, _) in keep.iter().enumerate().filter(|&(_, &keep)| !keep) {
        if let Some(mean) = mean {
            lost[index / (channels * taps)] +=
                mean[index / taps % channels] * f64::from(values[index]);
        }
        values[index] = 0.0;
    }
    Ok(Weights {
        dims: weights.dims,
        values: WeightValues::F32(values.into()),
        pattern,
        bias: corrected_bias(weights, mean.is_some().then_some(&lost)),
    })
}

/// Returns the bias plus `lost` per output channel, or the unchanged bias if nothing was lost.
pub(super) fn corrected_bias(
    weights: &Weights,
    lost: Option<&Vec<f64>>,
) -> Option<std::sync::Arc<[f32]>> {
    let Some(lost) = lost.filter(|lost| lost.iter().any(|&x| x != 0.0)) else {
        return weights.bias.clone();
    };
    let old = |row: usize| weights.bias.as_ref().map_or(0.0, |bias| f64::from(bias[row]));
    Some(lost.iter().enumerate().map(|(row, lost)| (old(row) + lost) as f32).collect())
}
