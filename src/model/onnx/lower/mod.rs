//! Lowering of nodes to steps, one file per family of operators.

use super::importer::{Importer, Item, one};
use super::node::Node;
use super::operators::OPERATORS;
use super::quantized;

pub mod axes;
mod binary;
mod conv;
mod elementwise;
mod grid;
mod matmul;
mod normalize;
mod pool;
mod reduce;
pub mod reshape;
mod resize;
pub mod select;
mod window;

/// Adds the steps of a node whose output depends on the network's input. Returns the node's
/// outputs.
pub fn lower(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    match node.operator.as_str() {
        "Conv" => conv::conv(importer, node),
        "ConvTranspose" => conv::transposed(importer, node),
        "Gemm" => matmul::gemm(importer, node),
        "MatMul" => matmul::matmul(importer, node),
        "Einsum" => matmul::einsum(importer, node),
        "MaxPool" | "AveragePool" | "LpPool" => pool::pool(importer, node),
        "GlobalAveragePool" | "GlobalMaxPool" => pool::global(importer, node),
        "GlobalLpPool" => reduce::global_lp_pool(importer, node),
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1"
        | "ReduceL2" | "ReduceSumSquare" | "ReduceLogSum" | "ReduceLogSumExp" => {
            reduce::reduce(importer, node)
        }
        "ArgMax" | "ArgMin" => reduce::position(importer, node),
        "TopK" => reduce::top(importer, node),
        "CumSum" => reduce::cumulative(importer, node),
        "LpNormalization" => reduce::norm(importer, node),
        "Softmax" | "LogSoftmax" | "Hardmax" => reduce::softmax(importer, node),
        "BatchNormalization" => elementwise::batch_normalization(importer, node),
        "LayerNormalization" | "RMSNormalization" => normalize::layer(importer, node),
        "InstanceNormalization" => normalize::instance(importer, node),
        "GroupNormalization" => normalize::group(importer, node),
        "MeanVarianceNormalization" => normalize::mean_variance(importer, node),
        "LRN" => elementwise::lrn(importer, node),
        "PRelu" => elementwise::prelu(importer, node),
        "Relu"
        | "Clip"
        | "LeakyRelu"
        | "Sigmoid"
        | "HardSigmoid"
        | "HardSwish"
        | "Swish"
        | "Neg"
        | "Abs"
        | "Exp"
        | "Log"
        | "Sqrt"
        | "Reciprocal"
        | "Erf"
        | "Tanh"
        | "Sin"
        | "Cos"
        | "Floor"
        | "Ceil"
        | "Round"
        | "Sign"
        | "Not"
        | "IsNaN"
        | "Softplus"
        | "Softsign"
        | "Mish"
        | "Gelu"
        | "com.microsoft.Gelu"
        | "com.microsoft.QuickGelu"
        | "Elu"
        | "Celu"
        | "Selu"
        | "ThresholdedRelu"
        | "Shrink" => elementwise::activation(importer, node),
        "Add" | "Mul" | "Sub" | "Div" | "Pow" | "Mod" | "Less" | "LessOrEqual" | "Greater"
        | "GreaterOrEqual" | "Equal" | "And" | "Or" | "Xor" => binary::binary(importer, node),
        "Sum" | "Mean" | "Max" | "Min" => binary::chain(importer, node),
        "Where" => binary::choose(importer, node),
        "Identity" | "Dropout" | "Cast" => reshape::pass_through(importer, node),
        "CastLike" => reshape::cast_like(importer, node),
        "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => reshape::reshape(importer, node),
        "Transpose" => reshape::transpose(importer, node),
        "Concat" => reshape::concat(importer, node),
        "Pad" => select::pad(importer, node),
        "Slice" => select::slice(importer, node),
        "Split" => select::split(importer, node),
        "Gather" => select::gather(importer, node),
        "Tile" => select::tile(importer, node),
        "Expand" => select::expand(importer, node),
        "DepthToSpace" | "SpaceToDepth" => select::shuffle(importer, node),
        "Resize" | "Upsample" => resize::resize(importer, node),
        "GridSample" => grid::sample(importer, node),
        "QuantizeLinear" => quantized::quantize(importer, node),
        "DequantizeLinear" => quantized::dequantize(importer, node),
        "QLinearConv" | "ConvInteger" | "DynamicQuantizeLinear" => {
            Err("the network is quantized already; start from the model in single precision".into())
        }
        "Loop" | "Scan" => {
            Err("control flow is not supported; export the model with fixed shapes, or simplify \
                 it (onnxsim)"
                .into())
        }
        operator if OPERATORS.contains(&operator) => Err(format!(
            "{operator} is supported on constants only; simplify the file (onnxsim) \
                 first"
        )),
        operator if operator.contains('.') => {
            Err("operators of other domains and functions are not supported; export with standard \
             operators, or \
             inline the model's functions (onnx.inliner)"
                .into())
        }
        _ => Err(format!(
            "this operator is not supported; export the model with these alone: {}",
            OPERATORS.join(", ")
        )),
    }
}

/// Returns the node's input as its output.
fn same(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    Ok(one(importer.activation(node, 0)?))
}
