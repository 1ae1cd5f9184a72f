//! Plan under construction: names and their meanings, steps, weights, and limits.

use std::collections::HashMap;
use std::sync::Arc;

use paretune_kernels::operator::Operator;
use paretune_kernels::{Plan, Step, ValueId, ValueSpec, Weights};

use super::node::Node;
use super::operators::OPERATORS;
use super::tensor::{Data, Int, Tensor, volume};

/// Largest number of elements of one activation per image.
const MAX_VALUE_ELEMENTS: usize = 1 << 28;
/// Largest number of weights of all steps together.
const MAX_WEIGHTS: usize = 1 << 30;
/// Limits of constant folding in numbers: a fixed amount, and an amount for each number in the
/// file.
pub(super) const FOLDING_LIMITS: (usize, usize) = (1 << 24, 4);

/// Meaning of a name in the graph.
#[derive(Clone)]
pub enum Item {
    /// Tensor whose elements are known at import.
    Constant(Tensor),
    /// Value computed per image. ONNX has its batch as axis 0, which plans' shapes omit.
    Activation(ValueId),
    /// Value that cannot be used for this reason.
    Unusable(String),
}

/// Plan under construction, with the meanings of names.
pub struct Importer {
    pub(super) plan: Plan,
    pub(super) items: HashMap<String, Item>,
    /// Batch size that the file fixes, if any.
    pub(super) batch: Option<i64>,
    pub(super) budget: usize,
    pub(super) weights: usize,
    /// Sanitized name of the node that is being lowered.
    pub(super) base: String,
    pub(super) used: HashMap<String, usize>,
}

impl Importer {
    /// Creates an importer with an empty plan called `name`.
    pub(super) fn new(name: &str) -> Self {
        Self {
            plan: Plan { name: name.to_string(), threads: 1, ..Plan::default() },
            items: HashMap::new(),
            batch: None,
            budget: FOLDING_LIMITS.0,
            weights: 0,
            base: String::new(),
            used: HashMap::new(),
        }
    }

    /// Defines `name`, which must be new.
    pub(super) fn define(&mut self, name: &str, item: Item) -> Result<(), String> {
        match self.items.insert(name.to_string(), item) {
            None => Ok(()),
            Some(_) => Err(format!("`{name}` is defined twice")),
        }
    }

    /// Returns the batch size that the file fixes, if any.
    pub fn batch(&self) -> Option<i64> {
        self.batch
    }

    /// Returns input `index` of the node; `None` if it is left out.
    pub fn operand(&self, node: &Node<'_>, index: usize) -> Result<Option<&Item>, String> {
        let Some(name) = node.input(index) else { return Ok(None) };
        match self.items.get(name) {
            Some(Item::Unusable(problem)) => Err(problem.clone()),
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
    pub fn optional_tensor(
        &self,
        node: &Node<'_>,
        index: usize,
    ) -> Result<Option<&Tensor>, String> {
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
            format!(
                "works on [batch, channels, height, width], but its input is [batch, \
                 {dims:?}]; other ranks are not supported"
            )
        })
    }

    /// Subtracts `count` numbers from the limit of constant folding.
    pub fn spend(&mut self, count: usize) -> Result<(), String> {
        self.budget =
            self.budget.checked_sub(count).ok_or("evaluating constants takes too much memory")?;
        Ok(())
    }

    /// Adds a value of shape `dims`.
    pub(super) fn value(&mut self, dims: Vec<usize>) -> Result<ValueId, String> {
        match volume(&dims) {
            Some(1..=MAX_VALUE_ELEMENTS) if !dims.is_empty() => {
                self.plan.values.push(ValueSpec { dims, quantization: None });
                Ok(self.plan.values.len() - 1)
            }
            _ => Err(format!(
                "its output would have shape [batch, {dims:?}], which is empty or too large"
            )),
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
            (part, Some((rest, last))) if OPERATORS.contains(&last) => format!("{rest}.{part}"),
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
            .filter(|&total| total <= MAX_WEIGHTS)
            .ok_or_else(|| format!("all weights together are more than {MAX_WEIGHTS} numbers"))?;
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
            Item::Unusable(problem) => Err(problem.clone()),
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
