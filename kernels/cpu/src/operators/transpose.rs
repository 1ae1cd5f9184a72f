//! Permutation of axes. The input may have either layout; the output is row-major.

use super::{Context, Io, Loops, OperatorKernel, Physical, on};
use paretune_base::plan::layout::Layout;
use paretune_base::threads::Worker;

/// Builds the operator whose output axis `i` is input axis `permutation[i]` (batch not counted);
/// `layout` is that of the input.
pub fn prepare(
    context: Context,
    dims: &[usize],
    permutation: &[usize],
    layout: Layout,
) -> Box<dyn OperatorKernel> {
    let input = Physical::new(context.batch, dims, layout);
    let strides = input.strides();
    // Batch first, then the axes in output order.
    let mut axes = vec![(context.batch, strides[0])];
    axes.extend(permutation.iter().map(|&axis| (dims[axis], strides[input.position[axis]])));
    // Adjacent axes that stay adjacent are merged into one.
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for (size, stride) in axes {
        match merged.last_mut() {
            _ if size == 1 => {}
            Some(outer) if outer.1 == stride * size => *outer = (outer.0 * size, stride),
            _ => merged.push((size, stride)),
        }
    }
    if merged.is_empty() {
        merged.push((1, 1));
    }
    on(context.isa, Transpose { axes: merged, len: input.len() })
}

struct Transpose {
    /// Size and input stride of every output axis, outermost first; never empty.
    axes: Vec<(usize, usize)>,
    len: usize,
}

impl Loops for Transpose {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let Some((&(width, stride), outer)) = self.axes.split_last() else { return };
        // SAFETY: input 0 holds `len` numbers, and no thread writes an input during the run.
        let input = unsafe { io.input::<f32>(0, self.len) };
        for row in worker.share(self.len / width) {
            let (mut rest, mut from) = (row, 0);
            for &(size, stride) in outer.iter().rev() {
                from += rest % size * stride;
                rest /= size;
            }
            // SAFETY: rows of the output are disjoint and within it.
            let output = unsafe { io.output::<f32>(row * width, width) };
            if stride == 1 {
                output.copy_from_slice(&input[from..from + width]);
            } else {
                for (out, x) in output.iter_mut().zip(input[from..].iter().step_by(stride)) {
                    *out = *x;
                }
            }
        }
    }
}
