//! Removes steps without effect, joins chains of reshapes and transpositions, and joins flattening
//! with the dense layer after it.

use paretune_kernels::operator::{Operator, Window};
use paretune_kernels::{Activation, Plan, ValueId};

use super::graph::Sweep;

/// Removes steps without effect and rewrites others to their simplest form.
pub fn remove_noops(plan: &mut Plan) -> bool {
    let mut sweep = Sweep::new(plan);
    for index in 0..sweep.len() {
        if !sweep.visit(index) {
            continue;
        }
        let Some(input) = sweep.first(index) else { continue };
        join(&mut sweep, index, input);
        let Some(input) = sweep.first(index) else { continue };
        if does_nothing(&sweep, index, input) {
            sweep.bypass(index, input);
        } else if let Some(simpler) = simpler(&sweep, index, input) {
            sweep.set_operator(index, simpler);
        }
    }
    sweep.finish()
}

/// Merges a step with its predecessor if it can do the predecessor's work.
fn join(sweep: &mut Sweep<'_>, index: usize, input: ValueId) {
    let Some(before) = sweep.writer(input) else { return };
    if let (Operator::Reshape, Operator::Conv(_)) = (sweep.operator(before), sweep.operator(index))
    {
        // A dense layer reads `[features, 1, 1]` as well as `[features]`.
        if let (Some(source), &[features]) = (sweep.first(before), sweep.dims(input))
            && *sweep.dims(source) == [features, 1, 1]
        {
            let mut inputs = sweep.plan.steps[index].inputs.clone();
            inputs[0] = source;
            sweep.set_inputs(index, inputs);
            sweep.remove_if_unread(before);
        }
        return;
    }
    let joined = match (sweep.operator(before), sweep.operator(index)) {
        (Operator::Reshape, Operator::Reshape) => Operator::Reshape,
        (
            Operator::Transpose { permutation: first },
            Operator::Transpose { permutation: second },
        ) => Operator::Transpose { permutation: second.iter().map(|&axis| first[axis]).collect() },
        _ => return,
    };
    let inputs = sweep.plan.steps[before].inputs.clone();
    sweep.set_inputs(index, inputs);
    sweep.set_operator(index, joined);
    sweep.remove_if_unread(before);
}

fn does_nothing(sweep: &Sweep<'_>, index: usize, input: ValueId) -> bool {
    let (before, after) = (sweep.dims(input), sweep.dims(sweep.plan.steps[index].output));
    if before != after {
        return false;
    }
    let point = |window: &Window| *window == Window::POINT;
    match sweep.operator(index) {
        Operator::Activation(Activation::Identity) | Operator::Reshape => true,
        Operator::Transpose { permutation } => permutation.is_sorted(),
        Operator::Pad { padding, .. } => padding.iter().all(|pair| *pair == [0, 0]),
        Operator::Concat { .. } => sweep.plan.steps[index].inputs.len() == 1,
        Operator::MaxPool { window, .. } | Operator::AveragePool { window, .. } => point(window),
        // The shape stays only if all reduced axes have extent 1.
        Operator::GlobalAveragePool | Operator::ReduceMean { .. } => true,
        Operator::ScaleShift { scale, shift, activation: Activation::Identity } => {
            is_all(sweep.plan, *scale, 1.0) && is_all(sweep.plan, *shift, 0.0)
        }
        _ => false,
    }
}

fn is_all(plan: &Plan, constant: usize, value: f32) -> bool {
    plan.constants[constant].iter().all(|&number| number == value)
}

fn simpler(sweep: &Sweep<'_>, index: usize, input: ValueId) -> Option<Operator> {
    let (before, after) = (sweep.dims(input), sweep.dims(sweep.plan.steps[index].output));
    match sweep.operator(index) {
        Operator::AveragePool { window, .. }
            if before.len() == 3
                && window.kernel == before[1..]
                && window.dilation == [1, 1]
                && window.padding == [0; 4]
                && after[1..] == [1, 1] =>
        {
            Some(Operator::GlobalAveragePool)
        }
        // Moving only axes of extent 1 leaves all numbers in place.
        Operator::Transpose { permutation }
            if permutation.iter().filter(|&&axis| before[axis] != 1).is_sorted() =>
        {
            Some(Operator::Reshape)
        }
        Operator::ScaleShift { scale, shift, activation }
            if is_all(sweep.plan, *scale, 1.0) && is_all(sweep.plan, *shift, 0.0) =>
        {
            Some(Operator::Activation(*activation))
        }
        _ => None,
    }
}
