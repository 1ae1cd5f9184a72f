//! A slow interpreter of plans, one image at a time, independent of the runtime: the oracle here.

use paretune_kernels::operator::{Conv, Operator, Window};
use paretune_kernels::{Plan, Step, WeightValues};

use crate::compress::Calibration;
use crate::compress::calibration::unfuse;

/// All values of the plan for one image. Values with a grid are rounded to it.
pub fn run(plan: &Plan, image: &[f32]) -> Vec<Vec<f32>> {
    let mut values = vec![Vec::new(); plan.values.len()];
    values[plan.input] = image.to_vec();
    snap(plan, plan.input, &mut values[plan.input]);
    for step in &plan.steps {
        let mut output = execute(plan, step, &values);
        assert_eq!(output.len(), plan.values[step.output].len(), "step {}", step.name);
        snap(plan, step.output, &mut output);
        values[step.output] = output;
    }
    values
}

/// The network's output for one image.
pub fn output(plan: &Plan, image: &[f32]) -> Vec<f32> {
    run(plan, image).swap_remove(plan.output)
}

/// What [`Calibration::collect`] finds, computed here.
pub fn calibrate(plan: &Plan, images: &[Vec<f32>]) -> Calibration {
    let (open, bare) = unfuse(plan);
    let mut calibration = Calibration::empty(plan);
    for image in images {
        for (value, data) in run(&open, image).iter().enumerate() {
            calibration.see(&open, &bare, 1, value, data);
        }
        calibration.images += 1;
    }
    calibration
}

fn snap(plan: &Plan, value: usize, data: &mut [f32]) {
    if let Some(grid) = plan.values[value].quantization {
        let zero = f32::from(grid.zero_point);
        data.iter_mut().for_each(|x| {
            *x = ((*x / grid.scale).round() + zero).clamp(0.0, 255.0) * grid.scale - zero * grid.scale
        });
    }
}

fn dims3(dims: &[usize]) -> [usize; 3] {
    match *dims {
        [c, h, w] => [c, h, w],
        [c] => [c, 1, 1],
        _ => panic!("unexpected shape {dims:?}"),
    }
}

fn execute(plan: &Plan, step: &Step, values: &[Vec<f32>]) -> Vec<f32> {
    let input = |index: usize| values[step.inputs[index]].as_slice();
    let dims = |index: usize| plan.values[step.inputs[index]].dims.as_slice();
    let out = plan.values[step.output].dims.as_slice();
    match &step.operator {
        Operator::Conv(c) => {
            let mut result = conv(plan, c, dims3(dims(0)), dims3(out), input(0));
            for (index, x) in result.iter_mut().enumerate() {
                let residual = if step.inputs.len() > 1 { input(1)[index] } else { 0.0 };
                *x = c.activation.apply(*x + residual);
            }
            result
        }
        Operator::MaxPool { window, .. } => pool(window, dims3(dims(0)), dims3(out), input(0), |seen| {
            seen.iter().copied().fold(f32::NEG_INFINITY, f32::max)
        }),
        Operator::AveragePool { window, .. } => pool(window, dims3(dims(0)), dims3(out), input(0), |seen| {
            seen.iter().sum::<f32>() / seen.len() as f32
        }),
        Operator::GlobalAveragePool => {
            let plane = input(0).len() / out[0];
            input(0).chunks(plane).map(|plane| plane.iter().sum::<f32>() / plane.len() as f32).collect()
        }
        Operator::Add(activation) => {
            pairs(out, dims(0), dims(1), input(0), input(1)).map(|(a, b)| activation.apply(a + b)).collect()
        }
        Operator::Mul(activation) => {
            pairs(out, dims(0), dims(1), input(0), input(1)).map(|(a, b)| activation.apply(a * b)).collect()
        }
        Operator::Activation(activation) => input(0).iter().map(|&x| activation.apply(x)).collect(),
        Operator::ScaleShift { scale, shift, activation } => {
            let plane = input(0).len() / out[0];
            let (scale, shift) = (&plan.constants[*scale], &plan.constants[*shift]);
            input(0)
                .iter()
                .enumerate()
                .map(|(at, x)| activation.apply(x * scale[at / plane] + shift[at / plane]))
                .collect()
        }
        Operator::Constant { constant } => plan.constants[*constant].to_vec(),
        Operator::Concat { axis: 0 } => (0..step.inputs.len()).flat_map(input).copied().collect(),
        Operator::Reshape => input(0).to_vec(),
        Operator::Transpose { permutation } => {
            let strides = strides(dims(0));
            let steps: Vec<usize> = permutation.iter().map(|&axis| strides[axis]).collect();
            indices(out)
                .map(|index| input(0)[index.iter().zip(&steps).map(|(i, s)| i * s).sum::<usize>()])
                .collect()
        }
        other => panic!("the reference does not know {other:?}"),
    }
}

fn conv(plan: &Plan, conv: &Conv, input: [usize; 3], output: [usize; 3], data: &[f32]) -> Vec<f32> {
    let weights = &plan.weights[conv.weights];
    let [rows, columns, kh, kw] = weights.dims;
    let value = |index: usize| match &weights.values {
        WeightValues::F32(values) | WeightValues::SparseF32(values) => values[index],
        WeightValues::I8(dense) => f32::from(dense.values[index]) * dense.scales[index / (columns * kh * kw)],
    };
    let w = &conv.window;
    let mut result = Vec::new();
    for row in 0..rows {
        let first = row / (rows / conv.groups) * columns;
        for y in 0..output[1] {
            for x in 0..output[2] {
                let mut sum = weights.bias.as_ref().map_or(0.0, |bias| f64::from(bias[row]));
                for (column, i, j) in
                    (0..columns).flat_map(|c| (0..kh).flat_map(move |i| (0..kw).map(move |j| (c, i, j))))
                {
                    let at = |o: usize, axis: usize, k: usize| {
                        (o * w.stride[axis] + k * w.dilation[axis]).checked_sub(w.padding[axis])
                    };
                    let (Some(iy), Some(ix)) = (at(y, 0, i), at(x, 1, j)) else { continue };
                    if iy < input[1] && ix < input[2] {
                        let tap = value(((row * columns + column) * kh + i) * kw + j);
                        sum += f64::from(tap)
                            * f64::from(data[((first + column) * input[1] + iy) * input[2] + ix]);
                    }
                }
                result.push(sum as f32);
            }
        }
    }
    result
}

fn pool(
    w: &Window,
    input: [usize; 3],
    output: [usize; 3],
    data: &[f32],
    reduce: impl Fn(&[f32]) -> f32,
) -> Vec<f32> {
    let mut result = Vec::new();
    for c in 0..output[0] {
        for y in 0..output[1] {
            for x in 0..output[2] {
                let mut seen = Vec::new();
                for (i, j) in (0..w.kernel[0]).flat_map(|i| (0..w.kernel[1]).map(move |j| (i, j))) {
                    let iy = (y * w.stride[0] + i).wrapping_sub(w.padding[0]);
                    let ix = (x * w.stride[1] + j).wrapping_sub(w.padding[1]);
                    if iy < input[1] && ix < input[2] {
                        seen.push(data[(c * input[1] + iy) * input[2] + ix]);
                    }
                }
                result.push(reduce(&seen));
            }
        }
    }
    result
}

fn strides(dims: &[usize]) -> Vec<usize> {
    (0..dims.len()).map(|axis| dims[axis + 1..].iter().product()).collect()
}

fn indices(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    let strides = strides(dims);
    (0..dims.iter().product())
        .map(move |at: usize| strides.iter().zip(dims).map(|(s, d)| at / s % d).collect())
}

fn pairs<'a>(
    out: &'a [usize],
    left: &'a [usize],
    right: &'a [usize],
    a: &'a [f32],
    b: &'a [f32],
) -> impl Iterator<Item = (f32, f32)> + 'a {
    let at = |dims: &[usize], index: &[usize]| {
        let skipped = index.len() - dims.len();
        let strides = strides(dims);
        (0..dims.len())
            .map(|axis| if dims[axis] == 1 { 0 } else { index[axis + skipped] * strides[axis] })
            .sum::<usize>()
    };
    indices(out).map(move |index| (a[at(left, &index)], b[at(right, &index)]))
}
