//! Lowering of nodes to steps, one file per family of operators.

use super::importer::{Importer, Item, one};
use super::node::Node;
use super::operators::OPERATORS;

pub mod axes;
mod conv;
mod elementwise;
mod pool;
mod reshape;
mod window;

/// Adds the steps of a node whose output depends on the network's input. Returns the node's
/// outputs.
pub fn lower(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    match node.operator.as_str() {
        "Conv" => conv::conv(importer, node),
        "Gemm" => conv::gemm(importer, node),
        "MatMul" => conv::matmul(importer, node),
        "MaxPool" => pool::max(importer, node),
        "AveragePool" => pool::average(importer, node),
        "GlobalAveragePool" => pool::global_average(importer, node),
        "GlobalMaxPool" => pool::global_max(importer, node),
        "ReduceMean" => pool::reduce_mean(importer, node),
        "BatchNormalization" => elementwise::batch_normalization(importer, node),
        "LRN" => elementwise::lrn(importer, node),
        "Softmax" => elementwise::softmax(importer, node),
        "Relu" | "Clip" | "LeakyRelu" | "PRelu" | "Sigmoid" | "HardSigmoid" | "HardSwish"
        | "Swish" | "Max" | "Min" | "Neg" => elementwise::activation(importer, node),
        "Add" | "Mul" | "Sub" | "Div" => elementwise::binary(importer, node),
        "Sum" => elementwise::sum(importer, node),
        "Identity" | "Dropout" | "Cast" => reshape::pass_through(importer, node),
        "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => reshape::reshape(importer, node),
        "Transpose" => reshape::transpose(importer, node),
        "Concat" => reshape::concat(importer, node),
        "Pad" => reshape::pad(importer, node),
        "Slice" => reshape::slice(importer, node),
        "QuantizeLinear"
        | "DequantizeLinear"
        | "QLinearConv"
        | "ConvInteger"
        | "DynamicQuantizeLinear" => {
            Err("the network is quantized already; start from the model in single precision".into())
        }
        "If" | "Loop" | "Scan" => {
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

/// Refuses nodes that use outputs other than the first.
fn only_output(node: &Node<'_>, what: &str) -> Result<(), String> {
    if (1..node.proto.output.len()).any(|index| node.has_output(index)) {
        return Err(format!("{what} are not supported; use the first output alone"));
    }
    Ok(())
}

/// Returns the node's input as its output.
fn same(importer: &Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    Ok(one(importer.activation(node, 0)?))
}
