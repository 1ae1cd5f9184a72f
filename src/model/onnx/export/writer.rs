//! Graph under construction, with its nodes and tensors.

use std::collections::BTreeSet;

use paretune_kernels::{Plan, ValueId};
use prost::bytes::Bytes;

use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};

pub(super) struct Writer<'a> {
    pub(super) plan: &'a Plan,
    pub(super) graph: GraphProto,
    constants: usize,
    /// Values that are also present rounded to their grids.
    dequantized: BTreeSet<ValueId>,
}

impl<'a> Writer<'a> {
    /// Creates a writer of `plan` with an empty graph.
    pub(super) fn new(plan: &'a Plan) -> Self {
        Self { plan, graph: GraphProto::default(), constants: 0, dequantized: BTreeSet::new() }
    }

    pub(super) fn dims(&self, value: ValueId) -> &[usize] {
        &self.plan.values[value].dims
    }

    /// Returns the name of a value in the file. Only names of values contain a `:`, so they cannot
    /// collide with others.
    pub(super) fn value(&self, value: ValueId) -> String {
        if value == self.plan.input {
            "input".into()
        } else if value == self.plan.output {
            "output".into()
        } else {
            format!("value:{value}")
        }
    }

    pub(super) fn node(
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

    pub(super) fn tensor(
        &mut self,
        name: String,
        dims: &[usize],
        kind: DataType,
        raw: Vec<u8>,
    ) -> String {
        self.graph.initializer.push(TensorProto {
            name: Some(name.clone()),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(kind as i32),
            raw_data: Some(Bytes::from(raw)),
            ..TensorProto::default()
        });
        name
    }

    pub(super) fn floats(&mut self, name: String, dims: &[usize], values: &[f32]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, dims, DataType::Float, raw)
    }

    pub(super) fn scalar(&mut self, value: f32) -> String {
        self.constants += 1;
        self.floats(format!("constant:{}", self.constants), &[], &[value])
    }

    pub(super) fn integers(&mut self, values: impl IntoIterator<Item = i64>) -> String {
        self.constants += 1;
        let raw: Vec<u8> = values.into_iter().flat_map(i64::to_le_bytes).collect();
        self.tensor(format!("constant:{}", self.constants), &[raw.len() / 8], DataType::Int64, raw)
    }

    /// Adds a node that reshapes `from` to `dims` behind the batch axis.
    pub(super) fn reshape(
        &mut self,
        name: String,
        from: String,
        dims: &[usize],
        output: String,
    ) -> String {
        // Zero keeps the batch.
        let shape = self.integers(std::iter::once(0).chain(dims.iter().map(|&dim| dim as i64)));
        self.node("Reshape", name, vec![from, shape], output.clone(), vec![]);
        output
    }

    /// Returns the name of a value rounded to its grid, and adds the rounding on first use.
    pub(super) fn dequantized(&mut self, value: ValueId) -> Result<String, String> {
        let grid =
            self.plan.values[value].quantization.ok_or("reads 8-bit numbers that have no grid")?;
        let base = format!("value:{value}");
        let name = format!("{base}:rounded");
        if self.dequantized.insert(value) {
            let scale = self.floats(format!("{base}:scale"), &[], &[grid.scale]);
            let zero =
                self.tensor(format!("{base}:zero"), &[], DataType::Uint8, vec![grid.zero_point]);
            let quantized = format!("{base}:quantized");
            let from = vec![self.value(value), scale.clone(), zero.clone()];
            self.node(
                "QuantizeLinear",
                format!("{base}/QuantizeLinear"),
                from,
                quantized.clone(),
                vec![],
            );
            let from = vec![quantized, scale, zero];
            self.node(
                "DequantizeLinear",
                format!("{base}/DequantizeLinear"),
                from,
                name.clone(),
                vec![],
            );
        }
        Ok(name)
    }
}
