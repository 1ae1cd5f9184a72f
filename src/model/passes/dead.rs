//! Removes unused steps, values, weights and constants.

use paretune_kernels::Plan;
use paretune_kernels::operator::Operator;

/// Drops steps that the output does not need, and renumbers values, weights and constants without
/// gaps.
pub fn remove_dead(plan: &mut Plan) -> bool {
    let before = (plan.steps.len(), plan.values.len(), plan.weights.len(), plan.constants.len());
    let mut needed = vec![false; plan.values.len()];
    needed[plan.output] = true;
    for step in plan.steps.iter().rev() {
        if needed[step.output] {
            for &input in &step.inputs {
                needed[input] = true;
            }
        }
    }
    needed[plan.input] = true;
    plan.steps.retain(|step| needed[step.output]);
    let written = plan.steps.iter().map(|step| step.output);
    let order: Vec<usize> = std::iter::once(plan.input).chain(written).collect();
    let values = renumber(&mut plan.values, order.into_iter());
    plan.input = values[plan.input];
    plan.output = values[plan.output];
    for step in &mut plan.steps {
        step.output = values[step.output];
        for input in &mut step.inputs {
            *input = values[*input];
        }
    }
    let weights = plan.steps.iter().filter_map(|step| match &step.operator {
        Operator::Conv(conv) => Some(conv.weights),
        _ => None,
    });
    let weights = renumber(&mut plan.weights, weights);
    let constants = plan.steps.iter().flat_map(|step| match step.operator {
        Operator::ScaleShift { scale, shift, .. } => vec![scale, shift],
        Operator::Constant { constant } => vec![constant],
        _ => vec![],
    });
    let constants = renumber(&mut plan.constants, constants);
    for step in &mut plan.steps {
        match &mut step.operator {
            Operator::Conv(conv) => conv.weights = weights[conv.weights],
            Operator::ScaleShift { scale, shift, .. } => {
                *scale = constants[*scale];
                *shift = constants[*shift];
            }
            Operator::Constant { constant } => *constant = constants[*constant],
            _ => {}
        }
    }
    before != (plan.steps.len(), plan.values.len(), plan.weights.len(), plan.constants.len())
}

/// Keeps the items that `used` names, in the order of first use. Returns their new places.
fn renumber<T>(items: &mut Vec<T>, used: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut old: Vec<Option<T>> = std::mem::take(items).into_iter().map(Some).collect();
    let mut places = vec![usize::MAX; old.len()];
    for index in used {
        if let Some(item) = old[index].take() {
            places[index] = items.len();
            items.push(item);
        }
    }
    places
}
