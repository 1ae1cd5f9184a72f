//! Lowering of pooling operators to steps of a plan.

use paretune_kernels::ValueId;
use paretune_kernels::operator::{Operator, Window};
use paretune_kernels::plan::tensor::{Reduction, TensorOperator};

use super::reduce::{exponent, power, root};
use super::window::{image, output, restored, sizes, window};
use crate::onnx::importer::{Importer, Item, one};
use crate::onnx::node::Node;

fn kernel(node: &Node<'_>, spatial: usize) -> Result<[usize; 2], String> {
    sizes(node, "kernel_shape", spatial, 1)?.ok_or_else(|| "has no `kernel_shape`".into())
}

/// Lowers `MaxPool`, `AveragePool` and `LpPool`.
pub fn pool(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    if !importer.whole_mode && importer.dims(input).len() == 4 {
        return three(importer, node, input);
    }
    let (input, spatial) = image(importer, input)?;
    let [channels, height, width] = importer.image(input)?;
    let mut window = window(node, kernel(node, spatial)?, [height, width], spatial)?;
    let mut ceil = node.flag("ceil_mode", false)?;
    // Automatic padding decides the number of windows.
    if node.text("auto_pad")?.is_some_and(|mode| mode.starts_with("SAME")) {
        ceil = false;
    }
    let [oh, ow] = output(&window, [height, width], ceil)?;
    let dims = vec![channels, oh, ow];
    let part = if spatial == 2 { "" } else { "pool" };
    let include_padding = node.flag("count_include_pad", false)?;
    let result = match node.operator.as_str() {
        "MaxPool" => importer.emit(part, Operator::MaxPool { window, ceil }, vec![input], dims)?,
        "AveragePool" => {
            let operator = Operator::AveragePool { window, ceil, include_padding };
            importer.emit(part, operator, vec![input], dims)?
        }
        _ => {
            // The sum under a window is its mean over all places, times their number. Where the
            // last window is cut off, padding with zeros completes it.
            for (axis, (size, out)) in [(height, oh), (width, ow)].into_iter().enumerate() {
                let reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1;
                let needed = (out - 1) * window.stride[axis] + reach;
                let missing = needed.saturating_sub(size + window.padding[axis]);
                window.padding[axis + 2] = window.padding[axis + 2].max(missing);
            }
            let p = exponent(node)?;
            let powers = power(importer, "powers", input, p)?;
            let operator = Operator::AveragePool { window, ceil: false, include_padding: true };
            let mean = importer.emit("mean", operator, vec![powers], dims)?;
            let count = window.kernel[0] * window.kernel[1];
            let sum = importer.affine("sum", mean, count as f32, 0.0)?;
            if p == 1.0 { sum } else { root(importer, sum, p)? }
        }
    };
    restored(importer, "", result, spatial).map(one)
}

/// Lowers a `MaxPool` or `AveragePool` over three axes: over the last two, and then the first.
fn three(importer: &mut Importer, node: &Node<'_>, input: ValueId) -> Result<Vec<Item>, String> {
    let &[channels, depth, height, width] = importer.dims(input) else {
        return Err("works on [batch, channels, depth, height, width]".into());
    };
    let list = |name: &str, least: i64, count: usize, default: usize| {
        Ok::<_, String>(node.sizes(name, count, least)?.unwrap_or_else(|| vec![default; count]))
    };
    let kernel = node.sizes("kernel_shape", 3, 1)?.ok_or("has no `kernel_shape`")?;
    let (stride, dilation) = (list("strides", 1, 3, 1)?, list("dilations", 1, 3, 1)?);
    let pads = list("pads", 0, 6, 0)?;
    let known = matches!(node.text("auto_pad")?.as_deref(), None | Some("NOTSET" | "VALID"));
    if !known || node.operator == "LpPool" {
        return Err("is not supported over three axes in this form".into());
    }
    let ceil = node.flag("ceil_mode", false)?;
    let include_padding = node.flag("count_include_pad", false)?;
    let mut along = |part: &str, value: ValueId, [c, h, w]: [usize; 3], window: Window| {
        let value = importer.reshaped("view", value, vec![c, h, w])?;
        let [oh, ow] = output(&window, [h, w], ceil)?;
        let operator = if node.operator == "MaxPool" {
            Operator::MaxPool { window, ceil }
        } else {
            Operator::AveragePool { window, ceil, include_padding }
        };
        let value = importer.emit(part, operator, vec![value], vec![c, oh, ow])?;
        Ok::<_, String>((value, [oh, ow]))
    };
    let flat = Window {
        kernel: [kernel[1], kernel[2]],
        stride: [stride[1], stride[2]],
        dilation: [dilation[1], dilation[2]],
        padding: [pads[1], pads[2], pads[4], pads[5]],
    };
    let (value, [oh, ow]) = along("flat", input, [channels * depth, height, width], flat)?;
    let deep = Window {
        kernel: [kernel[0], 1],
        stride: [stride[0], 1],
        dilation: [dilation[0], 1],
        padding: [pads[0], 0, pads[3], 0],
    };
    let (value, [od, _]) = along("", value, [channels, depth, oh * ow], deep)?;
    importer.reshaped("shape", value, vec![channels, od, oh, ow]).map(one)
}

/// Lowers `GlobalAveragePool` and `GlobalMaxPool` over all axes behind the channels.
pub fn global(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    if importer.whole_mode {
        return Err("works on [batch, channels, ..]".into());
    }
    let dims = importer.dims(input).to_vec();
    let average = node.operator == "GlobalAveragePool";
    if let &[channels, height, width] = &dims[..] {
        let operator = if average {
            Operator::GlobalAveragePool
        } else {
            let window = Window { kernel: [height, width], ..Window::POINT };
            Operator::MaxPool { window, ceil: false }
        };
        return importer.emit("", operator, vec![input], vec![channels, 1, 1]).map(one);
    }
    let kind = if average { Reduction::Mean } else { Reduction::Maximum };
    let axes = (1..dims.len()).collect();
    importer.apply("", TensorOperator::Reduce { kind, axes }, vec![input]).map(one)
}
