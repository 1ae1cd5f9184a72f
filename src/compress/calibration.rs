//! Calibration: statistics of a network's activations, measured once and used by every compression.

use std::collections::BTreeMap;

use paretune_kernels::executor::validate;
use paretune_kernels::hardware::Isa;
use paretune_kernels::operator::Operator;
use paretune_kernels::{Activation, Executor, ExecutorOptions, Plan, Step, ValueId, ValueSpec};
use serde::{Deserialize, Serialize};

use super::error::CompressError;
use super::gradient::channel_information;
use super::groups::groups;
use super::mask::ChannelMask;
use super::statistics::{Moments, ValueStatistics};

/// Statistics of a single-precision network on calibration images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Number of images seen so far.
    pub images: u64,
    /// Statistics by value of the plan.
    pub values: Vec<ValueStatistics>,
    /// Moments by step of the output of a convolution with its bias, before residual and
    /// activation.
    pub convolutions: BTreeMap<String, Moments>,
    /// Nats per image that removing each channel costs, by channel group. Empty until
    /// [`Calibration::measure_information`] is called.
    pub information: BTreeMap<String, Vec<f64>>,
}

impl Calibration {
    /// Runs the network on normalized `images`, one after another, in batches of `batch`.
    ///
    /// `progress` receives the completed fraction. Images that do not fill a last batch are left
    /// out.
    ///
    /// # Errors
    ///
    /// Fails if the plan cannot be executed or the images do not fill a single batch.
    pub fn collect(
        plan: &Plan,
        images: &[f32],
        batch: usize,
        threads: usize,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Self, CompressError> {
        validate(plan, 1)?;
        let len = plan.values[plan.input].len() * batch;
        if len == 0 || images.len() < len {
            return Err(CompressError::Calibration("there are fewer images than one batch".into()));
        }
        let (unfused, conv_results) = unfuse(plan);
        let mut executor =
            Executor::new(&unfused, &ExecutorOptions { batch, threads, isa: Isa::detect() })?;
        let mut this = Self::empty(plan);
        let batches = images.len() / len;
        for (index, input) in images.chunks_exact(len).enumerate() {
            executor.observe(input, &mut |value, data| {
                this.observe(&unfused, &conv_results, batch, value, data)
            })?;
            this.images += batch as u64;
            progress((index + 1) as f64 / batches as f64);
        }
        Ok(this)
    }

    /// Measures how much the network's output distribution depends on each channel, on normalized
    /// `images`, one after another. The measure is Fisher information, computed by backpropagation.
    ///
    /// # Errors
    ///
    /// Fails if a step has no derivative, if there is no image, or if this calibration belongs to
    /// another network.
    pub fn measure_information(
        &mut self,
        plan: &Plan,
        images: &[f32],
    ) -> Result<(), CompressError> {
        self.check(plan)?;
        let groups = groups(plan)?;
        let information = channel_information(plan, self, &groups, images)?;
        let names = groups.into_iter().map(|group| group.info.name);
        self.information = names.zip(information).collect();
        Ok(())
    }

    /// Creates a calibration without any images.
    pub(super) fn empty(plan: &Plan) -> Self {
        let values = vec![ValueStatistics::default(); plan.values.len()];
        Self { images: 0, values, convolutions: BTreeMap::new(), information: BTreeMap::new() }
    }

    /// Adds a batch of one value of the plan that [`unfuse`] returned.
    pub(super) fn observe(
        &mut self,
        unfused: &Plan,
        conv_results: &BTreeMap<ValueId, String>,
        batch: usize,
        value: ValueId,
        data: &[f32],
    ) {
        let channels = unfused.values[value].dims.first().copied().unwrap_or(1);
        if let Some(step) = conv_results.get(&value) {
            self.convolutions.entry(step.clone()).or_default().extend(channels, batch, data);
        }
        if let Some(statistics) = self.values.get_mut(value) {
            statistics.extend(channels, batch, data);
        }
    }

    /// Checks that this calibration belongs to `plan`.
    pub(super) fn check(&self, plan: &Plan) -> Result<(), CompressError> {
        let channels = |value: &ValueSpec| value.dims.first().copied().unwrap_or(1);
        let matches = self.values.len() == plan.values.len()
            && self.values.iter().zip(&plan.values).all(|(seen, value)| {
                let channel_count = channels(value);
                [
                    seen.min.len(),
                    seen.max.len(),
                    seen.moments.mean.len(),
                    seen.moments.variance.len(),
                ] == [channel_count; 4]
            })
            && plan.steps.iter().filter(|step| matches!(step.operator, Operator::Conv(_))).all(
                |step| {
                    self.convolutions
                        .get(&step.name)
                        .is_some_and(|seen| seen.mean.len() == channels(&plan.values[step.output]))
                },
            );
        if matches {
            Ok(())
        } else {
            Err(CompressError::Calibration("it was made for another network".into()))
        }
    }

    /// Returns the calibration of the network that keeps only the channels of `keep`.
    pub(super) fn select(&self, plan: &Plan, keep: &ChannelMask) -> Self {
        let values = self.values.iter().enumerate();
        let outputs: BTreeMap<&str, usize> =
            plan.steps.iter().map(|step| (step.name.as_str(), step.output)).collect();
        Self {
            images: self.images,
            values: values.map(|(value, seen)| seen.select(keep.of(value))).collect(),
            convolutions: self
                .convolutions
                .iter()
                .filter_map(|(step, seen)| {
                    Some((step.clone(), seen.select(keep.of(*outputs.get(step.as_str())?))))
                })
                .collect(),
            // Fisher information of the whole network does not apply: each remaining channel
            // matters more.
            information: BTreeMap::new(),
        }
    }
}

/// Splits residuals and activations off convolutions into steps of their own, so that the bare
/// results of convolutions can be observed.
///
/// Existing values keep their numbers and new ones follow. Also returns, by value, the name of the
/// convolution whose bare result it holds.
pub(super) fn unfuse(plan: &Plan) -> (Plan, BTreeMap<ValueId, String>) {
    let mut unfused = plan.clone();
    unfused.steps.clear();
    let mut conv_results = BTreeMap::new();
    for step in &plan.steps {
        let Operator::Conv(conv) = &step.operator else {
            unfused.steps.push(step.clone());
            continue;
        };
        if step.inputs.len() == 1 && conv.activation == Activation::Identity {
            conv_results.insert(step.output, step.name.clone());
            unfused.steps.push(step.clone());
            continue;
        }
        let result = unfused.values.len();
        conv_results.insert(result, step.name.clone());
        unfused
            .values
            .push(ValueSpec { dims: plan.values[step.output].dims.clone(), quantization: None });
        let mut conv = conv.clone();
        let activation = std::mem::take(&mut conv.activation);
        unfused.steps.push(Step {
            name: step.name.clone(),
            operator: Operator::Conv(conv),
            inputs: vec![step.inputs[0]],
            output: result,
        });
        let (operator, inputs) = match step.inputs.get(1) {
            Some(&residual) => (Operator::Add(activation), vec![result, residual]),
            None => (Operator::Activation(activation), vec![result]),
        };
        unfused.steps.push(Step {
            name: format!("{}/rest", step.name),
            operator,
            inputs,
            output: step.output,
        });
    }
    (unfused, conv_results)
}
