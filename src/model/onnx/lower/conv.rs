//! Lowering of convolutions and dense layers.

use std::sync::Arc;

use paretune_kernels::operator::{Conv, Operator, Window};
use paretune_kernels::{Activation, Schedule, ValueId, Weights};

use super::window::{output, window};
use crate::onnx::importer::{Importer, Item, one};
use crate::onnx::node::Node;
use crate::onnx::tensor::Tensor;

fn operator(window: Window, groups: usize, weights: usize) -> Operator {
    let (activation, schedule) = (Activation::Identity, Schedule::default());
    Operator::Conv(Conv { window, groups, weights, activation, schedule })
}

/// Lowers a `Conv` with two spatial axes.
pub fn conv(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let [channels, height, width] = importer.image(input)?;
    let tensor = importer.tensor(node, 1)?;
    let dims = <[usize; 4]>::try_from(tensor.dims.as_slice()).map_err(|_| {
        format!("its weights have shape {:?}; only 2-D convolutions are supported", tensor.dims)
    })?;
    if dims.contains(&0) {
        return Err(format!("its weights are empty: {dims:?}"));
    }
    let [out_channels, group_in, kernel_height, kernel_width] = dims;
    let groups = node.int("group")?.unwrap_or(1);
    let groups = usize::try_from(groups).ok().filter(|&groups| groups > 0);
    let fits = groups.filter(|&groups| {
        groups.checked_mul(group_in) == Some(channels) && out_channels % groups == 0
    });
    let Some(groups) = fits else {
        return Err(format!(
            "weights {dims:?} in {} groups do not fit an input of {channels} channels",
            node.int("group")?.unwrap_or(1)
        ));
    };
    if let Some(shape) = node.sizes("kernel_shape", 2, 1)?
        && shape != [kernel_height, kernel_width]
    {
        return Err(format!("its kernel_shape {shape:?} contradicts its weights {dims:?}"));
    }
    if kernel_height.max(kernel_width) > 1 << 16 {
        return Err(format!("its weights {dims:?} have a kernel beyond all measure"));
    }
    let values = tensor.floats()?.clone();
    let bias = importer.optional_tensor(node, 2)?.map(|bias| bias.floats().cloned()).transpose()?;
    if let Some(bias) = bias.as_ref().filter(|bias| bias.len() != out_channels) {
        return Err(format!("its bias has {} numbers for {out_channels} channels", bias.len()));
    }
    let window = window(node, [kernel_height, kernel_width], [height, width])?;
    let [height, width] = output(&window, [height, width], false)?;
    let weights = importer.weights(Weights::dense(dims, values, bias))?;
    importer
        .emit("", operator(window, groups, weights), vec![input], vec![out_channels, height, width])
        .map(one)
}

/// Reads a matrix as dense weights `[out, in]`. With `stored_transposed`, the file stores
/// `[in, out]`.
fn matrix(
    importer: &mut Importer,
    node: &Node<'_>,
    stored_transposed: bool,
) -> Result<([usize; 2], Arc<[f32]>), String> {
    let tensor = importer.tensor(node, 1)?.clone();
    let &[rows, columns] = tensor.dims.as_slice() else {
        return Err(format!("its weights have shape {:?}; a matrix is needed", tensor.dims));
    };
    if tensor.len() == 0 {
        return Err(format!("its weights are empty: {:?}", tensor.dims));
    }
    let values = tensor.floats()?;
    if !stored_transposed {
        return Ok(([rows, columns], values.clone()));
    }
    importer.spend(values.len())?;
    let mut transposed = Vec::with_capacity(values.len());
    for column in 0..columns {
        transposed.extend((0..rows).map(|row| values[row * columns + column]));
    }
    Ok(([columns, rows], transposed.into()))
}

/// Adds a dense layer over the features of `input`.
fn dense(
    importer: &mut Importer,
    input: ValueId,
    [out, features]: [usize; 2],
    values: Arc<[f32]>,
    bias: Option<Arc<[f32]>>,
) -> Result<ValueId, String> {
    let weights = Weights::dense([out, features, 1, 1], values, bias);
    let weights = importer.weights(weights)?;
    importer.emit("", operator(Window::POINT, 1, weights), vec![input], vec![out])
}

/// Lowers a `Gemm` with a constant right operand: `alpha * x * w + beta * bias`.
pub fn gemm(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let &[features] = importer.dims(input) else {
        return Err(format!("its input is [batch, {:?}], not a matrix", importer.dims(input)));
    };
    if node.flag("transA", false)? {
        return Err("transA would mix images; not supported".into());
    }
    let transposed = !node.flag("transB", false)?;
    let (dims, mut values) = matrix(importer, node, transposed)?;
    if dims[1] != features {
        return Err(format!("its weights take {} features, but its input has {features}", dims[1]));
    }
    let alpha = node.float("alpha", 1.0)?;
    let beta = node.float("beta", 1.0)?;
    if alpha != 1.0 {
        importer.spend(values.len())?;
        values = values.iter().map(|value| value * alpha).collect();
    }
    let bias = match importer.optional_tensor(node, 2)? {
        Some(tensor) => Some(spread(tensor, dims[0], beta)?),
        None => None,
    };
    dense(importer, input, dims, values, bias).map(one)
}

/// Broadcasts the bias of a `Gemm` to one number per output.
fn spread(tensor: &Tensor, out: usize, beta: f32) -> Result<Arc<[f32]>, String> {
    let values = tensor.floats()?;
    match tensor.dims.as_slice() {
        [] | [1] | [1, 1] if values.len() == 1 => Ok(vec![values[0] * beta; out].into()),
        [n] | [1, n] if *n == out => Ok(values.iter().map(|value| value * beta).collect()),
        dims => Err(format!("its bias of shape {dims:?} does not fit {out} outputs")),
    }
}

/// Lowers a `MatMul` with a constant matrix on the right, over the last axis of any shape.
pub fn matmul(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    if !matches!(importer.operand(node, 1)?, Some(Item::Constant(_))) {
        return Err("products of two computed matrices (attention) are not supported".into());
    }
    let input = importer.activation(node, 0)?;
    let (dims, values) = matrix(importer, node, true)?;
    let shape = importer.dims(input).to_vec();
    let Some((&features, rest)) = shape.split_last() else {
        return Err("its input is empty".into());
    };
    if dims[1] != features {
        return Err(format!("its weights take {} features, but its input has {features}", dims[1]));
    }
    if rest.is_empty() {
        return dense(importer, input, dims, values, None).map(one);
    }
    // Over the other axes it is a 1x1 convolution with the channels last instead of first.
    let rank = shape.len();
    let positions: usize = rest.iter().product();
    let to_front = std::iter::once(rank - 1).chain(0..rank - 1).collect();
    let to_back = (1..rank).chain([0]).collect();
    let weights = Weights::dense([dims[0], features, 1, 1], values, None);
    let weights = importer.weights(weights)?;
    let lead =
        |first: usize| std::iter::once(first).chain(rest.iter().copied()).collect::<Vec<_>>();
    let transposed_input = importer.emit(
        "in",
        Operator::Transpose { permutation: to_front },
        vec![input],
        lead(features),
    )?;
    let flat = importer.emit(
        "flat",
        Operator::Reshape,
        vec![transposed_input],
        vec![features, positions, 1],
    )?;
    let product = importer.emit(
        "",
        operator(Window::POINT, 1, weights),
        vec![flat],
        vec![dims[0], positions, 1],
    )?;
    let shaped = importer.emit("shape", Operator::Reshape, vec![product], lead(dims[0]))?;
    let shape = rest.iter().copied().chain([dims[0]]).collect();
    importer.emit("out", Operator::Transpose { permutation: to_back }, vec![shaped], shape).map(one)
}
