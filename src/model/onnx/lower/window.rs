//! Sliding windows of convolutions and pools.

use paretune_kernels::operator::Window;

use crate::onnx::node::Node;

/// Reads the window of a node over an input of `[height, width]`, with automatic padding resolved.
pub fn window(node: &Node<'_>, kernel: [usize; 2], input: [usize; 2]) -> Result<Window, String> {
    let pair = |name: &str| -> Result<[usize; 2], String> {
        Ok(node.sizes(name, 2, 1)?.map_or([1, 1], |values| [values[0], values[1]]))
    };
    let (stride, dilation) = (pair("strides")?, pair("dilations")?);
    let mode = node.text("auto_pad")?;
    let padding = match mode.as_deref() {
        None | Some("NOTSET" | "") => match node.sizes("pads", 4, 0)? {
            Some(pads) => [pads[0], pads[1], pads[2], pads[3]],
            None => [0; 4],
        },
        Some("VALID") => [0; 4],
        Some(mode @ ("SAME_UPPER" | "SAME_LOWER")) => {
            let mut padding = [0; 4];
            for axis in 0..2 {
                let reach = dilation[axis] * (kernel[axis] - 1) + 1;
                let steps = (input[axis].div_ceil(stride[axis]) - 1) * stride[axis];
                let total = (steps + reach).saturating_sub(input[axis]);
                let less = total / 2;
                let before = if mode == "SAME_UPPER" { less } else { total - less };
                padding[axis] = before;
                padding[axis + 2] = total - before;
            }
            padding
        }
        Some(other) => {
            return Err(format!("its attribute `auto_pad` is `{other}`, which is unknown"));
        }
    };
    Ok(Window { kernel, stride, dilation, padding })
}

/// Returns the `[height, width]` of the output.
pub fn output(window: &Window, input: [usize; 2], ceil: bool) -> Result<[usize; 2], String> {
    window.output(input, ceil).ok_or_else(|| {
        format!(
            "its window of {:?} (dilation {:?}, padding {:?}) does not fit into an input of \
             {input:?}",
            window.kernel, window.dilation, window.padding
        )
    })
}
