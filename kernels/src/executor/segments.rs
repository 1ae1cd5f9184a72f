//! Splits a plan at its cut points into segments. Determines the steps, inputs and outputs of each
//! segment, and the transfers over device boundaries, each value once and only to places that need
//! it.
//!
//! Constants exist everywhere, and a reshaped value is an alias of its origin: both are recomputed
//! where they are needed instead of being transferred.

use std::ops::Range;

use paretune_base::plan::operator::Operator;
use paretune_base::plan::{Plan, Step, ValueId};

/// Place of the processor; devices have places 1, 2, ...
pub(super) const HOST: usize = 0;

/// Consecutive steps on one device or on the processor.
#[derive(Debug)]
pub(super) struct Segment {
    pub place: usize,
    /// Recomputed constants and reshapes, followed by the steps of the plan.
    pub steps: Vec<Step>,
    /// Values that other segments or the caller provide.
    pub inputs: Vec<ValueId>,
    /// Values that the caller or later segments read.
    pub outputs: Vec<ValueId>,
}

/// An action of a run; actions are executed in list order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Transfers a value from the host to a place.
    Upload { value: ValueId, place: usize },
    /// Runs the segment with this index.
    Run(usize),
    /// Transfers a value from a place to the host.
    Download { value: ValueId, place: usize },
}

/// A plan split into segments, with the actions of a run.
#[derive(Debug)]
pub(super) struct Segments {
    pub segments: Vec<Segment>,
    pub actions: Vec<Action>,
}

impl Segments {
    /// Splits a valid plan at its cut points. `places` holds the place of each segment, beginning
    /// with the segment before the first cut point.
    pub fn of(plan: &Plan, places: &[usize]) -> Self {
        let mut maker: Vec<Option<usize>> = vec![None; plan.values.len()];
        for (index, step) in plan.steps.iter().enumerate() {
            maker[step.output] = Some(index);
        }
        let ranges = ranges(plan);
        let segment_of = |value: ValueId| {
            maker[value].and_then(|step| ranges.iter().position(|range| range.contains(&step)))
        };
        // The caller's input counts as computed before the first segment.
        let last = segment_of(plan.output).unwrap_or(0);
        let mut segments: Vec<Segment> = Vec::new();
        for (index, range) in ranges.iter().enumerate() {
            let mut builder = Builder {
                plan,
                maker: &maker,
                there: vec![false; plan.values.len()],
                steps: Vec::new(),
                inputs: Vec::new(),
            };
            for step in &plan.steps[range.clone()] {
                step.inputs.iter().for_each(|&input| builder.need(input));
                builder.there[step.output] = true;
                builder.steps.push(step.clone());
            }
            let mut outputs = Vec::new();
            if index == last {
                builder.need(plan.output);
                outputs.push(plan.output);
            }
            let Builder { steps, inputs, .. } = builder;
            let place = places.get(index).copied().unwrap_or(HOST);
            segments.push(Segment { place, steps, inputs, outputs });
        }
        for index in 0..segments.len() {
            for value in segments[index].inputs.clone() {
                if let Some(from) = segment_of(value)
                    && !segments[from].outputs.contains(&value)
                {
                    segments[from].outputs.push(value);
                }
            }
        }
        let actions = actions(plan, &segments, segment_of);
        Self { segments, actions }
    }
}

/// Returns the ranges of steps between cut points.
fn ranges(plan: &Plan) -> Vec<Range<usize>> {
    let ends = plan.switches.iter().map(|switch| switch.step).chain([plan.steps.len()]);
    let mut begin = 0;
    ends.map(|end| std::mem::replace(&mut begin, end)..end).collect()
}

/// Builder of a segment, which collects its steps and inputs.
struct Builder<'a> {
    plan: &'a Plan,
    maker: &'a [Option<usize>],
    there: Vec<bool>,
    steps: Vec<Step>,
    inputs: Vec<ValueId>,
}

impl Builder<'_> {
    /// Makes `value` available in the segment, recomputed if possible and as an input otherwise.
    fn need(&mut self, value: ValueId) {
        if std::mem::replace(&mut self.there[value], true) {
            return;
        }
        let made = self.maker[value].map(|step| &self.plan.steps[step]);
        match made {
            Some(step)
                if matches!(step.operator, Operator::Constant { .. } | Operator::Reshape) =>
            {
                step.inputs.iter().for_each(|&input| self.need(input));
                self.steps.push(step.clone());
            }
            _ => self.inputs.push(value),
        }
    }
}

/// Returns the transfers and segment runs in order. Uploads precede the first segment of a place
/// that needs the value, and downloads follow the segment that computes it.
fn actions(
    plan: &Plan,
    segments: &[Segment],
    segment_of: impl Fn(ValueId) -> Option<usize>,
) -> Vec<Action> {
    let place_of = |value: ValueId| segment_of(value).map_or(HOST, |index| segments[index].place);
    let mut actions = Vec::new();
    let mut brought: Vec<(ValueId, usize)> = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let place = segment.place;
        for &value in &segment.inputs {
            if place != HOST && place_of(value) != place && !brought.contains(&(value, place)) {
                brought.push((value, place));
                actions.push(Action::Upload { value, place });
            }
        }
        actions.push(Action::Run(index));
        for &value in segment.outputs.iter().filter(|_| place != HOST) {
            let elsewhere = |later: &Segment| later.place != place && later.inputs.contains(&value);
            if value == plan.output || segments.iter().any(elsewhere) {
                actions.push(Action::Download { value, place });
            }
        }
    }
    actions
}

#[cfg(test)]
mod tests {
    use super::*;
    use paretune_base::plan::activation::Activation;
    use paretune_base::plan::{Backend, Switch, ValueSpec};

    /// Builds a plan with values 0 to 6: two activations, the sum of the second and the first, a
    /// reshape of it, a constant, and their product.
    fn plan(switches: &[usize]) -> Plan {
        let relu = || Operator::Activation(Activation::Relu);
        let steps: Vec<(Operator, &[ValueId])> = vec![
            (relu(), &[0]),
            (relu(), &[1]),
            (Operator::Add(Activation::Identity), &[1, 2]),
            (Operator::Reshape, &[3]),
            (Operator::Constant { constant: 0 }, &[]),
            (Operator::Mul(Activation::Identity), &[4, 5]),
        ];
        let step = |(index, (operator, inputs)): (usize, (Operator, &[ValueId]))| Step {
            name: format!("step{index}"),
            operator,
            inputs: inputs.to_vec(),
            output: index + 1,
        };
        let device = Backend::OpenCl { device: String::new() };
        let backend =
            |index: usize| if index.is_multiple_of(2) { device.clone() } else { Backend::Cpu };
        Plan {
            values: vec![ValueSpec { dims: vec![4], quantization: None }; 7],
            output: 6,
            steps: steps.into_iter().enumerate().map(step).collect(),
            constants: vec![vec![1.0; 4].into()],
            switches: switches
                .iter()
                .enumerate()
                .map(|(index, &step)| Switch { step, backend: backend(index) })
                .collect(),
            ..Plan::default()
        }
    }

    #[test]
    fn every_value_crosses_once_and_only_where_it_is_needed() {
        // The processor runs the first step, the device the second, the processor the sum, the
        // device the rest.
        let parts = Segments::of(&plan(&[1, 2, 5]), &[HOST, 1, HOST, 1]);
        let up = |value| Action::Upload { value, place: 1 };
        let down = |value| Action::Download { value, place: 1 };
        let expected = [
            Action::Run(0),
            up(1),
            Action::Run(1),
            down(2),
            Action::Run(2),
            // Value 3 instead of value 4, which is its alias.
            up(3),
            Action::Run(3),
            down(6),
        ];
        assert_eq!(parts.actions, expected);
        let names: Vec<&str> = parts.segments[3].steps.iter().map(|step| &step.name[..]).collect();
        assert_eq!(names, ["step3", "step4", "step5"]);
    }

    #[test]
    fn what_stays_on_a_side_is_not_brought_there() {
        // The sum needs the first activation, which the device that runs the sum already holds.
        let parts = Segments::of(&plan(&[1, 2]), &[1, HOST, 1]);
        let up = |value| Action::Upload { value, place: 1 };
        let down = |value| Action::Download { value, place: 1 };
        let expected =
            [up(0), Action::Run(0), down(1), Action::Run(1), up(2), Action::Run(2), down(6)];
        assert_eq!(parts.actions, expected);
        assert_eq!(parts.segments[2].inputs, [1, 2]);
    }
}
