//! Folds scale-and-shift steps (batch normalization, biases, constant factors) into the weights of
//! the convolution before or after them. Products are rounded once, from double precision.

use std::sync::Arc;

use paretune_kernels::operator::{Conv, Operator};
use paretune_kernels::{Activation, Plan, WeightValues, Weights};

use super::graph::Sweep;

/// Folds every [`Operator::ScaleShift`] that a neighbor can absorb exactly.
pub fn fold_affine(plan: &mut Plan) -> bool {
    let mut users = vec![0usize; plan.weights.len()];
    for step in &plan.steps {
        if let Operator::Conv(conv) = &step.operator {
            users[conv.weights] += 1;
        }
    }
    let mut sweep = Sweep::new(plan);
    for index in 0..sweep.len() {
        if !sweep.visit(index) {
            continue;
        }
        let Some(before) = sweep.first(index).and_then(|input| sweep.sole_writer(input)) else {
            continue;
        };
        match (sweep.operator(before).clone(), sweep.operator(index).clone()) {
            (Operator::Conv(conv), Operator::ScaleShift { scale, shift, activation })
                if conv.activation == Activation::Identity
                    && sweep.plan.steps[before].inputs.len() == 1 =>
            {
                let (scale, shift) = (&sweep.plan.constants[scale], &sweep.plan.constants[shift]);
                let Some(weights) = scaled_outputs(&sweep.plan.weights[conv.weights], scale, shift)
                else {
                    continue;
                };
                let weights = replace(&mut sweep, &mut users, conv.weights, weights);
                let output = sweep.plan.steps[before].output;
                sweep.set_operator(before, Operator::Conv(Conv { weights, activation, ..conv }));
                sweep.bypass(index, output);
            }
            (
                Operator::ScaleShift { scale, shift, activation: Activation::Identity },
                Operator::Conv(conv),
            ) => {
                let (scale, shift) = (&sweep.plan.constants[scale], &sweep.plan.constants[shift]);
                // Padding is zero after the shift; before the shift it would need another value.
                if conv.window.padding != [0; 4] && shift.iter().any(|&shift| shift != 0.0) {
                    continue;
                }
                let Some(weights) =
                    scaled_inputs(&sweep.plan.weights[conv.weights], conv.groups, scale, shift)
                else {
                    continue;
                };
                let weights = replace(&mut sweep, &mut users, conv.weights, weights);
                sweep.set_operator(index, Operator::Conv(Conv { weights, ..conv }));
                skip(&mut sweep, index, before);
            }
            (
                Operator::ScaleShift {
                    scale: scale1,
                    shift: shift1,
                    activation: Activation::Identity,
                },
                Operator::ScaleShift { scale: scale2, shift: shift2, activation },
            ) => {
                let constants = &sweep.plan.constants;
                let pairs = |a: usize, b: usize| {
                    constants[a]
                        .iter()
                        .zip(constants[b].iter())
                        .map(|(&a, &b)| (f64::from(a), f64::from(b)))
                };
                let scale: Arc<[f32]> =
                    pairs(scale1, scale2).map(|(a, b)| (a * b) as f32).collect();
                let shift: Arc<[f32]> = pairs(shift1, scale2)
                    .zip(constants[shift2].iter())
                    .map(|((shift, scale), &more)| (shift * scale + f64::from(more)) as f32)
                    .collect();
                if !finite(&scale) || !finite(&shift) {
                    continue;
                }
                let first = sweep.plan.constants.len();
                sweep.plan.constants.extend([scale, shift]);
                sweep.set_operator(
                    index,
                    Operator::ScaleShift { scale: first, shift: first + 1, activation },
                );
                skip(&mut sweep, index, before);
            }
            _ => {}
        }
    }
    sweep.finish()
}

/// Connects step `index` to the input of `before`, and removes `before`.
fn skip(sweep: &mut Sweep<'_>, index: usize, before: usize) {
    let mut inputs = sweep.plan.steps[index].inputs.clone();
    inputs[0] = sweep.plan.steps[before].inputs[0];
    sweep.set_inputs(index, inputs);
    sweep.remove(before);
}

/// Replaces weights in place if no other step uses them; otherwise adds the new weights.
fn replace(sweep: &mut Sweep<'_>, users: &mut Vec<usize>, old: usize, weights: Weights) -> usize {
    if users[old] == 1 {
        sweep.plan.weights[old] = weights;
        return old;
    }
    users[old] -= 1;
    users.push(1);
    sweep.plan.weights.push(weights);
    sweep.plan.weights.len() - 1
}

fn finite(values: &[f32]) -> bool {
    values.iter().all(|value| value.is_finite())
}

/// Returns weights with the results `old * scale + shift` per output channel; `None` if they
/// overflow.
fn scaled_outputs(old: &Weights, scale: &[f32], shift: &[f32]) -> Option<Weights> {
    let WeightValues::F32(values) = &old.values else { return None };
    let channels = old.dims[0];
    if scale.len() != channels || shift.len() != channels || values.is_empty() {
        return None;
    }
    let each = values.len() / channels;
    let new: Arc<[f32]> = values
        .iter()
        .enumerate()
        .map(|(index, &value)| (f64::from(value) * f64::from(scale[index / each])) as f32)
        .collect();
    let bias: Arc<[f32]> = (0..channels)
        .map(|channel| {
            let bias = old.bias.as_ref().map_or(0.0, |bias| f64::from(bias[channel]));
            (bias * f64::from(scale[channel]) + f64::from(shift[channel])) as f32
        })
        .collect();
    (finite(&new) && finite(&bias)).then_some(Weights::dense(old.dims, new, Some(bias)))
}

/// Returns weights for inputs `x` equivalent to `old` for inputs `x * scale + shift` per input
/// channel; `None` if they overflow. There must be no padding, or no shift.
fn scaled_inputs(old: &Weights, groups: usize, scale: &[f32], shift: &[f32]) -> Option<Weights> {
    let WeightValues::F32(values) = &old.values else { return None };
    let [channels, group_in, height, width] = old.dims;
    let taps = height * width;
    if scale.len() != group_in * groups || shift.len() != scale.len() || channels % groups != 0 {
        return None;
    }
    let group_out = channels / groups;
    let source =
        |index: usize| index / taps % group_in + index / (taps * group_in * group_out) * group_in;
    let new: Arc<[f32]> = values
        .iter()
        .enumerate()
        .map(|(index, &value)| (f64::from(value) * f64::from(scale[source(index)])) as f32)
        .collect();
    let mut bias: Vec<f64> = match &old.bias {
        Some(bias) => bias.iter().map(|&bias| f64::from(bias)).collect(),
        None => vec![0.0; channels],
    };
    for (index, &value) in values.iter().enumerate() {
        bias[index / (taps * group_in)] += f64::from(value) * f64::from(shift[source(index)]);
    }
    let bias: Arc<[f32]> = bias.into_iter().map(|bias| bias as f32).collect();
    (finite(&new) && finite(&bias)).then_some(Weights::dense(old.dims, new, Some(bias)))
}
