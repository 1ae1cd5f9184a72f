//! Imports a graph: resolves names, folds constants, lowers nodes to steps, and compares the shapes
//! stated in the file with the inferred ones.

use std::collections::{BTreeMap, HashMap, HashSet};

use paretune_kernels::{Plan, ValueId};

use super::fold;
use super::functions::Functions;
use super::importer::{Batching, FOLDING_LIMITS, Importer, Item};
use super::initializer::{self, Source};
use super::lower;
use super::names::sanitize;
use super::node::Node;
use super::operators::OPERATORS;
use super::options::ImportOptions;
use super::proto::tensor_proto::DataType;
use super::proto::tensor_shape_proto::dimension::Value as Extent;
use super::proto::type_proto::Value as TypeValue;
use super::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use crate::ModelError;
use crate::network::NetworkOutput;

/// Oldest and newest supported operator sets.
const OPSETS: std::ops::RangeInclusive<i64> = 1..=28;

/// Largest depth of functions and branches within each other.
const MAX_DEPTH: usize = 16;

/// Builds a plan from a decoded model.
pub fn import(
    name: &str,
    model: ModelProto,
    source: &mut Source<'_>,
    options: &ImportOptions,
) -> Result<(Plan, Vec<NetworkOutput>), ModelError> {
    let graph_error = |problem: String| ModelError::Graph { name: name.to_string(), problem };
    let opset = opset(&model).map_err(graph_error)?;
    let mut graph = model.graph.ok_or_else(|| graph_error("the file holds no graph".into()))?;
    let mut start = Importer::new(name);
    start.rounding = options.keep_rounding;
    start.initializers(&mut graph, source)?;
    let functions = Functions::new(&model.functions, opset);
    let attempt = |batching: Batching| -> Result<(Plan, Vec<NetworkOutput>), ModelError> {
        let mut importer = start.again(batching);
        importer.input(&graph, options).map_err(graph_error)?;
        let stated = stated_shapes(&graph);
        for (index, proto) in graph.node.iter().enumerate() {
            importer.statement(proto, opset, index, &functions, &stated, 0)?;
        }
        let outputs = importer.outputs(&graph, &options.outputs).map_err(graph_error)?;
        Ok((importer.plan, outputs))
    };
    // Independent images first. Files for one image may move the batch axis or drop it; a file for
    // several images that mixes them is imported as one value with all of them.
    let error = match attempt(Batching::Open) {
        Ok(imported) => return Ok(imported),
        Err(error) => error,
    };
    let batch = start.fixed_batch(&graph);
    let other = match batch {
        Some(batch) if batch > 1 => Batching::Whole(batch),
        _ => Batching::One,
    };
    match attempt(other) {
        Ok(imported) => Ok(imported),
        Err(second) => {
            let missing = missing(&graph, &functions);
            if missing.is_empty() {
                tracing::debug!("as independent images: {error}");
                tracing::debug!("as one image: {second}");
                return Err(if batch == Some(1) { second } else { error });
            }
            Err(graph_error(format!(
                "these operators are not supported: {}; export the model with others",
                missing.join(", ")
            )))
        }
    }
}

/// Returns the operators that cannot be imported, with the number of nodes of each.
fn missing(graph: &GraphProto, functions: &Functions<'_>) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    count_missing(&graph.node, functions, &mut counts, 0);
    let plural = |count: usize| if count == 1 { "node" } else { "nodes" };
    counts.iter().map(|(name, count)| format!("{name} ({count} {})", plural(*count))).collect()
}

fn count_missing(
    nodes: &[NodeProto],
    functions: &Functions<'_>,
    counts: &mut BTreeMap<String, usize>,
    depth: usize,
) {
    for (index, proto) in nodes.iter().enumerate() {
        let node = Node::new(proto, 0, index);
        match functions.find(proto) {
            Some(function) if depth < MAX_DEPTH => {
                count_missing(&function.node, functions, counts, depth + 1);
            }
            _ if OPERATORS.contains(&node.operator.as_str()) => {}
            _ => *counts.entry(node.operator).or_default() += 1,
        }
    }
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
            self.note_kind(proto.name(), &proto);
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

    /// Finds the one input that nodes read and that is no initializer (older files list
    /// initializers as inputs, too).
    fn input(&mut self, graph: &GraphProto, options: &ImportOptions) -> Result<(), String> {
        let mut inputs: Vec<_> =
            graph.input.iter().filter(|info| !self.items.contains_key(info.name())).collect();
        if inputs.len() > 1 {
            let mut read = HashSet::new();
            names_read(&graph.node, &mut read);
            read.extend(graph.output.iter().map(|info| info.name()));
            inputs.retain(|info| read.contains(info.name()));
        }
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
            if matches!(
                kind,
                DataType::String | DataType::Complex64 | DataType::Complex128 | DataType::Bool
            ) {
                return Err(format!(
                    "input `{name}` holds {} values; an input of numbers is needed",
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
        let mut rest: Vec<Option<i64>> =
            rest.iter().map(|extent| extent.filter(|&extent| extent > 0)).collect();
        if let ([.., height @ None, width @ None], Some(size)) = (&mut rest[..], options.input_size)
        {
            [*height, *width] = size.map(|size| i64::try_from(size).ok());
        }
        if rest.last() != Some(&None)
            && let ([height @ None, width @ None, _], Some(size)) =
                (&mut rest[..], options.input_size)
        {
            // Channels last.
            [*height, *width] = size.map(|size| i64::try_from(size).ok());
        }
        let dims = rest
            .iter()
            .map(|extent| extent.and_then(|extent| usize::try_from(extent).ok()))
            .collect::<Option<Vec<_>>>()
            .filter(|dims| !dims.is_empty())
            .ok_or_else(|| {
                format!(
                    "input `{name}` leaves sizes after the batch open; give them with --input-size \
                     HEIGHTxWIDTH"
                )
            })?;
        let dims = match self.batching {
            Batching::Whole(batch) => {
                self.whole_mode = true;
                let batch = usize::try_from(batch).map_err(|_| "has an impossible batch")?;
                [&[batch], &dims[..]].concat()
            }
            _ => dims,
        };
        self.plan.input = self.value(dims)?;
        let item = Item::Activation(self.plan.input);
        self.define(name, item)
    }

    /// Returns the batch size that the file fixes, if any.
    fn fixed_batch(&self, graph: &GraphProto) -> Option<i64> {
        let info = graph.input.iter().find(|info| !self.items.contains_key(info.name()))?;
        shape(info)?.first().copied().flatten().filter(|&batch| batch > 0)
    }

    /// Imports a node: an operator, a function of the file, or a branch on a constant.
    fn statement(
        &mut self,
        proto: &NodeProto,
        opset: i64,
        index: usize,
        functions: &Functions<'_>,
        stated: &HashMap<&str, Vec<Option<i64>>>,
        depth: usize,
    ) -> Result<(), ModelError> {
        let node = Node::new(proto, opset, index);
        let failed = |problem: String| ModelError::Node {
            node: node.label().into_owned(),
            operator: node.operator.clone(),
            problem,
        };
        if depth > MAX_DEPTH {
            return Err(failed(format!("is nested more than {MAX_DEPTH} deep")));
        }
        if let Some(function) = functions.find(proto) {
            self.calls = self.calls.checked_sub(function.node.len() + 1).ok_or_else(|| {
                failed("calls functions that have more than a million nodes together".into())
            })?;
            let body = functions.inlined(function, proto, self.calls).map_err(failed)?;
            for (index, inner) in body.nodes.iter().enumerate() {
                self.statement(inner, body.opset, index, functions, &HashMap::new(), depth + 1)?;
            }
            return Ok(());
        }
        if node.operator == "If" {
            let branch = self.branch(&node).map_err(failed)?;
            let mut none = Source { folder: None, hasher: sha2::Sha256::default() };
            let mut graph = branch.clone();
            self.initializers(&mut graph, &mut none)?;
            for (index, inner) in graph.node.iter().enumerate() {
                self.statement(inner, opset, index, functions, &HashMap::new(), depth + 1)?;
            }
            for (info, name) in graph.output.iter().zip(&proto.output) {
                let item = self.items.get(info.name()).cloned();
                let item = item.ok_or_else(|| {
                    failed(format!("its branch does not write `{}`", info.name()))
                })?;
                self.define(name, item).map_err(failed)?;
            }
            return Ok(());
        }
        self.node(&node, stated).map_err(failed)
    }

    /// Returns the branch of an `If` whose condition is known.
    fn branch<'a>(&self, node: &Node<'a>) -> Result<&'a GraphProto, String> {
        let condition = match self.operand(node, 0)? {
            Some(Item::Constant(tensor)) if tensor.len() == 1 => tensor.numbers()?[0] != 0.0,
            _ => {
                return Err("its condition depends on the network's input; control flow is not \
                            supported"
                    .into());
            }
        };
        let name = if condition { "then_branch" } else { "else_branch" };
        let attribute = node.proto.attribute.iter().find(|attribute| attribute.name() == name);
        let graph = attribute.and_then(|attribute| attribute.g.as_ref());
        graph.ok_or_else(|| format!("has no {name}"))
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
            Some(tensors) => tensors.into_iter().map(Item::Constant).collect(),
            None => self.lowered(node)?,
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
                self.compare(name, *id, shape);
            }
            self.define(name, item)?;
        }
        Ok(())
    }

    /// Adds the steps of a node. In files for one image, a node may work on values with or without
    /// the batch axis: the form that its inputs have is tried first.
    pub(super) fn lowered(&mut self, node: &Node<'_>) -> Result<Vec<Item>, String> {
        self.whole_mode = false;
        if self.batching == Batching::Open {
            return lower::lower(self, node);
        }
        let whole = (0..node.proto.input.len()).any(|index| {
            matches!(self.operand(node, index), Ok(Some(Item::Activation(id))) if self.whole[*id])
        });
        let mark = self.mark();
        self.whole_mode = whole;
        let first = match lower::lower(self, node) {
            Ok(items) => return Ok(items),
            Err(problem) => problem,
        };
        self.roll_back(&mark);
        self.whole_mode = !whole;
        let second = lower::lower(self, node);
        self.whole_mode = false;
        second.map_err(|_| {
            self.roll_back(&mark);
            first
        })
    }

    /// Warns of a shape that is stated wrongly. Some exporters leave unknown shapes empty.
    fn compare(&self, name: &str, id: ValueId, shape: &[Option<i64>]) {
        let dims = &self.plan.values[id].dims;
        let lead = usize::from(!self.whole[id]);
        let agrees = shape.len() == dims.len() + lead
            && shape[lead..].iter().zip(dims).all(|(stated, &dim)| {
                stated.is_none_or(|stated| stated <= 0 || stated == dim as i64)
            });
        if !agrees && !shape.is_empty() {
            let stated: Vec<_> =
                shape.iter().map(|e| e.map_or("?".into(), |e| e.to_string())).collect();
            tracing::warn!(
                "the file says that `{name}` has shape [{}], but it follows from the operators \
                 that one image has {dims:?}, which is used",
                stated.join(", ")
            );
        }
    }
}

/// Collects the names that nodes read, those in branches included.
fn names_read<'a>(nodes: &'a [NodeProto], names: &mut HashSet<&'a str>) {
    for node in nodes {
        names.extend(node.input.iter().map(String::as_str));
        for attribute in &node.attribute {
            for graph in attribute.g.iter().chain(&attribute.graphs) {
                names_read(&graph.node, names);
                names.extend(graph.output.iter().map(|info| info.name()));
            }
        }
    }
}
