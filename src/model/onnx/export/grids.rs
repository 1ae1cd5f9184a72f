//! Finds the 8-bit values of a plan, which the exported file states as pairs of QuantizeLinear and
//! DequantizeLinear.
//!
//! The rule is that of the runtime. A value is made in 8 bits if its producer supports it and a
//! reader prefers it; then all of its readers see it rounded. A value made in single precision is
//! rounded only for the integer layers that read it.

use paretune_kernels::operator::Operator;
use paretune_kernels::{Plan, Step, WeightValues};

/// Returns, by step and input, whether the step reads the value rounded to its grid.
pub(super) fn rounded_inputs(plan: &Plan) -> Vec<Vec<bool>> {
    let preferred = preferred(plan);
    let mut made = vec![false; plan.values.len()];
    let mut present = vec![false; plan.values.len()];
    let grid = |value: usize| plan.values[value].quantization.is_some();
    plan.steps
        .iter()
        .map(|step| {
            let integer = is_integer(plan, step);
            let rounded = step
                .inputs
                .iter()
                .enumerate()
                .map(|(index, &input)| {
                    made[input] || integer && grid(input) && (index == 0 || present[input])
                })
                .collect();
            let passes = preferred[step.output] && same_grid(plan, step);
            made[step.output] = match &step.operator {
                Operator::Conv(_) => integer && grid(step.output) && preferred[step.output],
                Operator::MaxPool { .. } | Operator::Concat { .. } => {
                    passes && step.inputs.iter().all(|&input| present[input])
                }
                Operator::Reshape => same_grid(plan, step) && made[step.inputs[0]],
                _ => false,
            };
            present[step.output] = made[step.output];
            if integer && grid(step.inputs[0]) {
                present[step.inputs[0]] = true;
            }
            rounded
        })
        .collect()
}

/// Returns whether the step computes with 8-bit numbers.
fn is_integer(plan: &Plan, step: &Step) -> bool {
    let Operator::Conv(conv) = &step.operator else { return false };
    matches!(plan.weights[conv.weights].values, WeightValues::Integer(_))
}

/// Returns, by value, whether some reader works on 8-bit numbers or passes them on to one that
/// does.
fn preferred(plan: &Plan) -> Vec<bool> {
    let mut preferred = vec![false; plan.values.len()];
    for step in plan.steps.iter().rev() {
        match &step.operator {
            Operator::Conv(_) => preferred[step.inputs[0]] |= is_integer(plan, step),
            Operator::MaxPool { .. } | Operator::Concat { .. } | Operator::Reshape => {
                let passes = preferred[step.output] && same_grid(plan, step);
                for &input in &step.inputs {
                    preferred[input] |= passes;
                }
            }
            _ => {}
        }
    }
    preferred
}

fn same_grid(plan: &Plan, step: &Step) -> bool {
    let grid = plan.values[step.output].quantization;
    grid.is_some() && step.inputs.iter().all(|&input| plan.values[input].quantization == grid)
}
