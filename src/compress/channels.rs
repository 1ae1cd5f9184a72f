//! Channel pruning: ranks the channels of each group and removes the last ones, which leaves a
//! smaller dense network.

use std::collections::BTreeMap;
use std::sync::Arc;

use paretune_kernels::operator::Operator;
use paretune_kernels::plan::tensor::{Picks, TensorOperator};
use paretune_kernels::{Plan, WeightValues, Weights};

use super::calibration::Calibration;
use super::error::CompressError;
use super::groups::{Group, groups, is_dense_conv};
use super::mask::ChannelMask;
use super::recipe::{ChannelCriterion, Recipe};

/// Chooses the channels that are kept under `recipe`.
pub(super) fn choose(
    plan: &Plan,
    calibration: &Calibration,
    recipe: &Recipe,
) -> Result<ChannelMask, CompressError> {
    let mut keep = ChannelMask::full(plan);
    if recipe.channels.is_empty() {
        return Ok(keep);
    }
    let groups = groups(plan)?;
    let by_name: BTreeMap<&str, &Group> =
        groups.iter().map(|group| (group.info.name.as_str(), group)).collect();
    for (name, &fraction) in &recipe.channels {
        let group = by_name.get(name.as_str()).ok_or_else(|| {
            CompressError::Recipe(format!("the network has no channel group `{name}`"))
        })?;
        if fraction >= 1.0 {
            continue;
        }
        if let Some(why) = group.info.pinned {
            return Err(CompressError::Recipe(format!(
                "channel group `{name}` cannot be pruned: it {why}"
            )));
        }
        let scores = scores(plan, calibration, group, recipe.criterion)?;
        let mut order: Vec<usize> = (0..scores.len()).collect();
        // Best first; among equals the first one stays.
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        for &channel in &order[group.info.kept(fraction)..] {
            keep.remove(&group.channels[channel]);
        }
    }
    Ok(keep)
}

/// Scores each channel of a group; higher scores are kept longer.
pub(super) fn scores(
    plan: &Plan,
    calibration: &Calibration,
    group: &Group,
    criterion: ChannelCriterion,
) -> Result<Vec<f64>, CompressError> {
    match criterion {
        ChannelCriterion::Magnitude => magnitude(plan, group),
        ChannelCriterion::Variance => variance(plan, calibration, group),
        ChannelCriterion::Fisher => fisher(calibration, group),
    }
}

/// Returns the Fisher information of the channels from the calibration.
fn fisher(calibration: &Calibration, group: &Group) -> Result<Vec<f64>, CompressError> {
    let name = &group.info.name;
    let known =
        calibration.information.get(name).filter(|known| known.len() == group.channels.len());
    known.cloned().ok_or_else(|| {
        CompressError::Calibration(format!(
            "the information of channel group `{name}` was not measured"
        ))
    })
}

/// Returns the weights of a layer in single precision.
pub(crate) fn f32_weights<'a>(
    step: &str,
    weights: &'a Weights,
) -> Result<&'a [f32], CompressError> {
    match &weights.values {
        WeightValues::F32(values) => Ok(values),
        WeightValues::Bf16(_) | WeightValues::Fp16(_) | WeightValues::Integer(_) => {
            Err(CompressError::plan(step, "its weights are not in single precision"))
        }
    }
}

/// Scores channels by the sum of absolute weights of their filters, relative to the producer's
/// mean.
fn magnitude(plan: &Plan, group: &Group) -> Result<Vec<f64>, CompressError> {
    let mut scores = vec![0.0; group.channels.len()];
    for step in &plan.steps {
        let Operator::Conv(conv) = &step.operator else { continue };
        if !is_dense_conv(plan, step) {
            continue;
        }
        let weights = &plan.weights[conv.weights];
        let values = f32_weights(&step.name, weights)?;
        let filter = values.len() / weights.dims[0].max(1);
        let norms: Vec<f64> = group
            .channels
            .iter()
            .map(|places| {
                let rows = places.iter().filter(|&&(value, _)| value == step.output);
                rows.flat_map(|&(_, row)| &values[row * filter..][..filter])
                    .map(|&x| f64::from(x.abs()))
                    .sum()
            })
            .collect();
        let total: f64 = norms.iter().sum();
        if total > 0.0 {
            let mean = total / norms.len() as f64;
            scores.iter_mut().zip(&norms).for_each(|(score, norm)| *score += norm / mean);
        }
    }
    Ok(scores)
}

/// Scores channels by the mean squared error of every consumer when the channel is replaced by its
/// mean, relative to the variance of the consumer's output. Channels are assumed to be independent.
fn variance(
    plan: &Plan,
    calibration: &Calibration,
    group: &Group,
) -> Result<Vec<f64>, CompressError> {
    let mut scores = vec![0.0; group.channels.len()];
    for step in &plan.steps {
        let Operator::Conv(conv) = &step.operator else { continue };
        if !is_dense_conv(plan, step) {
            continue;
        }
        let weights = &plan.weights[conv.weights];
        let values = f32_weights(&step.name, weights)?;
        let [rows, columns, height, width] = weights.dims;
        let taps = height * width;
        let spread = &calibration.values[step.inputs[0]].moments.variance;
        let output: f64 =
            calibration.convolutions.get(&step.name).map_or(0.0, |out| out.variance.iter().sum());
        for (score, places) in scores.iter_mut().zip(&group.channels) {
            for &(_, column) in places.iter().filter(|&&(value, _)| value == step.inputs[0]) {
                let power: f64 = (0..rows)
                    .flat_map(|row| &values[(row * columns + column) * taps..][..taps])
                    .map(|&x| f64::from(x) * f64::from(x))
                    .sum();
                *score += power * spread[column] / output.max(f64::MIN_POSITIVE);
            }
        }
    }
    Ok(scores)
}

/// Removes the channels that `keep` drops.
///
/// With `means`, biases of the consumers absorb the mean contribution of the removed channels
/// (exact away from padded borders).
pub(super) fn remove(
    plan: &Plan,
    keep: &ChannelMask,
    means: Option<&Calibration>,
) -> Result<Plan, CompressError> {
    let mut small = plan.clone();
    small.weights.clear();
    small.constants.clear();
    let mut unchanged = BTreeMap::new();
    for (value, spec) in small.values.iter_mut().enumerate() {
        if let Some(first) = spec.dims.first_mut() {
            *first = keep.of(value).iter().filter(|&&keep| keep).count();
        }
    }
    for (step, old) in small.steps.iter_mut().zip(&plan.steps) {
        match &mut step.operator {
            Operator::Conv(conv) => {
                let (input, output) = (old.inputs[0], old.output);
                if keep.is_full(input) && keep.is_full(output) {
                    conv.weights = *unchanged.entry(conv.weights).or_insert_with(|| {
                        small.weights.push(plan.weights[conv.weights].clone());
                        small.weights.len() - 1
                    });
                    continue;
                }
                let weights = &plan.weights[conv.weights];
                let sliced = if is_dense_conv(plan, old) {
                    let mean =
                        means.map(|calibration| calibration.values[input].moments.mean.as_slice());
                    slice(&old.name, weights, keep.of(output), keep.of(input), mean)?
                } else {
                    conv.groups = keep.of(input).iter().filter(|&&keep| keep).count();
                    slice(&old.name, weights, keep.of(output), &[true], None)?
                };
                small.weights.push(sliced);
                conv.weights = small.weights.len() - 1;
            }
            Operator::ScaleShift { scale, shift, .. } => {
                for index in [scale, shift] {
                    small.constants.push(rows(&plan.constants[*index], keep.of(old.output)));
                    *index = small.constants.len() - 1;
                }
            }
            Operator::Constant { constant } => {
                small.constants.push(rows(&plan.constants[*constant], keep.of(old.output)));
                *constant = small.constants.len() - 1;
            }
            Operator::Tensor(TensorOperator::Select { axis: 0, picks }) => {
                *picks = remaining(picks, keep.of(old.inputs[0]), keep.of(old.output));
            }
            _ => {}
        }
    }
    Ok(small)
}

/// Returns the positions of the kept outputs among the kept inputs of a selection of channels.
fn remaining(picks: &Picks, inputs: &[bool], outputs: &[bool]) -> Picks {
    if inputs.iter().chain(outputs).all(|&keep| keep) {
        return picks.clone();
    }
    let place = |at: usize| inputs[..at].iter().filter(|&&keep| keep).count() as u32;
    let kept = outputs.iter().enumerate().filter(|&(_, &keep)| keep);
    Picks::List(kept.map(|(index, _)| picks.at(index).map_or(Picks::NONE, place)).collect())
}

/// Returns the parts of `tensor`'s first axis that `keep` keeps.
fn rows(tensor: &Arc<[f32]>, keep: &[bool]) -> Arc<[f32]> {
    if keep.iter().all(|&keep| keep) {
        return Arc::clone(tensor);
    }
    let row = tensor.len() / keep.len();
    tensor
        .chunks(row.max(1))
        .zip(keep)
        .filter(|&(_, &keep)| keep)
        .flat_map(|(row, _)| row)
        .copied()
        .collect()
}

/// Returns the filters of `keep_out` with the input channels of `keep_in`.
fn slice(
    step: &str,
    weights: &Weights,
    keep_out: &[bool],
    keep_in: &[bool],
    mean: Option<&[f64]>,
) -> Result<Weights, CompressError> {
    let values = f32_weights(step, weights)?;
    let [_, columns, height, width] = weights.dims;
    let taps = height * width;
    let mut kept = Vec::new();
    let mut bias = Vec::new();
    for (row, filter) in values.chunks(columns * taps).enumerate().filter(|&(row, _)| keep_out[row])
    {
        let mut lost = 0.0;
        for (column, kernel) in filter.chunks(taps).enumerate() {
            if keep_in[column] {
                kept.extend_from_slice(kernel);
            } else if let Some(mean) = mean {
                lost += mean[column] * kernel.iter().map(|&x| f64::from(x)).sum::<f64>();
            }
        }
        bias.push((weights.bias.as_ref().map_or(0.0, |bias| f64::from(bias[row])) + lost) as f32);
    }
    let has_bias = weights.bias.is_some() || (mean.is_some() && keep_in.iter().any(|&keep| !keep));
    Ok(Weights {
        dims: [bias.len(), keep_in.iter().filter(|&&keep| keep).count(), height, width],
        values: WeightValues::F32(kept.into()),
        pattern: weights.pattern,
        bias: has_bias.then(|| bias.into()),
    })
}
