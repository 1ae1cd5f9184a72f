//! Folds padding into convolutions and pools.

use paretune_kernels::Plan;
use paretune_kernels::operator::{Operator, Window};

use super::graph::{Sweep, fused_activation};

/// Folds a padding step into the convolution or pool that is its only reader, if the result is
/// unchanged.
pub fn fold_padding(plan: &mut Plan) -> bool {
    let mut sweep = Sweep::new(plan);
    for index in 0..sweep.len() {
        if !sweep.visit(index) {
            continue;
        }
        let Some(input) = sweep.first(index) else { continue };
        // A residual is not padded; `sole_writer` excludes a value that is both.
        let Some(pad) = sweep.sole_writer(input) else { continue };
        let Operator::Pad { padding, value } = sweep.operator(pad) else { continue };
        let &[[0, 0], vertical, horizontal] = padding.as_slice() else { continue };
        let (value, amounts) = (*value, [vertical[0], horizontal[0], vertical[1], horizontal[1]]);
        let Some(source) = sweep.first(pad) else { continue };
        let Some(padded) = absorb(&sweep, index, source, value, amounts) else { continue };
        let mut inputs = sweep.plan.steps[index].inputs.clone();
        inputs[0] = source;
        sweep.set_inputs(index, inputs);
        sweep.set_operator(index, padded);
        sweep.remove(pad);
    }
    sweep.finish()
}

/// Returns the operator of step `index` with `amounts` of `value` around `source` as its own
/// padding.
fn absorb(
    sweep: &Sweep<'_>,
    index: usize,
    source: usize,
    value: f32,
    amounts: [usize; 4],
) -> Option<Operator> {
    let widen = |window: &Window| {
        let mut window = *window;
        for (own, amount) in window.padding.iter_mut().zip(amounts) {
            *own = own.checked_add(amount)?;
        }
        Some(window)
    };
    match sweep.operator(index) {
        Operator::Conv(conv) if value == 0.0 => {
            let mut conv = conv.clone();
            conv.window = widen(&conv.window)?;
            Some(Operator::Conv(conv))
        }
        Operator::AveragePool { window, ceil: false, include_padding } if value == 0.0 => {
            // Padding of the step counts in the mean, so the pool's own padding would have to count
            // as well.
            (*include_padding || window.padding == [0; 4]).then_some(())?;
            Some(Operator::AveragePool {
                window: widen(window)?,
                ceil: false,
                include_padding: true,
            })
        }
        Operator::MaxPool { window, ceil: false } => {
            let window = widen(window)?;
            // A pool's padding never wins. The step's would not either if it is no larger than any
            // number in the source, and no window sees padding alone.
            let lowest = sweep
                .writer(source)
                .and_then(|step| fused_activation(sweep.operator(step)))
                .and_then(|activation| activation.as_clamp())
                .map_or(f32::MIN, |(low, _)| low.max(f32::MIN));
            let covered = (0..2).all(|axis| {
                window.dilation[axis] == 1
                    && window.padding[axis].max(window.padding[axis + 2]) < window.kernel[axis]
            });
            (value <= lowest && covered).then_some(Operator::MaxPool { window, ceil: false })
        }
        _ => None,
    }
}
