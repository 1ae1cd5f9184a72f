//! Node of a graph with typed, checked access to its attributes.

use std::borrow::Cow;

use super::proto::attribute_proto::AttributeType;
use super::proto::{AttributeProto, NodeProto, TensorProto};

/// Largest stride, kernel, padding or size. Larger ones indicate damage.
const MAX_SIZE: i64 = 1 << 16;

/// Operator application as stated in the file.
pub struct Node<'a> {
    /// Decoded message of the node.
    pub proto: &'a NodeProto,
    /// Operator, with its domain unless it is ONNX's own.
    pub operator: String,
    /// Version of the operator set.
    pub opset: i64,
    /// Position of the node in the graph.
    pub index: usize,
}

impl<'a> Node<'a> {
    /// Wraps the decoded message of a node.
    pub fn new(proto: &'a NodeProto, opset: i64, index: usize) -> Self {
        let kind = proto.op_type();
        let operator = match proto.domain() {
            "" | "ai.onnx" => kind.to_string(),
            domain => format!("{domain}.{kind}"),
        };
        Self { proto, operator, opset, index }
    }

    /// Returns the name of the node in messages.
    pub fn label(&self) -> Cow<'a, str> {
        match (self.proto.name(), self.proto.output.first()) {
            ("", Some(output)) if !output.is_empty() => Cow::Borrowed(output),
            ("", _) => Cow::Owned(format!("#{}", self.index)),
            (name, _) => Cow::Borrowed(name),
        }
    }

    /// Returns the name of input `index`; `None` if it is left out.
    pub fn input(&self, index: usize) -> Option<&'a str> {
        self.proto.input.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Returns whether output `index` is named.
    pub fn has_output(&self, index: usize) -> bool {
        self.proto.output.get(index).is_some_and(|name| !name.is_empty())
    }

    /// Returns whether the node has the attribute `name`.
    pub fn has_attribute(&self, name: &str) -> bool {
        self.proto.attribute.iter().any(|attribute| attribute.name() == name)
    }

    fn attribute(
        &self,
        name: &str,
        kind: AttributeType,
    ) -> Result<Option<&'a AttributeProto>, String> {
        let Some(found) = self.proto.attribute.iter().find(|attribute| attribute.name() == name)
        else {
            return Ok(None);
        };
        // Files older than IR version 2 leave the type out.
        let given = found.r#type.unwrap_or_default();
        if given != 0 && given != kind as i32 {
            return Err(format!("its attribute `{name}` is not of type {}", kind.as_str_name()));
        }
        Ok(Some(found))
    }

    /// Returns an integer attribute, if it is given.
    pub fn int(&self, name: &str) -> Result<Option<i64>, String> {
        Ok(self.attribute(name, AttributeType::Int)?.map(AttributeProto::i))
    }

    /// Returns an integer attribute that must be 0 or 1.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, String> {
        match self.int(name)? {
            None => Ok(default),
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(other) => Err(format!("its attribute `{name}` is {other}, not 0 or 1")),
        }
    }

    /// Returns a list of integers, if it is given.
    pub fn ints(&self, name: &str) -> Result<Option<&'a [i64]>, String> {
        Ok(self.attribute(name, AttributeType::Ints)?.map(|found| found.ints.as_slice()))
    }

    /// Returns a list of `count` sizes of at least `least` each, if it is given.
    pub fn sizes(
        &self,
        name: &str,
        count: usize,
        least: i64,
    ) -> Result<Option<Vec<usize>>, String> {
        let Some(values) = self.ints(name)? else { return Ok(None) };
        if values.len() != count {
            return Err(format!(
                "its attribute `{name}` is {values:?}, but {count} numbers are needed"
            ));
        }
        if values.iter().any(|value| !(least..=MAX_SIZE).contains(value)) {
            return Err(format!(
                "its attribute `{name}` is {values:?}: outside {least}..={MAX_SIZE}"
            ));
        }
        Ok(Some(values.iter().map(|&value| value as usize).collect()))
    }

    /// Returns a floating-point attribute, which must be finite.
    pub fn float(&self, name: &str, default: f32) -> Result<f32, String> {
        let value = self.attribute(name, AttributeType::Float)?.map_or(default, AttributeProto::f);
        if value.is_finite() {
            Ok(value)
        } else {
            Err(format!("its attribute `{name}` is {value}"))
        }
    }

    /// Returns a list of floating-point numbers, if it is given.
    pub fn floats(&self, name: &str) -> Result<Option<&'a [f32]>, String> {
        Ok(self.attribute(name, AttributeType::Floats)?.map(|found| found.floats.as_slice()))
    }

    /// Returns a text attribute, if it is given.
    pub fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, String> {
        Ok(self
            .attribute(name, AttributeType::String)?
            .map(|found| String::from_utf8_lossy(found.s.as_deref().unwrap_or_default())))
    }

    /// Returns a tensor attribute, if it is given.
    pub fn tensor(&self, name: &str) -> Result<Option<&'a TensorProto>, String> {
        Ok(self.attribute(name, AttributeType::Tensor)?.and_then(|found| found.t.as_ref()))
    }
}

/// Resolves `axis` in a shape of `rank` axes. Negative axes count from the end.
pub fn resolve_axis(axis: i64, rank: usize) -> Result<usize, String> {
    let signed = i64::try_from(rank).map_err(|_| "rank is too large".to_string())?;
    let resolved = if axis < 0 { axis.checked_add(signed) } else { Some(axis) };
    match resolved {
        Some(resolved) if (0..signed).contains(&resolved) => Ok(resolved as usize),
        _ => Err(format!("axis {axis} does not exist in a tensor of {rank} axes")),
    }
}
