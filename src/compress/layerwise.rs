//! Layerwise execution: runs a network one step at a time over a whole set of images, so that a
//! step's result can be observed and corrected before the next step reads it.
//!
//! Each step is loaded into the runtime as a plan of its own. Such a plan has one input, so steps
//! with several inputs are computed here.

use paretune_kernels::hardware::Isa;
use paretune_kernels::operator::{Conv, Operator};
use paretune_kernels::{
    Activation, Executor, ExecutorOptions, Plan, Schedule, Step, ValueId, ValueSpec, Weights,
};
use rayon::prelude::*;

use super::error::CompressError;

/// Images that the runtime computes at a time.
const CHUNK: usize = 32;

/// Observer of a layerwise execution.
pub(super) trait Visitor {
    /// Receives the input of a convolution, all images one after another, before it runs.
    /// Weights that it returns replace the convolution's.
    fn before_conv(
        &mut self,
        _step: &Step,
        _input: &[f32],
        _residual: Option<&[f32]>,
    ) -> Result<Option<Weights>, CompressError> {
        Ok(None)
    }

    /// Receives the result of a convolution with its bias, before residual and activation. The
    /// rest of the network reads `result` as this call leaves it.
    fn after_conv(&mut self, _step: &Step, _result: &mut [f32]) {}

    /// Receives the result of a convolution including the residual, before the activation.
    fn after_residual(&mut self, _step: &Step, _sum: &[f32]) {}

    /// Receives each value once it is complete.
    fn on_value(&mut self, _value: ValueId, _data: &[f32]) {}
}

/// Runs `plan`, whose weights are in single precision, on all of `images` and calls `visitor` at
/// each step. Grids and schedules are ignored.
pub(super) fn run_layerwise(
    plan: &Plan,
    images: &[f32],
    threads: usize,
    visitor: &mut dyn Visitor,
) -> Result<(), CompressError> {
    let count = images.len() / plan.values[plan.input].len().max(1);
    if count == 0 {
        return Err(CompressError::Calibration("there are no images".into()));
    }
    let mut last_use = vec![0; plan.values.len()];
    for (index, step) in plan.steps.iter().enumerate() {
        step.inputs.iter().for_each(|&value| last_use[value] = index);
    }
    let layerwise = Layerwise { plan, count, threads };
    let mut values: Vec<Vec<f32>> = vec![Vec::new(); plan.values.len()];
    values[plan.input] = images[..count * plan.values[plan.input].len()].to_vec();
    visitor.on_value(plan.input, &values[plan.input]);
    for (index, step) in plan.steps.iter().enumerate() {
        let output = layerwise.step(step, &values, visitor)?;
        visitor.on_value(step.output, &output);
        values[step.output] = output;
        for &value in &step.inputs {
            if last_use[value] == index {
                values[value] = Vec::new();
            }
        }
    }
    Ok(())
}

struct Layerwise<'a> {
    plan: &'a Plan,
    count: usize,
    threads: usize,
}

impl Layerwise<'_> {
    fn step(
        &self,
        step: &Step,
        values: &[Vec<f32>],
        visitor: &mut dyn Visitor,
    ) -> Result<Vec<f32>, CompressError> {
        let input = |index: usize| values[step.inputs[index]].as_slice();
        Ok(match &step.operator {
            Operator::Conv(conv) => {
                let residual = (step.inputs.len() > 1).then(|| input(1));
                let replaced = visitor.before_conv(step, input(0), residual)?;
                let weights = replaced.as_ref().unwrap_or(&self.plan.weights[conv.weights]);
                let mut result = self.run(step, without_fusion(conv), Some(weights), input(0))?;
                visitor.after_conv(step, &mut result);
                if let Some(residual) = residual {
                    result.par_iter_mut().zip(residual).for_each(|(x, residual)| *x += residual);
                }
                visitor.after_residual(step, &result);
                activate(conv.activation, &mut result);
                result
            }
            Operator::Add(activation) => self.pairs(step, values, *activation, |a, b| a + b),
            Operator::Mul(activation) => self.pairs(step, values, *activation, |a, b| a * b),
            Operator::Concat { axis } => self.concat(step, values, *axis),
            Operator::Constant { constant } => self.plan.constants[*constant].repeat(self.count),
            Operator::Reshape => input(0).to_vec(),
            operator => self.run(step, operator.clone(), None, input(0))?,
        })
    }

    /// Runs a step with one input in the runtime.
    fn run(
        &self,
        step: &Step,
        mut operator: Operator,
        weights: Option<&Weights>,
        input: &[f32],
    ) -> Result<Vec<f32>, CompressError> {
        if let Operator::Conv(conv) = &mut operator {
            conv.weights = 0;
        }
        let weights = weights.cloned().into_iter().collect();
        let spec =
            |value: ValueId| ValueSpec { quantization: None, ..self.plan.values[value].clone() };
        let single_step = Plan {
            name: step.name.clone(),
            values: vec![spec(step.inputs[0]), spec(step.output)],
            input: 0,
            output: 1,
            steps: vec![Step { name: step.name.clone(), operator, inputs: vec![0], output: 1 }],
            weights,
            // Constants are few and shared, and the indices of scales and shifts stay valid.
            constants: self.plan.constants.clone(),
            threads: self.threads,
            ..Plan::default()
        };
        let (from, to) = (single_step.values[0].len(), single_step.values[1].len());
        let mut output = vec![0.0; to * self.count];
        let mut executor: Option<(usize, Executor)> = None;
        for start in (0..self.count).step_by(CHUNK) {
            let batch = CHUNK.min(self.count - start);
            if executor.as_ref().is_none_or(|&(loaded, _)| loaded != batch) {
                let options = ExecutorOptions { batch, threads: self.threads, isa: Isa::detect() };
                executor = Some((batch, Executor::new(&single_step, &options)?));
            }
            if let Some((_, executor)) = &mut executor {
                let end = start + batch;
                executor
                    .run(&input[start * from..end * from], &mut output[start * to..end * to])?;
            }
        }
        Ok(output)
    }

    /// Computes a pointwise operator on two inputs with NumPy's broadcasting.
    fn pairs(
        &self,
        step: &Step,
        values: &[Vec<f32>],
        activation: Activation,
        operator: impl Fn(f32, f32) -> f32 + Sync,
    ) -> Vec<f32> {
        let dims = &self.plan.values[step.output].dims;
        let [left, right] = [0, 1].map(|index| values[step.inputs[index]].as_slice());
        let [left_len, right_len] = [left.len() / self.count, right.len() / self.count];
        let [left_strides, right_strides] =
            [0, 1].map(|index| strides(&self.plan.values[step.inputs[index]].dims, dims.len()));
        let len = self.plan.values[step.output].len();
        let row = dims.last().copied().unwrap_or(1).max(1);
        let last = dims.len().saturating_sub(1);
        let stride = |strides: &[usize]| strides.last().copied().unwrap_or(0);
        let (left_step, right_step) = (stride(&left_strides), stride(&right_strides));
        let mut output = vec![0.0; len * self.count];
        output.par_chunks_mut(len.max(1)).enumerate().for_each(|(image, output)| {
            let (left, right) =
                (&left[image * left_len..][..left_len], &right[image * right_len..][..right_len]);
            let mut index = vec![0; last];
            for output in output.chunks_mut(row) {
                let start = |strides: &[usize]| {
                    index.iter().zip(strides).map(|(at, stride)| at * stride).sum::<usize>()
                };
                let (left, right) =
                    (&left[start(&left_strides)..], &right[start(&right_strides)..]);
                for (at, x) in output.iter_mut().enumerate() {
                    *x = operator(left[at * left_step], right[at * right_step]);
                }
                for axis in (0..last).rev() {
                    index[axis] += 1;
                    if index[axis] < dims[axis] {
                        break;
                    }
                    index[axis] = 0;
                }
            }
        });
        activate(activation, &mut output);
        output
    }

    fn concat(&self, step: &Step, values: &[Vec<f32>], axis: usize) -> Vec<f32> {
        let outer: usize = self.plan.values[step.output].dims[..axis].iter().product();
        let mut output = Vec::with_capacity(self.plan.values[step.output].len() * self.count);
        for block in 0..self.count * outer {
            for &input in &step.inputs {
                let run = self.plan.values[input].dims[axis..].iter().product::<usize>();
                output.extend_from_slice(&values[input][block * run..][..run]);
            }
        }
        output
    }
}

/// Returns the convolution with nothing fused and the default schedule.
fn without_fusion(conv: &Conv) -> Operator {
    Operator::Conv(Conv {
        activation: Activation::Identity,
        schedule: Schedule::default(),
        ..conv.clone()
    })
}

fn activate(activation: Activation, data: &mut [f32]) {
    if activation == Activation::Identity {
        return;
    }
    data.par_chunks_mut(1 << 16).for_each(|part| match activation.as_clamp() {
        Some((low, high)) => part.iter_mut().for_each(|x| *x = x.max(low).min(high)),
        None => part.iter_mut().for_each(|x| *x = activation.apply(*x)),
    });
}

/// Returns row-major strides of `dims` aligned to the last of `rank` axes, with 0 for repeated
/// axes.
fn strides(dims: &[usize], rank: usize) -> Vec<usize> {
    let mut strides = vec![0; rank];
    let mut stride = 1;
    for (axis, &dim) in dims.iter().enumerate().rev() {
        strides[axis + rank - dims.len()] = if dim == 1 { 0 } else { stride };
        stride *= dim;
    }
    strides
}
