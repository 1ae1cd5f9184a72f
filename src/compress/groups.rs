//! Channel groups: channels of a network that must be kept or removed together.
//!
//! Every coordinate along the first axis of every value is a node. A step that carries a channel
//! from one value to another joins the nodes: residual additions, gates, concatenations with their
//! offsets, depthwise convolutions, and flattening, which turns one channel into `height * width`
//! features. Channels are pinned if they belong to the network's input or output, or if a step
//! mixes them in a way that removal would disturb (softmax over channels, transpositions, grouped
//! convolutions). Classes of joined nodes that live in equal sets of values form a group: they are
//! interchangeable and compete with each other.

use std::collections::BTreeMap;

use paretune_kernels::executor::validate;
use paretune_kernels::operator::Operator;
use paretune_kernels::plan::tensor::TensorOperator;
use paretune_kernels::{Plan, Step, ValueId};

use super::error::CompressError;

/// Group of interchangeable channels, any subset of which can be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelGroup {
    /// Unique name: the first step that produces these channels.
    pub name: String,
    /// Steps whose filters produce the channels, in execution order.
    pub producers: Vec<String>,
    /// Steps that sum over the channels, in execution order.
    pub consumers: Vec<String>,
    /// Number of channels in the group.
    pub width: usize,
    /// Reason why no channel can be removed, if there is one.
    pub pinned: Option<&'static str>,
    /// Multiple of channels that kernels prefer; the number kept is rounded to it.
    pub multiple: usize,
}

impl ChannelGroup {
    /// Returns whether channels can be removed.
    #[must_use]
    pub fn prunable(&self) -> bool {
        self.pinned.is_none() && self.width > 1
    }

    /// Returns the number of channels kept for a `fraction` of them: the nearest multiple, at least
    /// one.
    #[must_use]
    pub fn kept(&self, fraction: f64) -> usize {
        if fraction >= 1.0 {
            return self.width;
        }
        let multiple = self.multiple.max(1);
        let wanted = (fraction * self.width as f64 / multiple as f64).round() as usize * multiple;
        wanted.clamp(multiple.min(self.width).max(1), self.width)
    }

    /// Returns the distinct channel counts worth choosing from, ascending: sixteenths of the width,
    /// from two on.
    #[must_use]
    pub fn choices(&self) -> Vec<usize> {
        if !self.prunable() {
            return vec![self.width];
        }
        let mut choices: Vec<usize> =
            (2..=16).map(|fraction| self.kept(f64::from(fraction) / 16.0)).collect();
        choices.dedup();
        choices
    }
}

/// Channel group with the places of its channels.
pub(super) struct Group {
    /// Public description of the group.
    pub(super) info: ChannelGroup,
    /// For each channel, every value that contains it with the coordinate on that value's first
    /// axis.
    pub(super) channels: Vec<Vec<(ValueId, usize)>>,
}

/// Returns the channel groups of a network that have a producer, in execution order.
///
/// # Errors
///
/// Fails if the plan is not valid.
pub fn channel_groups(plan: &Plan) -> Result<Vec<ChannelGroup>, CompressError> {
    Ok(groups(plan)?.into_iter().map(|group| group.info).collect())
}

/// Returns the channel groups with the places of their channels.
pub(super) fn groups(plan: &Plan) -> Result<Vec<Group>, CompressError> {
    validate(plan, 1)?;
    let mut graph = Graph::new(plan);
    graph.pin(plan.input, "belongs to the network's input");
    graph.pin(plan.output, "belongs to the network's output");
    for step in &plan.steps {
        graph.join(plan, step);
    }
    Ok(graph.groups(plan))
}

/// Union-find over the first-axis coordinates of all values.
struct Graph {
    /// First node of each value.
    first: Vec<usize>,
    parent: Vec<usize>,
    pinned: Vec<Option<&'static str>>,
}

impl Graph {
    fn new(plan: &Plan) -> Self {
        let mut nodes = 0;
        let first = plan
            .values
            .iter()
            .map(|value| {
                let start = nodes;
                nodes += value.dims.first().copied().unwrap_or(0);
                start
            })
            .collect();
        Self { first, parent: (0..nodes).collect(), pinned: vec![None; nodes] }
    }

    fn nodes(&self, value: ValueId) -> std::ops::Range<usize> {
        self.first[value]..self.first.get(value + 1).copied().unwrap_or(self.parent.len())
    }

    fn root(&mut self, node: usize) -> usize {
        let mut root = node;
        while self.parent[root] != root {
            self.parent[root] = self.parent[self.parent[root]];
            root = self.parent[root];
        }
        root
    }

    /// Joins two classes. The smaller node becomes the root, so that the result does not depend on
    /// the order of joins.
    fn unite(&mut self, left: usize, right: usize) {
        let (left, right) = (self.root(left), self.root(right));
        self.parent[left.max(right)] = left.min(right);
    }

    fn unite_values(&mut self, left: ValueId, right: ValueId) {
        for (a, b) in self.nodes(left).zip(self.nodes(right)) {
            self.unite(a, b);
        }
    }

    fn pin(&mut self, value: ValueId, why: &'static str) {
        for node in self.nodes(value) {
            self.pinned[node].get_or_insert(why);
        }
    }

    /// Joins or pins the channels that `step` carries from its inputs to its output. Shapes have
    /// been checked before.
    fn join(&mut self, plan: &Plan, step: &Step) {
        let output = step.output;
        let first = |value: ValueId| plan.values[value].dims.first().copied().unwrap_or(0);
        match &step.operator {
            Operator::Conv(conv) => {
                let input = step.inputs[0];
                if conv.groups > 1 && conv.groups == first(input) {
                    let per_input = first(output) / first(input);
                    for (index, node) in self.nodes(output).enumerate() {
                        self.unite(self.first[input] + index / per_input, node);
                    }
                } else if conv.groups > 1 {
                    self.pin(input, "is read by a grouped convolution");
                    self.pin(output, "is written by a grouped convolution");
                }
                if let Some(&residual) = step.inputs.get(1) {
                    self.unite_values(residual, output);
                }
            }
            Operator::Add(_) | Operator::Mul(_) => self.broadcast(plan, step),
            Operator::Tensor(operator) => self.tensor(plan, step, operator),
            Operator::Concat { axis: 0 } => {
                let mut at = self.first[output];
                for &input in &step.inputs {
                    for node in self.nodes(input) {
                        self.unite(node, at);
                        at += 1;
                    }
                }
            }
            Operator::Concat { .. } => {
                for &input in &step.inputs {
                    self.unite_values(input, output);
                }
            }
            Operator::Reshape => self.reshape(step.inputs[0], output),
            Operator::Pad { padding, .. } if padding.first() != Some(&[0, 0]) => {
                self.pin(step.inputs[0], "is padded with further channels");
                self.pin(output, "is padded with further channels");
            }
            Operator::ReduceMean { axes } if axes.contains(&0) => {
                self.pin(step.inputs[0], "is averaged over channels");
            }
            Operator::Transpose { permutation } if permutation.first() != Some(&0) => {
                self.pin(step.inputs[0], "is transposed");
                self.pin(output, "is transposed");
            }
            Operator::Softmax { axis: 0 } => {
                self.pin(step.inputs[0], "goes through a softmax over channels")
            }
            Operator::Lrn { .. } => {
                self.pin(step.inputs[0], "is normalized with its neighbors");
                self.pin(output, "is normalized with its neighbors");
            }
            Operator::Constant { .. } => {}
            Operator::MaxPool { .. }
            | Operator::AveragePool { .. }
            | Operator::GlobalAveragePool
            | Operator::ReduceMean { .. }
            | Operator::Activation(_)
            | Operator::ScaleShift { .. }
            | Operator::Pad { .. }
            | Operator::Transpose { .. }
            | Operator::Softmax { .. } => self.unite_values(step.inputs[0], output),
        }
    }

    /// Joins the channels of operands that are broadcast against each other.
    fn broadcast(&mut self, plan: &Plan, step: &Step) {
        let output = step.output;
        let dims = |value: ValueId| plan.values[value].dims.as_slice();
        for &input in &step.inputs {
            if dims(input).len() < dims(output).len() {
                self.pin(input, "is broadcast along other axes");
            } else if dims(input).first() == dims(output).first() {
                self.unite_values(input, output);
            } else {
                self.pin(input, "is broadcast over all channels");
            }
        }
    }

    /// Joins or pins the channels of a general operator.
    fn tensor(&mut self, plan: &Plan, step: &Step, operator: &TensorOperator) {
        let (input, output) = (step.inputs[0], step.output);
        let mut mixes = |why| {
            self.pin(input, why);
            self.pin(output, why);
        };
        match operator {
            TensorOperator::Binary(_) | TensorOperator::Choose => self.broadcast(plan, step),
            TensorOperator::Select { axis: 0, picks } => {
                for (index, node) in self.nodes(output).enumerate() {
                    match picks.at(index) {
                        Some(at) => self.unite(self.first[input] + at, node),
                        None => {
                            self.pinned[node].get_or_insert("is padded with further channels");
                        }
                    }
                }
            }
            TensorOperator::Resample { axis: 0, .. } => mixes("is interpolated over channels"),
            TensorOperator::Normalize { axes: [0, _], .. } => mixes("is normalized over channels"),
            TensorOperator::Rank { axis: 0, .. } => mixes("is sorted over channels"),
            TensorOperator::Reduce { axes, .. } if axes.contains(&0) => {
                self.pin(input, "is reduced over channels");
            }
            TensorOperator::MatMul => {
                mixes("is multiplied by a computed matrix");
                self.pin(step.inputs[1], "is multiplied by a computed matrix");
            }
            TensorOperator::GridSample { .. } => {
                self.pin(step.inputs[1], "names places of an image");
                self.unite_values(input, output);
            }
            TensorOperator::Unary(_)
            | TensorOperator::Select { .. }
            | TensorOperator::Resample { .. }
            | TensorOperator::Normalize { .. }
            | TensorOperator::Rank { .. }
            | TensorOperator::Reduce { .. } => self.unite_values(input, output),
        }
    }

    /// Joins the channels of a reshape. Row-major order is kept, so a coordinate of the coarser
    /// side is a run of coordinates of the finer one if one first axis divides the other.
    fn reshape(&mut self, input: ValueId, output: ValueId) {
        let (fine, coarse) = if self.nodes(input).len() > self.nodes(output).len() {
            (input, output)
        } else {
            (output, input)
        };
        let (many, few) = (self.nodes(fine).len(), self.nodes(coarse).len());
        if few == 0 || many % few != 0 {
            self.pin(input, "is reshaped across channels");
            self.pin(output, "is reshaped across channels");
            return;
        }
        for (index, node) in self.nodes(fine).enumerate() {
            self.unite(node, self.first[coarse] + index / (many / few));
        }
    }

    fn groups(mut self, plan: &Plan) -> Vec<Group> {
        let mut classes: BTreeMap<usize, Vec<(ValueId, usize)>> = BTreeMap::new();
        let mut pinned: BTreeMap<usize, &'static str> = BTreeMap::new();
        for value in 0..plan.values.len() {
            for (index, node) in self.nodes(value).enumerate() {
                let root = self.root(node);
                classes.entry(root).or_default().push((value, index));
                if let Some(why) = self.pinned[node] {
                    pinned.entry(root).or_insert(why);
                }
            }
        }
        // Classes with equal sets of values and equal pinning, in the order of their first node.
        type Places = (Vec<ValueId>, Option<&'static str>);
        let mut places: BTreeMap<Places, Vec<Vec<(ValueId, usize)>>> = BTreeMap::new();
        for (root, class) in classes {
            let mut values: Vec<ValueId> = class.iter().map(|&(value, _)| value).collect();
            values.dedup();
            places.entry((values, pinned.get(&root).copied())).or_default().push(class);
        }
        let mut groups: Vec<(usize, Group)> = places
            .into_iter()
            .filter_map(|((values, why), channels)| {
                let makes = |step: &&Step| {
                    values.binary_search(&step.output).is_ok() && is_dense_conv(plan, step)
                };
                let reads = |step: &&Step| {
                    is_dense_conv(plan, step) && values.binary_search(&step.inputs[0]).is_ok()
                };
                let producers: Vec<&Step> = plan.steps.iter().filter(makes).collect();
                let at = plan.steps.iter().position(|step| makes(&step))?;
                let width = channels.len();
                let info = ChannelGroup {
                    name: producers[0].name.clone(),
                    producers: producers.iter().map(|step| step.name.clone()).collect(),
                    consumers: plan
                        .steps
                        .iter()
                        .filter(reads)
                        .map(|step| step.name.clone())
                        .collect(),
                    width,
                    pinned: why,
                    multiple: if width >= 32 {
                        8
                    } else if width >= 8 {
                        4
                    } else {
                        1
                    },
                };
                Some((at, Group { info, channels }))
            })
            .collect();
        groups.sort_by_key(|(at, group)| (*at, group.channels[0].clone()));
        let mut taken: BTreeMap<String, usize> = BTreeMap::new();
        for (_, group) in &mut groups {
            let count = taken.entry(group.info.name.clone()).or_default();
            *count += 1;
            if *count > 1 {
                group.info.name = format!("{}_part{count}", group.info.name);
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }
}

/// Returns whether a convolution computes its channels from all (or several) of its inputs, rather
/// than carrying each along alone as a depthwise one does.
pub(super) fn is_dense_conv(plan: &Plan, step: &Step) -> bool {
    let Operator::Conv(conv) = &step.operator else { return false };
    let channels = plan.values[step.inputs[0]].dims.first().copied().unwrap_or(0);
    conv.groups == 1 || conv.groups != channels
}
