//! Elements of one of two operands, as a third one says, with NumPy broadcasting. All values are
//! row-major.

use super::{Context, Io, Loops, OperatorKernel, on};
use paretune_base::threads::Worker;

/// Builds the choice between `operands[1]` where `operands[0]` is not zero, and `operands[2]`. The
/// result has the shape `out` (batch not counted).
pub fn prepare(
    context: Context,
    operands: [&[usize]; 3],
    out: &[usize],
) -> Box<dyn OperatorKernel> {
    let strides = operands.map(|dims| {
        let mut strides = vec![0; out.len()];
        let (mut stride, lead) = (1, out.len() - dims.len());
        for axis in (0..dims.len()).rev() {
            strides[lead + axis] = if dims[axis] == 1 { 0 } else { stride };
            stride *= dims[axis];
        }
        strides
    });
    let sizes = operands.map(|dims| dims.iter().product());
    on(context.isa, Choose { batch: context.batch, dims: out.into(), strides, sizes })
}

struct Choose {
    batch: usize,
    dims: Vec<usize>,
    strides: [Vec<usize>; 3],
    /// Numbers of one image in each operand.
    sizes: [usize; 3],
}

impl Loops for Choose {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let rank = self.dims.len();
        let width = self.dims.last().copied().unwrap_or(1);
        let rows: usize = self.dims[..rank.saturating_sub(1)].iter().product();
        // SAFETY: each input holds the numbers of `batch` images, and no thread writes an input
        // during the run.
        let inputs: [&[f32]; 3] =
            std::array::from_fn(|i| unsafe { io.input::<f32>(i, self.batch * self.sizes[i]) });
        let steps: [usize; 3] =
            std::array::from_fn(|i| self.strides[i].last().copied().unwrap_or(0));
        for row in worker.share(self.batch * rows) {
            let mut starts: [usize; 3] = std::array::from_fn(|i| row / rows * self.sizes[i]);
            let mut rest = row % rows;
            for axis in (0..rank.saturating_sub(1)).rev() {
                for (start, strides) in starts.iter_mut().zip(&self.strides) {
                    *start += rest % self.dims[axis] * strides[axis];
                }
                rest /= self.dims[axis];
            }
            // SAFETY: rows of the output are disjoint and within it.
            let output = unsafe { io.output::<f32>(row * width, width) };
            for (index, out) in output.iter_mut().enumerate() {
                let at = |operand: usize| inputs[operand][starts[operand] + index * steps[operand]];
                *out = if at(0) == 0.0 { at(2) } else { at(1) };
            }
        }
    }
}
