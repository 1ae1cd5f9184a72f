//! Export of plans as ONNX files for other runtimes.
//!
//! Shapes are those of the pruned network. Layers with 8-bit weights are written between
//! QuantizeLinear and DequantizeLinear, the form that ONNX Runtime and others turn into integer
//! kernels. Other compact formats, such as sparse weights, are written as single-precision numbers.

mod grids;
mod weights;

use std::collections::BTreeSet;

use paretune_kernels::bundle::Bundle;
use paretune_kernels::operator::{Conv, Operator, Window};
use paretune_kernels::{Activation, Plan, Step, ValueId};
use prost::Message;
use prost::bytes::Bytes;

use super::proto::attribute_proto::AttributeType;
use super::proto::tensor_proto::DataType;
use super::proto::tensor_shape_proto::{Dimension, dimension};
use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use crate::ModelError;

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
    let numbers = |numbers: &[f32]| numbers.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
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
    let mut writer =
        Writer { plan, graph: GraphProto::default(), constants: 0, dequantized: BTreeSet::new() };
    writer.graph.name = Some(plan.name.clone());
    writer.graph.input = vec![info("input", &plan.values[plan.input].dims)];
    writer.graph.output = vec![info("output", &plan.values[plan.output].dims)];
    for (step, rounded) in plan.steps.iter().zip(grids::rounded_inputs(plan)) {
        writer.step(step, &rounded).map_err(|problem| failed(format!("step `{}` {problem}", step.name)))?;
    }
    let model = ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("paretune".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
        graph: Some(writer.graph),
        metadata_props: properties,
        ..ModelProto::default()
    };
    if model.encoded_len() as u64 > super::LARGEST_FILE {
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
    let tensor =
        type_proto::Tensor { elem_type: Some(DataType::Float as i32), shape: Some(TensorShapeProto { dim }) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(kind), ..ValueInfoProto::default() }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(kind as i32), ..AttributeProto::default() }
}

fn int(name: &str, value: usize) -> AttributeProto {
    AttributeProto { i: Some(value as i64), ..attribute(name, AttributeType::Int) }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    let ints = values.iter().map(|&value| value as i64).collect();
    AttributeProto { ints, ..attribute(name, AttributeType::Ints) }
}

fn window(window: &Window) -> Vec<AttributeProto> {
    vec![
        ints("kernel_shape", &window.kernel),
        ints("strides", &window.stride),
        ints("dilations", &window.dilation),
        ints("pads", &window.padding),
    ]
}

struct Writer<'a> {
    plan: &'a Plan,
    graph: GraphProto,
    constants: usize,
    /// Values that are also present rounded to their grids.
    dequantized: BTreeSet<ValueId>,
}

impl Writer<'_> {
    fn dims(&self, value: ValueId) -> &[usize] {
        &self.plan.values[value].dims
    }

    /// Returns the name of a value in the file. Only names of values contain a `:`, so they cannot
    /// collide with others.
    fn value(&self, value: ValueId) -> String {
        if value == self.plan.input {
            "input".into()
        } else if value == self.plan.output {
            "output".into()
        } else {
            format!("value:{value}")
        }
    }

    fn node(
        &mut self,
        operator: &str,
        name: String,
        inputs: Vec<String>,
        output: String,
        attributes: Vec<AttributeProto>,
    ) {
        self.graph.node.push(NodeProto {
            input: inputs,
            output: vec![output],
            name: Some(name),
            op_type: Some(operator.into()),
            attribute: attributes,
            ..NodeProto::default()
        });
    }

    fn tensor(&mut self, name: String, dims: &[usize], kind: DataType, raw: Vec<u8>) -> String {
        self.graph.initializer.push(TensorProto {
            name: Some(name.clone()),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(kind as i32),
            raw_data: Some(Bytes::from(raw)),
            ..TensorProto::default()
        });
        name
    }

    fn floats(&mut self, name: String, dims: &[usize], values: &[f32]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, dims, DataType::Float, raw)
    }

    fn scalar(&mut self, value: f32) -> String {
        self.constants += 1;
        self.floats(format!("constant:{}", self.constants), &[], &[value])
    }

    fn integers(&mut self, values: impl IntoIterator<Item = i64>) -> String {
        self.constants += 1;
        let raw: Vec<u8> = values.into_iter().flat_map(i64::to_le_bytes).collect();
        self.tensor(format!("constant:{}", self.constants), &[raw.len() / 8], DataType::Int64, raw)
    }

    /// Adds a node that reshapes `from` to `dims` behind the batch axis.
    fn reshape(&mut self, name: String, from: String, dims: &[usize], output: String) -> String {
        // Zero keeps the batch.
        let shape = self.integers(std::iter::once(0).chain(dims.iter().map(|&dim| dim as i64)));
        self.node("Reshape", name, vec![from, shape], output.clone(), vec![]);
        output
    }

    /// Returns the name of a value rounded to its grid, and adds the rounding on first use.
    fn dequantized(&mut self, value: ValueId) -> Result<String, String> {
        let grid = self.plan.values[value].quantization.ok_or("reads 8-bit numbers that have no grid")?;
        let base = format!("value:{value}");
        let name = format!("{base}:rounded");
        if self.dequantized.insert(value) {
            let scale = self.floats(format!("{base}:scale"), &[], &[grid.scale]);
            let zero = self.tensor(format!("{base}:zero"), &[], DataType::Uint8, vec![grid.zero_point]);
            let quantized = format!("{base}:quantized");
            let from = vec![self.value(value), scale.clone(), zero.clone()];
            self.node("QuantizeLinear", format!("{base}/QuantizeLinear"), from, quantized.clone(), vec![]);
            let from = vec![quantized, scale, zero];
            self.node("DequantizeLinear", format!("{base}/DequantizeLinear"), from, name.clone(), vec![]);
        }
        Ok(name)
    }

    /// Adds a step. `rounded` tells which of its inputs it reads rounded to 8 bits.
    fn step(&mut self, step: &Step, rounded: &[bool]) -> Result<(), String> {
        let output = self.value(step.output);
        let mut inputs = Vec::with_capacity(step.inputs.len());
        for (&id, &rounded) in step.inputs.iter().zip(rounded) {
            inputs.push(if rounded { self.dequantized(id)? } else { self.value(id) });
        }
        let name = step.name.clone();
        let simple = |operator: &str, attributes| (operator.to_string(), inputs.clone(), attributes);
        let (operator, inputs, attributes) = match &step.operator {
            Operator::Conv(conv) => return self.conv(step, conv, inputs),
            Operator::Constant { constant } => {
                let only_broadcast = self.plan.steps.iter().all(|reader| {
                    !reader.inputs.contains(&step.output)
                        || matches!(reader.operator, Operator::Add(_) | Operator::Mul(_))
                });
                if !only_broadcast || step.output == self.plan.output {
                    return Err("is a constant that other steps than additions and products read".into());
                }
                let dims = self.dims(step.output).to_vec();
                let values = self.plan.constants[*constant].clone();
                self.floats(output, &dims, &values);
                return Ok(());
            }
            Operator::Add(activation) => return self.binary(step, "Add", *activation, inputs),
            Operator::Mul(activation) => return self.binary(step, "Mul", *activation, inputs),
            Operator::ScaleShift { scale, shift, activation } => {
                let mut dims = vec![1; self.dims(step.output).len()];
                dims[0] = self.dims(step.output)[0];
                let (scale, shift) =
                    (self.plan.constants[*scale].clone(), self.plan.constants[*shift].clone());
                let scale = self.floats(format!("{name}:scale"), &dims, &scale);
                let shift = self.floats(format!("{name}:shift"), &dims, &shift);
                let scaled = format!("{name}:scaled");
                self.node(
                    "Mul",
                    format!("{name}/Mul"),
                    vec![inputs[0].clone(), scale],
                    scaled.clone(),
                    vec![],
                );
                let sum = self.before(step, *activation, "sum");
                self.node("Add", format!("{name}/Add"), vec![scaled, shift], sum.clone(), vec![]);
                self.activate(step, *activation, sum);
                return Ok(());
            }
            Operator::Activation(Activation::Identity) => simple("Identity", vec![]),
            Operator::Activation(activation) => {
                self.activate(step, *activation, inputs[0].clone());
                return Ok(());
            }
            Operator::MaxPool { window: w, ceil } => {
                let mut attributes = window(w);
                attributes.push(int("ceil_mode", usize::from(*ceil)));
                simple("MaxPool", attributes)
            }
            Operator::AveragePool { window: w, ceil, include_padding } => {
                let mut attributes = window(w);
                attributes.push(int("ceil_mode", usize::from(*ceil)));
                attributes.push(int("count_include_pad", usize::from(*include_padding)));
                simple("AveragePool", attributes)
            }
            Operator::GlobalAveragePool => simple("GlobalAveragePool", vec![]),
            Operator::ReduceMean { axes } => {
                let axes = self.integers(axes.iter().map(|&axis| axis as i64 + 1));
                ("ReduceMean".into(), vec![inputs[0].clone(), axes], vec![int("keepdims", 1)])
            }
            Operator::Concat { axis } => simple("Concat", vec![int("axis", axis + 1)]),
            Operator::Softmax { axis } => simple("Softmax", vec![int("axis", axis + 1)]),
            Operator::Transpose { permutation } => {
                let order: Vec<usize> =
                    std::iter::once(0).chain(permutation.iter().map(|axis| axis + 1)).collect();
                simple("Transpose", vec![ints("perm", &order)])
            }
            Operator::Pad { padding, value } => {
                let side =
                    |side: usize| std::iter::once(0).chain(padding.iter().map(move |pair| pair[side] as i64));
                let amounts = self.integers(side(0).chain(side(1)));
                let value = self.scalar(*value);
                ("Pad".into(), vec![inputs[0].clone(), amounts, value], vec![])
            }
            Operator::Reshape => {
                let dims = self.dims(step.output).to_vec();
                self.reshape(name, inputs[0].clone(), &dims, output);
                return Ok(());
            }
            Operator::Lrn { size, alpha, beta, bias } => simple(
                "LRN",
                vec![int("size", *size), float("alpha", *alpha), float("beta", *beta), float("bias", *bias)],
            ),
        };
        self.node(&operator, name, inputs, output, attributes);
        Ok(())
    }

    /// Returns the name of the value before `activation`, which is the step's output for the
    /// identity.
    fn before(&self, step: &Step, activation: Activation, part: &str) -> String {
        if activation == Activation::Identity {
            self.value(step.output)
        } else {
            format!("{}:{part}", step.name)
        }
    }

    /// Adds the activation that ends a step, unless it is the identity.
    fn activate(&mut self, step: &Step, activation: Activation, from: String) {
        let (operator, inputs, attributes) = match activation {
            Activation::Identity => return,
            Activation::Relu => ("Relu", vec![from], vec![]),
            Activation::Clip { low, high } => {
                let bounds = [self.scalar(low), self.scalar(high)];
                ("Clip", std::iter::once(from).chain(bounds).collect(), vec![])
            }
            Activation::LeakyRelu { slope } => ("LeakyRelu", vec![from], vec![float("alpha", slope)]),
            Activation::Sigmoid => ("Sigmoid", vec![from], vec![]),
            Activation::HardSigmoid { alpha, beta } => {
                ("HardSigmoid", vec![from], vec![float("alpha", alpha), float("beta", beta)])
            }
            Activation::HardSwish => ("HardSwish", vec![from], vec![]),
        };
        let output = self.value(step.output);
        self.node(operator, format!("{}/{operator}", step.name), inputs, output, attributes);
    }

    fn binary(
        &mut self,
        step: &Step,
        operator: &str,
        activation: Activation,
        mut inputs: Vec<String>,
    ) -> Result<(), String> {
        let rank = self.dims(step.output).len();
        for (index, (&id, name)) in step.inputs.iter().zip(&mut inputs).enumerate() {
            let dims = self.dims(id).to_vec();
            let constant = self
                .plan
                .steps
                .iter()
                .any(|other| other.output == id && matches!(other.operator, Operator::Constant { .. }));
            // Broadcasting aligns the last axes; a lower rank would align the batch with another
            // axis.
            if dims.len() < rank && !constant {
                let wide: Vec<usize> = std::iter::repeat_n(1, rank - dims.len()).chain(dims).collect();
                *name = self.reshape(
                    format!("{}/Reshape{index}", step.name),
                    name.clone(),
                    &wide,
                    format!("{}:wide{index}", step.name),
                );
            }
        }
        let result = self.before(step, activation, "result");
        self.node(operator, format!("{}/{operator}", step.name), inputs, result.clone(), vec![]);
        self.activate(step, activation, result);
        Ok(())
    }

    fn conv(&mut self, step: &Step, conv: &Conv, mut inputs: Vec<String>) -> Result<(), String> {
        let plan = self.plan;
        let name = &step.name;
        let weights = &plan.weights[conv.weights];
        let residual = (inputs.len() > 1).then(|| inputs.swap_remove(1));
        let dense = conv.groups == 1
            && conv.window == Window::POINT
            && (self.dims(step.inputs[0]).len() == 1 || self.dims(step.output).len() == 1);
        let dims = if dense { &weights.dims[..2] } else { &weights.dims[..] };
        // A matrix product works on [batch, features], a convolution on [batch, channels, height,
        // width].
        let (input_dims, output_dims) = (self.dims(step.inputs[0]).to_vec(), self.dims(step.output).to_vec());
        let input_rank = if dense { 1 } else { 3 };
        if input_dims.len() != input_rank {
            let mut wanted = vec![input_dims.iter().product()];
            wanted.resize(input_rank, 1);
            inputs[0] =
                self.reshape(format!("{name}/Reshape"), inputs[0].clone(), &wanted, format!("{name}:shaped"));
        }
        inputs.push(self.weights(name, dims, weights));
        inputs.extend(self.bias(name, weights, plan.values[step.inputs[0]].quantization));
        let reshaped = output_dims.len() != input_rank;
        let last = residual.is_none() && conv.activation == Activation::Identity && !reshaped;
        let mut result = if last { self.value(step.output) } else { format!("{name}:product") };
        if dense {
            self.node("Gemm", format!("{name}/Gemm"), inputs, result.clone(), vec![int("transB", 1)]);
        } else {
            let mut attributes = window(&conv.window);
            attributes.push(int("group", conv.groups));
            self.node("Conv", format!("{name}/Conv"), inputs, result.clone(), attributes);
        }
        if reshaped {
            let last = residual.is_none() && conv.activation == Activation::Identity;
            let output = if last { self.value(step.output) } else { format!("{name}:unshaped") };
            result = self.reshape(format!("{name}/Unshape"), result, &output_dims, output);
        }
        if let Some(residual) = residual {
            let sum = self.before(step, conv.activation, "sum");
            self.node("Add", format!("{name}/Add"), vec![result, residual], sum.clone(), vec![]);
            result = sum;
        }
        self.activate(step, conv.activation, result);
        Ok(())
    }
}
