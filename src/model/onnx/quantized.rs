//! Quantized files: numbers on grids become the real numbers that they stand for.

use paretune_kernels::operator::Operator;
use paretune_kernels::plan::tensor::{Binary, Unary};
use paretune_kernels::{Activation, ValueId};

use super::importer::{Importer, Item, one};
use super::lower::axes::inner_axis;
use super::node::{Node, resolve_axis};
use super::proto::tensor_proto::DataType;
use super::tensor::{Data, Tensor};

/// Returns the real numbers of a constant that `DequantizeLinear` reads.
pub fn constant(importer: &mut Importer, node: &Node<'_>, x: &Tensor) -> Result<Tensor, String> {
    let scale = importer.tensor(node, 1)?.clone();
    let zero = importer.optional_tensor(node, 2)?.cloned();
    let block = node.int("block_size")?.unwrap_or(0);
    importer.spend(x.len())?;
    let axis = node.int("axis")?.unwrap_or(1);
    let real = real_numbers(x, &scale, zero.as_ref(), axis, block)?;
    Ok(Tensor { dims: x.dims.clone(), data: Data::Float(real.into()) })
}

/// Returns `(x - zero) * scale` with one scale for all, for each index of an axis, or for each
/// block of `block` indices.
pub fn real_numbers(
    x: &Tensor,
    scale: &Tensor,
    zero: Option<&Tensor>,
    axis: i64,
    block: i64,
) -> Result<Vec<f32>, String> {
    let integers = x.known()?;
    let scales = scale.floats()?;
    let zeros = zero.map(Tensor::known).transpose()?.unwrap_or_else(|| vec![0; scales.len()]);
    if zeros.len() != scales.len() || scales.is_empty() {
        return Err(format!("has {} zero points for {} scales", zeros.len(), scales.len()));
    }
    let place: Box<dyn Fn(usize) -> usize> = if scales.len() == 1 {
        Box::new(|_| 0)
    } else {
        let axis = resolve_axis(axis, x.dims.len())?;
        let inner: usize = x.dims[axis + 1..].iter().product();
        let size = x.dims[axis];
        if block > 0 {
            let block = block as usize;
            let blocks = size.div_ceil(block);
            if scale.dims.get(axis) != Some(&blocks) || scales.len() != x.len() / size * blocks {
                return Err(format!("has scales of shape {:?} for {:?}", scale.dims, x.dims));
            }
            Box::new(move |at| {
                let (outer, rest) = (at / (size * inner), at % (size * inner));
                (outer * blocks + rest / inner / block) * inner + rest % inner
            })
        } else {
            if scales.len() != size {
                return Err(format!("has {} scales for {size} indices", scales.len()));
            }
            Box::new(move |at| at / inner % size)
        }
    };
    let real = |(at, &value): (usize, &i64)| {
        let place = place(at);
        ((value - zeros[place]) as f64 * f64::from(scales[place])) as f32
    };
    Ok(integers.iter().enumerate().map(real).collect())
}

/// Returns the range of the integers of a format.
fn range(kind: Option<DataType>) -> Result<(f32, f32), String> {
    Ok(match kind {
        None | Some(DataType::Uint8) => (0.0, 255.0),
        Some(DataType::Int8) => (-128.0, 127.0),
        Some(DataType::Uint16) => (0.0, 65535.0),
        Some(DataType::Int16) => (-32768.0, 32767.0),
        Some(other) => {
            return Err(format!("quantizes to {}, which is not supported", other.as_str_name()));
        }
    })
}

/// Scale and zero point of activations: constants that broadcast to the value.
struct Grid {
    scale: ValueId,
    zero: Option<ValueId>,
}

fn grid(importer: &mut Importer, node: &Node<'_>, input: ValueId) -> Result<Grid, String> {
    if node.int("block_size")?.unwrap_or(0) != 0 {
        return Err("has blocks of activations, which are not supported".into());
    }
    let scale = importer.tensor(node, 1)?.clone();
    let zero = importer.optional_tensor(node, 2)?.cloned();
    if let Some(bad) = scale.floats()?.iter().find(|scale| !scale.is_normal() || **scale < 0.0) {
        return Err(format!("has the scale {bad}"));
    }
    let rank = importer.dims(input).len();
    let mut dims = vec![1; rank];
    if scale.len() > 1 {
        let axis = inner_axis(importer.lead(), node.int("axis")?.unwrap_or(1), rank)?;
        if importer.dims(input)[axis] != scale.len() {
            return Err(format!("has {} scales for {:?}", scale.len(), importer.dims(input)));
        }
        dims[axis] = scale.len();
    }
    let zero = match zero {
        Some(zero) if zero.len() != scale.len() => {
            return Err(format!("has {} zero points for {} scales", zero.len(), scale.len()));
        }
        Some(zero) if zero.known()?.iter().any(|&zero| zero != 0) => {
            Some(importer.constant_of(&zero, dims.clone())?)
        }
        _ => None,
    };
    Ok(Grid { scale: importer.constant_of(&scale, dims)?, zero })
}

/// Lowers `QuantizeLinear` of activations: rounding to a grid, or nothing if roundings are dropped.
pub fn quantize(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let kind = match node.input(2) {
        Some(name) => importer.kinds.get(name).copied(),
        None => match node.int("output_dtype")?.unwrap_or(0) {
            0 => None,
            kind => i32::try_from(kind).ok().and_then(|kind| DataType::try_from(kind).ok()),
        },
    };
    let (low, high) = range(kind)?;
    if !importer.rounding {
        return Ok(one(input));
    }
    let Grid { scale, zero } = grid(importer, node, input)?;
    // Division, not multiplication by the reciprocal, decides ties as ONNX defines them.
    let scaled = importer.pair("scaled", Binary::Divide, input, scale)?;
    let mut value = importer.unary("rounded", Unary::Round, scaled)?;
    let dims = importer.dims(input).to_vec();
    if let Some(zero) = zero {
        let sum = Operator::Add(Activation::Identity);
        value = importer.emit("shifted", sum, vec![value, zero], dims.clone())?;
    }
    let clip = Operator::Activation(Activation::Clip { low, high });
    importer.emit("", clip, vec![value], dims).map(one)
}

/// Lowers `DequantizeLinear` of activations.
pub fn dequantize(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    if !importer.rounding {
        return Ok(one(input));
    }
    let Grid { scale, zero } = grid(importer, node, input)?;
    let mut value = input;
    if let Some(zero) = zero {
        value = importer.pair("centered", Binary::Subtract, value, zero)?;
    }
    let dims = importer.dims(input).to_vec();
    importer.emit("", Operator::Mul(Activation::Identity), vec![value, scale], dims).map(one)
}
