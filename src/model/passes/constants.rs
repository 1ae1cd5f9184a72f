//! Rewrites additions and multiplications with one constant per channel to
//! [`Operator::ScaleShift`], which convolutions can absorb.

use std::sync::Arc;

use paretune_kernels::Plan;
use paretune_kernels::operator::Operator;

use super::graph::Sweep;

/// Rewrites `x + constant` and `x * constant` with one constant per channel.
pub fn fold_constant_operands(plan: &mut Plan) -> bool {
    let mut sweep = Sweep::new(plan);
    for index in 0..sweep.len() {
        if !sweep.visit(index) {
            continue;
        }
        let (multiply, activation) = match *sweep.operator(index) {
            Operator::Mul(activation) => (true, activation),
            Operator::Add(activation) => (false, activation),
            _ => continue,
        };
        let &[a, b] = sweep.plan.steps[index].inputs.as_slice() else { continue };
        let Some((value, constant)) = constant_of(&sweep, b)
            .map(|found| (a, found))
            .or_else(|| constant_of(&sweep, a).map(|found| (b, found)))
        else {
            continue;
        };
        let dims = sweep.dims(value);
        let constant_dims = sweep.dims(if value == a { b } else { a });
        // The constant must not enlarge the value, and must vary along axis 0 alone.
        let Some(&channels) = dims.first() else { continue };
        if dims != sweep.dims(sweep.plan.steps[index].output) || constant_dims.len() > dims.len() {
            continue;
        }
        let spread = match constant.len() {
            1 => true,
            _ if constant_dims.len() == dims.len()
                && constant.len() == channels
                && constant_dims[0] == channels =>
            {
                false
            }
            _ => continue,
        };
        let numbers = if spread { vec![constant[0]; channels].into() } else { constant };
        let neutral: Arc<[f32]> = vec![if multiply { 0.0 } else { 1.0 }; channels].into();
        let (scale, shift) = if multiply { (numbers, neutral) } else { (neutral, numbers) };
        let first = sweep.plan.constants.len();
        sweep.plan.constants.extend([scale, shift]);
        sweep.set_inputs(index, vec![value]);
        sweep.set_operator(
            index,
            Operator::ScaleShift { scale: first, shift: first + 1, activation },
        );
    }
    sweep.finish()
}

fn constant_of(sweep: &Sweep<'_>, value: usize) -> Option<Arc<[f32]>> {
    match sweep.operator(sweep.writer(value)?) {
        Operator::Constant { constant } => Some(sweep.plan.constants[*constant].clone()),
        _ => None,
    }
}
