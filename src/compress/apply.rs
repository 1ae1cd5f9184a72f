//! Applies a recipe to a network: removes channels, replaces the weights of layers, recalibrates.

use std::sync::Arc;

use paretune_kernels::executor::validate;
use paretune_kernels::operator::Operator;
use paretune_kernels::weights::Numbers;
use paretune_kernels::{Plan, Weights};

use super::calibration::Calibration;
use super::database::Database;
use super::error::CompressError;
use super::layers::layers;
use super::least_squares::BaselineOutputs;
use super::mask::ChannelMask;
use super::recipe::{LayerRecipe, Recipe};
use super::{channels, least_squares, quantize, recalibrate, sparsity};

/// Compresses a network by one-shot pruning and rounding. Schedules are left as they are.
///
/// With [`Recipe::recalibrate`], biases absorb the mean contribution of removed channels, removed
/// weights and rounding, computed from the calibration.
///
/// # Errors
///
/// Fails if the recipe names a layer or group that the network does not have, if the calibration
/// belongs to another network, or if the plan's weights are not in single precision.
pub fn apply(
    plan: &Plan,
    calibration: &Calibration,
    recipe: &Recipe,
) -> Result<Plan, CompressError> {
    let (mut small, calibration) = compress_weights(plan, calibration, None, recipe, None)?;
    finalize(&mut small, &calibration)?;
    Ok(small)
}

/// Returns the mask of the channels of `plan`'s values that `recipe` keeps.
///
/// # Errors
///
/// Fails if the recipe names a layer or group that the network does not have, or if the calibration
/// belongs to another network.
pub fn channel_mask(
    plan: &Plan,
    calibration: &Calibration,
    recipe: &Recipe,
) -> Result<ChannelMask, CompressError> {
    recipe.validate()?;
    calibration.check(plan)?;
    channels::choose(plan, calibration, recipe)
}

/// Compresses a network like [`apply`], with reconstructed weights and recalibration.
///
/// If the recipe asks for reconstructed weights, they come from `database`. If it removes much and
/// recalibrates, channel statistics are re-estimated on normalized `images`, one after another, and
/// the ranges of 8-bit values are those of the recalibrated network. The calibration should then be
/// made on the same images: two samples differ by more than rounding to four bits costs.
///
/// With `baseline_outputs`, made on these images or the first of them, the remaining weights are
/// fitted by least squares to the outputs of the baseline after channels are removed.
///
/// # Errors
///
/// Fails like [`apply`], and if there is no image, or fewer than the references were made on.
pub fn apply_recalibrated(
    plan: &Plan,
    calibration: &Calibration,
    database: Option<&Database>,
    recipe: &Recipe,
    images: &[f32],
    baseline_outputs: Option<&BaselineOutputs>,
    threads: usize,
) -> Result<Plan, CompressError> {
    let fit = baseline_outputs.filter(|_| recipe.recalibrate && recipe.removes_channels());
    let fit = fit.map(|baseline_outputs| FitTargets { baseline_outputs, images, threads });
    let (mut small, mut calibration) = compress_weights(plan, calibration, database, recipe, fit)?;
    if recipe.recalibrate && recipe.needs_recalibration() {
        let rounds = recipe.layers.values().any(|layer| layer.numbers.is_integer());
        if let Some(seen) =
            recalibrate::recalibrate(&mut small, &calibration, images, threads, rounds)?
        {
            calibration = seen;
        }
    }
    finalize(&mut small, &calibration)?;
    Ok(small)
}

/// Targets of the least-squares fit after channels are removed.
struct FitTargets<'a> {
    baseline_outputs: &'a BaselineOutputs,
    images: &'a [f32],
    threads: usize,
}

/// Removes channels, then replaces the weights of layers. Also returns the calibration restricted
/// to the remaining channels.
fn compress_weights(
    plan: &Plan,
    calibration: &Calibration,
    database: Option<&Database>,
    recipe: &Recipe,
    fit: Option<FitTargets<'_>>,
) -> Result<(Plan, Calibration), CompressError> {
    validate(plan, 1)?;
    recipe.validate()?;
    calibration.check(plan)?;
    let layers = layers(plan)?;
    for (name, requested) in &recipe.layers {
        let layer = layers
            .iter()
            .find(|layer| layer.step == *name)
            .ok_or_else(|| CompressError::Recipe(format!("the network has no layer `{name}`")))?;
        if requested.sparsity > 0.0 && !layer.sparse {
            return Err(CompressError::Recipe(format!(
                "layer `{name}` is depthwise or grouped: no sparsity"
            )));
        }
    }
    let keep = channels::choose(plan, calibration, recipe)?;
    let mut small = channels::remove(plan, &keep, recipe.recalibrate.then_some(calibration))?;
    if let Some(FitTargets { baseline_outputs, images, threads }) = fit {
        least_squares::fit(&mut small, &keep, baseline_outputs, images, threads)?;
    }
    let calibration = calibration.select(plan, &keep);
    for step in &mut small.steps {
        let Operator::Conv(conv) = &mut step.operator else { continue };
        let requested = recipe.layer(&step.name);
        if requested == LayerRecipe::default() {
            continue;
        }
        let remaining = &small.weights[conv.weights];
        let channels = [keep.of(step.inputs[0]), keep.of(step.output)];
        // Fitting may have changed weights that lost no channels themselves.
        let unchanged = plan.steps.iter().any(|baseline_step| match &baseline_step.operator {
            Operator::Conv(conv) => {
                baseline_step.name == step.name && plan.weights[conv.weights] == *remaining
            }
            _ => false,
        });
        let reconstructed = match database.filter(|_| recipe.reconstructs(&requested)) {
            Some(database) if unchanged => Some(database.variant(&step.name, &requested)?.weights),
            Some(database) => {
                database.pruned_variant(&step.name, remaining, &requested, channels)?
            }
            None => None,
        };
        let compressed = match reconstructed {
            Some(reconstructed) => reconstructed,
            None => {
                let mean = &calibration.values[step.inputs[0]].moments.mean;
                let mean = recipe.recalibrate.then_some(mean.as_slice());
                one_shot(&step.name, remaining, conv.groups, &requested, mean)?
            }
        };
        small.weights.push(compressed);
        conv.weights = small.weights.len() - 1;
    }
    Ok((small, calibration))
}

/// Prunes and rounds the weights of a layer one by one, without compensation.
fn one_shot(
    step: &str,
    weights: &Weights,
    groups: usize,
    requested: &LayerRecipe,
    mean: Option<&[f64]>,
) -> Result<Weights, CompressError> {
    let mut weights = weights.clone();
    if requested.sparsity > 0.0 {
        weights = sparsity::sparsify(step, &weights, requested.pattern, requested.sparsity, mean)?;
    }
    match requested.numbers {
        Numbers::F32 | Numbers::Bf16 | Numbers::Fp16 => {
            quantize::round_real(step, weights, requested.numbers)
        }
        Numbers::Integer(grid) => quantize::round(step, &weights, groups, grid, mean),
    }
}

/// Sets the quantization grids, drops unused weights and flushes subnormal numbers.
fn finalize(plan: &mut Plan, calibration: &Calibration) -> Result<(), CompressError> {
    quantize::set_grids(plan, calibration)?;
    drop_unused(plan);
    plan.constants.iter_mut().for_each(flush_subnormals);
    for weights in &mut plan.weights {
        if let Some(values) = weights.values.reals_mut() {
            flush_subnormals(values);
        }
        weights.bias.iter_mut().for_each(flush_subnormals);
    }
    Ok(validate(plan, 1)?)
}

/// Drops weights that no step refers to.
fn drop_unused(plan: &mut Plan) {
    let mut moved = vec![None; plan.weights.len()];
    let mut kept = Vec::new();
    for step in &mut plan.steps {
        if let Operator::Conv(conv) = &mut step.operator {
            conv.weights = *moved[conv.weights].get_or_insert_with(|| {
                kept.push(plan.weights[conv.weights].clone());
                kept.len() - 1
            });
        }
    }
    plan.weights = kept;
}

/// Sets subnormal numbers to zero: they contribute nothing and slow processors down.
fn flush_subnormals(numbers: &mut Arc<[f32]>) {
    if numbers.iter().any(|x| x.is_subnormal()) {
        *numbers = numbers.iter().map(|&x| if x.is_subnormal() { 0.0 } else { x }).collect();
    }
}
