//! In which form each value should be: what its readers wish, seen backwards from the end.
//!
//! Only wishes are computed here; the lowering grants them where the producer can.

use super::resolve::Resolved;
use crate::conv::{Element, Layout};
use crate::hardware::Isa;
use crate::operator::Operator;
use crate::plan::{Plan, Step, ValueId};

/// What the readers of one value would like best.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Wish {
    /// Some reader works on 8-bit numbers.
    pub u8: bool,
    /// The layout that the first reader who cares wants.
    pub layout: Option<Layout>,
}

/// One wish per value. `resolved` has an entry per step, filled for convolutions.
pub(super) fn wishes(plan: &Plan, resolved: &[Option<Resolved>], isa: Isa) -> Vec<Wish> {
    let mut wishes = vec![Wish::default(); plan.values.len()];
    for (step, resolved) in plan.steps.iter().zip(resolved).rev() {
        let output = wishes[step.output];
        match (&step.operator, resolved) {
            (Operator::Conv(_), Some(resolved)) => {
                // The residual lies as the output does.
                for (&input, layout) in step.inputs.iter().zip(resolved.layouts(isa)) {
                    wishes[input].layout = Some(layout);
                }
                wishes[step.inputs[0]].u8 |= resolved.algorithm.integer();
            }
            (Operator::MaxPool { .. } | Operator::Concat { .. } | Operator::Reshape, _) => {
                let passes = output.u8 && same_grid(plan, step);
                for &input in &step.inputs {
                    wishes[input].u8 |= passes;
                    if !matches!(step.operator, Operator::Reshape) {
                        wishes[input].layout = output.layout;
                    }
                }
            }
            (Operator::GlobalAveragePool | Operator::Transpose { .. }, _) => {}
            (Operator::Add(_) | Operator::Mul(_), _) => {
                for &input in &step.inputs {
                    // What has the output's shape can be read in 8 bits; a number per channel is few bytes anyhow.
                    wishes[input].u8 |= output.u8 && plan.values[input].dims == plan.values[step.output].dims;
                    wishes[input].layout = output.layout;
                }
            }
            _ => {
                for &input in &step.inputs {
                    wishes[input].layout = output.layout;
                }
            }
        }
    }
    wishes
}

/// Whether the step's inputs and output share one 8-bit grid, so that numbers can pass through as they
/// are.
pub(super) fn same_grid(plan: &Plan, step: &Step) -> bool {
    let grid = plan.values[step.output].quantization;
    grid.is_some() && step.inputs.iter().all(|&input| plan.values[input].quantization == grid)
}

/// The 8-bit form of a value, if it has a grid.
pub(super) fn grid_of(plan: &Plan, value: ValueId) -> Option<Element> {
    plan.values[value].quantization.map(Element::U8)
}
