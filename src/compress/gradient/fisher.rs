//! Fisher information of a mask over each channel: how much the network's output distribution
//! depends on it.
//!
//! A removed channel is replaced by its mean, which biases absorb. To second order, the change of
//! the output distribution is half the expected square of the derivative with respect to a mask on
//! the channel's deviation from its mean (Theis et al., "Faster gaze prediction with dense networks
//! and Fisher pruning", 2018). Channels that are removed together share one mask, whose derivatives
//! add up before they are squared (Liu et al., "Group Fisher Pruning", ICML 2021). Labels are not
//! needed: the expectation is over the network's own predictions.

use paretune_kernels::{Plan, ValueSpec};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;

use super::parameters::{Parameters, trainable};
use super::pointwise::softened;
use super::tape::Tape;
use crate::calibration::Calibration;
use crate::error::CompressError;
use crate::groups::{Group, is_dense_conv};

/// Largest number of images in a batch.
const BATCH: usize = 16;
/// Largest number of activations that one batch may hold.
const HELD: usize = 16 << 20;
/// Random directions of the output per image.
const DRAWS: usize = 2;
/// Temperature of the softmax. Trained networks are all but certain of images that they know;
/// softened predictions let their second and third choices count too.
const TEMPERATURE: f32 = 4.0;

/// Estimates the nats per image that removing each channel costs, to second order, by group and
/// channel, on normalized `images`, one after another.
///
/// # Errors
///
/// Fails if the network has a step without a derivative, or if there is no image.
pub(crate) fn channel_information(
    plan: &Plan,
    calibration: &Calibration,
    groups: &[Group],
    images: &[f32],
) -> Result<Vec<Vec<f64>>, CompressError> {
    trainable(plan)?;
    let len = plan.values[plan.input].len().max(1);
    let count = images.len() / len;
    if count == 0 {
        return Err(CompressError::Calibration("there are no images".into()));
    }
    // Every coordinate of every value belongs to one channel at most: an index over all groups.
    let mut starts = Vec::with_capacity(groups.len());
    let mut owners: Vec<Vec<Option<u32>>> = plan
        .values
        .iter()
        .map(|value| vec![None; value.dims.first().copied().unwrap_or(0)])
        .collect();
    let mut channels = 0;
    for group in groups {
        starts.push(channels);
        for places in &group.channels {
            places.iter().for_each(|&(value, index)| owners[value][index] = Some(channels as u32));
            channels += 1;
        }
    }
    let parameters = Parameters::of(plan);
    let numbers: usize = plan.values.iter().map(ValueSpec::len).sum();
    let batch = (HELD / numbers.max(1)).clamp(1, BATCH);
    let batches: Vec<(usize, &[f32])> =
        images[..count * len].chunks(batch * len).enumerate().collect();
    let sums: Vec<Vec<f64>> = batches
        .into_par_iter()
        .map(|(index, input)| {
            let batch = input.len() / len;
            let tape = Tape::forward(plan, &parameters, input, false);
            let output = tape.output();
            let mut random = Xoshiro256PlusPlus::seed_from_u64(index as u64);
            let mut squares = vec![0.0; channels];
            for _ in 0..DRAWS {
                let direction = directions(&output, output.len() / batch, &mut random);
                let mut gradients = vec![0.0f64; channels * batch];
                tape.backward(&parameters, &direction, [], None, &mut |read| {
                    if !is_dense_conv(plan, read.step) {
                        return;
                    }
                    let value = read.step.inputs[0];
                    let owners = &owners[value];
                    let means = &calibration.values[value].moments.mean;
                    let plane = read.value.len() / (owners.len() * batch).max(1);
                    let runs =
                        read.value.chunks(plane.max(1)).zip(read.gradient.chunks(plane.max(1)));
                    for (run, (values, gradient)) in runs.enumerate() {
                        let (channel, image) = (run / batch, run % batch);
                        let Some(owner) = owners[channel] else { continue };
                        let mean = means[channel] as f32;
                        let sum: f32 =
                            values.iter().zip(gradient).map(|(x, g)| (x - mean) * g).sum();
                        gradients[owner as usize * batch + image] += f64::from(sum);
                    }
                });
                for (square, gradients) in squares.iter_mut().zip(gradients.chunks(batch)) {
                    *square += gradients.iter().map(|gradient| gradient * gradient).sum::<f64>();
                }
            }
            squares
        })
        .collect();
    let mut total = vec![0.0; channels];
    for squares in &sums {
        total.iter_mut().zip(squares).for_each(|(total, square)| *total += square);
    }
    let per_image = 0.5 / (count * DRAWS) as f64;
    total.iter_mut().for_each(|sum| *sum *= per_image);
    let ends = starts.iter().skip(1).copied().chain([channels]);
    Ok(starts.iter().zip(ends).map(|(&start, end)| total[start..end].to_vec()).collect())
}

/// Draws one random direction per image whose expected outer product is the Fisher information of
/// the softened prediction with respect to the output: `diag(p) - p pᵀ`.
fn directions(output: &[f32], classes: usize, random: &mut Xoshiro256PlusPlus) -> Vec<f32> {
    let mut all = Vec::with_capacity(output.len());
    for output in output.chunks(classes.max(1)) {
        let p = softened(output, TEMPERATURE);
        let signed: Vec<f32> =
            p.iter().map(|p| if random.random_bool(0.5) { p.sqrt() } else { -p.sqrt() }).collect();
        let sum: f32 = p.iter().zip(&signed).map(|(p, signed)| p.sqrt() * signed).sum();
        all.extend(p.iter().zip(&signed).map(|(p, signed)| signed - p * sum));
    }
    all
}
