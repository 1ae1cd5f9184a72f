//! Export of plans as ONNX files for other runtimes.
//!
//! Shapes are those of the pruned network. Layers with 8-bit weights are written between
//! QuantizeLinear and DequantizeLinear, the form that ONNX Runtime and others turn into integer
//! kernels. Other compact formats, such as sparse weights, are written as single-precision numbers.

mod attributes;
mod general;
mod grids;
mod steps;
mod weights;
mod writer;

use paretune_kernels::Plan;
use paretune_kernels::bundle::Bundle;
use prost::Message;

use self::writer::Writer;
use super::operators::MAX_FILE_BYTES;
use super::proto::tensor_proto::DataType;
use super::proto::tensor_shape_proto::{Dimension, dimension};
use super::proto::{
    ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};
use crate::error::ModelError;

/// Oldest operator set that supports all operators of plans (dilated average pools came last).
const OPSET: i64 = 19;
/// Version of the file format that belongs to [`OPSET`].
const IR_VERSION: i64 = 9;

/// Encodes the plan as an ONNX file with input `input` and output `output` and an open batch size.
///
/// # Errors
///
/// Fails if the plan is not valid, or is larger than an ONNX file can be.
pub fn export(plan: &Plan) -> Result<Vec<u8>, ModelError> {
    write(plan, Vec::new())
}

/// Encodes a bundle like [`export`], with its preprocessing as metadata properties.
///
/// The properties are `paretune.mean` and `paretune.std` (comma-separated numbers on the 0-255
/// scale), `paretune.classes` (one per line) and `paretune.configuration` (the content hash).
///
/// # Errors
///
/// Fails like [`export`].
pub fn export_bundle(bundle: &Bundle) -> Result<Vec<u8>, ModelError> {
    let numbers =
        |numbers: &[f32]| numbers.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    let property = |key: &str, value: String| StringStringEntryProto {
        key: Some(format!("paretune.{key}")),
        value: Some(value),
    };
    let preprocessing = &bundle.preprocessing;
    let properties = vec![
        property("mean", numbers(&preprocessing.mean)),
        property("std", numbers(&preprocessing.std)),
        property("classes", preprocessing.classes.join("\n")),
        property("configuration", bundle.configuration.clone()),
    ];
    write(&bundle.plan, properties)
}

fn write(plan: &Plan, properties: Vec<StringStringEntryProto>) -> Result<Vec<u8>, ModelError> {
    let failed = |problem: String| ModelError::Graph { name: plan.name.clone(), problem };
    paretune_kernels::executor::validate(plan, 1).map_err(|error| failed(error.to_string()))?;
    let mut writer = Writer::new(plan);
    writer.graph.name = Some(plan.name.clone());
    writer.graph.input = vec![info("input", &plan.values[plan.input].dims)];
    writer.graph.output = vec![info("output", &plan.values[plan.output].dims)];
    for (step, rounded) in plan.steps.iter().zip(grids::rounded_inputs(plan)) {
        writer
            .step(step, &rounded)
            .map_err(|problem| failed(format!("step `{}` {problem}", step.name)))?;
    }
    let model = ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("paretune".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(OPSET),
        }],
        graph: Some(writer.graph),
        metadata_props: properties,
        ..ModelProto::default()
    };
    if model.encoded_len() as u64 > MAX_FILE_BYTES {
        return Err(failed("is larger than the 2 GB that an ONNX file can have".into()));
    }
    Ok(model.encode_to_vec())
}

fn info(name: &str, dims: &[usize]) -> ValueInfoProto {
    let batch = dimension::Value::DimParam("batch".into());
    let fixed = dims.iter().map(|&dim| dimension::Value::DimValue(dim as i64));
    let dim = std::iter::once(batch)
        .chain(fixed)
        .map(|value| Dimension { value: Some(value), ..Dimension::default() })
        .collect();
    let tensor = type_proto::Tensor {
        elem_type: Some(DataType::Float as i32),
        shape: Some(TensorShapeProto { dim }),
    };
    let kind =
        TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(kind), ..ValueInfoProto::default() }
}
