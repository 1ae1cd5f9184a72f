//! Lowering of pointwise operators and normalizations.

use std::sync::Arc;

use paretune_kernels::operator::Operator;
use paretune_kernels::{Activation, ValueId};

use super::axes::inner_axis;
use super::{only_output, same};
use crate::onnx::importer::{Importer, Item, one};
use crate::onnx::node::Node;
use crate::onnx::tensor::{Tensor, broadcast};

fn emit_activation(
    importer: &mut Importer,
    input: ValueId,
    activation: Activation,
) -> Result<Vec<Item>, String> {
    let dims = importer.dims(input).to_vec();
    importer.emit("", Operator::Activation(activation), vec![input], dims).map(one)
}

/// Returns `min(max(x, low), high)` in its simplest form.
fn clamp(low: f32, high: f32) -> Activation {
    if low == 0.0 && high == f32::MAX { Activation::Relu } else { Activation::Clip { low, high } }
}

/// Lowers pointwise functions of one input, or of one input and constants.
pub fn activation(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0);
    let activation = match node.operator.as_str() {
        "Relu" => Activation::Relu,
        "Sigmoid" => Activation::Sigmoid,
        "HardSwish" => Activation::HardSwish,
        "LeakyRelu" => Activation::LeakyRelu { slope: node.float("alpha", 0.01)? },
        "PRelu" => {
            let slopes = importer.tensor(node, 1)?.floats()?;
            match slopes.split_first() {
                Some((&slope, rest))
                    if slope.is_finite() && rest.iter().all(|&other| other == slope) =>
                {
                    Activation::LeakyRelu { slope }
                }
                _ => return Err("slopes that differ between channels are not supported".into()),
            }
        }
        "HardSigmoid" => Activation::HardSigmoid {
            alpha: node.float("alpha", 0.2)?,
            beta: node.float("beta", 0.5)?,
        },
        "Clip" => {
            let (low, high) = if node.opset < 11 {
                (node.float("min", f32::MIN)?, node.float("max", f32::MAX)?)
            } else {
                (bound(importer, node, 1, f32::MIN)?, bound(importer, node, 2, f32::MAX)?)
            };
            if low > high {
                return Err(format!("its lower bound {low} is above its upper bound {high}"));
            }
            clamp(low, high)
        }
        "Max" | "Min" => return extremum(importer, node),
        "Swish" => {
            if node.float("alpha", 1.0)? != 1.0 {
                return Err("only alpha = 1 is supported".into());
            }
            let input = input?;
            let dims = importer.dims(input).to_vec();
            let gate = importer.emit(
                "gate",
                Operator::Activation(Activation::Sigmoid),
                vec![input],
                dims.clone(),
            )?;
            return importer
                .emit("", Operator::Mul(Activation::Identity), vec![input, gate], dims)
                .map(one);
        }
        "Neg" => return scale_shift(importer, input?, -1.0, 0.0),
        other => return Err(format!("{other} is not an activation")),
    };
    emit_activation(importer, input?, activation)
}

fn bound(importer: &Importer, node: &Node<'_>, index: usize, default: f32) -> Result<f32, String> {
    let value = importer.optional_tensor(node, index)?.map_or(Ok(default), Tensor::float_scalar)?;
    if value.is_nan() {
        Err("a bound is not a number".into())
    } else {
        Ok(value.clamp(f32::MIN, f32::MAX))
    }
}

/// Lowers `Max` or `Min` with one constant number to a clamp.
fn extremum(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let order =
        match (importer.operand(node, 0)?, importer.operand(node, 1)?, node.proto.input.len()) {
            (Some(Item::Activation(id)), Some(Item::Constant(limit)), 2)
            | (Some(Item::Constant(limit)), Some(Item::Activation(id)), 2) => {
                Some((*id, limit.float_scalar()?))
            }
            _ => None,
        };
    let Some((input, limit)) = order.filter(|(_, limit)| limit.is_finite()) else {
        return Err("is supported between one computed tensor and one constant number".into());
    };
    let activation =
        if node.operator == "Max" { clamp(limit, f32::MAX) } else { clamp(f32::MIN, limit) };
    emit_activation(importer, input, activation)
}

/// Adds `x * scale + shift` with single numbers.
fn scale_shift(
    importer: &mut Importer,
    input: ValueId,
    scale: f32,
    shift: f32,
) -> Result<Vec<Item>, String> {
    let dims = importer.dims(input).to_vec();
    let scale = importer.constant(vec![scale; dims[0]].into())?;
    let shift = importer.constant(vec![shift; dims[0]].into())?;
    let operator = Operator::ScaleShift { scale, shift, activation: Activation::Identity };
    importer.emit("", operator, vec![input], dims).map(one)
}

/// Lowers `Add`, `Sub`, `Mul` and `Div` of two computed tensors or with a constant.
pub fn binary(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let pair = match (importer.operand(node, 0)?, importer.operand(node, 1)?) {
        (Some(a), Some(b)) => (a.clone(), b.clone()),
        _ => return Err("needs two inputs".into()),
    };
    let operator = node.operator.as_str();
    match pair {
        (Item::Activation(a), Item::Activation(b)) => match operator {
            "Div" => Err("division by a computed tensor is not supported".into()),
            "Sub" => {
                let b = negated(importer, b)?;
                combine(importer, operator, a, b)
            }
            _ => combine(importer, operator, a, b),
        },
        (Item::Activation(a), Item::Constant(b)) => {
            let change: fn(f32) -> f32 = match operator {
                "Sub" => |x| -x,
                "Div" => |x| (1.0 / f64::from(x)) as f32,
                _ => |x| x,
            };
            let b = constant(importer, a, &b, change)?;
            combine(importer, operator, a, b)
        }
        (Item::Constant(a), Item::Activation(b)) => {
            let b = match operator {
                "Div" => return Err("division by a computed tensor is not supported".into()),
                "Sub" => negated(importer, b)?,
                _ => b,
            };
            let a = constant(importer, b, &a, |x| x)?;
            combine(importer, operator, b, a)
        }
        _ => Err("has no computed input".into()),
    }
}

fn negated(importer: &mut Importer, id: ValueId) -> Result<ValueId, String> {
    let minus = importer.constant(vec![-1.0].into())?;
    let minus = importer.emit("minus", Operator::Constant { constant: minus }, vec![], vec![1])?;
    let dims = importer.dims(id).to_vec();
    importer.emit("negated", Operator::Mul(Activation::Identity), vec![id, minus], dims)
}

/// Adds a step that provides a constant operand for `partner`.
fn constant(
    importer: &mut Importer,
    partner: ValueId,
    tensor: &Tensor,
    change: fn(f32) -> f32,
) -> Result<ValueId, String> {
    let rank = importer.dims(partner).len();
    let mut dims = tensor.dims.as_slice();
    if dims.len() == rank + 1 && dims[0] == 1 {
        dims = &dims[1..];
    }
    if dims.len() > rank {
        return Err(format!("its constant of shape {:?} spreads over the batch axis", tensor.dims));
    }
    let values: Arc<[f32]> = tensor.floats()?.iter().map(|&value| change(value)).collect();
    if values.iter().any(|value| !value.is_finite()) {
        return Err("its constant operand holds infinities or divides by zero".into());
    }
    let dims = if dims.is_empty() { vec![1] } else { dims.to_vec() };
    let constant = importer.constant(values)?;
    importer.emit("constant", Operator::Constant { constant }, vec![], dims)
}

fn combine(
    importer: &mut Importer,
    operator: &str,
    a: ValueId,
    b: ValueId,
) -> Result<Vec<Item>, String> {
    let operator = match operator {
        "Add" | "Sub" => Operator::Add(Activation::Identity),
        _ => Operator::Mul(Activation::Identity),
    };
    emit_broadcast(importer, operator, "", a, b).map(one)
}

/// Adds a step that applies `operator` to two values with broadcasting.
fn emit_broadcast(
    importer: &mut Importer,
    operator: Operator,
    part: &str,
    a: ValueId,
    b: ValueId,
) -> Result<ValueId, String> {
    let (x, y) = (importer.dims(a), importer.dims(b));
    let dims = broadcast(x, y)
        .ok_or_else(|| format!("shapes [batch, {x:?}] and [batch, {y:?}] do not broadcast"))?;
    importer.emit(part, operator, vec![a, b], dims)
}

/// Lowers a `Sum` of any number of tensors.
pub fn sum(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let count = node.proto.input.len();
    if count == 1 {
        return same(importer, node);
    }
    let mut total = importer.activation(node, 0)?;
    for index in 1..count {
        let other = importer.activation(node, index)?;
        let part = if index + 1 == count { String::new() } else { format!("part{index}") };
        total = emit_broadcast(importer, Operator::Add(Activation::Identity), &part, total, other)?;
    }
    Ok(one(total))
}

/// Lowers `BatchNormalization` for inference: per channel, `x * scale + shift`.
pub fn batch_normalization(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    if node.flag("training_mode", false)? {
        return Err("is in training mode; export the model for inference".into());
    }
    // Operator sets before 9 can normalize every position separately.
    if node.opset < 9 && !node.flag("spatial", true)? {
        return Err("spatial = 0 is not supported".into());
    }
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    let epsilon = f64::from(node.float("epsilon", 1e-5)?);
    let channels = dims[0];
    let part = |index: usize| {
        let values = importer.tensor(node, index)?.floats()?;
        if values.len() == channels {
            Ok(values)
        } else {
            Err(format!("its input {index} has {} numbers for {channels} channels", values.len()))
        }
    };
    let (gamma, beta, mean, variance) = (part(1)?, part(2)?, part(3)?, part(4)?);
    let (mut scale, mut shift) = (Vec::with_capacity(channels), Vec::with_capacity(channels));
    for (channel, (&gamma, &beta)) in gamma.iter().zip(beta.iter()).enumerate() {
        let factor = f64::from(gamma) / (f64::from(variance[channel]) + epsilon).sqrt();
        let offset = f64::from(beta) - f64::from(mean[channel]) * factor;
        if !factor.is_finite() || !offset.is_finite() {
            return Err(format!("channel {channel} has the variance {}", variance[channel]));
        }
        scale.push(factor as f32);
        shift.push(offset as f32);
    }
    let scale = importer.constant(scale.into())?;
    let shift = importer.constant(shift.into())?;
    let operator = Operator::ScaleShift { scale, shift, activation: Activation::Identity };
    importer.emit("", operator, vec![input], dims).map(one)
}

/// Lowers local response normalization (`LRN`).
pub fn lrn(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let dims = importer.image(input)?.to_vec();
    let size = node
        .int("size")?
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| (1..=1 << 16).contains(size));
    let operator = Operator::Lrn {
        size: size.ok_or("its attribute `size` is missing or out of range")?,
        alpha: node.float("alpha", 1e-4)?,
        beta: node.float("beta", 0.75)?,
        bias: node.float("bias", 1.0)?,
    };
    importer.emit("", operator, vec![input], dims).map(one)
}

/// Lowers `Softmax`. Before operator set 13 it works over all axes from its own on.
pub fn softmax(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    only_output(node, "further outputs")?;
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    let given = node.int("axis")?;
    if node.opset >= 13 {
        let axis = inner_axis(given.unwrap_or(-1), dims.len())?;
        return importer.emit("", Operator::Softmax { axis }, vec![input], dims).map(one);
    }
    let axis = inner_axis(given.unwrap_or(1), dims.len())?;
    if axis + 1 == dims.len() {
        return importer.emit("", Operator::Softmax { axis }, vec![input], dims).map(one);
    }
    let mut flat = dims[..axis].to_vec();
    flat.push(dims[axis..].iter().product());
    let input = importer.emit("flat", Operator::Reshape, vec![input], flat.clone())?;
    let output = importer.emit("", Operator::Softmax { axis }, vec![input], flat)?;
    importer.emit("shape", Operator::Reshape, vec![output], dims).map(one)
}
