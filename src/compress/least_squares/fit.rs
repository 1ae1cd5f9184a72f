//! Layerwise fit of the weights of a pruned network.

use std::collections::BTreeMap;

use paretune_kernels::operator::{Conv, Operator};
use paretune_kernels::weights::Pattern;
use paretune_kernels::{Plan, Step, ValueId, WeightValues, Weights};
use rayon::prelude::*;

use super::baseline::BaselineOutputs;
use super::ridge::Problem;
use super::samples::Samples;
use crate::channels::f32_weights;
use crate::error::CompressError;
use crate::layerwise::{Visitor, run_layerwise};
use crate::mask::ChannelMask;

/// Largest number of values in the unfolded input of one layer.
const MAX_UNFOLDED_VALUES: usize = 96 << 20;

/// Fits all dense convolutions of `plan`, which keeps the channels of `keep`, to `baseline` made
/// on the first of `images`. Layers with fixed zeros are left as they are.
pub(crate) fn fit(
    plan: &mut Plan,
    keep: &ChannelMask,
    baseline: &BaselineOutputs,
    images: &[f32],
    threads: usize,
) -> Result<(), CompressError> {
    let len = plan.values[plan.input].len().max(1);
    let count = (images.len() / len).min(baseline.images);
    if count != baseline.images {
        return Err(CompressError::Calibration(
            "the outputs of the baseline are those of other images".into(),
        ));
    }
    let mut fit = LeastSquares {
        plan,
        keep,
        baseline,
        changed_values: vec![false; plan.values.len()],
        fitted: BTreeMap::new(),
    };
    run_layerwise(plan, &images[..count * len], threads, &mut fit)?;
    let fitted = fit.fitted;
    for step in &mut plan.steps {
        let Operator::Conv(conv) = &mut step.operator else { continue };
        if let Some(weights) = fitted.get(&step.name) {
            // Weights may be shared between steps, but fits are not.
            plan.weights.push(weights.clone());
            conv.weights = plan.weights.len() - 1;
        }
    }
    Ok(())
}

struct LeastSquares<'a> {
    plan: &'a Plan,
    keep: &'a ChannelMask,
    baseline: &'a BaselineOutputs,
    /// By value: whether its remaining channels differ from the baseline's.
    changed_values: Vec<bool>,
    fitted: BTreeMap<String, Weights>,
}

impl LeastSquares<'_> {
    fn differs(&self, value: ValueId) -> bool {
        self.changed_values[value] || !self.keep.is_full(value)
    }
}

impl Visitor for LeastSquares<'_> {
    fn before_conv(
        &mut self,
        step: &Step,
        input: &[f32],
        residual: Option<&[f32]>,
    ) -> Result<Option<Weights>, CompressError> {
        let Operator::Conv(conv) = &step.operator else { return Ok(None) };
        let weights = &self.plan.weights[conv.weights];
        let changed = step.inputs.iter().any(|&value| self.differs(value));
        self.changed_values[step.output] = changed || weights.pattern != Pattern::Dense;
        if !changed || weights.pattern != Pattern::Dense {
            return Ok(None);
        }
        let Some((per_image, conv_outputs)) = self.baseline.conv_outputs.get(&step.name) else {
            return Ok(None);
        };
        let samples = Samples::of(self.plan, step, self.baseline.images, *per_image);
        let kept: Vec<usize> = indices(self.keep.of(step.output));
        let width = self.keep.of(step.output).len();
        let mut targets: Vec<f32> = conv_outputs
            .par_chunks(width)
            .flat_map_iter(|conv_outputs| kept.iter().map(|&channel| conv_outputs[channel]))
            .collect();
        if let Some(residual) = residual {
            let residual = samples.gather(residual, samples.channels);
            targets
                .par_iter_mut()
                .zip(&residual)
                .for_each(|(target, residual)| *target -= residual);
        }
        let layer = Layer {
            step,
            conv,
            weights,
            samples: &samples,
            input_dims: &self.plan.values[step.inputs[0]].dims,
        };
        let fitted = layer.fit(input, &targets)?;
        if let Some(fitted) = &fitted {
            self.fitted.insert(step.name.clone(), fitted.clone());
        }
        Ok(fitted)
    }

    fn on_value(&mut self, value: ValueId, _: &[f32]) {
        let writer = self.plan.steps.iter().find(|step| step.output == value);
        if let Some(step) = writer.filter(|step| !matches!(step.operator, Operator::Conv(_))) {
            self.changed_values[value] = step.inputs.iter().any(|&input| self.differs(input));
        }
    }
}

fn indices(keep: &[bool]) -> Vec<usize> {
    keep.iter().enumerate().filter(|&(_, &keep)| keep).map(|(index, _)| index).collect()
}

/// Convolution with the data of its fit.
struct Layer<'a> {
    step: &'a Step,
    conv: &'a Conv,
    weights: &'a Weights,
    samples: &'a Samples,
    input_dims: &'a [usize],
}

impl Layer<'_> {
    /// Fits weights and bias to `targets`, `[sample][output channel]` without the residual.
    fn fit(&self, input: &[f32], targets: &[f32]) -> Result<Option<Weights>, CompressError> {
        let old = f32_weights(&self.step.name, self.weights)?;
        let [rows, columns, height, width] = self.weights.dims;
        let depth = columns * height * width;
        let groups = self.conv.groups;
        let group_rows = rows / groups.max(1);
        let one = |group: usize| -> Option<(Vec<f32>, Vec<f32>)> {
            let (patches, count) = self.patches(input, group * columns, columns);
            let channels = group * group_rows..(group + 1) * group_rows;
            let part = |data: &[f32]| -> Vec<f32> {
                data.chunks(rows)
                    .take(count)
                    .flat_map(|sample| &sample[channels.clone()])
                    .copied()
                    .collect()
            };
            let bias = |row: usize| self.weights.bias.as_ref().map_or(0.0, |bias| bias[row]);
            let problem =
                Problem { depth, rows: group_rows, count, patches, targets: part(targets) };
            let weights = old[group * group_rows * depth..][..group_rows * depth].to_vec();
            problem.solve(weights, channels.map(bias).collect())
        };
        let parts: Option<Vec<(Vec<f32>, Vec<f32>)>> = if groups > 1 {
            (0..groups).into_par_iter().map(one).collect()
        } else {
            one(0).map(|part| vec![part])
        };
        let Some(parts) = parts else { return Ok(None) };
        let bias: Vec<f32> = parts.iter().flat_map(|(_, bias)| bias).copied().collect();
        let values: Vec<f32> = parts.into_iter().flat_map(|(weights, _)| weights).collect();
        if values.iter().chain(&bias).any(|x| !x.is_finite()) {
            return Ok(None);
        }
        Ok(Some(Weights {
            dims: self.weights.dims,
            values: WeightValues::F32(values.into()),
            pattern: Pattern::Dense,
            bias: Some(bias.into()),
        }))
    }

    /// Unfolds the patches of `columns` channels from `first` on at the sampled positions, one row
    /// per sample. Also returns the number of samples, which is reduced if they would fill the
    /// memory.
    fn patches(&self, input: &[f32], first: usize, columns: usize) -> (Vec<f32>, usize) {
        let at = |axis: usize| self.input_dims.get(axis).copied().unwrap_or(1);
        let (channels, height, width) = (at(0), at(1), at(2));
        let window = &self.conv.window;
        let [kh, kw] = window.kernel;
        let depth = columns * kh * kw;
        let max_samples = (MAX_UNFOLDED_VALUES / depth.max(1)).max(1);
        let out_width = {
            let out = window.output([height, width], false).unwrap_or([1, 1]);
            out[1].max(1)
        };
        let mut sample_positions: Vec<(usize, usize)> = Vec::with_capacity(self.samples.len());
        for (image, positions) in self.samples.positions.iter().enumerate() {
            sample_positions.extend(positions.iter().map(|&position| (image, position)));
        }
        sample_positions.truncate(max_samples);
        let mut patches = vec![0.0; sample_positions.len() * depth];
        patches.par_chunks_mut(depth.max(1)).zip(&sample_positions).for_each(
            |(patch, &(image, position))| {
                let [y, x] = [position / out_width, position % out_width];
                for ky in 0..kh {
                    let row = (y * window.stride[0] + ky * window.dilation[0])
                        .checked_sub(window.padding[0]);
                    let Some(row) = row.filter(|&row| row < height) else { continue };
                    for kx in 0..kw {
                        let column = (x * window.stride[1] + kx * window.dilation[1])
                            .checked_sub(window.padding[1]);
                        let Some(column) = column.filter(|&column| column < width) else {
                            continue;
                        };
                        let start = ((image * channels + first) * height + row) * width + column;
                        let sources = input[start..].iter().step_by(height * width);
                        let targets = patch[ky * kw + kx..].iter_mut().step_by(kh * kw);
                        targets.zip(sources).take(columns).for_each(|(to, from)| *to = *from);
                    }
                }
            },
        );
        (patches, sample_positions.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::remove;
    use crate::groups::groups;
    use crate::tests::{networks, reference};

    /// A channel that repeats another one can be removed without loss, at padded borders and
    /// through a residual too.
    #[test]
    fn what_others_know_is_not_lost() {
        let mut plan = networks::residual();
        let repeated = |plan: &mut Plan, step: &str, filter: usize| {
            let found = plan.steps.iter().find(|found| found.name == step);
            let Some(Operator::Conv(conv)) = found.map(|found| &found.operator) else {
                panic!("no convolution")
            };
            let weights = &mut plan.weights[conv.weights];
            let WeightValues::F32(values) = &mut weights.values else {
                panic!("not in single precision")
            };
            let mut new = values.to_vec();
            new.copy_within(filter..2 * filter, 6 * filter);
            *values = new.into();
            let mut bias = weights.bias.as_ref().unwrap().to_vec();
            bias[6] = bias[1];
            weights.bias = Some(bias.into());
        };
        repeated(&mut plan, "one", 72);
        repeated(&mut plan, "stem", 27);
        repeated(&mut plan, "two", 108);
        let images = networks::images(&plan, 24).concat();
        let baseline = BaselineOutputs::collect(&plan, &images, 1).unwrap();
        let mut keep = ChannelMask::full(&plan);
        for group in groups(&plan)
            .unwrap()
            .iter()
            .filter(|group| ["stem", "one"].contains(&&*group.info.name))
        {
            keep.remove(&group.channels[6]);
        }
        let mut small = remove(&plan, &keep, None).unwrap();
        let error = |small: &Plan| -> f64 {
            let pairs = networks::images(&plan, 3);
            let of = |plan: &Plan| {
                pairs.iter().flat_map(|image| reference::output(plan, image)).collect::<Vec<_>>()
            };
            let (per_image, found) = (of(&plan), of(small));
            let power: f64 = per_image.iter().map(|x| x * x).sum();
            per_image.iter().zip(&found).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / power
        };
        let before = error(&small);
        fit(&mut small, &keep, &baseline, &images, 1).unwrap();
        let after = error(&small);
        assert!(after < 1e-3 && after < 0.05 * before, "{before} became {after}");
    }
}
