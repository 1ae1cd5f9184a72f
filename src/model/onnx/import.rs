//! Imports a graph: resolves names, folds constants, lowers nodes to steps, and compares the shapes
//! stated in the file with the inferred ones.

use std::collections::HashMap;

use paretune_kernels::Plan;

use super::fold;
use super::importer::{FOLDING_LIMITS, Importer, Item};
use super::initializer::{self, Source};
use super::lower;
use super::names::sanitize;
use super::node::Node;
use super::proto::tensor_proto::DataType;
use super::proto::tensor_shape_proto::dimension::Value as Extent;
use super::proto::type_proto::Value as TypeValue;
use super::proto::{GraphProto, ModelProto, ValueInfoProto};
use crate::ModelError;

/// Oldest and newest supported operator sets.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=28;

/// Builds a plan from a decoded model.
pub fn import(name: &str, model: ModelProto, source: &mut Source<'_>) -> Result<Plan, ModelError> {
    let graph_error = |problem: String| ModelError::Graph { name: name.to_string(), problem };
    let opset = opset(&model).map_err(graph_error)?;
    let mut graph = model.graph.ok_or_else(|| graph_error("the file holds no graph".into()))?;
    let mut importer = Importer::new(name);
    importer.initializers(&mut graph, source)?;
    importer.input(&graph).map_err(graph_error)?;
    let stated = stated_shapes(&graph);
    for (index, proto) in graph.node.iter().enumerate() {
        let node = Node::new(proto, opset, index);
        importer.node(&node, &stated).map_err(|problem| ModelError::Node {
            node: node.label().into_owned(),
            operator: node.operator.clone(),
            problem,
        })?;
    }
    importer.output(&graph).map_err(graph_error)?;
    Ok(importer.plan)
}

fn opset(model: &ModelProto) -> Result<i64, String> {
    let found = model.opset_import.iter().find(|opset| matches!(opset.domain(), "" | "ai.onnx"));
    let version = match found {
        Some(opset) => opset.version(),
        None => return Err("it does not say which ONNX operator set it uses".into()),
    };
    if OPSETS.contains(&version) {
        Ok(version)
    } else {
        Err(format!(
            "operator set {version} is outside {}..={}; convert the file with \
             onnx.version_converter",
            OPSETS.start(),
            OPSETS.end()
        ))
    }
}

/// Returns the known extents of the shapes stated for values, batch included.
fn stated_shapes(graph: &GraphProto) -> HashMap<&str, Vec<Option<i64>>> {
    graph
        .value_info
        .iter()
        .chain(&graph.output)
        .filter_map(|info| Some((info.name(), shape(info)?)))
        .collect()
}

fn shape(info: &ValueInfoProto) -> Option<Vec<Option<i64>>> {
    let Some(TypeValue::TensorType(tensor)) = info.r#type.as_ref()?.value.as_ref() else {
        return None;
    };
    let extents = tensor.shape.as_ref()?.dim.iter().map(|dim| match dim.value {
        Some(Extent::DimValue(extent)) => Some(extent),
        _ => None,
    });
    Some(extents.collect())
}

impl Importer {
    fn initializers(
        &mut self,
        graph: &mut GraphProto,
        source: &mut Source<'_>,
    ) -> Result<(), ModelError> {
        // Tensors are taken out one by one, so that a large model is not held twice.
        for proto in graph.initializer.drain(..) {
            let item = match initializer::read(&proto, source) {
                Ok(tensor) => {
                    self.budget =
                        self.budget.saturating_add(tensor.len().saturating_mul(FOLDING_LIMITS.1));
                    Item::Constant(tensor)
                }
                // A tensor in an exotic format does no harm unless a node reads it.
                Err(problem) => Item::Unusable(format!("tensor `{}` {problem}", proto.name())),
            };
            self.define(proto.name(), item).map_err(|problem| ModelError::Tensor {
                tensor: proto.name().to_string(),
                problem,
            })?;
        }
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().map_or("", |values| values.name());
            let problem = format!("tensor `{name}` is stored sparse; store it dense");
            self.items.insert(name.to_string(), Item::Unusable(problem));
        }
        Ok(())
    }

    /// Finds the one input that is no initializer (older files list initializers as inputs, too).
    fn input(&mut self, graph: &GraphProto) -> Result<(), String> {
        let inputs: Vec<_> =
            graph.input.iter().filter(|info| !self.items.contains_key(info.name())).collect();
        let [info] = inputs[..] else {
            let names: Vec<_> = inputs.iter().map(|info| info.name()).collect();
            return Err(format!("one input is needed, found {}: {names:?}", names.len()));
        };
        let name = info.name();
        let shape = shape(info).ok_or_else(|| format!("input `{name}` has no shape"))?;
        if let Some(TypeValue::TensorType(tensor)) =
            info.r#type.as_ref().and_then(|t| t.value.as_ref())
        {
            let kind = DataType::try_from(tensor.elem_type()).unwrap_or_default();
            if !matches!(
                kind,
                DataType::Float | DataType::Float16 | DataType::Bfloat16 | DataType::Double
            ) {
                return Err(format!(
                    "input `{name}` holds {} numbers; an input of floating-point numbers is needed",
                    kind.as_str_name()
                ));
            }
        }
        let [batch, rest @ ..] = &shape[..] else {
            return Err(format!(
                "input `{name}` is a scalar; [batch, channels, height, width] is needed"
            ));
        };
        self.batch = batch.filter(|&batch| batch > 0);
        let dims = rest
            .iter()
            .map(|extent| {
                extent.and_then(|extent| usize::try_from(extent).ok()).filter(|&extent| extent > 0)
            })
            .collect::<Option<Vec<_>>>()
            .filter(|dims| !dims.is_empty())
            .ok_or_else(|| {
                format!(
                    "input `{name}` must have fixed sizes after the batch; export it for one \
                     image size"
                )
            })?;
        self.plan.input = self.value(dims)?;
        let item = Item::Activation(self.plan.input);
        self.define(name, item)
    }

    /// Sets the output to the first one of the graph.
    fn output(&mut self, graph: &GraphProto) -> Result<(), String> {
        let [first, others @ ..] = &graph.output[..] else {
            return Err("the graph has no output".into());
        };
        if !others.is_empty() {
            let names: Vec<_> = others.iter().map(|info| info.name()).collect();
            tracing::warn!(
                network = self.plan.name,
                "only the first output, `{}`, is used; ignored: {names:?}",
                first.name()
            );
        }
        match self.items.get(first.name()) {
            Some(Item::Activation(id)) => {
                self.plan.output = *id;
                Ok(())
            }
            Some(Item::Constant(_)) => {
                Err(format!("output `{}` does not depend on the input", first.name()))
            }
            Some(Item::Unusable(problem)) => Err(problem.clone()),
            None => Err(format!("output `{}` is written by no node", first.name())),
        }
    }

    fn node(
        &mut self,
        node: &Node<'_>,
        stated: &HashMap<&str, Vec<Option<i64>>>,
    ) -> Result<(), String> {
        self.base = match sanitize(node.proto.name()) {
            empty if empty.is_empty() => {
                format!("{}_{}", sanitize(node.proto.op_type()).to_lowercase(), node.index)
            }
            name => name,
        };
        let mut outputs = match fold::fold(self, node)? {
            Some(tensor) => vec![Item::Constant(tensor)],
            None => lower::lower(self, node)?,
        }
        .into_iter();
        for (index, name) in
            node.proto.output.iter().enumerate().filter(|(_, name)| !name.is_empty())
        {
            let item = outputs.next().unwrap_or_else(|| {
                Item::Unusable(format!(
                    "`{name}`, output {index} of {}, is not supported",
                    node.operator
                ))
            });
            if let (Item::Activation(id), Some(shape)) = (&item, stated.get(name.as_str())) {
                let dims = &self.plan.values[*id].dims;
                let agrees = shape.len() == dims.len() + 1
                    && shape[1..].iter().zip(dims).all(|(stated, &dim)| {
                        stated.is_none_or(|stated| stated <= 0 || stated == dim as i64)
                    });
                // Some exporters leave unknown shapes empty.
                if !agrees && !shape.is_empty() {
                    let stated: Vec<_> =
                        shape.iter().map(|e| e.map_or("?".into(), |e| e.to_string())).collect();
                    return Err(format!(
                        "the file says that `{name}` has shape [{}], but it follows from the \
                         operators that \
                         it is [batch, {}]; the file is damaged or was edited by hand",
                        stated.join(", "),
                        dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                    ));
                }
            }
            self.define(name, item)?;
        }
        Ok(())
    }
}
