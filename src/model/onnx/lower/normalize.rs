//! Lowering of normalizations whose statistics are computed from the values.

use std::sync::Arc;

use paretune_kernels::operator::Operator;
use paretune_kernels::plan::tensor::{Binary, Reduction, TensorOperator, Unary};
use paretune_kernels::{Activation, ValueId};

use super::axes::inner_axis;
use crate::onnx::importer::{Importer, Item, one};
use crate::onnx::node::Node;
use crate::onnx::tensor::Tensor;

fn normalize(
    importer: &mut Importer,
    input: ValueId,
    axes: [usize; 2],
    center: bool,
    epsilon: f32,
) -> Result<ValueId, String> {
    importer.apply("normal", TensorOperator::Normalize { axes, center, epsilon }, vec![input])
}

/// Lowers `LayerNormalization` and `RMSNormalization`, whose scale and offset have the shape of the
/// normalized axes.
pub fn layer(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    let axis = inner_axis(importer.lead(), node.int("axis")?.unwrap_or(-1), dims.len())?;
    importer.refuse_batch(input, &[axis])?;
    let center = node.operator == "LayerNormalization";
    let epsilon = node.float("epsilon", 1e-5)?;
    let mut value = normalize(importer, input, [axis, dims.len() - 1], center, epsilon)?;
    for (index, product) in [(1, true), (2, false)] {
        let Some(tensor) = importer.optional_tensor(node, index)?.cloned() else { continue };
        value = broadcast(importer, value, &tensor, product)?;
    }
    let mut outputs = one(value);
    if center && (node.has_output(1) || node.has_output(2)) {
        // The statistics that the normalization has used.
        let axes: Vec<usize> = (axis..dims.len()).collect();
        let reduce = || TensorOperator::Reduce { kind: Reduction::Mean, axes: axes.clone() };
        let mean = importer.apply("mean", reduce(), vec![input])?;
        let centered = importer.pair("centered", Binary::Subtract, input, mean)?;
        let squares = importer.unary("squares", Unary::Power { exponent: 2.0 }, centered)?;
        let variance = importer.apply("variance", reduce(), vec![squares])?;
        let positive = importer.affine("positive", variance, 1.0, epsilon)?;
        let root = Unary::Power { exponent: -0.5 };
        let inverse = importer.unary("deviation", root, positive)?;
        outputs.extend([Item::Activation(mean), Item::Activation(inverse)]);
    }
    Ok(outputs)
}

/// Multiplies or adds a constant that broadcasts to the value.
fn broadcast(
    importer: &mut Importer,
    value: ValueId,
    tensor: &Tensor,
    product: bool,
) -> Result<ValueId, String> {
    let numbers = tensor.numbers()?;
    let neutral = if product { 1.0 } else { 0.0 };
    if numbers.iter().all(|&number| number == neutral) {
        return Ok(value);
    }
    let dims = importer.dims(value).to_vec();
    let mut own = &tensor.dims[..];
    // Leading axes of extent 1 beyond the value's rank do not matter.
    while own.len() > dims.len() && own[0] == 1 {
        own = &own[1..];
    }
    let constant = importer.constant_of(tensor, own.to_vec())?;
    let wide = paretune_kernels::plan::shape::broadcast(&dims, importer.dims(constant))?;
    if wide != dims {
        return Err(format!("has parameters of shape {:?} for {dims:?}", tensor.dims));
    }
    let (part, operator) = if product {
        ("scale", Operator::Mul(Activation::Identity))
    } else {
        ("shift", Operator::Add(Activation::Identity))
    };
    importer.emit(part, operator, vec![value, constant], dims)
}

/// Returns input `index` as one number per channel.
fn parameters(
    importer: &Importer,
    node: &Node<'_>,
    index: usize,
    channels: usize,
) -> Result<Arc<[f32]>, String> {
    let numbers = importer.tensor(node, index)?.numbers()?;
    if numbers.len() == channels {
        Ok(numbers)
    } else {
        Err(format!("its input {index} has {} numbers for {channels} channels", numbers.len()))
    }
}

/// Lowers `InstanceNormalization`.
pub fn instance(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    if importer.whole_mode || dims.len() < 2 {
        return Err("works on [batch, channels, ..]".into());
    }
    let epsilon = node.float("epsilon", 1e-5)?;
    let value = normalize(importer, input, [1, dims.len() - 1], true, epsilon)?;
    let (scale, shift) =
        (parameters(importer, node, 1, dims[0])?, parameters(importer, node, 2, dims[0])?);
    importer.per_channel("", value, scale, shift).map(one)
}

/// Lowers `GroupNormalization`. Its parameters belong to groups before operator set 21.
pub fn group(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    if importer.whole_mode {
        return Err("works on [batch, channels, ..]".into());
    }
    let channels = dims[0];
    let groups = node.int("num_groups")?.and_then(|groups| usize::try_from(groups).ok());
    let groups = groups
        .filter(|&groups| groups > 0 && channels.is_multiple_of(groups))
        .ok_or_else(|| format!("does not divide {channels} channels into groups"))?;
    let epsilon = node.float("epsilon", 1e-5)?;
    let len: usize = dims.iter().product();
    let split = importer.reshaped("groups", input, vec![groups, len / groups])?;
    let value = normalize(importer, split, [1, 1], true, epsilon)?;
    let value = importer.reshaped("channels", value, dims)?;
    let each = |numbers: Arc<[f32]>| -> Result<Arc<[f32]>, String> {
        match numbers.len() {
            len if len == channels => Ok(numbers),
            len if len == groups => {
                let size = channels / groups;
                Ok(numbers.iter().flat_map(|&number| std::iter::repeat_n(number, size)).collect())
            }
            len => Err(format!("has {len} parameters for {channels} channels")),
        }
    };
    let scale = each(importer.tensor(node, 1)?.numbers()?)?;
    let shift = each(importer.tensor(node, 2)?.numbers()?)?;
    importer.per_channel("", value, scale, shift).map(one)
}

/// Lowers `MeanVarianceNormalization`, whose axes may be any.
pub fn mean_variance(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let rank = importer.dims(input).len();
    let axes = node.ints("axes")?.unwrap_or(&[0, 2, 3]);
    let axes = super::axes::inner_axes(importer.lead(), axes, rank)?;
    importer.refuse_batch(input, &axes)?;
    let reduce = |kind| TensorOperator::Reduce { kind, axes: axes.clone() };
    let mean = importer.apply("mean", reduce(Reduction::Mean), vec![input])?;
    let centered = importer.pair("centered", Binary::Subtract, input, mean)?;
    let squares = importer.unary("squares", Unary::Power { exponent: 2.0 }, centered)?;
    let variance = importer.apply("variance", reduce(Reduction::Mean), vec![squares])?;
    let deviation = importer.unary("deviation", Unary::Sqrt, variance)?;
    let deviation = importer.affine("positive", deviation, 1.0, 1e-9)?;
    importer.pair("", Binary::Divide, centered, deviation).map(one)
}
