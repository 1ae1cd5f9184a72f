//! A naive interpreter of plans in double precision: the oracle for the executor and for every
//! kernel. It follows the definitions of the operators literally and is slow.
//!
//! Integer weights enter with their real values; rounding of activations to 8 bits is not modeled.

mod tensor;

use crate::executor::validate;
use paretune_base::error::KernelError;
use paretune_base::plan::activation::Activation;
use paretune_base::plan::operator::{Conv, Operator, Window};
use paretune_base::plan::weights::{WeightValues, Weights};
use paretune_base::plan::{Plan, Step};

/// Computes every value of `plan` for `batch` images, row-major with batch outermost and indexed by
/// value. A value that is never written is empty.
///
/// # Errors
/// Fails if the plan is not valid or if `input` has the wrong length.
pub fn run_f64(plan: &Plan, batch: usize, input: &[f64]) -> Result<Vec<Vec<f64>>, KernelError> {
    validate(plan, batch)?;
    let expected = plan.values[plan.input].len() * batch;
    if input.len() != expected {
        return Err(KernelError::Data(format!(
            "the input has {} numbers, expected {expected}",
            input.len()
        )));
    }
    let mut values = vec![Vec::new(); plan.values.len()];
    values[plan.input] = input.to_vec();
    for step in &plan.steps {
        let inputs: Vec<&[f64]> = step.inputs.iter().map(|&id| &values[id][..]).collect();
        values[step.output] = step_f64(plan, step, batch, &inputs);
    }
    Ok(values)
}

/// Computes one step of a valid plan from its inputs for `batch` images.
///
/// # Panics
/// Panics if an input is shorter than its value, or if the plan is not valid.
#[must_use]
pub fn step_f64(plan: &Plan, step: &Step, batch: usize, inputs: &[&[f64]]) -> Vec<f64> {
    let mut out = Vec::with_capacity(plan.values[step.output].len() * batch);
    for image in 0..batch {
        let inputs: Vec<Tensor<'_>> = step
            .inputs
            .iter()
            .zip(inputs)
            .map(|(&id, data)| {
                let len = plan.values[id].len();
                Tensor { dims: &plan.values[id].dims, data: &data[image * len..(image + 1) * len] }
            })
            .collect();
        out.extend(apply(plan, step, &inputs));
    }
    out
}

/// Returns the real values of weights, in the order of [`Weights::dims`].
#[must_use]
pub fn real_weights(weights: &Weights) -> Vec<f64> {
    match &weights.values {
        WeightValues::F32(values) | WeightValues::Bf16(values) | WeightValues::Fp16(values) => {
            values.iter().map(|&x| f64::from(x)).collect()
        }
        WeightValues::Integer(dense) => {
            let per_output = weights.dims[1..].iter().product::<usize>().max(1);
            let scale = |index: usize| f64::from(dense.scales[index / per_output]);
            dense.values.iter().enumerate().map(|(index, &x)| f64::from(x) * scale(index)).collect()
        }
    }
}

/// Applies an activation in double precision; see [`Activation::apply`].
#[must_use]
pub fn activate_f64(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Clip { low, high } => x.max(f64::from(low)).min(f64::from(high)),
        Activation::LeakyRelu { slope } => {
            if x > 0.0 {
                x
            } else {
                f64::from(slope) * x
            }
        }
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::HardSigmoid { alpha, beta } => {
            (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0)
        }
        Activation::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
    }
}

/// One image of a value.
#[derive(Clone, Copy)]
struct Tensor<'a> {
    dims: &'a [usize],
    data: &'a [f64],
}

impl Tensor<'_> {
    /// Returns the element at an index that may have more axes than this tensor; axes of size 1
    /// repeat.
    fn broadcast(&self, index: &[usize]) -> f64 {
        let missing = index.len() - self.dims.len();
        let at = |axis: usize| if self.dims[axis] == 1 { 0 } else { index[axis + missing] };
        self.data[(0..self.dims.len()).fold(0, |flat, axis| flat * self.dims[axis] + at(axis))]
    }

    fn at(&self, index: &[usize]) -> f64 {
        self.broadcast(index)
    }
}

/// Calls `f` with every index of `dims` in row-major order and collects the results.
fn each(dims: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Vec<f64> {
    let mut index = vec![0; dims.len()];
    (0..dims.iter().product::<usize>())
        .map(|flat| {
            let mut rest = flat;
            for axis in (0..dims.len()).rev() {
                index[axis] = rest % dims[axis];
                rest /= dims[axis];
            }
            f(&index)
        })
        .collect()
}

fn apply(plan: &Plan, step: &Step, inputs: &[Tensor<'_>]) -> Vec<f64> {
    let out = &plan.values[step.output].dims[..];
    let x = inputs.first().copied();
    let constant = |index: usize| plan.constants[index].iter().map(|&x| f64::from(x));
    match (&step.operator, x) {
        (Operator::Constant { constant: index }, _) => constant(*index).collect(),
        (_, None) => Vec::new(),
        (Operator::Conv(conv), Some(x)) => {
            convolve(conv, &plan.weights[conv.weights], x, inputs.get(1))
        }
        (Operator::MaxPool { window, .. }, Some(x)) => each(out, |index| {
            window_values(window, x, index).into_iter().flatten().fold(f64::NEG_INFINITY, f64::max)
        }),
        (Operator::AveragePool { window, include_padding, .. }, Some(x)) => each(out, |index| {
            let values = window_values(window, x, index);
            let sum: f64 = values.iter().flatten().sum();
            let count =
                if *include_padding { values.len() } else { values.iter().flatten().count() };
            sum / count as f64
        }),
        (Operator::GlobalAveragePool, Some(x)) => mean(x, &[1, 2], out),
        (Operator::ReduceMean { axes }, Some(x)) => mean(x, axes, out),
        (Operator::Add(activation), Some(x)) => {
            each(out, |i| activate_f64(*activation, x.broadcast(i) + inputs[1].broadcast(i)))
        }
        (Operator::Mul(activation), Some(x)) => {
            each(out, |i| activate_f64(*activation, x.broadcast(i) * inputs[1].broadcast(i)))
        }
        (Operator::Activation(activation), Some(x)) => {
            x.data.iter().map(|&x| activate_f64(*activation, x)).collect()
        }
        (Operator::ScaleShift { scale, shift, activation }, Some(x)) => {
            let (scale, shift): (Vec<f64>, Vec<f64>) =
                (constant(*scale).collect(), constant(*shift).collect());
            each(out, |i| activate_f64(*activation, x.at(i) * scale[i[0]] + shift[i[0]]))
        }
        (Operator::Concat { axis }, Some(_)) => each(out, |index| {
            let mut index = index.to_vec();
            for input in inputs {
                if index[*axis] < input.dims[*axis] {
                    return input.at(&index);
                }
                index[*axis] -= input.dims[*axis];
            }
            f64::NAN
        }),
        (Operator::Pad { padding, value }, Some(x)) => each(out, |index| {
            let source: Option<Vec<usize>> = index
                .iter()
                .zip(padding)
                .zip(x.dims)
                .map(|((&i, [before, _]), &size)| i.checked_sub(*before).filter(|&i| i < size))
                .collect();
            source.map_or(f64::from(*value), |source| flat_at(x, &source))
        }),
        (Operator::Transpose { permutation }, Some(x)) => each(out, |index| {
            let mut source = vec![0; index.len()];
            for (&axis, &i) in permutation.iter().zip(index) {
                source[axis] = i;
            }
            flat_at(x, &source)
        }),
        (Operator::Reshape, Some(x)) => x.data.to_vec(),
        (Operator::Softmax { axis }, Some(x)) => each(out, |index| {
            let line: Vec<f64> = (0..x.dims[*axis]).map(|i| x.at(&with(index, *axis, i))).collect();
            let largest = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            (x.at(index) - largest).exp() / line.iter().map(|x| (x - largest).exp()).sum::<f64>()
        }),
        (Operator::Lrn { size, alpha, beta, bias }, Some(x)) => each(out, |index| {
            let before = (size - 1) / 2;
            let low = index[0].saturating_sub(before);
            let high = (index[0] + size - before).min(x.dims[0]);
            let squares: f64 = (low..high).map(|c| x.at(&with(index, 0, c)).powi(2)).sum();
            let base = f64::from(*bias) + f64::from(*alpha) / *size as f64 * squares;
            x.at(index) / base.powf(f64::from(*beta))
        }),
        (Operator::Tensor(operator), Some(_)) => tensor::apply(operator, inputs, out),
    }
}

/// Returns `index` with another entry for `axis`.
fn with(index: &[usize], axis: usize, entry: usize) -> Vec<usize> {
    let mut index = index.to_vec();
    index[axis] = entry;
    index
}

/// Returns the element at an index within the tensor's own shape.
fn flat_at(x: Tensor<'_>, index: &[usize]) -> f64 {
    x.data[index.iter().zip(x.dims).fold(0, |flat, (i, size)| flat * size + i)]
}

fn mean(x: Tensor<'_>, axes: &[usize], out: &[usize]) -> Vec<f64> {
    let sizes: Vec<usize> = axes.iter().map(|&axis| x.dims[axis]).collect();
    each(out, |index| {
        let terms = each(&sizes, |inner| {
            let mut source = index.to_vec();
            for (&axis, &i) in axes.iter().zip(inner) {
                source[axis] = i;
            }
            flat_at(x, &source)
        });
        terms.iter().sum::<f64>() / terms.len() as f64
    })
}

/// Returns the values under a pooling window at an output index, with `None` for padding. Positions
/// beyond the padding are not listed.
fn window_values(window: &Window, x: Tensor<'_>, index: &[usize]) -> Vec<Option<f64>> {
    let &[_, height, width] = x.dims else { return Vec::new() };
    let size = [height, width];
    let mut values = Vec::new();
    for ky in 0..window.kernel[0] {
        for kx in 0..window.kernel[1] {
            let padded = [0, 1].map(|axis| {
                index[axis + 1] * window.stride[axis] + [ky, kx][axis] * window.dilation[axis]
            });
            let end = |axis: usize| size[axis] + window.padding[axis] + window.padding[axis + 2];
            if padded[0] >= end(0) || padded[1] >= end(1) {
                continue;
            }
            let inside = |axis: usize| {
                padded[axis].checked_sub(window.padding[axis]).filter(|&at| at < size[axis])
            };
            values.push(inside(0).zip(inside(1)).map(|(y, x_at)| flat_at(x, &[index[0], y, x_at])));
        }
    }
    values
}

fn convolve(
    conv: &Conv,
    weights: &Weights,
    x: Tensor<'_>,
    residual: Option<&Tensor<'_>>,
) -> Vec<f64> {
    let [out, group_in, kh, kw] = weights.dims;
    let dims = if let &[features] = x.dims { vec![features, 1, 1] } else { x.dims.to_vec() };
    let [height, width] = [dims[1], dims[2]];
    let window = &conv.window;
    let Some([oh, ow]) = window.output([height, width], false) else { return Vec::new() };
    let numbers = real_weights(weights);
    let mut flat = 0;
    each(&[out, oh, ow], |index| {
        let &[o, y, x_out] = index else { return f64::NAN };
        let group = o / (out / conv.groups);
        let mut sum = weights.bias.as_ref().map_or(0.0, |bias| f64::from(bias[o]));
        for c in 0..group_in {
            for ky in 0..kh {
                let at = y * window.stride[0] + ky * window.dilation[0];
                let Some(iy) = at.checked_sub(window.padding[0]).filter(|&iy| iy < height) else {
                    continue;
                };
                for kx in 0..kw {
                    let at = x_out * window.stride[1] + kx * window.dilation[1];
                    let Some(ix) = at.checked_sub(window.padding[1]).filter(|&ix| ix < width)
                    else {
                        continue;
                    };
                    let channel = group * group_in + c;
                    let weight = numbers[((o * group_in + c) * kh + ky) * kw + kx];
                    sum += weight * x.data[(channel * height + iy) * width + ix];
                }
            }
        }
        sum += residual.map_or(0.0, |residual| residual.data[flat]);
        flat += 1;
        activate_f64(conv.activation, sum)
    })
}
