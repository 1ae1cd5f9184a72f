//! Padding of any axes with a constant.

use super::{Context, Io, Loops, OperatorKernel, Physical, on};
use paretune_base::plan::layout::Layout;
use paretune_base::threads::Worker;

/// Builds the padding of values of shape `dims` with `value`; `padding` is `[before, after]` per
/// axis, batch not counted.
pub fn prepare(
    context: Context,
    dims: &[usize],
    padding: &[[usize; 2]],
    value: f32,
    layout: Layout,
) -> Box<dyn OperatorKernel> {
    let input = Physical::new(context.batch, dims, layout);
    let mut before = vec![0; input.dims.len()];
    let mut output = input.dims.clone();
    for (&at, &[left, right]) in input.position.iter().zip(padding) {
        before[at] = left;
        output[at] += left + right;
    }
    on(context.isa, Pad { input: input.dims, output, before, value })
}

struct Pad {
    /// Input sizes in memory order, batch first.
    input: Vec<usize>,
    output: Vec<usize>,
    before: Vec<usize>,
    value: f32,
}

impl Pad {
    /// Returns the input row that row `row` of the output contains, or `None` if it is padding
    /// only.
    #[inline(always)]
    fn source(&self, mut row: usize) -> Option<usize> {
        let (mut source, mut stride) = (0, 1);
        for axis in (0..self.output.len() - 1).rev() {
            let index = (row % self.output[axis]).checked_sub(self.before[axis])?;
            row /= self.output[axis];
            if index >= self.input[axis] {
                return None;
            }
            source += index * stride;
            stride *= self.input[axis];
        }
        Some(source)
    }
}

impl Loops for Pad {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let last = self.output.len() - 1;
        let (width, input_width, left) = (self.output[last], self.input[last], self.before[last]);
        // SAFETY: input 0 holds as many numbers as the product of its axes, and no thread writes an
        // input during the run.
        let input = unsafe { io.input::<f32>(0, self.input.iter().product()) };
        for row in worker.share(self.output[..last].iter().product()) {
            // SAFETY: rows of the output are disjoint and within it.
            let output = unsafe { io.output::<f32>(row * width, width) };
            match self.source(row) {
                None => output.fill(self.value),
                Some(source) => {
                    output[..left].fill(self.value);
                    output[left..left + input_width]
                        .copy_from_slice(&input[source * input_width..(source + 1) * input_width]);
                    output[left + input_width..].fill(self.value);
                }
            }
        }
    }
}
