//! Magnitude pruning of single weights: the smallest become zero.

use paretune_kernels::weights::Pattern;
use paretune_kernels::{WeightValues, Weights};

use super::channels::dense;
use super::error::CompressError;

/// Sets the given share of the weights to zero, the smallest first, and of equals the last ones first.
/// With the inputs' means (per input channel), the bias takes over what the removed weights contributed
/// on average (exact away from padded borders).
pub(super) fn sparsify(
    step: &str,
    weights: &Weights,
    sparsity: f64,
    mean: Option<&[f64]>,
) -> Result<Weights, CompressError> {
    let mut values = dense(step, weights)?.to_vec();
    if values.iter().any(|x| !x.is_finite()) {
        return Err(CompressError::plan(step, "a weight is not finite"));
    }
    let zeros = (sparsity * values.len() as f64).round() as usize;
    let mut lost = vec![0.0; weights.dims[0]];
    if zeros > 0 {
        let mut order: Vec<(u32, std::cmp::Reverse<usize>)> = values
            .iter()
            .enumerate()
            .map(|(index, x)| (x.abs().to_bits(), std::cmp::Reverse(index)))
            .collect();
        order.select_nth_unstable(zeros - 1);
        let [_, columns, height, width] = weights.dims;
        let taps = height * width;
        // In ascending order, so that rounding of the sums does not depend on the selection's.
        let mut removed: Vec<usize> = order[..zeros].iter().map(|&(_, index)| index.0).collect();
        removed.sort_unstable();
        for index in removed {
            if let Some(mean) = mean {
                lost[index / (columns * taps)] += mean[index / taps % columns] * f64::from(values[index]);
            }
            values[index] = 0.0;
        }
    }
    Ok(Weights {
        dims: weights.dims,
        values: WeightValues::F32(values.into()),
        pattern: Pattern::Unstructured,
        bias: corrected_bias(weights, mean.is_some().then_some(&lost)),
    })
}

/// The bias plus what was `lost` per output channel; unchanged where nothing was.
pub(super) fn corrected_bias(weights: &Weights, lost: Option<&Vec<f64>>) -> Option<std::sync::Arc<[f32]>> {
    let Some(lost) = lost.filter(|lost| lost.iter().any(|&x| x != 0.0)) else { return weights.bias.clone() };
    let old = |row: usize| weights.bias.as_ref().map_or(0.0, |bias| f64::from(bias[row]));
    Some(lost.iter().enumerate().map(|(row, lost)| (old(row) + lost) as f32).collect())
}
