//! Compresses networks by changing their weights.
//!
//! A [`Recipe`] sets how many channels of each [`ChannelGroup`] stay, how many weights of each
//! layer become zero and which layers run on 8-bit integers. [`apply`] turns a single-precision
//! plan into the compressed one, with activation statistics from a [`Calibration`]. The study
//! chooses recipes and schedules layers.

mod allocate;
mod budget;
mod calibration;
mod channels;
mod database;
mod error;
mod gradient;
mod groups;
mod layers;
mod linalg;
mod quantize;
mod recipe;
mod reconstruct;
mod refit;
mod repair;
mod sparsity;
mod statistics;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;

use paretune_kernels::executor::validate;
use paretune_kernels::operator::Operator;
use paretune_kernels::weights::Numbers;
use paretune_kernels::{Plan, Weights};

pub use allocate::{allocate_channels, channel_costs};
pub use budget::{Level, allocate};
pub use calibration::Calibration;
pub use channels::Keep;
pub use database::{Database, Heard, SPARSITIES, Variant, seconds_to_prepare};
pub use error::CompressError;
pub use gradient::{Distillation, DistillationProgress, distill, trainable};
pub use groups::{ChannelGroup, channel_groups};
pub use layers::{LayerInfo, layers};
pub use recipe::{ChannelCriterion, LayerRecipe, Method, Recipe};
pub use refit::References;
pub use statistics::{Histogram, Moments, ValueStatistics};

/// Compresses a network by one-shot pruning and rounding. Schedules are left as they are.
///
/// With [`Recipe::repair`], biases absorb the mean contribution of removed channels, removed
/// weights and rounding, computed from the calibration.
///
/// # Errors
///
/// Fails if the recipe names a layer or group that the network does not have, if the calibration
/// belongs to another network, or if the plan's weights are not in single precision.
pub fn apply(plan: &Plan, calibration: &Calibration, recipe: &Recipe) -> Result<Plan, CompressError> {
    let (mut small, calibration) = change(plan, calibration, None, recipe, None)?;
    finish(&mut small, &calibration)?;
    Ok(small)
}

/// Returns the mask of the channels of `plan`'s values that `recipe` keeps.
///
/// # Errors
///
/// Fails if the recipe names a layer or group that the network does not have, or if the calibration
/// belongs to another network.
pub fn kept(plan: &Plan, calibration: &Calibration, recipe: &Recipe) -> Result<Keep, CompressError> {
    recipe.validate()?;
    calibration.fits(plan)?;
    channels::choose(plan, calibration, recipe)
}

/// Compresses a network like [`apply`], with reconstructed weights and recalibration.
///
/// If the recipe asks for reconstructed weights, they come from `database`. If it removes much and
/// recalibrates, channel statistics are re-estimated on normalized `images`, one after another, and
/// the ranges of 8-bit values are those of the recalibrated network. The calibration should then be
/// made on the same images: two samples differ by more than rounding to four bits costs.
///
/// With `references`, made on these images or the first of them, the remaining weights are fitted
/// by least squares to the outputs of the baseline after channels are removed.
///
/// # Errors
///
/// Fails like [`apply`], and if there is no image, or fewer than the references were made on.
pub fn apply_with_repair(
    plan: &Plan,
    calibration: &Calibration,
    database: Option<&Database>,
    recipe: &Recipe,
    images: &[f32],
    references: Option<&References>,
    threads: usize,
) -> Result<Plan, CompressError> {
    let fit = references.filter(|_| recipe.repair && recipe.removes_channels());
    let fit = fit.map(|references| Fit { references, images, threads });
    let (mut small, mut calibration) = change(plan, calibration, database, recipe, fit)?;
    if recipe.repair && recipe.disturbs() {
        let rounds = recipe.layers.values().any(|layer| layer.numbers.is_integer());
        if let Some(seen) = repair::correct(&mut small, &calibration, images, threads, rounds)? {
            calibration = seen;
        }
    }
    finish(&mut small, &calibration)?;
    Ok(small)
}

/// Targets of the least-squares fit after channels are removed.
struct Fit<'a> {
    references: &'a References,
    images: &'a [f32],
    threads: usize,
}

/// Removes channels, then replaces the weights of layers. Also returns the calibration restricted
/// to the remaining channels.
fn change(
    plan: &Plan,
    calibration: &Calibration,
    database: Option<&Database>,
    recipe: &Recipe,
    fit: Option<Fit<'_>>,
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
    if let Some(Fit { references, images, threads }) = fit {
        refit::refit(&mut small, &keep, references, images, threads)?;
    }
    let calibration = calibration.select(plan, &keep);
    for step in &mut small.steps {
        let Operator::Conv(conv) = &mut step.operator else { continue };
        let wanted = recipe.layer(&step.name);
        if wanted == LayerRecipe::default() {
            continue;
        }
        let left = &small.weights[conv.weights];
        let channels = [keep.of(step.inputs[0]), keep.of(step.output)];
        // Fitting may have changed weights that lost no channels themselves.
        let whole = plan.steps.iter().any(|original| match &original.operator {
            Operator::Conv(conv) => original.name == step.name && plan.weights[conv.weights] == *left,
            _ => false,
        });
        let made = match database.filter(|_| recipe.reconstructs(&wanted)) {
            Some(database) if whole => Some(database.variant(&step.name, &wanted)?.weights),
            Some(database) => database.remnant(&step.name, left, &wanted, channels)?,
            None => None,
        };
        let changed = match made {
            Some(made) => made,
            None => {
                let mean = &calibration.values[step.inputs[0]].moments.mean;
                let mean = recipe.repair.then_some(mean.as_slice());
                one_shot(&step.name, left, conv.groups, &wanted, mean)?
            }
        };
        small.weights.push(changed);
        conv.weights = small.weights.len() - 1;
    }
    Ok((small, calibration))
}

/// Prunes and rounds the weights of a layer one by one, without compensation.
fn one_shot(
    step: &str,
    weights: &Weights,
    groups: usize,
    wanted: &LayerRecipe,
    mean: Option<&[f64]>,
) -> Result<Weights, CompressError> {
    let mut weights = weights.clone();
    if wanted.sparsity > 0.0 {
        weights = sparsity::sparsify(step, &weights, wanted.pattern, wanted.sparsity, mean)?;
    }
    match wanted.numbers {
        Numbers::F32 | Numbers::Bf16 | Numbers::Fp16 => rounded(step, weights, wanted.numbers),
        Numbers::Integer(grid) => quantize::round(step, &weights, groups, grid, mean),
    }
}

/// Rounds the real `weights` of `step` to the real format `numbers`.
///
/// # Errors
///
/// Fails if a weight would become infinite.
fn rounded(step: &str, mut weights: Weights, numbers: Numbers) -> Result<Weights, CompressError> {
    let values = weights.values.rounded(numbers);
    weights.values = values.map_err(|beyond| CompressError::plan(step, beyond.to_string()))?;
    Ok(weights)
}

/// Sets the quantization grids, drops unused weights and flushes subnormal numbers.
fn finish(plan: &mut Plan, calibration: &Calibration) -> Result<(), CompressError> {
    quantize::set_grids(plan, calibration)?;
    drop_unused(plan);
    plan.constants.iter_mut().for_each(flush);
    for weights in &mut plan.weights {
        if let Some(values) = weights.values.reals_mut() {
            flush(values);
        }
        weights.bias.iter_mut().for_each(flush);
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
fn flush(numbers: &mut Arc<[f32]>) {
    if numbers.iter().any(|x| x.is_subnormal()) {
        *numbers = numbers.iter().map(|&x| if x.is_subnormal() { 0.0 } else { x }).collect();
    }
}
