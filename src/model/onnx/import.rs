//! Imports a graph: resolves names, folds constants, lowers nodes to steps, and compares the shapes
//! stated in the file with the inferred ones.

use std::collections::HashMap;
use std::sync::Arc;

use paretune_kernels::operator::Operator;
use paretune_kernels::{Plan, Step, ValueId, ValueSpec, Weights};

use super::evaluate;
use super::initializer::{self, Source};
use super::lower;
use super::names::sanitize;
use super::node::Node;
use super::proto::tensor_proto::DataType;
use super::proto::tensor_shape_proto::dimension::Value as Extent;
use super::proto::type_proto::Value as TypeValue;
use super::proto::{GraphProto, ModelProto, ValueInfoProto};
use super::tensor::{Data, Int, Tensor, volume};
use crate::ModelError;

/// Oldest and newest supported operator sets.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=28;
/// Largest number of elements of one activation per image.
const LARGEST_VALUE: usize = 1 << 28;
/// Largest number of weights of all steps together.
const LARGEST_WEIGHTS: usize = 1 << 30;
/// Limits of constant folding in numbers: a fixed amount, and an amount for each number in the
/// file.
const FOLDED: (usize, usize) = (1 << 24, 4);

/// Meaning of a name in the graph.
#[derive(Clone)]
pub enum Item {
    /// Tensor whose elements are known at import.
    Constant(Tensor),
    /// Value computed per image. ONNX has its batch as axis 0, which plans' shapes omit.
    Activation(ValueId),
    /// Value that cannot be used for this reason.
    Broken(String),
}

/// Plan under construction, with the meanings of names.
pub struct Importer {
    plan: Plan,
    items: HashMap<String, Item>,
    /// Batch size that the file fixes, if any.
    batch: Option<i64>,
    budget: usize,
    weights: usize,
    /// Sanitized name of the node that is being lowered.
    base: String,
    used: HashMap<String, usize>,
}

/// Builds a plan from a decoded model.
pub fn import(name: &str, model: ModelProto, source: &mut Source<'_>) -> Result<Plan, ModelError> {
    let graph_error = |problem: String| ModelError::Graph { name: name.to_string(), problem };
    let opset = opset(&model).map_err(graph_error)?;
    let mut graph = model.graph.ok_or_else(|| graph_error("the file holds no graph".into()))?;
    let mut importer = Importer {
        plan: Plan { name: name.to_string(), threads: 1, ..Plan::default() },
        items: HashMap::new(),
        batch: None,
        budget: FOLDED.0,
        weights: 0,
        base: String::new(),
        used: HashMap::new(),
    };
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
            "operator set {version} is outside {}..={}; convert the file with onnx.version_converter",
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
    let Some(TypeValue::TensorType(tensor)) = info.r#type.as_ref()?.value.as_ref() else { return None };
    let extents = tensor.shape.as_ref()?.dim.iter().map(|dim| match dim.value {
        Some(Extent::DimValue(extent)) => Some(extent),
        _ => None,
    });
    Some(extents.collect())
}

impl Importer {
    fn initializers(&mut self, graph: &mut GraphProto, source: &mut Source<'_>) -> Result<(), ModelError> {
        // Tensors are taken out one by one, so that a large model is not held twice.
        for proto in graph.initializer.drain(..) {
            let item = match initializer::read(&proto, source) {
                Ok(tensor) => {
                    self.budget = self.budget.saturating_add(tensor.len().saturating_mul(FOLDED.1));
                    Item::Constant(tensor)
                }
                // A tensor in an exotic format does no harm unless a node reads it.
                Err(problem) => Item::Broken(format!("tensor `{}` {problem}", proto.name())),
            };
            self.define(proto.name(), item)
                .map_err(|problem| ModelError::Tensor { tensor: proto.name().to_string(), problem })?;
        }
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().map_or("", |values| values.name());
            let problem = format!("tensor `{name}` is stored sparse; store it dense");
            self.items.insert(name.to_string(), Item::Broken(problem));
        }
        Ok(())
    }

    fn define(&mut self, name: &str, item: Item) -> Result<(), String> {
        match self.items.insert(name.to_string(), item) {
            None => Ok(()),
            Some(_) => Err(format!("`{name}` is defined twice")),
        }
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
        if let Some(TypeValue::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) {
            let kind = DataType::try_from(tensor.elem_type()).unwrap_or_default();
            if !matches!(kind, DataType::Float | DataType::Float16 | DataType::Bfloat16 | DataType::Double) {
                return Err(format!(
                    "input `{name}` holds {} numbers; an input of floating-point numbers is needed",
                    kind.as_str_name()
                ));
            }
        }
        let [batch, rest @ ..] = &shape[..] else {
            return Err(format!("input `{name}` is a scalar; [batch, channels, height, width] is needed"));
        };
        self.batch = batch.filter(|&batch| batch > 0);
        let dims = rest
            .iter()
            .map(|extent| extent.and_then(|extent| usize::try_from(extent).ok()).filter(|&extent| extent > 0))
            .collect::<Option<Vec<_>>>()
            .filter(|dims| !dims.is_empty())
            .ok_or_else(|| {
                format!("input `{name}` must have fixed sizes after the batch; export it for one image size")
            })?;
        self.plan.input = self.value(dims)?;
        let item = Item::Activation(self.plan.input);
        self.define(name, item)
    }

    /// Sets the output to the first one of the graph.
    fn output(&mut self, graph: &GraphProto) -> Result<(), String> {
        let [first, others @ ..] = &graph.output[..] else { return Err("the graph has no output".into()) };
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
            Some(Item::Constant(_)) => Err(format!("output `{}` does not depend on the input", first.name())),
            Some(Item::Broken(problem)) => Err(problem.clone()),
            None => Err(format!("output `{}` is written by no node", first.name())),
        }
    }

    fn node(&mut self, node: &Node<'_>, stated: &HashMap<&str, Vec<Option<i64>>>) -> Result<(), String> {
        self.base = match sanitize(node.proto.name()) {
            empty if empty.is_empty() => {
                format!("{}_{}", sanitize(node.proto.op_type()).to_lowercase(), node.index)
            }
            name => name,
        };
        let mut outputs = match evaluate::evaluate(self, node)? {
            Some(tensor) => vec![Item::Constant(tensor)],
            None => lower::lower(self, node)?,
        }
        .into_iter();
        for (index, name) in node.proto.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let item = outputs.next().unwrap_or_else(|| {
                Item::Broken(format!("`{name}`, output {index} of {}, is not supported", node.operator))
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
                        "the file says that `{name}` has shape [{}], but it follows from the operators that \
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

    /// Returns the batch size that the file fixes, if any.
    pub fn batch(&self) -> Option<i64> {
        self.batch
    }

    /// Returns input `index` of the node; `None` if it is left out.
    pub fn operand(&self, node: &Node<'_>, index: usize) -> Result<Option<&Item>, String> {
        let Some(name) = node.input(index) else { return Ok(None) };
        match self.items.get(name) {
            Some(Item::Broken(problem)) => Err(problem.clone()),
            Some(item) => Ok(Some(item)),
            None => Err(format!("reads `{name}`, which nothing before it writes")),
        }
    }

    /// Returns input `index`, which must be computed per image.
    pub fn activation(&self, node: &Node<'_>, index: usize) -> Result<ValueId, String> {
        match self.operand(node, index)? {
            Some(Item::Activation(id)) => Ok(*id),
            Some(_) => Err(format!("its input {index} must depend on the network's input")),
            None => Err(format!("its input {index} is missing")),
        }
    }

    /// Returns input `index`, which must be constant if it is given.
    pub fn optional_tensor(&self, node: &Node<'_>, index: usize) -> Result<Option<&Tensor>, String> {
        match self.operand(node, index)? {
            Some(Item::Constant(tensor)) => Ok(Some(tensor)),
            Some(_) => Err(format!(
                "its input {index} (`{}`) must be constant, but depends on the network's input",
                node.input(index).unwrap_or_default()
            )),
            None => Ok(None),
        }
    }

    /// Returns input `index`, which must be given and constant.
    pub fn tensor(&self, node: &Node<'_>, index: usize) -> Result<&Tensor, String> {
        self.optional_tensor(node, index)?.ok_or_else(|| format!("its input {index} is missing"))
    }

    /// Returns the shape of an activation, without batch.
    pub fn dims(&self, id: ValueId) -> &[usize] {
        &self.plan.values[id].dims
    }

    /// Returns the shape of an activation as `[channels, height, width]`.
    pub fn image(&self, id: ValueId) -> Result<[usize; 3], String> {
        <[usize; 3]>::try_from(self.dims(id)).map_err(|_| {
            let dims = self.dims(id);
            format!("works on [batch, channels, height, width], but its input is [batch, {dims:?}]; other ranks are not supported")
        })
    }

    /// Subtracts `count` numbers from the limit of constant folding.
    pub fn spend(&mut self, count: usize) -> Result<(), String> {
        self.budget = self.budget.checked_sub(count).ok_or("evaluating constants takes too much memory")?;
        Ok(())
    }

    fn value(&mut self, dims: Vec<usize>) -> Result<ValueId, String> {
        match volume(&dims) {
            Some(1..=LARGEST_VALUE) if !dims.is_empty() => {
                self.plan.values.push(ValueSpec { dims, quantization: None });
                Ok(self.plan.values.len() - 1)
            }
            _ => Err(format!("its output would have shape [batch, {dims:?}], which is empty or too large")),
        }
    }

    /// Adds a step and the value that it writes. `part` distinguishes the steps of one node and is
    /// empty for the main one.
    pub fn emit(
        &mut self,
        part: &str,
        operator: Operator,
        inputs: Vec<ValueId>,
        dims: Vec<usize>,
    ) -> Result<ValueId, String> {
        let output = self.value(dims)?;
        let wanted = match (part, self.base.rsplit_once('.')) {
            ("", _) => self.base.clone(),
            (part, Some((rest, last))) if lower::OPERATORS.contains(&last) => format!("{rest}.{part}"),
            (part, _) => format!("{}.{part}", self.base),
        };
        let name = self.unique(wanted);
        self.plan.steps.push(Step { name, operator, inputs, output });
        Ok(output)
    }

    fn unique(&mut self, wanted: String) -> String {
        let mut name = wanted.clone();
        while let Some(count) = self.used.get_mut(&name) {
            *count += 1;
            name = format!("{wanted}_{count}");
        }
        self.used.insert(name.clone(), 1);
        name
    }

    /// Adds weights to the plan.
    pub fn weights(&mut self, weights: Weights) -> Result<usize, String> {
        self.weights = self
            .weights
            .checked_add(weights.values.len())
            .filter(|&total| total <= LARGEST_WEIGHTS)
            .ok_or_else(|| format!("all weights together are more than {LARGEST_WEIGHTS} numbers"))?;
        self.plan.weights.push(weights);
        Ok(self.plan.weights.len() - 1)
    }

    /// Adds a small tensor to the plan.
    pub fn constant(&mut self, values: Arc<[f32]>) -> Result<usize, String> {
        self.spend(values.len())?;
        self.plan.constants.push(values);
        Ok(self.plan.constants.len() - 1)
    }

    /// Returns the shape of an item as a shape computation sees it.
    pub fn extents(&self, item: &Item) -> Result<Vec<Int>, String> {
        let known = |&dim: &usize| Int::Known(dim as i64);
        match item {
            Item::Constant(tensor) => Ok(tensor.dims.iter().map(known).collect()),
            Item::Activation(id) => {
                Ok(std::iter::once(Int::Batch).chain(self.dims(*id).iter().map(known)).collect())
            }
            Item::Broken(problem) => Err(problem.clone()),
        }
    }
}

/// Wraps an activation as the only output.
pub fn one(id: ValueId) -> Vec<Item> {
    vec![Item::Activation(id)]
}

/// Copies floating-point data with `change` applied to each number.
pub fn mapped(values: &[f32], change: impl Fn(f64) -> f64) -> Data {
    Data::Float(values.iter().map(|&value| change(value.into()) as f32).collect())
}
