//! Recalibration after pruning: restores the mean and the variance per channel that every
//! convolution's output had in the baseline.
//!
//! The method is the recomputation of batch normalization statistics (Li et al., "EagleEye", ECCV
//! 2020), for networks with normalization folded into the weights. Layers are corrected in
//! execution order on one set of images, each on top of the corrections before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use paretune_kernels::operator::Operator;
use paretune_kernels::weights::IntegerWeights;
use paretune_kernels::{Plan, Step, ValueId, WeightValues, Weights};
use rayon::prelude::*;

use super::calibration::Calibration;
use super::error::CompressError;
use super::layerwise::{Visitor, run_layerwise};
use super::quantize::round_real;
use super::statistics::{Moments, ValueStatistics};

/// Bound of the factor by which a channel is scaled, and of its inverse: a channel that has all but
/// died has nothing left worth amplifying.
const MAX_SCALE: f64 = 4.0;

/// Corrects weights and biases of all convolutions of `plan` on normalized `images`.
///
/// `calibration` holds the baseline statistics of the remaining channels. With `ranges`, also
/// returns statistics of all values after the correction.
pub(super) fn recalibrate(
    plan: &mut Plan,
    calibration: &Calibration,
    images: &[f32],
    threads: usize,
    ranges: bool,
) -> Result<Option<Calibration>, CompressError> {
    let count = images.len() / plan.values[plan.input].len().max(1);
    let f32_plan = in_single_precision(plan);
    let mut recalibration = Recalibration {
        plan: &f32_plan,
        calibration,
        count,
        corrections: BTreeMap::new(),
        statistics: ranges.then(|| Calibration {
            images: count as u64,
            values: vec![ValueStatistics::default(); plan.values.len()],
            convolutions: BTreeMap::new(),
            information: BTreeMap::new(),
        }),
    };
    run_layerwise(&f32_plan, images, threads, &mut recalibration)?;
    let Recalibration { corrections, statistics, .. } = recalibration;
    for step in &mut plan.steps {
        let Operator::Conv(conv) = &mut step.operator else { continue };
        if let Some(affine) = corrections.get(&step.name) {
            // Weights may be shared between steps, but corrections are not.
            plan.weights.push(corrected(&step.name, &plan.weights[conv.weights], affine)?);
            conv.weights = plan.weights.len() - 1;
        }
    }
    Ok(statistics)
}

/// Scale and offset of one channel.
type Affine = (f64, f64);

struct Recalibration<'a> {
    plan: &'a Plan,
    calibration: &'a Calibration,
    count: usize,
    corrections: BTreeMap<String, Vec<Affine>>,
    statistics: Option<Calibration>,
}

impl Visitor for Recalibration<'_> {
    fn after_conv(&mut self, step: &Step, result: &mut [f32]) {
        let Some(target) = self.calibration.convolutions.get(&step.name) else { return };
        let channels = target.mean.len();
        let mut current = Moments::default();
        current.extend(channels, self.count, result);
        let affine: Vec<Affine> =
            (0..channels).map(|channel| correction(target, &current, channel)).collect();
        let plane = (result.len() / (channels * self.count).max(1)).max(1);
        result.par_chunks_mut(plane).enumerate().for_each(|(index, plane)| {
            let (scale, offset) = affine[index % channels];
            let (scale, offset) = (scale as f32, offset as f32);
            plane.iter_mut().for_each(|x| *x = scale * *x + offset);
        });
        if let Some(statistics) = &mut self.statistics {
            let exact = Moments { count: current.count, ..target.clone() };
            statistics.convolutions.insert(step.name.clone(), exact);
        }
        self.corrections.insert(step.name.clone(), affine);
    }

    fn on_value(&mut self, value: ValueId, data: &[f32]) {
        if let Some(statistics) = &mut self.statistics {
            let channels = self.plan.values[value].dims.first().copied().unwrap_or(1);
            statistics.values[value].extend(channels, self.count, data);
        }
    }
}

/// Returns scale and offset that map a channel's current moments to its target moments.
fn correction(target: &Moments, current: &Moments, channel: usize) -> Affine {
    let (target_variance, variance) = (target.variance[channel], current.variance[channel]);
    let ratio = (target_variance / variance).sqrt();
    // This is also false if both variances vanish.
    let scale = if ratio > 0.0 { ratio.clamp(MAX_SCALE.recip(), MAX_SCALE) } else { 1.0 };
    (scale, target.mean[channel] - scale * current.mean[channel])
}

fn corrected(step: &str, weights: &Weights, affine: &[Affine]) -> Result<Weights, CompressError> {
    let scale = |x: f32, row: usize| (f64::from(x) * affine[row].0) as f32;
    let values = match &weights.values {
        WeightValues::F32(values) | WeightValues::Bf16(values) | WeightValues::Fp16(values) => {
            let filter = (values.len() / affine.len().max(1)).max(1);
            let scaled = values.iter().enumerate().map(|(index, &x)| scale(x, index / filter));
            WeightValues::F32(scaled.collect())
        }
        WeightValues::Integer(integer) => {
            let scales = integer.scales.iter().enumerate().map(|(row, &x)| scale(x, row)).collect();
            WeightValues::Integer(IntegerWeights { scales, ..integer.clone() })
        }
    };
    let bias = affine.iter().enumerate().map(|(row, &(scale, offset))| {
        let old = weights.bias.as_ref().map_or(0.0, |bias| f64::from(bias[row]));
        (scale * old + offset) as f32
    });
    let corrected = Weights {
        dims: weights.dims,
        values,
        pattern: weights.pattern,
        bias: Some(bias.collect()),
    };
    round_real(step, corrected, weights.format().numbers)
}

/// Returns the network with integer weights converted to single precision.
fn in_single_precision(plan: &Plan) -> Plan {
    let mut f32_plan = plan.clone();
    for weights in &mut f32_plan.weights {
        let WeightValues::Integer(integer) = &weights.values else { continue };
        let filter = (integer.values.len() / integer.scales.len().max(1)).max(1);
        let values = integer.values.chunks(filter).zip(&*integer.scales);
        let values: Arc<[f32]> = values
            .flat_map(|(filter, &scale)| filter.iter().map(move |&q| f32::from(q) * scale))
            .collect();
        weights.values = WeightValues::F32(values);
    }
    f32_plan
}
