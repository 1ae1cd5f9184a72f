//! Concatenation along an axis, for any element type that all inputs share.

use super::{Context, Io, Loops, OperatorKernel, Physical, on};
use paretune_base::plan::layout::Layout;
use paretune_base::threads::Worker;

/// Builds the concatenation of `inputs` along `axis` (batch not counted). Inputs and output are in
/// `layout`, with `element_bytes` bytes per element.
pub fn prepare(
    context: Context,
    inputs: &[&[usize]],
    axis: usize,
    layout: Layout,
    element_bytes: usize,
) -> Box<dyn OperatorKernel> {
    let mut outer = 1;
    let pieces = inputs
        .iter()
        .map(|dims| {
            let [before, size, after] = Physical::new(context.batch, dims, layout).around(axis);
            outer = before;
            size * after * element_bytes
        })
        .collect();
    on(context.isa, Concat { outer, pieces })
}

struct Concat {
    outer: usize,
    /// Bytes that each input contributes to one row of the output.
    pieces: Vec<usize>,
}

impl Loops for Concat {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let row: usize = self.pieces.iter().sum();
        // A few long rows are each split among the threads; many short rows are distributed whole.
        let cut = self.outer < 4 * worker.count;
        let rows = if cut { 0..self.outer } else { worker.share(self.outer) };
        for index in rows {
            let mut to = index * row;
            for (input, &bytes) in io.inputs.iter().zip(&self.pieces) {
                let part = if cut { worker.share(bytes) } else { 0..bytes };
                // SAFETY: an input holds `outer * bytes` bytes, the output `outer * row`; they do
                // not overlap, and workers have different parts.
                unsafe {
                    let from = input.add(index * bytes + part.start);
                    std::ptr::copy_nonoverlapping(from, io.output.add(to + part.start), part.len());
                }
                to += bytes;
            }
        }
    }
}
