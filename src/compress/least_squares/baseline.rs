//! Outputs of the baseline, the targets of the fit.

use std::collections::BTreeMap;

use paretune_kernels::operator::Operator;
use paretune_kernels::{Plan, Step};

use super::samples::Samples;
use crate::error::CompressError;
use crate::layerwise::{Visitor, run_layerwise};

/// Output positions of a layer that are sampled, per weight of one of its filters.
const SAMPLES_PER_WEIGHT: usize = 6;
/// Smallest number of sampled positions, if the images have that many.
const MIN_SAMPLES: usize = 8192;
/// Largest number of sampled positions.
const MAX_SAMPLES: usize = 16384;

/// Outputs of the baseline at sampled positions, for every convolution with its bias and residual,
/// before its activation. One instance serves every compression of the network.
#[derive(Clone, Debug)]
pub struct BaselineOutputs {
    pub(super) images: usize,
    /// By step: the positions sampled in each image, and the outputs there as `[sample][channel]`.
    pub(super) conv_outputs: BTreeMap<String, (usize, Vec<f32>)>,
}

impl BaselineOutputs {
    /// Runs the baseline on normalized images, one after another.
    ///
    /// # Errors
    ///
    /// Fails if the network cannot be executed or there is no image.
    pub fn collect(plan: &Plan, images: &[f32], threads: usize) -> Result<Self, CompressError> {
        let count = images.len() / plan.values[plan.input].len().max(1);
        let mut collector =
            Collector { plan, outputs: Self { images: count, conv_outputs: BTreeMap::new() } };
        run_layerwise(plan, images, threads, &mut collector)?;
        Ok(collector.outputs)
    }

    /// Returns the number of images seen.
    #[must_use]
    pub fn images(&self) -> usize {
        self.images
    }
}

struct Collector<'a> {
    plan: &'a Plan,
    outputs: BaselineOutputs,
}

impl Visitor for Collector<'_> {
    fn after_residual(&mut self, step: &Step, sum: &[f32]) {
        let Operator::Conv(conv) = &step.operator else { return };
        let depth: usize = self.plan.weights[conv.weights].dims[1..].iter().product();
        let per_image = (SAMPLES_PER_WEIGHT * depth)
            .clamp(MIN_SAMPLES, MAX_SAMPLES)
            .div_ceil(self.outputs.images.max(1));
        let samples = Samples::of(self.plan, step, self.outputs.images, per_image);
        self.outputs
            .conv_outputs
            .insert(step.name.clone(), (per_image, samples.gather(sum, samples.channels)));
    }
}
