//! Lowering of operators that move numbers without changing them.

use paretune_kernels::operator::Operator;

use super::axes::{axes_of, inner_axes, inner_axis, slices};
use super::same;
use crate::onnx::importer::{Importer, Item, one};
use crate::onnx::node::{Node, resolve_axis};
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::tensor::Int;

/// Lowers `Identity`, `Dropout` at inference, and `Cast` between floating-point formats.
pub fn pass_through(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    if node.operator == "Cast" {
        let to = node.int("to")?.and_then(|to| i32::try_from(to).ok());
        let to = to.and_then(|to| DataType::try_from(to).ok()).unwrap_or_default();
        if !matches!(
            to,
            DataType::Float | DataType::Float16 | DataType::Bfloat16 | DataType::Double
        ) {
            return Err(format!("casting activations to {} is not supported", to.as_str_name()));
        }
    }
    // From operator set 12 on, training mode is an input.
    if node.operator == "Dropout"
        && let Some(training) = importer.optional_tensor(node, 2)?
        && training.known()? != [0]
    {
        return Err("is in training mode; export the model for inference".into());
    }
    same(importer, node)
}

/// Lowers `Flatten`, `Reshape`, `Squeeze` and `Unsqueeze`, which must leave the batch axis first.
pub fn reshape(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    let rank = dims.len();
    let new = match node.operator.as_str() {
        "Flatten" => flattened(node, &dims)?,
        "Reshape" => {
            let target = importer.tensor(node, 1)?.symbols()?.to_vec();
            reshaped(&target, &dims, importer.batch(), node.flag("allowzero", false)?)?
        }
        "Squeeze" => {
            let axes = axes_of(importer, node)?
                .ok_or("names no axes, so that it could drop the batch; name them")?;
            let axes = inner_axes(&axes, rank)?;
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
            let axes = inner_axes(&axes, rank)?;
            let mut rest = dims.iter().copied();
            (0..rank)
                .map(|axis| if axes.contains(&axis) { 1 } else { rest.next().unwrap_or(1) })
                .collect()
        }
    };
    importer.emit("", Operator::Reshape, vec![input], new).map(one)
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
    let order = node
        .ints("perm")?
        .ok_or("reverses all axes, the batch included, which is not supported")?;
    let [0, order @ ..] = order else {
        return Err(format!("permutation {order:?} moves the batch axis, which is not supported"));
    };
    let permutation =
        order.iter().map(|&axis| inner_axis(axis, rank)).collect::<Result<Vec<_>, _>>()?;
    if permutation.len() != rank || (0..rank).any(|axis| !permutation.contains(&axis)) {
        return Err(format!("{order:?} does not permute the axes of [batch, {dims:?}]"));
    }
    let new = permutation.iter().map(|&axis| dims[axis]).collect();
    importer.emit("", Operator::Transpose { permutation }, vec![input], new).map(one)
}

/// Lowers `Concat` of computed tensors.
pub fn concat(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let count = node.proto.input.len();
    let inputs =
        (0..count).map(|index| importer.activation(node, index)).collect::<Result<Vec<_>, _>>()?;
    let mut dims = importer.dims(*inputs.first().ok_or("has no inputs")?).to_vec();
    let axis = inner_axis(node.int("axis")?.ok_or("has no axis")?, dims.len())?;
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

/// Lowers `Pad` with a constant, with amounts as attribute or as input.
pub fn pad(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    if let Some(mode) = node.text("mode")?
        && mode != "constant"
    {
        return Err(format!("padding mode `{mode}` is not supported, only `constant`"));
    }
    let old = node.opset < 11;
    let amounts = if old {
        node.ints("pads")?.ok_or("has no pads")?.to_vec()
    } else {
        importer.tensor(node, 1)?.known()?
    };
    let value = if old {
        node.float("value", 0.0)?
    } else {
        importer.optional_tensor(node, 2)?.map_or(Ok(0.0), |tensor| tensor.float_scalar())?
    };
    let axes: Vec<i64> = match importer.optional_tensor(node, 3)? {
        Some(axes) => axes.known()?,
        None => (0..=dims.len() as i64).collect(),
    };
    if amounts.len() != 2 * axes.len() {
        return Err(format!("has {} amounts for {} axes", amounts.len(), axes.len()));
    }
    let mut padding = vec![[0; 2]; dims.len()];
    let mut new = dims.clone();
    for (index, &axis) in axes.iter().enumerate() {
        let pair = [amounts[index], amounts[index + axes.len()]];
        if pair == [0, 0] {
            continue;
        }
        let axis = inner_axis(axis, dims.len())?;
        let size = |amount: i64| usize::try_from(amount).ok().filter(|&amount| amount <= 1 << 16);
        let (Some(before), Some(after)) = (size(pair[0]), size(pair[1])) else {
            return Err(format!(
                "amounts {pair:?} are negative (cropping) or too large; not supported"
            ));
        };
        padding[axis] = [before, after];
        new[axis] = dims[axis] + before + after;
    }
    importer.emit("", Operator::Pad { padding, value }, vec![input], new).map(one)
}

/// Lowers a `Slice` that keeps everything. Other slices of activations are not supported.
pub fn slice(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let inner = importer.dims(input).to_vec();
    // Any extent will do for the batch if a full slice of it can be recognized.
    let full = [&[usize::MAX >> 2], inner.as_slice()].concat();
    let whole = slices(importer, node, &full)?.iter().all(|cut| {
        cut.start == 0 && cut.step == 1 && (cut.axis == 0 || cut.count == full[cut.axis])
    });
    if whole { Ok(one(input)) } else { Err("slices of activations are not supported".into()) }
}
