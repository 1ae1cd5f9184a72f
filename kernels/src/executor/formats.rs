//! Determines the preferred tensor format of each value from its readers, in one backward pass.
//!
//! The lowering follows a preference only if the producer of the value supports it.

use super::resolve::Resolved;
use paretune_base::plan::layout::{Element, Layout};
use paretune_base::plan::operator::Operator;
use paretune_base::plan::{Plan, Step, ValueId};
use paretune_simd::Isa;

/// Preferred tensor format of one value according to its readers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Preference {
    /// Whether some reader works on 8-bit elements.
    pub u8: bool,
    /// Layout that the first reader with a preference asks for.
    pub layout: Option<Layout>,
}

/// Returns the preferred format of each value. `resolved` has an entry per step, filled for
/// convolutions.
pub(super) fn preferences(plan: &Plan, resolved: &[Option<Resolved>], isa: Isa) -> Vec<Preference> {
    let mut preferences = vec![Preference::default(); plan.values.len()];
    for (step, resolved) in plan.steps.iter().zip(resolved).rev() {
        let output = preferences[step.output];
        match (&step.operator, resolved) {
            (Operator::Conv(_), Some(resolved)) => {
                // The residual has the layout of the output.
                for (&input, layout) in
                    step.inputs.iter().zip(resolved.algorithm.layouts(&resolved.schedule, isa))
                {
                    preferences[input].layout = Some(layout);
                }
                preferences[step.inputs[0]].u8 |= resolved.algorithm.is_integer();
            }
            (Operator::MaxPool { .. } | Operator::Concat { .. } | Operator::Reshape, _) => {
                let passes = output.u8 && same_grid(plan, step);
                for &input in &step.inputs {
                    preferences[input].u8 |= passes;
                    if !matches!(step.operator, Operator::Reshape) {
                        preferences[input].layout = output.layout;
                    }
                }
            }
            (Operator::GlobalAveragePool | Operator::Transpose { .. }, _) => {}
            (Operator::Add(_) | Operator::Mul(_), _) => {
                for &input in &step.inputs {
                    // An operand with the output's shape can be read in 8 bits. A value per channel
                    // is few bytes in any case.
                    preferences[input].u8 |=
                        output.u8 && plan.values[input].dims == plan.values[step.output].dims;
                    preferences[input].layout = output.layout;
                }
            }
            _ => {
                for &input in &step.inputs {
                    preferences[input].layout = output.layout;
                }
            }
        }
    }
    preferences
}

/// Returns whether the inputs and the output of `step` share one 8-bit grid, so that elements can
/// be copied unchanged.
pub(super) fn same_grid(plan: &Plan, step: &Step) -> bool {
    let grid = plan.values[step.output].quantization;
    grid.is_some() && step.inputs.iter().all(|&input| plan.values[input].quantization == grid)
}

/// Returns the 8-bit element type of a value, if it has a quantization grid.
pub(super) fn grid_of(plan: &Plan, value: ValueId) -> Option<Element> {
    plan.values[value].quantization.map(Element::U8)
}
