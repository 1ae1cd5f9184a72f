//! Plan under construction: names and their meanings, steps, weights, and limits.

use std::collections::HashMap;
use std::sync::Arc;

use paretune_kernels::operator::Operator;
use paretune_kernels::plan::tensor::{Binary, TensorOperator, Unary};
use paretune_kernels::{Activation, Plan, Step, ValueId, ValueSpec, Weights};

use super::node::Node;
use super::operators::OPERATORS;
use super::proto::TensorProto;
use super::proto::tensor_proto::DataType;
use super::tensor::{Data, Int, Tensor, volume};

/// Largest number of elements of one activation per image.
const MAX_VALUE_ELEMENTS: usize = 1 << 28;
/// Largest number of weights of all steps together.
const MAX_WEIGHTS: usize = 1 << 30;
/// Limits of constant folding in numbers: a fixed amount, and an amount for each number in the
/// file.
pub(super) const FOLDING_LIMITS: (usize, usize) = (1 << 24, 16);

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
    /// How the batch axis is imported.
    pub(super) batching: Batching,
    /// For each value whether its shape has all axes of the file, the batch included.
    pub(super) whole: Vec<bool>,
    /// Whether the node that is being lowered works on whole values.
    pub(super) whole_mode: bool,
    /// Number of nodes of functions that may still be inlined.
    pub(super) calls: usize,
    /// Number formats of stored tensors by name, which decide the range of quantized numbers.
    pub(super) kinds: HashMap<String, DataType>,
    /// Whether rounding of activations to integers is kept.
    pub(super) rounding: bool,
    /// Whether the plan computes constants alone.
    pub(super) constants: bool,
}

/// How the batch axis of the file becomes part of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batching {
    /// Every value has the batch as its first axis, which plans' shapes omit. Its extent stays
    /// symbolic.
    Open,
    /// The file describes one image: values may lose the batch axis or move it.
    One,
    /// The network's input is one whole value with this extent of the batch.
    Whole(i64),
}

/// State of an importer before a node is lowered.
pub(super) struct Mark {
    values: usize,
    steps: usize,
    weight_tensors: usize,
    constants: usize,
    weights: usize,
    budget: usize,
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
            batching: Batching::Open,
            whole: Vec::new(),
            whole_mode: false,
            calls: 1 << 20,
            kinds: HashMap::new(),
            rounding: false,
            constants: false,
        }
    }

    /// Creates an importer with the tensors of this one and an empty plan.
    pub(super) fn again(&self, batching: Batching) -> Self {
        let mut importer = Self::new(&self.plan.name);
        importer.items.clone_from(&self.items);
        importer.kinds.clone_from(&self.kinds);
        importer.budget = self.budget;
        importer.batching = batching;
        importer.rounding = self.rounding;
        importer
    }

    /// Creates an importer for the evaluation of one node on constants.
    pub(super) fn scratch(&self) -> Self {
        let mut importer = Self::new("constants");
        importer.budget = self.budget;
        importer.batching = Batching::One;
        importer.batch = Some(1);
        importer.constants = true;
        importer
    }

    /// Remembers the number format of a stored tensor.
    pub(super) fn note_kind(&mut self, name: &str, proto: &TensorProto) {
        if let Ok(kind) = DataType::try_from(proto.data_type.unwrap_or_default()) {
            self.kinds.insert(name.to_owned(), kind);
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

    /// Returns the state before a node is lowered, for [`Importer::roll_back`].
    pub(super) fn mark(&self) -> Mark {
        Mark {
            values: self.plan.values.len(),
            steps: self.plan.steps.len(),
            weight_tensors: self.plan.weights.len(),
            constants: self.plan.constants.len(),
            weights: self.weights,
            budget: self.budget,
        }
    }

    /// Removes everything that was added to the plan since `mark`.
    pub(super) fn roll_back(&mut self, mark: &Mark) {
        self.plan.values.truncate(mark.values);
        self.whole.truncate(mark.values);
        self.plan.steps.truncate(mark.steps);
        self.plan.weights.truncate(mark.weight_tensors);
        self.plan.constants.truncate(mark.constants);
        (self.weights, self.budget) = (mark.weights, mark.budget);
    }

    /// Returns the number of the file's leading axes that shapes omit in this mode: 1 for the
    /// batch, 0 for whole values.
    pub fn lead(&self) -> usize {
        usize::from(!self.whole_mode)
    }

    /// Returns `id` as a value of the current mode, with or without the batch axis.
    pub fn in_mode(&mut self, id: ValueId) -> Result<ValueId, String> {
        if self.whole[id] == self.whole_mode {
            return Ok(id);
        }
        let dims = self.dims(id).to_vec();
        let dims = match (self.whole_mode, &dims[..]) {
            (true, _) if self.batching != Batching::Open => [&[1], &dims[..]].concat(),
            (false, [1, rest @ ..]) if !rest.is_empty() => rest.to_vec(),
            _ => {
                return Err(format!(
                    "works on [batch, ..], but its input of shape {dims:?} has no batch axis"
                ));
            }
        };
        self.emit("view", Operator::Reshape, vec![id], dims)
    }

    /// Returns input `index` as a value, also if it is constant.
    pub fn value_of(&mut self, node: &Node<'_>, index: usize) -> Result<ValueId, String> {
        match self.operand(node, index)?.cloned() {
            Some(Item::Activation(id)) => self.in_mode(id),
            Some(Item::Constant(tensor)) => self.constant_value(&tensor),
            Some(Item::Unusable(problem)) => Err(problem),
            None => Err(format!("its input {index} is missing")),
        }
    }

    /// Adds a step that provides `tensor`, whose batch axis has extent 1 if the mode omits it.
    pub fn constant_value(&mut self, tensor: &Tensor) -> Result<ValueId, String> {
        let dims = match (self.whole_mode, &tensor.dims[..]) {
            (true, dims) => dims.to_vec(),
            (false, [1, rest @ ..]) => rest.to_vec(),
            (false, dims) => {
                return Err(format!(
                    "combines a constant of shape {dims:?} with the images of a batch"
                ));
            }
        };
        self.constant_of(tensor, dims)
    }

    /// Adds a step that provides the numbers of `tensor` in shape `dims`.
    pub fn constant_of(&mut self, tensor: &Tensor, dims: Vec<usize>) -> Result<ValueId, String> {
        let dims = if dims.is_empty() { vec![1] } else { dims };
        let values = tensor.numbers()?;
        let constant = self.constant(values)?;
        self.emit("constant", Operator::Constant { constant }, vec![], dims)
    }

    /// Adds a general operator.
    pub fn apply(
        &mut self,
        part: &str,
        operator: TensorOperator,
        inputs: Vec<ValueId>,
    ) -> Result<ValueId, String> {
        let shapes: Vec<&[usize]> = inputs.iter().map(|&id| self.dims(id)).collect();
        let dims = operator.output(&shapes)?;
        self.emit(part, Operator::Tensor(operator), inputs, dims)
    }

    /// Adds a function of every element.
    pub fn unary(&mut self, part: &str, function: Unary, id: ValueId) -> Result<ValueId, String> {
        self.apply(part, TensorOperator::Unary(function), vec![id])
    }

    /// Adds a function of two values.
    pub fn pair(
        &mut self,
        part: &str,
        function: Binary,
        a: ValueId,
        b: ValueId,
    ) -> Result<ValueId, String> {
        self.apply(part, TensorOperator::Binary(function), vec![a, b])
    }

    /// Adds a reshape, unless the value has the shape already.
    pub fn reshaped(
        &mut self,
        part: &str,
        id: ValueId,
        dims: Vec<usize>,
    ) -> Result<ValueId, String> {
        if self.dims(id) == dims {
            return Ok(id);
        }
        self.emit(part, Operator::Reshape, vec![id], dims)
    }

    /// Adds a permutation of axes, unless it changes nothing.
    pub fn permuted(
        &mut self,
        part: &str,
        id: ValueId,
        permutation: Vec<usize>,
    ) -> Result<ValueId, String> {
        if permutation.is_sorted() {
            return Ok(id);
        }
        let dims = permutation.iter().map(|&axis| self.dims(id)[axis]).collect();
        self.emit(part, Operator::Transpose { permutation }, vec![id], dims)
    }

    /// Adds `x * scale + shift` with single numbers.
    pub fn affine(
        &mut self,
        part: &str,
        input: ValueId,
        scale: f32,
        shift: f32,
    ) -> Result<ValueId, String> {
        let dims = self.dims(input).to_vec();
        let channels = dims.first().copied().unwrap_or(1);
        let scale = self.constant(vec![scale; channels].into())?;
        let shift = self.constant(vec![shift; channels].into())?;
        let operator = Operator::ScaleShift { scale, shift, activation: Activation::Identity };
        self.emit(part, operator, vec![input], dims)
    }

    /// Adds `x * scale + shift` with one number per element of axis 0.
    pub fn per_channel(
        &mut self,
        part: &str,
        input: ValueId,
        scale: Arc<[f32]>,
        shift: Arc<[f32]>,
    ) -> Result<ValueId, String> {
        let dims = self.dims(input).to_vec();
        if scale.len() != dims[0] || shift.len() != dims[0] {
            return Err(format!(
                "has {} scales and {} offsets for {} channels",
                scale.len(),
                shift.len(),
                dims[0]
            ));
        }
        let (scale, shift) = (self.constant(scale)?, self.constant(shift)?);
        let operator = Operator::ScaleShift { scale, shift, activation: Activation::Identity };
        self.emit(part, operator, vec![input], dims)
    }

    /// Returns input `index`, which must be computed per image.
    pub fn activation(&mut self, node: &Node<'_>, index: usize) -> Result<ValueId, String> {
        match self.operand(node, index)? {
            Some(Item::Activation(id)) => {
                let id = *id;
                self.in_mode(id)
            }
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
        if self.whole_mode {
            return Err("works on [batch, channels, height, width]".into());
        }
        <[usize; 3]>::try_from(self.dims(id)).map_err(|_| {
            let dims = self.dims(id);
            format!(
                "works on [batch, channels, height, width], but its input is [batch, \
                 {dims:?}]; other ranks are not supported"
            )
        })
    }

    /// Whether the number of images is open, and values have it as their first axis.
    pub fn keeps_batch(&self) -> bool {
        self.batching == Batching::Open && self.batch != Some(1)
    }

    /// Refuses operators that combine the images of an open batch: in a file for one image, axis 0
    /// of a whole value is the batch as long as it has extent 1.
    pub fn refuse_batch(&self, id: ValueId, axes: &[usize]) -> Result<(), String> {
        let open = self.batching == Batching::One && self.batch != Some(1);
        if open && self.whole_mode && axes.contains(&0) && self.dims(id)[0] == 1 {
            return Err("works across the batch axis, which is not supported: images are \
                        independent"
                .into());
        }
        Ok(())
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
                self.whole.push(self.whole_mode);
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
                let batch = match self.batching {
                    _ if self.whole[*id] => None,
                    Batching::Open => Some(Int::Batch),
                    Batching::One | Batching::Whole(_) => Some(Int::Known(1)),
                };
                Ok(batch.into_iter().chain(self.dims(*id).iter().map(known)).collect())
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
