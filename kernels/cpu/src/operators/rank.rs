//! The largest or smallest elements along one axis, or their positions.

use super::{Context, Io, Loops, OperatorKernel, Physical, on};
use paretune_base::plan::layout::Layout;
use paretune_base::threads::Worker;

/// Attributes of the operator, see [`paretune_base::plan::tensor::TensorOperator::Rank`].
#[derive(Clone, Copy)]
pub struct Attributes {
    /// Axis along which elements are compared, batch not counted.
    pub axis: usize,
    /// Number of elements that are kept.
    pub count: usize,
    /// Whether the largest elements are wanted.
    pub largest: bool,
    /// Whether the result is the positions of the elements.
    pub positions: bool,
}

/// Builds the ranking of values of shape `dims` in `layout`.
pub fn prepare(
    context: Context,
    dims: &[usize],
    layout: Layout,
    attributes: Attributes,
) -> Box<dyn OperatorKernel> {
    let [outer, size, inner] = Physical::new(context.batch, dims, layout).around(attributes.axis);
    on(context.isa, Rank { outer, size, inner, attributes })
}

struct Rank {
    outer: usize,
    size: usize,
    inner: usize,
    attributes: Attributes,
}

impl Loops for Rank {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let Self { outer, size, inner, attributes } = *self;
        let Attributes { count, largest, positions, .. } = attributes;
        // SAFETY: input 0 holds `outer * size * inner` numbers, and no thread writes an input
        // during the run.
        let input = unsafe { io.input::<f32>(0, outer * size * inner) };
        for line in worker.share(outer * inner) {
            let (row, column) = (line / inner, line % inner);
            let at = |position: usize| input[(row * size + position) * inner + column];
            // Whether element `a` comes before element `b`. NaN counts as beyond all numbers.
            let before = |a: usize, b: usize| {
                let (x, y) = (at(a), at(b));
                if (if largest { x > y } else { x < y }) || x.is_nan() && !y.is_nan() {
                    return true;
                }
                (x == y || x.is_nan() && y.is_nan()) && a < b
            };
            let mut last = None;
            for index in 0..count {
                // Searching again for every element needs no memory, and few are wanted.
                let mut best = None;
                for position in 0..size {
                    if last.is_none_or(|last| before(last, position))
                        && best.is_none_or(|best| before(position, best))
                    {
                        best = Some(position);
                    }
                }
                let position = best.unwrap_or(0);
                last = Some(position);
                let place = (row * count + index) * inner + column;
                // SAFETY: lines of the output are disjoint and within it.
                let output = unsafe { io.output::<f32>(place, 1) };
                output[0] = if positions { position as f32 } else { at(position) };
            }
        }
    }
}
