//! Functions that a file defines: a node that calls one is replaced by the function's body.

use std::collections::HashMap;

use super::proto::{AttributeProto, FunctionProto, NodeProto};

/// Functions of a file by domain and name.
pub struct Functions<'a> {
    functions: HashMap<(&'a str, &'a str), &'a FunctionProto>,
    /// Operator set of the file, for functions that name none.
    opset: i64,
}

/// Nodes of a function with the names and attributes of a call.
pub struct Body {
    /// Nodes in the order of execution.
    pub nodes: Vec<NodeProto>,
    /// Operator set that the function is written in.
    pub opset: i64,
}

impl<'a> Functions<'a> {
    /// Collects the functions of a file.
    pub fn new(functions: &'a [FunctionProto], opset: i64) -> Self {
        let key = |function: &'a FunctionProto| (function.domain(), function.name());
        Self { functions: functions.iter().map(|f| (key(f), f)).collect(), opset }
    }

    /// Returns the function that a node calls, if it calls one.
    pub fn find(&self, node: &NodeProto) -> Option<&'a FunctionProto> {
        self.functions.get(&(node.domain(), node.op_type())).copied()
    }

    /// Returns the body of `function` as `call` uses it. `number` distinguishes the names inside of
    /// this call from those of other calls.
    pub fn inlined(
        &self,
        function: &FunctionProto,
        call: &NodeProto,
        number: usize,
    ) -> Result<Body, String> {
        let inputs = function.input.iter().enumerate();
        let mut names: HashMap<&str, String> = inputs
            .map(|(index, name)| {
                (name.as_str(), call.input.get(index).cloned().unwrap_or_default())
            })
            .collect();
        for (name, outer) in function.output.iter().zip(&call.output) {
            if !outer.is_empty() {
                names.insert(name, outer.clone());
            }
        }
        let renamed = |name: &str| match names.get(name) {
            _ if name.is_empty() => String::new(),
            Some(outer) => outer.clone(),
            None => format!("{name}@{number}"),
        };
        let given = |name: &str| -> Option<&AttributeProto> {
            let own = call.attribute.iter().find(|attribute| attribute.name() == name);
            own.or_else(|| function.attribute_proto.iter().find(|a| a.name() == name))
        };
        let nodes = function.node.iter().map(|node| {
            let mut node = node.clone();
            node.input.iter_mut().for_each(|name| *name = renamed(name));
            node.output.iter_mut().for_each(|name| *name = renamed(name));
            let label = if call.name().is_empty() { call.op_type() } else { call.name() };
            node.name = Some(format!("{label}/{}", node.name()));
            let mut attributes = Vec::with_capacity(node.attribute.len());
            for attribute in node.attribute.drain(..) {
                if attribute.g.is_some() || !attribute.graphs.is_empty() {
                    return Err("its function has branches, which are not supported".to_string());
                }
                match attribute.ref_attr_name.as_deref() {
                    None | Some("") => attributes.push(attribute),
                    // An attribute that the call leaves out is left out inside, too.
                    Some(outer) => attributes.extend(given(outer).map(|found| AttributeProto {
                        name: attribute.name.clone(),
                        ..found.clone()
                    })),
                }
            }
            node.attribute = attributes;
            Ok(node)
        });
        let opset = function.opset_import.iter().find(|o| matches!(o.domain(), "" | "ai.onnx"));
        Ok(Body {
            nodes: nodes.collect::<Result<_, _>>()?,
            opset: opset.map_or(self.opset, |opset| opset.version()),
        })
    }
}
