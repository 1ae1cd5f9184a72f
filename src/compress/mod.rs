//! Compression: what changes a network's numbers.
//!
//! A [`Recipe`] says how many channels of each [`ChannelGroup`] stay, how many weights of each layer
//! become zero and which layers run on 8-bit integers; [`apply`] turns a single-precision plan into the
//! compressed one. [`Calibration`] holds what must be known of the network's activations for that.
//! Which recipe is worth trying, and how each layer is then scheduled, is left to the study.

mod calibration;
mod channels;
mod error;
mod groups;
mod layers;
mod quantize;
mod recipe;
mod repair;
mod sparsity;
mod statistics;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;

use paretune_kernels::executor::validate;
use paretune_kernels::operator::Operator;
use paretune_kernels::{Plan, WeightValues};

pub use calibration::Calibration;
pub use error::CompressError;
pub use groups::{ChannelGroup, channel_groups};
pub use layers::{LayerInfo, layers};
pub use recipe::{ChannelCriterion, LayerRecipe, Recipe};
pub use statistics::{Histogram, Moments, ValueStatistics};

/// Compresses a network. Schedules are left as they are.
///
/// With [`Recipe::repair`], biases take over what removed channels, removed weights and rounding
/// contributed on average, which the calibration tells.
///
/// # Errors
/// Where the recipe asks for what the network does not have, the calibration is of another network, or
/// the plan's weights are not in single precision.
pub fn apply(plan: &Plan, calibration: &Calibration, recipe: &Recipe) -> Result<Plan, CompressError> {
    let (mut small, calibration) = prune(plan, calibration, recipe)?;
    finish(&mut small, &calibration, recipe)?;
    Ok(small)
}

/// [`apply`], and where the recipe prunes and repairs, statistics re-estimated on normalized `images` one
/// after another; best those that the calibration has seen, or some of them, as the two are compared.
/// Ranges of 8-bit values are then those of the repaired network.
///
/// # Errors
/// As [`apply`], and where there is no image.
pub fn apply_with_repair(
    plan: &Plan,
    calibration: &Calibration,
    recipe: &Recipe,
    images: &[f32],
    threads: usize,
) -> Result<Plan, CompressError> {
    let (mut small, mut calibration) = prune(plan, calibration, recipe)?;
    if recipe.repair && recipe.prunes() {
        let rounds = recipe.layers.values().any(|layer| layer.numbers.is_integer());
        if let Some(seen) = repair::correct(&mut small, &calibration, images, threads, rounds)? {
            calibration = seen;
        }
    }
    finish(&mut small, &calibration, recipe)?;
    Ok(small)
}

/// Removes channels and weights; also returns the calibration of what is left.
fn prune(
    plan: &Plan,
    calibration: &Calibration,
    recipe: &Recipe,
) -> Result<(Plan, Calibration), CompressError> {
    validate(plan, 1)?;
    recipe.validate()?;
    calibration.fits(plan)?;
    let layers = layers(plan)?;
    for (name, wanted) in &recipe.layers {
        let layer = layers
            .iter()
            .find(|layer| layer.step == *name)
            .ok_or_else(|| CompressError::Recipe(format!("the network has no layer `{name}`")))?;
        if wanted.sparsity > 0.0 && !layer.sparse {
            return Err(CompressError::Recipe(format!(
                "layer `{name}` is depthwise or grouped: no sparsity"
            )));
        }
    }
    let keep = channels::choose(plan, calibration, recipe)?;
    let mut small = channels::remove(plan, &keep, recipe.repair.then_some(calibration))?;
    let calibration = calibration.select(plan, &keep);
    for step in &mut small.steps {
        let Operator::Conv(conv) = &mut step.operator else { continue };
        let sparsity = recipe.layer(&step.name).sparsity;
        if sparsity > 0.0 {
            let mean = recipe.repair.then_some(calibration.values[step.inputs[0]].moments.mean.as_slice());
            let sparse = sparsity::sparsify(&step.name, &small.weights[conv.weights], sparsity, mean)?;
            small.weights.push(sparse);
            conv.weights = small.weights.len() - 1;
        }
    }
    Ok((small, calibration))
}

/// Rounds what is to be rounded and tidies up.
fn finish(plan: &mut Plan, calibration: &Calibration, recipe: &Recipe) -> Result<(), CompressError> {
    quantize::quantize(plan, calibration, |step| recipe.layer(step).numbers.is_integer(), recipe.repair)?;
    drop_unused(plan);
    plan.constants.iter_mut().for_each(flush);
    for weights in &mut plan.weights {
        if let WeightValues::F32(values) = &mut weights.values {
            flush(values);
        }
        weights.bias.iter_mut().for_each(flush);
    }
    Ok(validate(plan, 1)?)
}

/// Forgets weights that no step refers to any more.
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

/// Subnormal numbers contribute nothing and make processors slow.
fn flush(numbers: &mut Arc<[f32]>) {
    if numbers.iter().any(|x| x.is_subnormal()) {
        *numbers = numbers.iter().map(|&x| if x.is_subnormal() { 0.0 } else { x }).collect();
    }
}
