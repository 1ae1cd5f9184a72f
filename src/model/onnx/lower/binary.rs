//! Lowering of functions of two or more tensors with broadcasting.

use std::sync::Arc;

use paretune_kernels::operator::Operator;
use paretune_kernels::plan::tensor::{Binary, TensorOperator, Unary};
use paretune_kernels::{Activation, ValueId};

use super::elementwise::clamp;
use crate::onnx::importer::{Importer, Item, one};
use crate::onnx::node::{Node, resolve_axis};
use crate::onnx::tensor::{Tensor, broadcast};

/// Lowers `Max`, `Min`, `Sum` and `Mean` of any number of tensors, constant ones among them.
pub fn chain(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let operator = node.operator.as_str();
    let count = node.proto.input.len();
    let mut items = Vec::with_capacity(count);
    for index in 0..count {
        let item = importer.operand(node, index)?.cloned();
        items.push(item.ok_or_else(|| format!("its input {index} is missing"))?);
    }
    // Computed tensors first: constants take their shape from a partner.
    items.sort_by_key(|item| matches!(item, Item::Constant(_)));
    let Some(Item::Activation(first)) = items.first().cloned() else {
        return Err("has no computed input".into());
    };
    let mut total = importer.in_mode(first)?;
    let last = count - 1;
    for (index, item) in items.iter().enumerate().skip(1) {
        let ends = index == last && operator != "Mean";
        let part = if ends { String::new() } else { format!("part{index}") };
        let clip = match (operator, item) {
            ("Max" | "Min", Item::Constant(tensor)) if tensor.len() == 1 => {
                Some(tensor.numbers()?[0]).filter(|limit| limit.is_finite())
            }
            _ => None,
        };
        if let Some(limit) = clip {
            let activation =
                if operator == "Max" { clamp(limit, f32::MAX) } else { clamp(f32::MIN, limit) };
            let dims = importer.dims(total).to_vec();
            let operator = Operator::Activation(activation);
            total = importer.emit(&part, operator, vec![total], dims)?;
            continue;
        }
        let other = match item {
            Item::Activation(id) => importer.in_mode(*id)?,
            Item::Constant(tensor) => constant(importer, total, tensor, |x| x)?,
            Item::Unusable(problem) => return Err(problem.clone()),
        };
        total = match operator {
            "Max" => importer.pair(&part, Binary::Maximum, total, other)?,
            "Min" => importer.pair(&part, Binary::Minimum, total, other)?,
            _ => {
                let sum = Operator::Add(Activation::Identity);
                emit_broadcast(importer, sum, &part, total, other)?
            }
        };
    }
    if operator == "Mean" && count > 1 {
        total = importer.affine("", total, (1.0 / count as f64) as f32, 0.0)?;
    }
    Ok(one(total))
}

/// Lowers `Add`, `Sub`, `Mul`, `Div`, `Pow` and comparisons of two computed tensors or with a
/// constant.
pub fn binary(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let mut pair = match (importer.operand(node, 0)?, importer.operand(node, 1)?) {
        (Some(a), Some(b)) => [a.clone(), b.clone()],
        _ => return Err("needs two inputs".into()),
    };
    let mut partner = None;
    for item in &mut pair {
        if let Item::Activation(id) = item {
            *id = importer.in_mode(*id)?;
            partner.get_or_insert(*id);
        }
    }
    let partner = partner.ok_or("has no computed input")?;
    // Before operator set 7, the second operand was aligned by attributes.
    if node.opset < 7
        && let Item::Constant(tensor) = &mut pair[1]
    {
        *tensor = aligned(importer, node, partner, tensor)?;
    }
    let operator = node.operator.as_str();
    match (operator, pair) {
        ("Add" | "Mul", [Item::Activation(a), Item::Activation(b)]) => {
            combine(importer, operator, a, b)
        }
        ("Sub", [Item::Activation(a), Item::Activation(b)]) => {
            let b = negated(importer, b)?;
            combine(importer, operator, a, b)
        }
        ("Add" | "Sub" | "Mul" | "Div", [Item::Activation(a), Item::Constant(b)]) => {
            let change: fn(f32) -> f32 = match operator {
                "Sub" => |x| -x,
                "Div" => |x| (1.0 / f64::from(x)) as f32,
                _ => |x| x,
            };
            let b = constant(importer, a, &b, change)?;
            combine(importer, operator, a, b)
        }
        ("Add" | "Mul" | "Sub", [Item::Constant(a), Item::Activation(b)]) => {
            let b = if operator == "Sub" { negated(importer, b)? } else { b };
            let a = constant(importer, b, &a, |x| x)?;
            combine(importer, operator, b, a)
        }
        ("Pow", [Item::Activation(a), Item::Constant(b)]) if b.len() == 1 => {
            match b.numbers()?[0] {
                1.0 => Ok(one(a)),
                exponent => importer.unary("", Unary::Power { exponent }, a).map(one),
            }
        }
        (_, pair) => {
            let mut values = [0; 2];
            for (value, item) in values.iter_mut().zip(pair) {
                *value = match item {
                    Item::Activation(id) => id,
                    Item::Constant(tensor) => constant(importer, partner, &tensor, |x| x)?,
                    Item::Unusable(problem) => return Err(problem),
                };
            }
            let [a, b] = values;
            let (function, a, b) = match operator {
                "Div" => (Binary::Divide, a, b),
                "Pow" => (Binary::Power, a, b),
                "Less" => (Binary::Less, a, b),
                "LessOrEqual" => (Binary::LessOrEqual, a, b),
                "Greater" => (Binary::Less, b, a),
                "GreaterOrEqual" => (Binary::LessOrEqual, b, a),
                "Equal" => (Binary::Equal, a, b),
                "And" => (Binary::And, a, b),
                "Or" => (Binary::Or, a, b),
                "Xor" => (Binary::Xor, a, b),
                "Mod" if node.flag("fmod", false)? => (Binary::Remainder, a, b),
                other => return Err(format!("{other} is not supported in this form")),
            };
            importer.pair("", function, a, b).map(one)
        }
    }
}

/// Returns the second operand of an old node, whose attribute `axis` says which axis of the first
/// its first axis belongs to.
fn aligned(
    importer: &Importer,
    node: &Node<'_>,
    partner: ValueId,
    tensor: &Tensor,
) -> Result<Tensor, String> {
    let rank = importer.dims(partner).len() + importer.lead();
    let Some(axis) = node.int("axis")? else { return Ok(tensor.clone()) };
    let axis = resolve_axis(axis, rank)?;
    let behind = rank.checked_sub(axis + tensor.dims.len()).ok_or("has a misplaced operand")?;
    let tensor = tensor.reshaped([&tensor.dims[..], &vec![1; behind]].concat())?;
    let fits = tensor.dims.iter().enumerate().all(|(index, &size)| {
        let own = (axis + index).checked_sub(importer.lead());
        size == 1 || own.is_some_and(|own| importer.dims(partner)[own] == size)
    });
    if fits { Ok(tensor) } else { Err(format!("does not broadcast {:?}", tensor.dims)) }
}

/// Lowers `Where`.
pub fn choose(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let mut partner: Option<ValueId> = None;
    let mut items = Vec::with_capacity(3);
    for index in 0..3 {
        let mut item = importer.operand(node, index)?.cloned().ok_or("needs three inputs")?;
        if let Item::Activation(id) = &mut item {
            *id = importer.in_mode(*id)?;
            let rank = |id: ValueId| importer.dims(id).len();
            if partner.is_none_or(|other| rank(*id) > rank(other)) {
                partner = Some(*id);
            }
        }
        items.push(item);
    }
    let partner = partner.ok_or("has no computed input")?;
    let mut values = Vec::with_capacity(3);
    for item in items {
        values.push(match item {
            Item::Activation(id) => id,
            Item::Constant(tensor) => operand(importer, partner, &tensor, |x| x, true)?,
            Item::Unusable(problem) => return Err(problem),
        });
    }
    importer.apply("", TensorOperator::Choose, values).map(one)
}

fn negated(importer: &mut Importer, id: ValueId) -> Result<ValueId, String> {
    let minus = importer.constant(vec![-1.0].into())?;
    let minus = importer.emit("minus", Operator::Constant { constant: minus }, vec![], vec![1])?;
    let dims = importer.dims(id).to_vec();
    importer.emit("negated", Operator::Mul(Activation::Identity), vec![id, minus], dims)
}

/// Adds a step that provides a constant operand for `partner`.
pub fn constant(
    importer: &mut Importer,
    partner: ValueId,
    tensor: &Tensor,
    change: fn(f32) -> f32,
) -> Result<ValueId, String> {
    operand(importer, partner, tensor, change, false)
}

/// Adds a constant operand; `infinite` allows infinities, which masks use.
fn operand(
    importer: &mut Importer,
    partner: ValueId,
    tensor: &Tensor,
    change: fn(f32) -> f32,
    infinite: bool,
) -> Result<ValueId, String> {
    let rank = importer.dims(partner).len();
    let mut dims = tensor.dims.as_slice();
    if !importer.whole_mode {
        if dims.len() == rank + 1 && dims[0] == 1 {
            dims = &dims[1..];
        }
        if dims.len() > rank {
            return Err(format!(
                "its constant of shape {:?} spreads over the batch axis",
                tensor.dims
            ));
        }
    }
    let values: Arc<[f32]> = tensor.numbers()?.iter().map(|&value| change(value)).collect();
    if values.iter().any(|value| value.is_nan() || (!infinite && value.is_infinite())) {
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
pub fn emit_broadcast(
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
