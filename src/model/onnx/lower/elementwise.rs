//! Lowering of functions of single elements, and of normalizations with constant statistics.

use paretune_kernels::operator::Operator;
use paretune_kernels::plan::tensor::{Binary, TensorOperator, Unary};
use paretune_kernels::{Activation, ValueId};

use super::binary::constant;
use crate::onnx::importer::{Importer, Item, one};
use crate::onnx::node::Node;

fn emit_activation(
    importer: &mut Importer,
    input: ValueId,
    activation: Activation,
) -> Result<Vec<Item>, String> {
    let dims = importer.dims(input).to_vec();
    importer.emit("", Operator::Activation(activation), vec![input], dims).map(one)
}

/// Returns `min(max(x, low), high)` in its simplest form.
pub fn clamp(low: f32, high: f32) -> Activation {
    if low == 0.0 && high == f32::MAX { Activation::Relu } else { Activation::Clip { low, high } }
}

/// Lowers pointwise functions of one input, or of one input and constants.
pub fn activation(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let activation = match node.operator.as_str() {
        "Relu" => Activation::Relu,
        "Sigmoid" => Activation::Sigmoid,
        "HardSwish" => Activation::HardSwish,
        "LeakyRelu" => Activation::LeakyRelu { slope: node.float("alpha", 0.01)? },
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
            // Bounds in the wrong order give the upper one everywhere.
            clamp(low.min(high), high)
        }
        "Swish" if node.float("alpha", 1.0)? == 1.0 => {
            let dims = importer.dims(input).to_vec();
            let sigmoid = Operator::Activation(Activation::Sigmoid);
            let gate = importer.emit("gate", sigmoid, vec![input], dims.clone())?;
            let product = Operator::Mul(Activation::Identity);
            return importer.emit("", product, vec![input, gate], dims).map(one);
        }
        "Neg" => return importer.affine("", input, -1.0, 0.0).map(one),
        _ => return importer.unary("", function(node)?, input).map(one),
    };
    emit_activation(importer, input, activation)
}

/// Returns the function of one number that a node stands for.
fn function(node: &Node<'_>) -> Result<Unary, String> {
    let elu = |alpha: f32, scale: f32, width: f32| Unary::Elu { alpha, scale, width };
    Ok(match node.operator.as_str() {
        "Abs" => Unary::Abs,
        "Exp" => Unary::Exp,
        "Log" => Unary::Log,
        "Sqrt" => Unary::Sqrt,
        "Reciprocal" => Unary::Reciprocal,
        "Erf" => Unary::Erf,
        "Tanh" => Unary::Tanh,
        "Sin" => Unary::Sin,
        "Cos" => Unary::Cos,
        "Floor" => Unary::Floor,
        "Ceil" => Unary::Ceil,
        "Round" => Unary::Round,
        "Sign" => Unary::Sign,
        "Not" => Unary::Not,
        "IsNaN" => Unary::IsNan,
        "Softplus" => Unary::Softplus,
        "Softsign" => Unary::Softsign,
        "Mish" => Unary::Mish,
        "Swish" => Unary::Swish { alpha: node.float("alpha", 1.0)? },
        "Gelu" | "com.microsoft.Gelu" => match node.text("approximate")?.as_deref() {
            None | Some("none") => Unary::Gelu,
            Some("tanh") => Unary::GeluTanh,
            Some(other) => return Err(format!("its approximation `{other}` does not exist")),
        },
        "com.microsoft.QuickGelu" => Unary::Swish { alpha: node.float("alpha", 1.702)? },
        "Elu" => elu(node.float("alpha", 1.0)?, 1.0, 1.0),
        "Celu" => {
            let alpha = node.float("alpha", 1.0)?;
            elu(alpha, 1.0, alpha)
        }
        "Selu" => {
            // The numbers of operator set 1 had fewer digits.
            let (alpha, gamma) =
                if node.opset < 6 { (1.6732, 1.0507) } else { (1.673_263_2, 1.050_701) };
            elu(node.float("alpha", alpha)?, node.float("gamma", gamma)?, 1.0)
        }
        "ThresholdedRelu" => Unary::Threshold { threshold: node.float("alpha", 1.0)? },
        "Shrink" => {
            Unary::Shrink { bias: node.float("bias", 0.0)?, bound: node.float("lambd", 0.5)? }
        }
        other => return Err(format!("{other} is no function of one number")),
    })
}

/// Lowers `PRelu`: one slope for all, or slopes that broadcast.
pub fn prelu(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let Some(Item::Constant(tensor)) = importer.operand(node, 1)?.cloned() else {
        let slopes = importer.activation(node, 1)?;
        return importer.pair("", Binary::PRelu, input, slopes).map(one);
    };
    let slopes = tensor.numbers()?;
    if let Some((&slope, rest)) = slopes.split_first()
        && slope.is_finite()
        && rest.iter().all(|&other| other == slope)
    {
        return emit_activation(importer, input, Activation::LeakyRelu { slope });
    }
    let dims = importer.dims(input).to_vec();
    // Before operator set 7, a vector of slopes belonged to the channels.
    let tensor = if node.opset < 7 && tensor.dims.len() == 1 && !importer.whole_mode {
        let mut shape = vec![1; dims.len()];
        shape[0] = slopes.len();
        tensor.reshaped(shape)?
    } else {
        tensor
    };
    let slopes = constant(importer, input, &tensor, |x| x)?;
    let result = importer.pair("", Binary::PRelu, input, slopes)?;
    if importer.dims(result) == dims {
        Ok(one(result))
    } else {
        Err(format!("has slopes of shape {:?} for {dims:?}", tensor.dims))
    }
}

fn bound(importer: &Importer, node: &Node<'_>, index: usize, default: f32) -> Result<f32, String> {
    let value = match importer.optional_tensor(node, index)? {
        Some(tensor) if tensor.len() == 1 => tensor.numbers()?[0],
        Some(tensor) => return Err(format!("has a bound of {} numbers", tensor.len())),
        None => default,
    };
    if value.is_nan() {
        Err("a bound is not a number".into())
    } else {
        Ok(value.clamp(f32::MIN, f32::MAX))
    }
}

/// Lowers `BatchNormalization` for inference: per channel, `x * scale + shift`.
pub fn batch_normalization(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let training = if node.opset < 14 {
        // Before operator set 14 further outputs, the statistics of a batch, mean training.
        (1..node.proto.output.len()).any(|index| node.has_output(index))
    } else {
        node.flag("training_mode", false)?
    };
    // Of constants, the statistics of training are known: weights are standardized that way.
    if training && importer.constants {
        return standardized(importer, node);
    }
    if training {
        return Err("is in training mode; export the model for inference".into());
    }
    // Operator sets before 9 can normalize every position separately.
    if node.opset < 9 && !node.flag("spatial", true)? {
        return Err("spatial = 0 is not supported".into());
    }
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    let epsilon = f64::from(node.float("epsilon", 1e-5)?);
    // Whole values have their channels behind the first axis.
    let axis = usize::from(importer.whole_mode);
    let channels = *dims.get(axis).ok_or("has no channels")?;
    let part = |index: usize| {
        let values = importer.tensor(node, index)?.numbers()?;
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
    if importer.whole_mode {
        let mut own = vec![1; dims.len() - 1];
        own[0] = channels;
        let product = Operator::Mul(Activation::Identity);
        let scale = Operator::Constant { constant: scale };
        let scale = importer.emit("scale", scale, vec![], own.clone())?;
        let scaled = importer.emit("scaled", product, vec![input, scale], dims.clone())?;
        let shift = Operator::Constant { constant: shift };
        let shift = importer.emit("shift", shift, vec![], own)?;
        let sum = Operator::Add(Activation::Identity);
        return importer.emit("", sum, vec![scaled, shift], dims).map(one);
    }
    let operator = Operator::ScaleShift { scale, shift, activation: Activation::Identity };
    importer.emit("", operator, vec![input], dims).map(one)
}

/// Lowers `BatchNormalization` of one constant by its own statistics.
fn standardized(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    if importer.whole_mode || dims.len() < 2 {
        return Err("works on [batch, channels, ..]".into());
    }
    let epsilon = node.float("epsilon", 1e-5)?;
    let operator = TensorOperator::Normalize { axes: [1, dims.len() - 1], center: true, epsilon };
    let normal = importer.apply("normal", operator, vec![input])?;
    let (scale, shift) =
        (importer.tensor(node, 1)?.numbers()?, importer.tensor(node, 2)?.numbers()?);
    importer.per_channel("", normal, scale, shift).map(one)
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
