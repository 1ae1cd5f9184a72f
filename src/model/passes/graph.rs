//! A plan under change: who writes and who reads each value, kept true while steps are merged.

use paretune_kernels::operator::Operator;
use paretune_kernels::{Activation, Plan, ValueId};

/// A sweep over a plan's steps in order. Merged steps are marked and removed by [`Sweep::finish`]; what
/// they wrote is replaced wherever it is read.
pub struct Sweep<'a> {
    /// The plan. Inputs of steps before the current one are resolved; use [`Sweep::inputs`] to read a step's.
    pub plan: &'a mut Plan,
    /// Which step writes a value.
    writer: Vec<Option<usize>>,
    /// How often a value is read; being the network's output counts.
    reads: Vec<usize>,
    /// What stands in for a value that is no longer written.
    alias: Vec<ValueId>,
    dead: Vec<bool>,
    changed: bool,
}

impl<'a> Sweep<'a> {
    /// Starts a sweep.
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
        Self { plan, writer, reads, alias: (0..values).collect(), dead, changed: false }
    }

    /// Number of steps; visit them in ascending order.
    pub fn len(&self) -> usize {
        self.plan.steps.len()
    }

    /// Brings the inputs of step `index` up to date with what happened before it; false where the step
    /// is gone.
    pub fn visit(&mut self, index: usize) -> bool {
        if self.dead[index] {
            return false;
        }
        let alias = &self.alias;
        for input in &mut self.plan.steps[index].inputs {
            // Steps are visited in order, and stand-ins are written before what they stand for.
            *input = alias[*input];
        }
        true
    }

    /// The operator of step `index`.
    pub fn operator(&self, index: usize) -> &Operator {
        &self.plan.steps[index].operator
    }

    /// The first input of step `index`, if it has any.
    pub fn first(&self, index: usize) -> Option<ValueId> {
        self.plan.steps[index].inputs.first().copied()
    }

    /// The step that writes `value`.
    pub fn writer(&self, value: ValueId) -> Option<usize> {
        self.writer[value].filter(|&step| !self.dead[step])
    }

    /// The step that writes `value`, if one other step alone reads it.
    pub fn sole_writer(&self, value: ValueId) -> Option<usize> {
        self.writer(value).filter(|_| self.reads[value] == 1)
    }

    /// Shape of a value.
    pub fn dims(&self, value: ValueId) -> &[usize] {
        &self.plan.values[value].dims
    }

    /// Removes step `index`; whoever read its output reads `value` from now on.
    pub fn bypass(&mut self, index: usize, value: ValueId) {
        let output = self.plan.steps[index].output;
        self.remove(index);
        self.alias[output] = value;
        self.reads[value] += std::mem::take(&mut self.reads[output]);
    }

    /// Removes step `index`, whose output nobody reads any more.
    pub fn remove(&mut self, index: usize) {
        for &input in &self.plan.steps[index].inputs {
            self.reads[input] -= 1;
        }
        self.dead[index] = true;
        self.changed = true;
    }

    /// Removes step `index` if nobody reads its output any more.
    pub fn remove_if_unread(&mut self, index: usize) {
        if self.reads[self.plan.steps[index].output] == 0 {
            self.remove(index);
        }
    }

    /// Gives step `index` other inputs.
    pub fn rewire(&mut self, index: usize, inputs: Vec<ValueId>) {
        for &input in &inputs {
            self.reads[input] += 1;
        }
        for &input in &self.plan.steps[index].inputs {
            self.reads[input] -= 1;
        }
        self.plan.steps[index].inputs = inputs;
        self.changed = true;
    }

    /// Gives step `index` another operator.
    pub fn set(&mut self, index: usize, operator: Operator) {
        self.plan.steps[index].operator = operator;
        self.changed = true;
    }

    /// Puts the plan in order again; says whether anything changed.
    pub fn finish(self) -> bool {
        let Self { plan, alias, dead, changed, .. } = self;
        plan.output = alias[plan.output];
        let mut index = 0;
        plan.steps.retain_mut(|step| {
            for input in &mut step.inputs {
                *input = alias[*input];
            }
            index += 1;
            !dead[index - 1]
        });
        changed
    }
}

/// The activation that an operator applies last, where it can have one.
pub fn fused(operator: &Operator) -> Option<Activation> {
    match operator {
        Operator::Conv(conv) => Some(conv.activation),
        Operator::Add(activation) | Operator::Mul(activation) | Operator::Activation(activation) => {
            Some(*activation)
        }
        Operator::ScaleShift { activation, .. } => Some(*activation),
        _ => None,
    }
}

/// Where an operator keeps the activation that it applies last.
pub fn fused_mut(operator: &mut Operator) -> Option<&mut Activation> {
    match operator {
        Operator::Conv(conv) => Some(&mut conv.activation),
        Operator::Add(activation) | Operator::Mul(activation) | Operator::Activation(activation) => {
            Some(activation)
        }
        Operator::ScaleShift { activation, .. } => Some(activation),
        _ => None,
    }
}
