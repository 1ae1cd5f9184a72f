//! Shape rules of all operators, in checked arithmetic: the shape of a step's output, or the reason
//! why the step is impossible. Nothing here trusts the plan.

use std::sync::Arc;

use crate::plan::activation::Activation;
use crate::plan::operator::{Conv, ConvProblem, Operator, Window};
use crate::plan::weights::Weights;
use crate::plan::{Plan, Step};

/// Largest number of elements of one value, batch included: 8 GiB in single precision. A plan that
/// exceeds it is mistaken or hostile, and below it sizes in bytes cannot overflow.
pub const LARGEST: usize = 1 << 31;

/// Largest number of axes of a value, batch not counted.
const MAX_AXES: usize = 8;

/// Returns the shape of the result of `operator` for inputs of shapes `inputs` (batch not counted).
///
/// `declared` is the shape that the plan states for the result: [`Operator::Reshape`] and
/// [`Operator::Constant`] have no other, and a convolution onto a single pixel may drop `1, 1`.
///
/// # Errors
/// Describes the fault in the operator, its inputs or its weights.
pub fn output(
    operator: &Operator,
    inputs: &[&[usize]],
    declared: &[usize],
    weights: &[Weights],
    constants: &[Arc<[f32]>],
) -> Result<Vec<usize>, String> {
    let count = |expected: std::ops::RangeInclusive<usize>| {
        if expected.contains(&inputs.len()) {
            Ok(())
        } else {
            Err(format!("has {} inputs, expected {expected:?}", inputs.len()))
        }
    };
    let constant = |index: usize| {
        constants.get(index).map(|values| values.len()).ok_or_else(|| {
            format!("refers to constant {index}, but the plan has {}", constants.len())
        })
    };
    match operator {
        Operator::Conv(conv) => {
            count(1..=2)?;
            let out = convolution(conv, inputs[0], weights)?;
            let out = match out[..] {
                [channels, 1, 1] if declared == [channels] => vec![channels],
                _ => out,
            };
            if let Some(residual) = inputs.get(1)
                && *residual != out
            {
                return Err(format!("adds a residual of {residual:?} to a result of {out:?}"));
            }
            check_activation(conv.activation)?;
            Ok(out)
        }
        Operator::MaxPool { window, ceil } | Operator::AveragePool { window, ceil, .. } => {
            count(1..=1)?;
            let [c, h, w] = image(inputs[0])?;
            let [oh, ow] = slide(window, [h, w], *ceil)?;
            for (axis, (size, out)) in [(h, oh), (w, ow)].into_iter().enumerate() {
                every_window_touches(window, axis, size, out)?;
            }
            Ok(vec![c, oh, ow])
        }
        Operator::GlobalAveragePool => {
            count(1..=1)?;
            let [c, ..] = image(inputs[0])?;
            Ok(vec![c, 1, 1])
        }
        Operator::ReduceMean { axes } => {
            count(1..=1)?;
            let mut out = inputs[0].to_vec();
            if !axes.is_sorted_by(|a, b| a < b) {
                return Err(format!("axes {axes:?} are not ascending"));
            }
            for &axis in axes {
                *out.get_mut(axis).ok_or_else(|| no_axis(axis, inputs[0]))? = 1;
            }
            Ok(out)
        }
        Operator::Add(activation) | Operator::Mul(activation) => {
            count(2..=2)?;
            check_activation(*activation)?;
            broadcast(inputs[0], inputs[1])
        }
        Operator::Activation(activation) => {
            count(1..=1)?;
            check_activation(*activation)?;
            Ok(inputs[0].to_vec())
        }
        Operator::ScaleShift { scale, shift, activation } => {
            count(1..=1)?;
            check_activation(*activation)?;
            let channels = *inputs[0].first().ok_or("has no channels")?;
            for (what, index) in [("scale", *scale), ("shift", *shift)] {
                let len = constant(index)?;
                if len != channels {
                    return Err(format!("{what} has {len} numbers for {channels} channels"));
                }
            }
            Ok(inputs[0].to_vec())
        }
        Operator::Constant { constant: index } => {
            count(0..=0)?;
            let len = constant(*index)?;
            if checked_len(declared, 1)? != len {
                return Err(format!(
                    "constant {index} has {len} numbers, its shape is {declared:?}"
                ));
            }
            Ok(declared.to_vec())
        }
        Operator::Concat { axis } => concat(inputs, *axis),
        Operator::Pad { padding, value } => {
            count(1..=1)?;
            if padding.len() != inputs[0].len() {
                return Err(format!("pads {} axes of {:?}", padding.len(), inputs[0]));
            }
            if value.is_nan() {
                return Err("pads with NaN".into());
            }
            let grown = inputs[0].iter().zip(padding).map(|(&size, &[before, after])| {
                size.checked_add(before)?.checked_add(after).filter(|&size| size <= LARGEST)
            });
            grown.collect::<Option<_>>().ok_or_else(|| format!("padding {padding:?} is too large"))
        }
        Operator::Transpose { permutation } => {
            count(1..=1)?;
            let mut sorted = permutation.clone();
            sorted.sort_unstable();
            if !sorted.iter().copied().eq(0..inputs[0].len()) {
                return Err(format!(
                    "{permutation:?} does not permute the axes of {:?}",
                    inputs[0]
                ));
            }
            Ok(permutation.iter().map(|&axis| inputs[0][axis]).collect())
        }
        Operator::Reshape => {
            count(1..=1)?;
            if checked_len(inputs[0], 1)? != checked_len(declared, 1)? {
                return Err(format!("{:?} cannot become {declared:?}", inputs[0]));
            }
            Ok(declared.to_vec())
        }
        Operator::Softmax { axis } => {
            count(1..=1)?;
            inputs[0].get(*axis).ok_or_else(|| no_axis(*axis, inputs[0]))?;
            Ok(inputs[0].to_vec())
        }
        Operator::Lrn { size, alpha, beta, bias } => {
            count(1..=1)?;
            image(inputs[0])?;
            if *size == 0 || ![alpha, beta, bias].into_iter().all(|x| x.is_finite()) {
                return Err(format!("has size {size}, alpha {alpha}, beta {beta}, bias {bias}"));
            }
            Ok(inputs[0].to_vec())
        }
        Operator::Tensor(operator) => operator.output(inputs),
    }
}

/// Returns the number of elements of `batch` values of shape `dims`.
///
/// # Errors
/// Fails if it is zero, if it exceeds [`LARGEST`], or if there are too many axes.
pub fn checked_len(dims: &[usize], batch: usize) -> Result<usize, String> {
    if dims.len() > MAX_AXES {
        return Err(format!("shape {dims:?} has more than {MAX_AXES} axes"));
    }
    let len = dims
        .iter()
        .try_fold(batch, |len, &size| len.checked_mul(size).filter(|&len| len <= LARGEST));
    match len {
        Some(0) => Err(format!("shape {dims:?} (batch {batch}) holds nothing")),
        Some(len) => Ok(len),
        None => Err(format!("shape {dims:?} (batch {batch}) holds more than {LARGEST} numbers")),
    }
}

/// Returns the shape that `a` and `b` broadcast to by NumPy's rules.
///
/// # Errors
/// Fails if two sizes differ and neither is 1.
pub fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let size = |dims: &[usize], axis: usize| {
        (axis + dims.len()).checked_sub(rank).map_or(1, |index| dims[index])
    };
    (0..rank)
        .map(|axis| match (size(a, axis), size(b, axis)) {
            (x, y) if x == y => Ok(x),
            (1, x) | (x, 1) => Ok(x),
            _ => Err(format!("{a:?} and {b:?} do not broadcast")),
        })
        .collect()
}

/// Returns `[channels, height, width]` of a convolution's input; a vector is an image of one pixel.
pub fn conv_input(dims: &[usize]) -> Result<[usize; 3], String> {
    match *dims {
        [features] => Ok([features, 1, 1]),
        [c, h, w] => Ok([c, h, w]),
        _ => Err(format!("convolves {dims:?}, expected [channels, height, width] or [features]")),
    }
}

fn convolution(conv: &Conv, input: &[usize], weights: &[Weights]) -> Result<Vec<usize>, String> {
    let [channels, height, width] = conv_input(input)?;
    let Some(Weights { dims: [out, group_in, kh, kw], .. }) = weights.get(conv.weights) else {
        return Err(format!(
            "refers to weights {}, but the plan has {}",
            conv.weights,
            weights.len()
        ));
    };
    let groups = conv.groups;
    if groups == 0 || !out.is_multiple_of(groups) || group_in.checked_mul(groups) != Some(channels)
    {
        return Err(format!(
            "weights for {group_in} input channels in {groups} groups and {out} outputs meet \
             {channels} channels"
        ));
    }
    if conv.window.kernel != [*kh, *kw] {
        return Err(format!("window {:?} meets weights of {kh}x{kw}", conv.window.kernel));
    }
    let [oh, ow] = slide(&conv.window, [height, width], false)?;
    // An algorithm may have to allocate the padded input.
    let Window { padding: [top, left, bottom, right], .. } = conv.window;
    checked_len(&[channels, height + top + bottom, width + left + right], 1)?;
    Ok(vec![*out, oh, ow])
}

/// Returns `[height, width]` of the output, or an error if the window is implausible.
fn slide(window: &Window, input: [usize; 2], ceil: bool) -> Result<[usize; 2], String> {
    let Window { kernel, stride, dilation, padding } = window;
    let all = kernel.iter().chain(stride).chain(dilation);
    if all.clone().any(|&x| x == 0) || all.chain(padding).any(|&x| x > 1 << 20) {
        return Err(format!("has an impossible window {window:?}"));
    }
    window
        .output(input, ceil)
        .filter(|out| out.iter().all(|&size| size > 0))
        .ok_or_else(|| format!("window {window:?} does not fit into {input:?}"))
}

/// Refuses pooling windows that cover padding only, because they have no result.
fn every_window_touches(
    window: &Window,
    axis: usize,
    size: usize,
    out: usize,
) -> Result<(), String> {
    let (step, before) = (window.dilation[axis], window.padding[axis]);
    for at in 0..out {
        let start = at * window.stride[axis];
        let skip = before.saturating_sub(start).div_ceil(step);
        if skip >= window.kernel[axis] || start + skip * step - before >= size {
            return Err(format!("a window of {window:?} sees padding only"));
        }
    }
    Ok(())
}

fn concat(inputs: &[&[usize]], axis: usize) -> Result<Vec<usize>, String> {
    let (first, rest) = inputs.split_first().ok_or("has no inputs")?;
    let mut out = first.to_vec();
    if axis >= out.len() {
        return Err(no_axis(axis, first));
    }
    for dims in rest {
        let fits =
            dims.len() == out.len() && (0..out.len()).all(|i| i == axis || dims[i] == out[i]);
        if !fits {
            return Err(format!("{dims:?} does not continue {first:?} along axis {axis}"));
        }
        out[axis] = out[axis].checked_add(dims[axis]).ok_or("is too large")?;
    }
    Ok(out)
}

fn image(dims: &[usize]) -> Result<[usize; 3], String> {
    dims.try_into().map_err(|_| format!("works on [channels, height, width], not on {dims:?}"))
}

fn no_axis(axis: usize, dims: &[usize]) -> String {
    format!("{dims:?} has no axis {axis}")
}

fn check_activation(activation: Activation) -> Result<(), String> {
    let sound = match activation {
        Activation::Identity | Activation::Relu | Activation::Sigmoid | Activation::HardSwish => {
            true
        }
        // Infinite bounds are allowed; they never take effect.
        Activation::Clip { low, high } => low <= high,
        Activation::LeakyRelu { slope } => slope.is_finite(),
        Activation::HardSigmoid { alpha, beta } => alpha.is_finite() && beta.is_finite(),
    };
    if sound { Ok(()) } else { Err(format!("has an impossible activation {activation:?}")) }
}

/// Returns the problem of a convolution step of a valid plan, or `None` for other steps.
#[must_use]
pub fn conv_problem(plan: &Plan, step: &Step, batch: usize) -> Option<ConvProblem> {
    let Operator::Conv(conv) = &step.operator else { return None };
    let [in_channels, height, width] =
        conv_input(&plan.values.get(*step.inputs.first()?)?.dims).ok()?;
    Some(ConvProblem {
        batch,
        in_channels,
        out_channels: plan.weights.get(conv.weights)?.dims[0],
        groups: conv.groups,
        input: [height, width],
        window: conv.window,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        assert_eq!(broadcast(&[4, 1, 1], &[4, 5, 6]).unwrap(), [4, 5, 6]);
        assert_eq!(broadcast(&[6], &[4, 5, 6]).unwrap(), [4, 5, 6]);
        assert_eq!(broadcast(&[], &[3]).unwrap(), [3]);
        assert_eq!(broadcast(&[3, 1], &[1, 4]).unwrap(), [3, 4]);
        assert!(broadcast(&[3], &[4]).is_err());
    }

    #[test]
    fn lengths_do_not_overflow() {
        assert!(checked_len(&[usize::MAX, usize::MAX], 3).is_err());
        assert!(checked_len(&[0, 3], 1).is_err());
        assert_eq!(checked_len(&[], 2).unwrap(), 2);
    }

    #[test]
    fn windows_over_padding_alone_are_refused() {
        let window =
            Window { kernel: [2, 2], stride: [1, 1], dilation: [1, 1], padding: [2, 0, 0, 0] };
        let pool = Operator::MaxPool { window, ceil: false };
        assert!(output(&pool, &[&[1, 4, 4]], &[], &[], &[]).is_err());
        let window = Window { padding: [1, 1, 1, 1], ..window };
        let pool = Operator::MaxPool { window, ceil: false };
        assert_eq!(output(&pool, &[&[1, 4, 4]], &[], &[], &[]).unwrap(), [1, 5, 5]);
    }
}
