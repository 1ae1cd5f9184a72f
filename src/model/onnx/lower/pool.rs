//! Lowering of pools and means.

use paretune_kernels::operator::{Operator, Window};

use super::axes::{axes_of, inner_axes};
use super::only_output;
use super::window::{output, window};
use crate::onnx::importer::{Importer, Item, one};
use crate::onnx::node::Node;

fn kernel(node: &Node<'_>) -> Result<[usize; 2], String> {
    match node.sizes("kernel_shape", 2, 1)? {
        Some(values) => Ok([values[0], values[1]]),
        None => Err("has no `kernel_shape`".into()),
    }
}

/// Lowers `MaxPool` to one step.
pub fn max(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    only_output(node, "indices of the largest values")?;
    let input = importer.activation(node, 0)?;
    let [channels, height, width] = importer.image(input)?;
    let window = window(node, kernel(node)?, [height, width])?;
    let ceil = node.flag("ceil_mode", false)?;
    let [height, width] = output(&window, [height, width], ceil)?;
    let operator = Operator::MaxPool { window, ceil };
    importer.emit("", operator, vec![input], vec![channels, height, width]).map(one)
}

/// Lowers `AveragePool` to one step.
pub fn average(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let [channels, height, width] = importer.image(input)?;
    let window = window(node, kernel(node)?, [height, width])?;
    let ceil = node.flag("ceil_mode", false)?;
    let include_padding = node.flag("count_include_pad", false)?;
    let [height, width] = output(&window, [height, width], ceil)?;
    let operator = Operator::AveragePool { window, ceil, include_padding };
    importer.emit("", operator, vec![input], vec![channels, height, width]).map(one)
}

/// Lowers `GlobalAveragePool` to one step.
pub fn global_average(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let [channels, ..] = importer.image(input)?;
    importer.emit("", Operator::GlobalAveragePool, vec![input], vec![channels, 1, 1]).map(one)
}

/// Lowers `GlobalMaxPool` to a pool with a window as large as the image.
pub fn global_max(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let [channels, height, width] = importer.image(input)?;
    let window = Window { kernel: [height, width], ..Window::POINT };
    let operator = Operator::MaxPool { window, ceil: false };
    importer.emit("", operator, vec![input], vec![channels, 1, 1]).map(one)
}

/// Lowers `ReduceMean` with its axes as attribute or as input.
pub fn reduce_mean(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let rank = importer.dims(input).len();
    let axes = match axes_of(importer, node)?.filter(|axes| !axes.is_empty()) {
        Some(axes) => inner_axes(&axes, rank)?,
        None if node.flag("noop_with_empty_axes", false)? => return Ok(one(input)),
        None => {
            return Err(
                "takes the mean over all axes, the batch included, which is not supported".into()
            );
        }
    };
    let mut dims = importer.dims(input).to_vec();
    for &axis in &axes {
        dims[axis] = 1;
    }
    let operator = if rank == 3 && axes == [1, 2] {
        Operator::GlobalAveragePool
    } else {
        Operator::ReduceMean { axes: axes.clone() }
    };
    let kept = importer.emit("", operator, vec![input], dims.clone())?;
    if node.flag("keepdims", true)? {
        return Ok(one(kept));
    }
    let dims: Vec<usize> = dims
        .iter()
        .enumerate()
        .filter(|(axis, _)| !axes.contains(axis))
        .map(|(_, &dim)| dim)
        .collect();
    importer.emit("flat", Operator::Reshape, vec![kept], dims).map(one)
}
