//! Lowering of convolutions to steps of a plan.

use std::sync::Arc;

use paretune_kernels::operator::{Conv, Operator, Window};
use paretune_kernels::plan::tensor::{Picks, TensorOperator};
use paretune_kernels::{Activation, Schedule, ValueId, Weights};

use super::window::{image, output, restored, sizes, window};
use crate::onnx::importer::{Importer, Item, one};
use crate::onnx::node::Node;

/// Returns a convolution with the default schedule and no activation.
pub fn operator(window: Window, groups: usize, weights: usize) -> Operator {
    let (activation, schedule) = (Activation::Identity, Schedule::default());
    Operator::Conv(Conv { window, groups, weights, activation, schedule })
}

/// Numbers of a convolution as the file has them.
struct Numbers {
    /// Shape with two spatial axes.
    dims: [usize; 4],
    values: Arc<[f32]>,
    bias: Option<Arc<[f32]>>,
    groups: usize,
}

fn numbers(importer: &Importer, node: &Node<'_>, spatial: usize) -> Result<Numbers, String> {
    let tensor = importer.tensor(node, 1)?;
    let dims = match (&tensor.dims[..], spatial) {
        (&[a, b, height, width], 2) => [a, b, height, width],
        (&[a, b, width], 1) => [a, b, 1, width],
        (dims, _) => return Err(format!("its weights have shape {dims:?}, which does not fit")),
    };
    if dims.contains(&0) {
        return Err(format!("its weights are empty: {dims:?}"));
    }
    if let Some(shape) = sizes(node, "kernel_shape", spatial, 1)?
        && shape != dims[2..]
    {
        return Err(format!("its kernel_shape {shape:?} contradicts its weights {dims:?}"));
    }
    if dims[2].max(dims[3]) > 1 << 16 {
        return Err(format!("its weights {dims:?} have a kernel beyond all measure"));
    }
    let values = tensor.numbers()?;
    let bias = importer.optional_tensor(node, 2)?.map(|bias| bias.numbers()).transpose()?;
    let groups = node.int("group")?.unwrap_or(1);
    let groups = usize::try_from(groups)
        .ok()
        .filter(|&groups| groups > 0)
        .ok_or_else(|| format!("has {groups} groups"))?;
    Ok(Numbers { dims, values, bias, groups })
}

/// Lowers a `Conv` with one or two spatial axes.
pub fn conv(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let (input, spatial) = image(importer, input)?;
    let [channels, height, width] = importer.image(input)?;
    let Numbers { dims, values, bias, groups } = numbers(importer, node, spatial)?;
    let [out_channels, group_in, ..] = dims;
    if groups.checked_mul(group_in) != Some(channels) || !out_channels.is_multiple_of(groups) {
        return Err(format!(
            "weights {dims:?} in {groups} groups do not fit an input of {channels} channels"
        ));
    }
    if let Some(bias) = bias.as_ref().filter(|bias| bias.len() != out_channels) {
        return Err(format!("its bias has {} numbers for {out_channels} channels", bias.len()));
    }
    let window = window(node, [dims[2], dims[3]], [height, width], spatial)?;
    let [height, width] = output(&window, [height, width], false)?;
    let weights = importer.weights(Weights::dense(dims, values, bias))?;
    let part = if spatial == 2 { "" } else { "conv" };
    let result = importer.emit(
        part,
        operator(window, groups, weights),
        vec![input],
        vec![out_channels, height, width],
    )?;
    restored(importer, "", result, spatial).map(one)
}

/// One axis of a transposed convolution.
#[derive(Clone, Copy)]
struct Axis {
    input: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    /// Elements that are cut off before the first one; negative for zeros.
    before: i64,
    output: usize,
}

/// Lowers a `ConvTranspose` with one or two spatial axes.
pub fn transposed(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let (input, spatial) = image(importer, input)?;
    let [channels, height, width] = importer.image(input)?;
    let numbers = numbers(importer, node, spatial)?;
    let [in_channels, group_out, kernel_height, kernel_width] = numbers.dims;
    let groups = numbers.groups;
    if in_channels != channels || !channels.is_multiple_of(groups) {
        return Err(format!(
            "weights {:?} in {groups} groups do not fit an input of {channels} channels",
            numbers.dims
        ));
    }
    let out_channels = group_out * groups;
    if let Some(bias) = numbers.bias.as_ref().filter(|bias| bias.len() != out_channels) {
        return Err(format!("its bias has {} numbers for {out_channels} channels", bias.len()));
    }
    let pair = |name: &str, default: usize| -> Result<[usize; 2], String> {
        let other = usize::from(name != "output_padding");
        Ok(sizes(node, name, spatial, other)?.unwrap_or([default; 2]))
    };
    let (stride, dilation) = (pair("strides", 1)?, pair("dilations", 1)?);
    let more = pair("output_padding", 0)?;
    let pads = match node.sizes("pads", 2 * spatial, 0)? {
        Some(pads) if spatial == 2 => [pads[0], pads[1], pads[2], pads[3]],
        Some(pads) => [0, pads[0], 0, pads[1]],
        None => [0; 4],
    };
    let wanted = match node.ints("output_shape")? {
        // Some files state the batch and the channels, too.
        Some(shape) if shape.len() >= spatial => {
            let shape = &shape[shape.len() - spatial..];
            let size = |size: i64| usize::try_from(size).ok().filter(|&size| size > 0);
            let sizes: Option<Vec<usize>> = shape.iter().map(|&extent| size(extent)).collect();
            let sizes = sizes.ok_or("has an impossible output_shape")?;
            Some(if spatial == 2 { [sizes[0], sizes[1]] } else { [1, sizes[0]] })
        }
        Some(_) => return Err("has a too short output_shape".into()),
        None => None,
    };
    let mode = node.text("auto_pad")?.map_or("NOTSET".to_owned(), |mode| mode.into_owned());
    let kernel = [kernel_height, kernel_width];
    let axis = |axis: usize| -> Result<Axis, String> {
        let (input, kernel) = ([height, width][axis], kernel[axis]);
        let (stride, dilation) = (stride[axis], dilation[axis]);
        let reach = dilation * (kernel - 1) + 1;
        let full = stride * (input - 1) + more[axis] + reach;
        let same = matches!(mode.as_str(), "SAME_UPPER" | "SAME_LOWER");
        let (before, output) = match wanted {
            _ if spatial == 1 && axis == 0 => (0, 1),
            Some(wanted) => {
                // ONNX cuts off more at the beginning, except for SAME_UPPER.
                let total = full.saturating_sub(wanted[axis]);
                let half = total / 2;
                let before = if mode == "SAME_UPPER" { half } else { total - half };
                (before as i64, wanted[axis])
            }
            None if same => {
                let output = input * stride;
                let total = full.saturating_sub(output);
                let half = total / 2;
                let before = if mode == "SAME_UPPER" { half } else { total - half };
                (before as i64, output)
            }
            None => {
                let cut = pads[axis] + pads[axis + 2];
                let output = full.checked_sub(cut).filter(|&size| size > 0);
                (pads[axis] as i64, output.ok_or("pads away its whole output")?)
            }
        };
        if output > 1 << 20 {
            return Err(format!("has an output of {output} elements along an axis"));
        }
        Ok(Axis { input, kernel, stride, dilation, before, output })
    };
    let axes = [axis(0)?, axis(1)?];
    let phases = groups == 1
        && axes.iter().any(|axis| axis.stride > 1)
        && axes.iter().all(|axis| axis.dilation == 1 && axis.before >= 0);
    let part = if spatial == 2 { "" } else { "conv" };
    let result = if phases {
        by_phases(importer, part, input, &numbers, axes)?
    } else {
        by_zeros(importer, part, input, &numbers, axes)?
    };
    restored(importer, "", result, spatial).map(one)
}

/// Computes a transposed convolution with strides as a convolution onto all phases of the strides,
/// which are then interleaved.
fn by_phases(
    importer: &mut Importer,
    part: &str,
    input: ValueId,
    numbers: &Numbers,
    axes: [Axis; 2],
) -> Result<ValueId, String> {
    let [channels, out, kernel_height, kernel_width] = numbers.dims;
    // Output `q * stride + phase` is the sum over taps `j` of `x[q - j] * w[phase + stride * j]`.
    let taps = axes.map(|axis| axis.kernel.div_ceil(axis.stride));
    let count = axes.map(|axis| (axis.output + axis.before as usize).div_ceil(axis.stride));
    let [sy, sx] = axes.map(|axis| axis.stride);
    let all = sy * sx * out;
    importer.spend(all * channels * taps[0] * taps[1])?;
    let mut values = Vec::with_capacity(all * channels * taps[0] * taps[1]);
    for phase in 0..sy * sx {
        for o in 0..out {
            for i in 0..channels {
                for ty in 0..taps[0] {
                    for tx in 0..taps[1] {
                        let y = phase / sx + sy * (taps[0] - 1 - ty);
                        let x = phase % sx + sx * (taps[1] - 1 - tx);
                        let inside = y < kernel_height && x < kernel_width;
                        let at = ((i * out + o) * kernel_height + y) * kernel_width + x;
                        values.push(if inside { numbers.values[at] } else { 0.0 });
                    }
                }
            }
        }
    }
    let bias = numbers.bias.as_ref().map(|bias| bias.repeat(sy * sx).into());
    let weights = Weights::dense([all, channels, taps[0], taps[1]], values.into(), bias);
    let weights = importer.weights(weights)?;
    // Behind the input, as many zeros as the last outputs reach; beyond them nothing is computed.
    let mut value = input;
    let mut behind = [0; 2];
    for (index, axis) in axes.iter().enumerate() {
        let place = index + 1;
        if count[index] < axis.input {
            let picks = Picks::Range { start: 0, step: 1, count: count[index] };
            let operator = TensorOperator::Select { axis: place, picks };
            value = importer.apply("crop", operator, vec![value])?;
        } else {
            behind[index] = count[index] - axis.input;
        }
    }
    let window = Window {
        kernel: taps,
        stride: [1, 1],
        dilation: [1, 1],
        padding: [taps[0] - 1, taps[1] - 1, behind[0], behind[1]],
    };
    let dims = vec![all, count[0], count[1]];
    let phases = importer.emit("phases", operator(window, 1, weights), vec![value], dims)?;
    let fine = vec![sy, sx, out, count[0], count[1]];
    let fine = importer.reshaped("fine", phases, fine)?;
    let moved = importer.permuted("moved", fine, vec![2, 3, 0, 4, 1])?;
    let joined = importer.reshaped("joined", moved, vec![out, count[0] * sy, count[1] * sx])?;
    cropped(importer, part, joined, axes)
}

/// Takes the part of `[channels, height, width]` that the padding leaves.
fn cropped(
    importer: &mut Importer,
    part: &str,
    value: ValueId,
    axes: [Axis; 2],
) -> Result<ValueId, String> {
    let mut value = value;
    for (index, axis) in axes.iter().enumerate() {
        let place = index + 1;
        if axis.before == 0 && importer.dims(value)[place] == axis.output {
            continue;
        }
        let picks = Picks::Range { start: axis.before as usize, step: 1, count: axis.output };
        let operator = TensorOperator::Select { axis: place, picks };
        value = importer.apply(part, operator, vec![value])?;
    }
    Ok(value)
}

/// Computes a transposed convolution as a convolution of the input with zeros between its elements.
fn by_zeros(
    importer: &mut Importer,
    part: &str,
    input: ValueId,
    numbers: &Numbers,
    axes: [Axis; 2],
) -> Result<ValueId, String> {
    let [channels, group_out, kernel_height, kernel_width] = numbers.dims;
    let (groups, group_in) = (numbers.groups, channels / numbers.groups);
    importer.spend(numbers.values.len())?;
    let mut values = Vec::with_capacity(numbers.values.len());
    for group in 0..groups {
        for o in 0..group_out {
            for i in 0..group_in {
                let filter =
                    ((group * group_in + i) * group_out + o) * kernel_height * kernel_width;
                let taps = &numbers.values[filter..filter + kernel_height * kernel_width];
                values.extend(taps.iter().rev());
            }
        }
    }
    let dims = [groups * group_out, group_in, kernel_height, kernel_width];
    let weights = Weights::dense(dims, values.into(), numbers.bias.clone());
    let weights = importer.weights(weights)?;
    let mut value = input;
    let mut padding = [0; 4];
    for (index, axis) in axes.iter().enumerate() {
        let reach = (axis.dilation * (axis.kernel - 1)) as i64;
        let spread = (axis.stride * (axis.input - 1) + 1) as i64;
        // Zeros before the first element and behind the last one; negative amounts cut off.
        let before = reach - axis.before;
        let after = axis.output as i64 + reach - before - spread;
        let place = index + 1;
        if axis.stride > 1 || before < 0 || after < 0 {
            let stride = axis.stride as i64;
            importer.spend(axis.output + reach as usize)?;
            let list = (-before.min(0)..spread + after.min(0))
                .map(|at| if at % stride == 0 { (at / stride) as u32 } else { Picks::NONE });
            let picks = Picks::List(list.collect());
            let operator = TensorOperator::Select { axis: place, picks };
            value = importer.apply("spread", operator, vec![value])?;
        }
        padding[index] = before.max(0) as usize;
        padding[index + 2] = after.max(0) as usize;
    }
    let window = Window {
        kernel: [kernel_height, kernel_width],
        stride: [1, 1],
        dilation: axes.map(|axis| axis.dilation),
        padding,
    };
    let out = vec![groups * group_out, axes[0].output, axes[1].output];
    importer.emit(part, operator(window, groups, weights), vec![value], out)
}
