//! Lowering of matrix products: dense layers, 1x1 convolutions, and products of computed matrices.

use std::sync::Arc;

use paretune_kernels::operator::{Operator, Window};
use paretune_kernels::plan::tensor::TensorOperator;
use paretune_kernels::{Activation, ValueId, Weights};

use super::binary::{constant, emit_broadcast};
use super::conv::operator;
use crate::onnx::importer::{Batching, Importer, Item, one};
use crate::onnx::node::Node;
use crate::onnx::tensor::Tensor;

/// Reads a matrix as dense weights `[out, in]`. With `stored_transposed`, the file stores
/// `[in, out]`.
fn matrix(
    importer: &mut Importer,
    tensor: &Tensor,
    stored_transposed: bool,
) -> Result<([usize; 2], Arc<[f32]>), String> {
    let &[rows, columns] = tensor.dims.as_slice() else {
        return Err(format!("its weights have shape {:?}; a matrix is needed", tensor.dims));
    };
    if tensor.len() == 0 {
        return Err(format!("its weights are empty: {:?}", tensor.dims));
    }
    let values = tensor.numbers()?;
    if !stored_transposed {
        return Ok(([rows, columns], values));
    }
    importer.spend(values.len())?;
    let mut transposed = Vec::with_capacity(values.len());
    for column in 0..columns {
        transposed.extend((0..rows).map(|row| values[row * columns + column]));
    }
    Ok(([columns, rows], transposed.into()))
}

/// Adds a dense layer over the last axis of `input`: over the other axes, it is a 1x1 convolution
/// with the channels last instead of first.
fn linear(
    importer: &mut Importer,
    input: ValueId,
    [out, features]: [usize; 2],
    values: Arc<[f32]>,
    bias: Option<Arc<[f32]>>,
) -> Result<ValueId, String> {
    let shape = importer.dims(input).to_vec();
    let Some((&size, rest)) = shape.split_last() else {
        return Err("its input is empty".into());
    };
    if size != features {
        return Err(format!("its weights take {features} features, but its input has {size}"));
    }
    let weights = importer.weights(Weights::dense([out, features, 1, 1], values, bias))?;
    let layer = operator(Window::POINT, 1, weights);
    if rest.is_empty() {
        return importer.emit("", layer, vec![input], vec![out]);
    }
    let result: Vec<usize> = rest.iter().copied().chain([out]).collect();
    if let &[height, width] = rest {
        let turned = importer.permuted("in", input, vec![2, 0, 1])?;
        let turned = importer.reshaped("image", turned, vec![features, height, width])?;
        let product = importer.emit("", layer, vec![turned], vec![out, height, width])?;
        return importer.permuted("out", product, vec![1, 2, 0]);
    }
    let positions: usize = rest.iter().product();
    let flat = importer.reshaped("flat", input, vec![positions, features])?;
    let turned = importer.permuted("in", flat, vec![1, 0])?;
    let image = importer.reshaped("image", turned, vec![features, positions, 1])?;
    let product = importer.emit("", layer, vec![image], vec![out, positions, 1])?;
    let product = importer.reshaped("columns", product, vec![out, positions])?;
    let turned = importer.permuted("out", product, vec![1, 0])?;
    importer.reshaped("shape", turned, result)
}

/// Lowers a `Gemm`: `alpha * a * b + beta * c`.
pub fn gemm(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let (turn_a, turn_b) = (node.flag("transA", false)?, node.flag("transB", false)?);
    let (alpha, beta) = (node.float("alpha", 1.0)?, node.float("beta", 1.0)?);
    let weights = match importer.operand(node, 1)? {
        Some(Item::Constant(tensor)) => Some(tensor.clone()),
        _ => None,
    };
    let computed = matches!(importer.operand(node, 0)?, Some(Item::Activation(_)));
    let Some(weights) = weights.filter(|_| computed) else {
        return general_gemm(importer, node, [turn_a, turn_b], alpha, beta);
    };
    let mut input = importer.activation(node, 0)?;
    let rank = importer.dims(input).len() + importer.lead();
    if rank != 2 {
        return Err(format!("its input has {rank} axes; a matrix is needed"));
    }
    if turn_a {
        if !importer.whole_mode {
            return Err("transA would mix images; not supported".into());
        }
        input = importer.permuted("turned", input, vec![1, 0])?;
    }
    let (dims, mut values) = matrix(importer, &weights, !turn_b)?;
    if alpha != 1.0 {
        importer.spend(values.len())?;
        values = values.iter().map(|value| value * alpha).collect();
    }
    let mut rest = None;
    let bias = match importer.operand(node, 2)?.cloned() {
        Some(Item::Constant(tensor)) => match spread(&tensor, dims[0], beta) {
            Ok(bias) => Some(bias),
            Err(_) if importer.whole_mode => {
                rest = Some(constant(importer, input, &tensor, |x| x)?);
                None
            }
            Err(problem) => return Err(problem),
        },
        Some(Item::Activation(id)) => {
            rest = Some(importer.in_mode(id)?);
            None
        }
        _ => None,
    };
    let product = linear(importer, input, dims, values, bias)?;
    add(importer, product, rest, beta).map(one)
}

/// Adds `beta * c` to a product.
fn add(
    importer: &mut Importer,
    product: ValueId,
    rest: Option<ValueId>,
    beta: f32,
) -> Result<ValueId, String> {
    let Some(mut rest) = rest else { return Ok(product) };
    if beta == 0.0 {
        return Ok(product);
    }
    if beta != 1.0 {
        rest = importer.affine("beta", rest, beta, 0.0)?;
    }
    emit_broadcast(importer, Operator::Add(Activation::Identity), "sum", product, rest)
}

/// Lowers a `Gemm` of two matrices of which the second is computed, too.
fn general_gemm(
    importer: &mut Importer,
    node: &Node<'_>,
    turned: [bool; 2],
    alpha: f32,
    beta: f32,
) -> Result<Vec<Item>, String> {
    if !importer.whole_mode {
        return Err("multiplies the images of a batch by a computed matrix".into());
    }
    let mut matrices = [importer.value_of(node, 0)?, importer.value_of(node, 1)?];
    for (matrix, turn) in matrices.iter_mut().zip(turned) {
        if importer.dims(*matrix).len() != 2 {
            return Err("multiplies values that are no matrices".into());
        }
        if turn {
            *matrix = importer.permuted("turned", *matrix, vec![1, 0])?;
        }
    }
    let mut product = importer.apply("", TensorOperator::MatMul, matrices.to_vec())?;
    if alpha != 1.0 {
        product = importer.affine("alpha", product, alpha, 0.0)?;
    }
    let rest = match importer.operand(node, 2)? {
        Some(_) => Some(importer.value_of(node, 2)?),
        None => None,
    };
    add(importer, product, rest, beta).map(one)
}

/// Broadcasts the bias of a `Gemm` to one number per output.
fn spread(tensor: &Tensor, out: usize, beta: f32) -> Result<Arc<[f32]>, String> {
    let values = tensor.numbers()?;
    match tensor.dims.as_slice() {
        [] | [1] | [1, 1] if values.len() == 1 => Ok(vec![values[0] * beta; out].into()),
        [n] | [1, n] if *n == out => Ok(values.iter().map(|value| value * beta).collect()),
        dims => Err(format!("its bias of shape {dims:?} does not fit {out} outputs")),
    }
}

/// Lowers a `MatMul` of computed and constant tensors.
pub fn matmul(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let item = |index: usize| -> Result<Item, String> {
        importer
            .operand(node, index)?
            .cloned()
            .ok_or_else(|| format!("its input {index} is missing"))
    };
    match (item(0)?, item(1)?) {
        (Item::Activation(a), Item::Constant(b)) if b.dims.len() == 2 => {
            let a = importer.in_mode(a)?;
            let (dims, values) = matrix(importer, &b, true)?;
            linear(importer, a, dims, values, None).map(one)
        }
        (Item::Activation(a), Item::Constant(b)) if b.dims.len() == 1 => {
            let a = importer.in_mode(a)?;
            let column = b.reshaped(vec![b.len(), 1])?;
            let (dims, values) = matrix(importer, &column, true)?;
            let product = linear(importer, a, dims, values, None)?;
            let axis = importer.dims(product).len() - 1;
            super::reduce::without(importer, product, &[axis]).map(one)
        }
        (Item::Activation(a), Item::Constant(b)) => {
            let a = importer.in_mode(a)?;
            let b = operand(importer, &b)?;
            product(importer, a, b).map(one)
        }
        (Item::Constant(a), Item::Activation(b)) if a.dims.len() > 1 => {
            let b = importer.in_mode(b)?;
            let a = operand(importer, &a)?;
            product(importer, a, b).map(one)
        }
        (Item::Activation(a), Item::Activation(b)) => {
            let (a, b) = (importer.in_mode(a)?, importer.in_mode(b)?);
            let ranks = [importer.dims(a).len(), importer.dims(b).len()];
            // Operands of different ranks would meet in the batch.
            if ranks[0] != ranks[1] && importer.batching == Batching::Open {
                return Err("multiplies values of different ranks across the batch".into());
            }
            product(importer, a, b).map(one)
        }
        _ => Err("multiplies by a vector in a form that is not supported".into()),
    }
}

/// Adds a constant operand of a product, which may have a batch axis of extent 1.
fn operand(importer: &mut Importer, tensor: &Tensor) -> Result<ValueId, String> {
    let dims = match (importer.whole_mode, &tensor.dims[..]) {
        (true, dims) | (false, dims @ [_, _]) => dims.to_vec(),
        (false, [1, rest @ ..]) => rest.to_vec(),
        (false, dims) => dims.to_vec(),
    };
    importer.constant_of(tensor, dims)
}

fn product(importer: &mut Importer, a: ValueId, b: ValueId) -> Result<ValueId, String> {
    if !importer.whole_mode && importer.dims(a).len().min(importer.dims(b).len()) < 2 {
        return Err("multiplies the images of a batch with each other".into());
    }
    importer.apply("", TensorOperator::MatMul, vec![a, b])
}

/// Lowers `Einsum` of one or two operands without repeated labels in one of them.
pub fn einsum(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let equation = node.text("equation")?.ok_or("has no equation")?;
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let unsupported = || format!("its equation `{equation}` is not supported");
    let (left, right) = equation.split_once("->").ok_or_else(unsupported)?;
    let mut terms: Vec<Vec<char>> = left.split(',').map(|term| term.chars().collect()).collect();
    let mut out: Vec<char> = right.chars().collect();
    if equation.contains('.') || terms.len() != node.proto.input.len() {
        return Err(unsupported());
    }
    let mut values = Vec::with_capacity(terms.len());
    let batch = out.first().copied();
    for (index, term) in terms.iter_mut().enumerate() {
        let item = importer.operand(node, index)?.cloned();
        match item.ok_or_else(unsupported)? {
            Item::Activation(id) => {
                let id = importer.in_mode(id)?;
                if !importer.whole_mode {
                    // The batch is the first label of everything computed, and of the result.
                    if term.first().copied() != batch || batch.is_none() {
                        return Err(unsupported());
                    }
                    term.remove(0);
                }
                values.push(id);
            }
            Item::Constant(tensor) => {
                if !importer.whole_mode && term.iter().any(|label| Some(*label) == batch) {
                    return Err(unsupported());
                }
                values.push(importer.constant_of(&tensor, tensor.dims.clone())?);
            }
            Item::Unusable(problem) => return Err(problem),
        }
    }
    if !importer.whole_mode {
        out.remove(0);
    }
    let repeated = |labels: &[char]| {
        labels.iter().enumerate().any(|(index, label)| labels[..index].contains(label))
    };
    let ranks_fit =
        terms.iter().zip(&values).all(|(term, &value)| term.len() == importer.dims(value).len());
    if !ranks_fit || repeated(&out) || terms.iter().any(|term| repeated(term)) {
        return Err(unsupported());
    }
    let ([a, b], &[x, y]) = (&terms[..], &values[..]) else { return Err(unsupported()) };
    let both: Vec<char> =
        out.iter().copied().filter(|label| a.contains(label) && b.contains(label)).collect();
    let only = |own: &[char], other: &[char]| -> Vec<char> {
        own.iter().copied().filter(|label| !other.contains(label)).collect()
    };
    let (free_a, free_b) = (only(a, b), only(b, a));
    let summed: Vec<char> =
        a.iter().copied().filter(|label| b.contains(label) && !out.contains(label)).collect();
    if free_a.iter().chain(&free_b).any(|label| !out.contains(label)) {
        return Err(unsupported());
    }
    let extent = |importer: &Importer, label: char| {
        let of = |term: &[char], value: ValueId| {
            term.iter().position(|&other| other == label).map(|axis| importer.dims(value)[axis])
        };
        of(a, x).or(of(b, y)).unwrap_or(1)
    };
    let size = |importer: &Importer, labels: &[char]| -> usize {
        labels.iter().map(|&label| extent(importer, label)).product()
    };
    let order = |term: &[char], wanted: [&[char]; 3]| -> Vec<usize> {
        let labels = wanted.concat();
        labels.iter().filter_map(|label| term.iter().position(|other| other == label)).collect()
    };
    let labels = [&both[..], &free_a, &free_b].concat();
    let dims: Vec<usize> = labels.iter().map(|&label| extent(importer, label)).collect();
    let matrices: Vec<usize> = both.iter().map(|&label| extent(importer, label)).collect();
    let (m, k, n) = (size(importer, &free_a), size(importer, &summed), size(importer, &free_b));
    let x = importer.permuted("left", x, order(a, [&both, &free_a, &summed]))?;
    let x = importer.reshaped("rows", x, [&matrices[..], &[m, k]].concat())?;
    let y = importer.permuted("right", y, order(b, [&both, &summed, &free_b]))?;
    let y = importer.reshaped("columns", y, [&matrices[..], &[k, n]].concat())?;
    let product = importer.apply("", TensorOperator::MatMul, vec![x, y])?;
    let product = importer.reshaped("shape", product, dims)?;
    let order =
        out.iter().filter_map(|label| labels.iter().position(|other| other == label)).collect();
    importer.permuted("out", product, order).map(one)
}
