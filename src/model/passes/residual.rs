//! Fuses residual additions into the convolution that computes one of the operands.

use paretune_kernels::operator::{Conv, Operator};
use paretune_kernels::{Activation, Plan};

use super::graph::Sweep;

/// Fuses `add(conv(x), y)` into one step if the convolution's result has no other reader.
///
/// The step takes the addition's place in the order, after both `x` and `y`. Of two convolutions
/// the later one is fused, so that its result waits least.
pub fn fuse_residuals(plan: &mut Plan) -> bool {
    let mut sweep = Sweep::new(plan);
    for index in 0..sweep.len() {
        if !sweep.visit(index) {
            continue;
        }
        let Operator::Add(activation) = *sweep.operator(index) else { continue };
        let &[a, b] = sweep.plan.steps[index].inputs.as_slice() else { continue };
        if sweep.dims(a) != sweep.dims(b) {
            continue;
        }
        let candidate = |value: usize| {
            let step = sweep.sole_writer(value)?;
            match sweep.operator(step) {
                Operator::Conv(conv)
                    if conv.activation == Activation::Identity
                        && sweep.plan.steps[step].inputs.len() == 1 =>
                {
                    Some(step)
                }
                _ => None,
            }
        };
        let (first, second) = (candidate(a), candidate(b));
        let Some(step) = first.max(second) else { continue };
        let residual = if first == Some(step) { b } else { a };
        let Operator::Conv(conv) = sweep.operator(step).clone() else { continue };
        let source = sweep.plan.steps[step].inputs[0];
        sweep.set_inputs(index, vec![source, residual]);
        sweep.set_operator(index, Operator::Conv(Conv { activation, ..conv }));
        sweep.plan.steps[index].name = std::mem::take(&mut sweep.plan.steps[step].name);
        sweep.remove(step);
    }
    sweep.finish()
}
