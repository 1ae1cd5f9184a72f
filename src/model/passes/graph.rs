//! Writers and readers of each value, kept up to date while steps are merged.

use paretune_kernels::operator::Operator;
use paretune_kernels::{Activation, Plan, ValueId};

/// Sweep over a plan's steps in order. Merged steps are marked and removed by [`Sweep::finish`],
/// and their outputs are replaced in all readers.
pub struct Sweep<'a> {
    /// Plan of the sweep. Inputs of visited steps are resolved (see [`Sweep::visit`]).
    pub plan: &'a mut Plan,
    /// Step that writes each value.
    writer: Vec<Option<usize>>,
    /// Number of readers of each value; the network's output counts as one.
    reads: Vec<usize>,
    /// Replacement of each value that is no longer written.
    replacements: Vec<ValueId>,
    dead: Vec<bool>,
    changed: bool,
}

impl<'a> Sweep<'a> {
    /// Starts a sweep over the steps of a plan.
    pub fn new(plan: &'a mut Plan) -> Self {
        let values = plan.values.len();
        let mut writer = vec![None; values];
        let mut reads = vec![0; values];
        for (index, step) in plan.steps.iter().enumerate() {
            writer[step.output] = Some(index);
            for &input in &step.inputs {
                reads[input] += 1;
            }
        }
        reads[plan.output] += 1;
        let dead = vec![false; plan.steps.len()];
        Self { plan, writer, reads, replacements: (0..values).collect(), dead, changed: false }
    }

    /// Returns the number of steps. They must be visited in ascending order.
    pub fn len(&self) -> usize {
        self.plan.steps.len()
    }

    /// Resolves the inputs of step `index` after the changes before it. Returns false if the step
    /// was removed.
    pub fn visit(&mut self, index: usize) -> bool {
        if self.dead[index] {
            return false;
        }
        let replacements = &self.replacements;
        for input in &mut self.plan.steps[index].inputs {
            // Steps are visited in order, and replacements are written before the values they
            // replace.
            *input = replacements[*input];
        }
        true
    }

    /// Returns the operator of step `index`.
    pub fn operator(&self, index: usize) -> &Operator {
        &self.plan.steps[index].operator
    }

    /// Returns the first input of step `index`, if it has any.
    pub fn first(&self, index: usize) -> Option<ValueId> {
        self.plan.steps[index].inputs.first().copied()
    }

    /// Returns the step that writes `value`.
    pub fn writer(&self, value: ValueId) -> Option<usize> {
        self.writer[value].filter(|&step| !self.dead[step])
    }

    /// Returns the step that writes `value` if `value` has exactly one reader.
    pub fn sole_writer(&self, value: ValueId) -> Option<usize> {
        self.writer(value).filter(|_| self.reads[value] == 1)
    }

    /// Returns the shape of a value.
    pub fn dims(&self, value: ValueId) -> &[usize] {
        &self.plan.values[value].dims
    }

    /// Removes step `index` and lets the readers of its output read `value`.
    pub fn bypass(&mut self, index: usize, value: ValueId) {
        let output = self.plan.steps[index].output;
        self.remove(index);
        self.replacements[output] = value;
        self.reads[value] += std::mem::take(&mut self.reads[output]);
    }

    /// Removes step `index`, whose output must have no reader.
    pub fn remove(&mut self, index: usize) {
        for &input in &self.plan.steps[index].inputs {
            self.reads[input] -= 1;
        }
        self.dead[index] = true;
        self.changed = true;
    }

    /// Removes step `index` if its output has no reader.
    pub fn remove_if_unread(&mut self, index: usize) {
        if self.reads[self.plan.steps[index].output] == 0 {
            self.remove(index);
        }
    }

    /// Sets the inputs of step `index`.
    pub fn set_inputs(&mut self, index: usize, inputs: Vec<ValueId>) {
        for &input in &inputs {
            self.reads[input] += 1;
        }
        for &input in &self.plan.steps[index].inputs {
            self.reads[input] -= 1;
        }
        self.plan.steps[index].inputs = inputs;
        self.changed = true;
    }

    /// Sets the operator of step `index`.
    pub fn set_operator(&mut self, index: usize, operator: Operator) {
        self.plan.steps[index].operator = operator;
        self.changed = true;
    }

    /// Removes the marked steps. Returns whether the sweep changed the plan.
    pub fn finish(self) -> bool {
        let Self { plan, replacements, dead, changed, .. } = self;
        plan.output = replacements[plan.output];
        let mut index = 0;
        plan.steps.retain_mut(|step| {
            for input in &mut step.inputs {
                *input = replacements[*input];
            }
            index += 1;
            !dead[index - 1]
        });
        changed
    }
}

/// Returns the activation that an operator applies last, if it supports one.
pub fn fused_activation(operator: &Operator) -> Option<Activation> {
    match operator {
        Operator::Conv(conv) => Some(conv.activation),
        Operator::Add(activation)
        | Operator::Mul(activation)
        | Operator::Activation(activation) => Some(*activation),
        Operator::ScaleShift { activation, .. } => Some(*activation),
        _ => None,
    }
}

/// Returns a reference to the activation that an operator applies last, if it supports one.
pub fn fused_activation_mut(operator: &mut Operator) -> Option<&mut Activation> {
    match operator {
        Operator::Conv(conv) => Some(&mut conv.activation),
        Operator::Add(activation)
        | Operator::Mul(activation)
        | Operator::Activation(activation) => Some(activation),
        Operator::ScaleShift { activation, .. } => Some(activation),
        _ => None,
    }
}
