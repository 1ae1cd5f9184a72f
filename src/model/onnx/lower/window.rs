//! Sliding windows of convolutions and pools over one or two axes.

use paretune_kernels::ValueId;
use paretune_kernels::operator::Window;

use crate::onnx::importer::Importer;
use crate::onnx::node::Node;

/// Returns `[channels, height, width]` of a convolution's or pool's input, which has one or two
/// axes behind the channels. A single one is the width.
pub fn image(importer: &mut Importer, input: ValueId) -> Result<(ValueId, usize), String> {
    if !importer.whole_mode
        && let &[channels, width] = importer.dims(input)
    {
        let input = importer.reshaped("image", input, vec![channels, 1, width])?;
        return Ok((input, 1));
    }
    importer.image(input)?;
    Ok((input, 2))
}

/// Returns the shape of an output, with as many axes behind the channels as the input.
pub fn restored(
    importer: &mut Importer,
    part: &str,
    value: ValueId,
    spatial: usize,
) -> Result<ValueId, String> {
    let dims = importer.dims(value).to_vec();
    if spatial == 2 {
        return Ok(value);
    }
    importer.reshaped(part, value, vec![dims[0], dims[1] * dims[2]])
}

/// Reads an attribute with one number per spatial axis. A missing height gets `default`.
pub fn sizes(
    node: &Node<'_>,
    name: &str,
    spatial: usize,
    default: usize,
) -> Result<Option<[usize; 2]>, String> {
    Ok(node.sizes(name, spatial, i64::from(name != "output_padding"))?.map(|values| {
        match values[..] {
            [height, width] => [height, width],
            _ => [default, values[0]],
        }
    }))
}

/// Reads the window of a node over an input of `[height, width]`, with automatic padding resolved.
/// `spatial` is the number of axes in the file.
pub fn window(
    node: &Node<'_>,
    kernel: [usize; 2],
    input: [usize; 2],
    spatial: usize,
) -> Result<Window, String> {
    let pair = |name: &str| -> Result<[usize; 2], String> {
        Ok(sizes(node, name, spatial, 1)?.unwrap_or([1, 1]))
    };
    let (stride, dilation) = (pair("strides")?, pair("dilations")?);
    let mode = node.text("auto_pad")?;
    let padding = match mode.as_deref() {
        None | Some("NOTSET" | "") => match node.sizes("pads", 2 * spatial, 0)? {
            Some(pads) if spatial == 2 => [pads[0], pads[1], pads[2], pads[3]],
            Some(pads) => [0, pads[0], 0, pads[1]],
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
