//! Lowering of operators that move numbers without changing them.

use paretune_kernels::operator::Operator;
use paretune_kernels::plan::tensor::Unary;

use super::axes::{axes_of, inner_axes, inner_axis};
use super::same;
use crate::onnx::importer::{Importer, Item, one};
use crate::onnx::node::{Node, resolve_axis};
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::tensor::Int;

/// Lowers `Identity`, `Dropout` at inference, and `Cast` between floating-point formats.
pub fn pass_through(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    if node.operator == "Cast" {
        return cast(importer, node);
    }
    // From operator set 12 on, training mode is an input.
    if node.operator == "Dropout"
        && let Some(training) = importer.optional_tensor(node, 2)?
        && training.known()? != [0]
        && ratio(importer, node)? != 0.0
    {
        return Err("is in training mode; export the model for inference".into());
    }
    same(importer, node)
}

/// Returns the fraction of elements that a `Dropout` drops.
fn ratio(importer: &Importer, node: &Node<'_>) -> Result<f32, String> {
    importer.optional_tensor(node, 1)?.map_or(Ok(0.5), |ratio| ratio.float_scalar())
}

/// Lowers `CastLike` to the format of a constant.
pub fn cast_like(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    match importer.operand(node, 1)? {
        Some(Item::Constant(tensor)) if tensor.is_integer() => {
            importer.unary("", Unary::Truncate, input).map(one)
        }
        Some(Item::Constant(_)) => Ok(one(input)),
        _ => Err("casts to the format of a computed tensor".into()),
    }
}

/// Lowers `Cast`: to integers by cutting off fractions, to truth values by comparison with zero.
fn cast(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    match target(node)? {
        DataType::Float | DataType::Float16 | DataType::Bfloat16 | DataType::Double => {
            Ok(one(input))
        }
        DataType::Bool => importer.unary("", Unary::Truth, input).map(one),
        DataType::Int64
        | DataType::Int32
        | DataType::Int16
        | DataType::Int8
        | DataType::Uint8
        | DataType::Uint16
        | DataType::Uint32
        | DataType::Uint64 => importer.unary("", Unary::Truncate, input).map(one),
        other => Err(format!("casting activations to {} is not supported", other.as_str_name())),
    }
}

/// Returns the type that a `Cast` casts to; before operator set 6 it was a word.
pub fn target(node: &Node<'_>) -> Result<DataType, String> {
    if let Ok(Some(number)) = node.int("to") {
        return i32::try_from(number)
            .ok()
            .and_then(|number| DataType::try_from(number).ok())
            .ok_or_else(|| format!("casts to the unknown type {number}"));
    }
    let word = node.text("to")?.ok_or("does not say what to cast to")?;
    DataType::from_str_name(&word.to_uppercase())
        .ok_or_else(|| format!("casts to the unknown type `{word}`"))
}

/// Lowers `Flatten`, `Reshape`, `Squeeze` and `Unsqueeze`, which must leave the batch axis first.
pub fn reshape(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    let rank = dims.len();
    let new = match node.operator.as_str() {
        "Flatten" if importer.whole_mode => {
            let axis = match node.int("axis")?.unwrap_or(1) {
                axis if axis == rank as i64 => rank,
                axis => resolve_axis(axis, rank)?,
            };
            vec![dims[..axis].iter().product(), dims[axis..].iter().product()]
        }
        "Flatten" => flattened(node, &dims)?,
        "Reshape" => {
            let target: Vec<Int> = match node.ints("shape")? {
                // Before operator set 5 the shape was an attribute.
                Some(shape) => shape.iter().map(|&extent| Int::Known(extent)).collect(),
                None => importer.tensor(node, 1)?.symbols()?.to_vec(),
            };
            let keep_zero = node.flag("allowzero", false)?;
            if importer.whole_mode {
                whole(&target, &dims, keep_zero)?
            } else {
                reshaped(&target, &dims, importer.batch(), keep_zero)?
            }
        }
        "Squeeze" => {
            let axes = match axes_of(importer, node)? {
                Some(axes) => inner_axes(importer.lead(), &axes, rank)?,
                // With several images, the batch is no axis of extent 1.
                None if importer.whole_mode || importer.keeps_batch() => {
                    (0..rank).filter(|&axis| dims[axis] == 1).collect()
                }
                None => {
                    return Err("names no axes, so that it could drop the batch; name them".into());
                }
            };
            if let Some(&axis) = axes.iter().find(|&&axis| dims[axis] != 1) {
                return Err(format!("drops axis {}, whose extent is {}", axis + 1, dims[axis]));
            }
            (0..rank).filter(|axis| !axes.contains(axis)).map(|axis| dims[axis]).collect()
        }
        _ => {
            let axes = axes_of(importer, node)?.ok_or("has no axes")?;
            if axes.len() > 16 {
                return Err("has too many axes".into());
            }
            let rank = rank + axes.len();
            let axes = inner_axes(importer.lead(), &axes, rank)?;
            let mut rest = dims.iter().copied();
            (0..rank)
                .map(|axis| if axes.contains(&axis) { 1 } else { rest.next().unwrap_or(1) })
                .collect()
        }
    };
    let new = if new.is_empty() { vec![1] } else { new };
    importer.emit("", Operator::Reshape, vec![input], new).map(one)
}

/// Returns the new shape of a whole value.
fn whole(target: &[Int], dims: &[usize], keep_zero: bool) -> Result<Vec<usize>, String> {
    let size: usize = dims.iter().product();
    let mut new = Vec::with_capacity(target.len());
    let mut open = None;
    for (position, value) in target.iter().enumerate() {
        new.push(match *value {
            Int::Known(0) if !keep_zero => {
                *dims.get(position).ok_or("copies an axis that does not exist")?
            }
            Int::Known(-1) if open.is_none() => {
                open = Some(position);
                1
            }
            Int::Known(value) => usize::try_from(value).map_err(|_| "has an impossible shape")?,
            Int::Batch => return Err("depends on the number of images".into()),
        });
    }
    let known = crate::onnx::tensor::volume(&new).filter(|&known| known > 0);
    let known = known.ok_or("has an empty or too large shape")?;
    if let Some(position) = open {
        new[position] = size / known;
    }
    if new.iter().product::<usize>() != size {
        return Err(format!("cannot reshape {dims:?} to {new:?}"));
    }
    Ok(new)
}

fn flattened(node: &Node<'_>, dims: &[usize]) -> Result<Vec<usize>, String> {
    let rank = dims.len() + 1;
    let axis = match node.int("axis")?.unwrap_or(1) {
        axis if axis == rank as i64 => rank,
        axis => resolve_axis(axis, rank)?,
    };
    if axis == 0 || dims[..axis - 1].iter().any(|&dim| dim != 1) {
        return Err(format!(
            "flattening at axis {axis} mixes the batch with other axes, which is not supported"
        ));
    }
    Ok(vec![dims.iter().product()])
}

/// Returns the new shape of one image. `target` has the batch first, in one of the exporters'
/// notations.
fn reshaped(
    target: &[Int],
    dims: &[usize],
    batch: Option<i64>,
    keep_zero: bool,
) -> Result<Vec<usize>, String> {
    let size: usize = dims.iter().product();
    let shown = || {
        let parts: Vec<_> = target
            .iter()
            .map(|value| match value {
                Int::Known(value) => value.to_string(),
                Int::Batch => "batch".into(),
            })
            .collect();
        format!("[{}]", parts.join(", "))
    };
    let mixes = || {
        Err(format!(
            "reshaping [batch, {dims:?}] to {} does not keep the batch axis first and whole, \
             which is not supported",
            shown()
        ))
    };
    let Some((first, rest)) = target.split_first() else { return mixes() };
    let mut new = Vec::with_capacity(rest.len());
    let mut open = None;
    for (position, value) in rest.iter().enumerate() {
        new.push(match *value {
            Int::Batch => return mixes(),
            Int::Known(0) if !keep_zero => match dims.get(position) {
                Some(&dim) => dim,
                None => return Err(format!("{} copies an axis that does not exist", shown())),
            },
            Int::Known(-1) if open.is_none() => {
                open = Some(position);
                1
            }
            Int::Known(value) => match usize::try_from(value) {
                Ok(value) => value,
                Err(_) => return Err(format!("{} is no shape", shown())),
            },
        });
    }
    let known = crate::onnx::tensor::volume(&new).filter(|&known| known > 0);
    let Some(known) = known else { return Err(format!("{} is empty or too large", shown())) };
    match first {
        Int::Batch => {}
        // The batch is copied, fixed at the file's batch size, or 1 in a file for one image.
        Int::Known(0) if !keep_zero => {}
        Int::Known(value) if Some(*value) == batch || *value == 1 => {}
        // The inferred extent is the batch exactly if the other extents are one image.
        Int::Known(-1) if open.is_none() => {}
        _ => return mixes(),
    }
    if let Some(position) = open {
        if !size.is_multiple_of(known) {
            return mixes();
        }
        new[position] = size / known;
    } else if known != size {
        return mixes();
    }
    Ok(new)
}

/// Lowers `Transpose` of the axes behind the batch.
pub fn transpose(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    let rank = dims.len();
    let lead = importer.lead();
    let order: Vec<i64> = match node.ints("perm")? {
        Some(order) => order.to_vec(),
        None => (0..(rank + lead) as i64).rev().collect(),
    };
    if lead == 1 && order.first() != Some(&0) {
        return Err(format!("permutation {order:?} moves the batch axis, which is not supported"));
    }
    let permutation = order[lead.min(order.len())..]
        .iter()
        .map(|&axis| inner_axis(lead, axis, rank))
        .collect::<Result<Vec<_>, _>>()?;
    if permutation.len() != rank || (0..rank).any(|axis| !permutation.contains(&axis)) {
        return Err(format!("{order:?} does not permute the axes of [batch, {dims:?}]"));
    }
    let new = permutation.iter().map(|&axis| dims[axis]).collect();
    importer.emit("", Operator::Transpose { permutation }, vec![input], new).map(one)
}

/// Lowers `Concat` of computed tensors, and constants among them.
pub fn concat(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let count = node.proto.input.len();
    let inputs =
        (0..count).map(|index| importer.value_of(node, index)).collect::<Result<Vec<_>, _>>()?;
    let mut dims = importer.dims(*inputs.first().ok_or("has no inputs")?).to_vec();
    // Before operator set 4 the axis could be left out.
    let axis = node.int("axis")?.or((node.opset < 4).then_some(1)).ok_or("has no axis")?;
    let axis = inner_axis(importer.lead(), axis, dims.len())?;
    for &input in &inputs[1..] {
        let other = importer.dims(input);
        let fits = other.len() == dims.len()
            && (0..dims.len())
                .all(|position| position == axis || other[position] == dims[position]);
        if !fits {
            return Err(format!(
                "[batch, {dims:?}] and [batch, {other:?}] differ in more than axis {}",
                axis + 1
            ));
        }
        dims[axis] = dims[axis].checked_add(other[axis]).ok_or("is too large")?;
    }
    importer.emit("", Operator::Concat { axis }, inputs, dims).map(one)
}
