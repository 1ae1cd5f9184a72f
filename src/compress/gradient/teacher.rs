//! Teacher of a distillation: the baseline with its predictions and the features at its cut points.

use paretune_kernels::hardware::Isa;
use paretune_kernels::{Executor, ExecutorOptions, Plan, ValueId};

use super::movement;
use crate::error::CompressError;
use crate::mask::ChannelMask;

/// Baseline split at its cut points, the values that are all the rest of the network needs.
pub(super) struct Teacher {
    parts: Vec<Part>,
    batch: usize,
}

struct Part {
    executor: Executor,
    output: ValueId,
    dims: Vec<usize>,
    /// Result of the last batch, images one after another.
    result: Vec<f32>,
}

impl Teacher {
    /// Prepares `plan` for batches of `batch` images on the calling thread.
    pub(super) fn new(plan: &Plan, batch: usize) -> Result<Self, CompressError> {
        let options = ExecutorOptions { batch, threads: 1, isa: Isa::detect() };
        let mut parts = Vec::new();
        let (mut first, mut input) = (0, plan.input);
        for last in cuts(plan) {
            let mut part = plan.clone();
            part.steps = plan.steps[first..=last].to_vec();
            (part.input, part.output) = (input, plan.steps[last].output);
            let spec = &plan.values[part.output];
            parts.push(Part {
                executor: Executor::new(&part, &options)?,
                output: part.output,
                dims: spec.dims.clone(),
                result: vec![0.0; spec.len() * batch],
            });
            (first, input) = (last + 1, part.output);
        }
        Ok(Self { parts, batch })
    }

    /// Runs a whole batch of normalized `images`, one after another.
    pub(super) fn run(&mut self, images: &[f32]) -> Result<(), CompressError> {
        let mut input = images;
        for part in &mut self.parts {
            part.executor.run(input, &mut part.result)?;
            input = &part.result;
        }
        Ok(())
    }

    /// Returns the predictions for the last batch, images one after another.
    pub(super) fn predictions(&self) -> &[f32] {
        self.parts.last().map_or(&[], |part| &part.result)
    }

    /// Returns the features at the cut points for the last batch, `[channel][image][position]`,
    /// restricted to the channels of `keep`.
    pub(super) fn features<'a>(
        &'a self,
        keep: &'a ChannelMask,
    ) -> impl Iterator<Item = (ValueId, Vec<f32>)> + 'a {
        self.parts.iter().take(self.parts.len().saturating_sub(1)).map(|part| {
            let all = movement::interleave(&part.dims, self.batch, &part.result);
            let channel = self.batch * movement::image_stride(&part.dims);
            let kept =
                all.chunks(channel.max(1)).zip(keep.of(part.output)).filter(|&(_, &kept)| kept);
            (part.output, kept.flat_map(|(channel, _)| channel).copied().collect())
        })
    }

    /// Returns the number of values that [`Teacher::features`] returns.
    pub(super) fn feature_count(&self) -> usize {
        self.parts.len().saturating_sub(1)
    }
}

/// Returns the cut points: steps after which only their own result is needed, the last step
/// included.
fn cuts(plan: &Plan) -> Vec<usize> {
    let mut last_use = vec![0; plan.values.len()];
    for (index, step) in plan.steps.iter().enumerate() {
        step.inputs.iter().for_each(|&value| last_use[value] = index);
    }
    last_use[plan.output] = plan.steps.len();
    // Index of the last step that reads any value computed so far, except the current step's own
    // result.
    let mut needed = last_use[plan.input];
    let mut found = Vec::new();
    for (index, step) in plan.steps.iter().enumerate() {
        if needed <= index {
            found.push(index);
        }
        needed = needed.max(last_use[step.output]);
    }
    found
}
