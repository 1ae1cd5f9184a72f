//! Compression: what changes a network's numbers.
//!
//! A [`Recipe`] says how many channels of each [`ChannelGroup`] stay, how many weights of each layer
//! become zero and which layers run on 8-bit integers; [`apply`] turns a single-precision plan into the
//! compressed one. [`Calibration`] holds what must be known of the network's activations for that.
//! Which recipe is worth trying, and how each layer is then scheduled, is left to the study.

mod allocate;
mod budget;
mod calibration;
mod channels;
mod database;
mod error;
mod gradient;
mod groups;
mod layers;
mod linear;
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

/// Compresses a network, looking at each weight by itself. Schedules are left as they are.
///
/// With [`Recipe::repair`], biases take over what removed channels, removed weights and rounding
/// contributed on average, which the calibration tells.
///
/// # Errors
/// Where the recipe asks for what the network does not have, the calibration is of another network, or
/// the plan's weights are not in single precision.
pub fn apply(plan: &Plan, calibration: &Calibration, recipe: &Recipe) -> Result<Plan, CompressError> {
    let (mut small, calibration) = change(plan, calibration, None, recipe, None)?;
    finish(&mut small, &calibration)?;
    Ok(small)
}

/// Which channels of `plan`'s values are left after `recipe`.
///
/// # Errors
/// Where the recipe asks for what the network does not have, or the calibration is of another network.
pub fn kept(plan: &Plan, calibration: &Calibration, recipe: &Recipe) -> Result<Keep, CompressError> {
    recipe.validate()?;
    calibration.fits(plan)?;
    channels::choose(plan, calibration, recipe)
}

/// [`apply`], but reconstructed weights, if the recipe asks for them, come from `database`; and where the recipe
/// removes much and repairs, statistics are re-estimated on normalized `images` one after another. The calibration
/// is then best that of the very same images, as the two are compared: what differs between two samples is more
/// than what is lost to four bits. Ranges of 8-bit values are then those of the repaired network.
///
/// With `references`, made on these images or the first of them, the weights that are left when channels have
/// gone are fitted to what the original network computed there.
///
/// # Errors
/// As [`apply`], and where there is no image, or fewer than the references were made on.
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

/// What weights are fitted to when channels have gone.
struct Fit<'a> {
    references: &'a References,
    images: &'a [f32],
    threads: usize,
}

/// Removes channels, then replaces the weights of layers; also returns the calibration of what is left.
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

/// Weights of which each is looked at by itself.
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

/// The real `weights` of `step`, rounded to `numbers` where those are real too.
///
/// # Errors
/// Where one would become infinite.
fn rounded(step: &str, mut weights: Weights, numbers: Numbers) -> Result<Weights, CompressError> {
    let values = weights.values.rounded(numbers);
    weights.values = values.map_err(|beyond| CompressError::plan(step, beyond.to_string()))?;
    Ok(weights)
}

/// Puts grids on what integer layers touch and tidies up.
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
