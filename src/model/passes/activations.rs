//! Fuses activations into the operators before them, and recognizes hard-swish in the pieces into
//! which exporters split it.

use paretune_kernels::operator::Operator;
use paretune_kernels::{Activation, Plan, ValueId};

use super::graph::{Sweep, fused_activation, fused_activation_mut};

/// Fuses activations into the steps that produce their inputs.
pub fn fuse_activations(plan: &mut Plan) -> bool {
    let mut sweep = Sweep::new(plan);
    for index in 0..sweep.len() {
        if !sweep.visit(index) {
            continue;
        }
        match sweep.operator(index).clone() {
            Operator::Activation(activation) => fuse(&mut sweep, index, activation),
            Operator::Mul(Activation::Identity) => hard_swish(&mut sweep, index),
            Operator::ScaleShift { scale, shift, activation: Activation::Identity } => {
                hard_sigmoid(&mut sweep, index, scale, shift);
            }
            _ => {}
        }
    }
    sweep.finish()
}

fn fuse(sweep: &mut Sweep<'_>, index: usize, activation: Activation) {
    let Some(before) = sweep.first(index).and_then(|input| sweep.sole_writer(input)) else {
        return;
    };
    let mut target = before;
    // A clamp commutes with max pooling. It moves before the pool if a step there can fuse it.
    if matches!(sweep.operator(before), Operator::MaxPool { .. }) && activation.as_clamp().is_some()
    {
        match sweep.first(before).and_then(|input| sweep.sole_writer(input)) {
            Some(step) => target = step,
            None => return,
        }
    }
    let Some(current) = fused_activation(sweep.operator(target)) else { return };
    let Some(joined) = compose(current, activation) else { return };
    if let Some(place) = fused_activation_mut(&mut sweep.plan.steps[target].operator) {
        *place = joined;
        let output = sweep.plan.steps[before].output;
        sweep.bypass(index, output);
    }
}

/// Returns one activation that is equivalent to `first` followed by `second`.
fn compose(first: Activation, second: Activation) -> Option<Activation> {
    if first == Activation::Identity {
        return Some(second);
    }
    let ((low1, high1), (low2, high2)) = (first.as_clamp()?, second.as_clamp()?);
    let (low, high) = (low1.max(low2).min(high2), high1.max(low2).min(high2));
    Some(if low == 0.0 && high >= f32::MAX {
        Activation::Relu
    } else {
        Activation::Clip { low: low.max(f32::MIN), high: high.min(f32::MAX) }
    })
}

fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-6 * b.abs()
}

/// Returns the value of a constant whose elements are all equal.
fn uniform(plan: &Plan, constant: usize) -> Option<f32> {
    let (&first, rest) = plan.constants[constant].split_first()?;
    rest.iter().all(|&other| other == first).then_some(first)
}

/// Recognizes `x * hard_sigmoid(x)` with slope 1/6 and offset 1/2, and `x * clip(x + 3, 0, 6)`,
/// which is six times hard-swish.
fn hard_swish(sweep: &mut Sweep<'_>, index: usize) {
    let &[a, b] = sweep.plan.steps[index].inputs.as_slice() else { return };
    let gate = |value: ValueId, other: ValueId| {
        let step = sweep.sole_writer(value)?;
        (sweep.first(step) == Some(other)).then_some(())?;
        match *sweep.operator(step) {
            Operator::Activation(Activation::HardSigmoid { alpha, beta })
                if close(alpha, 1.0 / 6.0) && close(beta, 0.5) =>
            {
                Some((step, other, None))
            }
            Operator::ScaleShift {
                scale,
                shift,
                activation: Activation::Clip { low: 0.0, high: 6.0 },
            } if uniform(sweep.plan, scale) == Some(1.0)
                && uniform(sweep.plan, shift) == Some(3.0) =>
            {
                Some((step, other, Some(scale)))
            }
            _ => None,
        }
    };
    let Some((step, value, six)) = gate(a, b).or_else(|| gate(b, a)) else { return };
    match six {
        None => {
            sweep.set_inputs(index, vec![value]);
            sweep.set_operator(index, Operator::Activation(Activation::HardSwish));
            sweep.remove(step);
        }
        Some(ones) => {
            // The gate's step becomes the hard-swish, and this step becomes the factor of six,
            // which folds with the division that follows.
            let channels = sweep.plan.constants[ones].len();
            let output = sweep.plan.steps[step].output;
            let first = sweep.plan.constants.len();
            sweep.plan.constants.extend([vec![6.0; channels].into(), vec![0.0; channels].into()]);
            sweep.set_operator(step, Operator::Activation(Activation::HardSwish));
            sweep.set_inputs(index, vec![output]);
            let activation = Activation::Identity;
            sweep.set_operator(
                index,
                Operator::ScaleShift { scale: first, shift: first + 1, activation },
            );
        }
    }
}

/// Recognizes `clip(x * s + t, 0, h) / h` with single numbers as a hard sigmoid.
fn hard_sigmoid(sweep: &mut Sweep<'_>, index: usize, scale: usize, shift: usize) {
    let Some(before) = sweep.first(index).and_then(|input| sweep.sole_writer(input)) else {
        return;
    };
    let Operator::ScaleShift {
        scale: slope,
        shift: offset,
        activation: Activation::Clip { low: 0.0, high },
    } = *sweep.operator(before)
    else {
        return;
    };
    let plan = &*sweep.plan;
    let numbers =
        [uniform(plan, slope), uniform(plan, offset), uniform(plan, scale), uniform(plan, shift)];
    let [Some(slope), Some(offset), Some(factor), Some(0.0)] = numbers else { return };
    if high > 0.0 && high.is_finite() && close(factor * high, 1.0) {
        let (alpha, beta) = (slope / high, offset / high);
        if !alpha.is_finite() || !beta.is_finite() {
            return;
        }
        let activation = Activation::HardSigmoid { alpha, beta };
        let source = sweep.plan.steps[before].inputs.clone();
        sweep.set_inputs(index, source);
        sweep.set_operator(index, Operator::Activation(activation));
        sweep.remove(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamps_compose() {
        let clip = |low, high| Activation::Clip { low, high };
        let all = [
            Activation::Relu,
            clip(0.0, 6.0),
            clip(-1.0, 1.0),
            clip(2.0, 3.0),
            clip(f32::MIN, 4.0),
            clip(5.0, f32::MAX),
        ];
        for first in all {
            for second in all {
                let joined = compose(first, second).unwrap();
                for x in [-9.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.5, 3.5, 4.5, 5.5, 7.0, 1e30] {
                    assert_eq!(
                        joined.apply(x),
                        second.apply(first.apply(x)),
                        "{first:?} {second:?} {x}"
                    );
                }
            }
        }
        assert_eq!(compose(Activation::Sigmoid, Activation::Relu), None);
        assert_eq!(compose(Activation::Identity, Activation::Sigmoid), Some(Activation::Sigmoid));
    }
}
