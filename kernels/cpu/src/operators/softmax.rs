//! Softmax along one axis. Inputs are shifted by their maximum so that the exponential cannot
//! overflow.

use super::activation::exp;
use super::{Context, Io, Loops, OperatorKernel, Physical, on};
use paretune_base::plan::layout::Layout;
use paretune_base::threads::Worker;

/// Columns computed together if the axis is not the innermost one.
const BLOCK: usize = 16;

/// Builds softmax along `axis` (batch not counted) of values of shape `dims` in `layout`.
pub fn prepare(
    context: Context,
    dims: &[usize],
    axis: usize,
    layout: Layout,
) -> Box<dyn OperatorKernel> {
    let [outer, len, inner] = Physical::new(context.batch, dims, layout).around(axis);
    on(context.isa, Softmax { outer, len, inner })
}

struct Softmax {
    outer: usize,
    len: usize,
    inner: usize,
}

impl Loops for Softmax {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let Self { outer, len, inner } = *self;
        // SAFETY: input 0 holds `outer * len * inner` numbers, and no thread writes an input during
        // the run.
        let input = unsafe { io.input::<f32>(0, outer * len * inner) };
        if inner == 1 {
            for row in worker.share(outer) {
                let input = &input[row * len..(row + 1) * len];
                // SAFETY: rows of the output are disjoint and within it.
                let output = unsafe { io.output::<f32>(row * len, len) };
                let largest =
                    input.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
                for (out, x) in output.iter_mut().zip(input) {
                    *out = exp(x - largest);
                }
                let factor = 1.0 / output.iter().sum::<f32>();
                for out in output {
                    *out *= factor;
                }
            }
            return;
        }
        let blocks = inner.div_ceil(BLOCK);
        for unit in worker.share(outer * blocks) {
            let column = unit % blocks * BLOCK;
            let count = BLOCK.min(inner - column);
            let base = unit / blocks * len * inner + column;
            let mut largest = [f32::NEG_INFINITY; BLOCK];
            for step in 0..len {
                for (max, &x) in largest.iter_mut().zip(&input[base + step * inner..][..count]) {
                    *max = if x > *max { x } else { *max };
                }
            }
            let mut sums = [0.0_f32; BLOCK];
            for step in 0..len {
                let at = base + step * inner;
                // SAFETY: blocks of columns are disjoint and within the output.
                let output = unsafe { io.output::<f32>(at, count) };
                for (i, (out, x)) in output.iter_mut().zip(&input[at..at + count]).enumerate() {
                    *out = exp(x - largest[i]);
                    sums[i] += *out;
                }
            }
            for step in 0..len {
                // SAFETY: blocks of columns are disjoint and within the output, and `output` of the
                // loop before is not used anymore.
                let output = unsafe { io.output::<f32>(base + step * inner, count) };
                for (out, sum) in output.iter_mut().zip(&sums) {
                    *out /= sum;
                }
            }
        }
    }
}
