//! Reductions over any axes, which remain with size 1. The result has the layout of the input.

use super::activation::exp;
use super::elementary::log;
use super::{Context, Io, Loops, OperatorKernel, Physical, on};
use paretune_base::plan::layout::Layout;
use paretune_base::plan::tensor::Reduction;
use paretune_base::threads::Worker;

/// Results that are computed together, and partial results of one sum along memory.
const BLOCK: usize = 32;

/// Builds the reduction of values of shape `dims` over `axes` (batch not counted, ascending).
pub fn prepare(
    context: Context,
    dims: &[usize],
    kind: Reduction,
    axes: &[usize],
    layout: Layout,
) -> Box<dyn OperatorKernel> {
    let input = Physical::new(context.batch, dims, layout);
    let strides = input.strides();
    let reduced: Vec<usize> = axes.iter().map(|&axis| input.position[axis]).collect();
    let (mut kept, mut folded): (Vec<Axis>, Vec<Axis>) = (Vec::new(), Vec::new());
    for (at, &size) in input.dims.iter().enumerate().filter(|&(_, &size)| size > 1) {
        let list = if reduced.contains(&at) { &mut folded } else { &mut kept };
        let stride = strides[at];
        // Axes that follow each other in memory become one.
        match list.last_mut() {
            Some(outer) if outer.stride == stride * size => {
                *outer = Axis { size: outer.size * size, stride };
            }
            _ => list.push(Axis { size, stride }),
        }
    }
    // The innermost axis in memory belongs to one of the two lists.
    let run = |list: &mut Vec<Axis>| match list.last() {
        Some(&Axis { size, stride: 1 }) => {
            list.pop();
            size
        }
        _ => 1,
    };
    let (inner, line) = (run(&mut kept), run(&mut folded));
    let terms = line * folded.iter().map(|axis| axis.size).product::<usize>();
    let rows = kept.iter().map(|axis| axis.size).product();
    on(context.isa, Reduce { kind, kept, folded, inner, line, terms, rows, len: input.len() })
}

#[derive(Clone, Copy)]
struct Axis {
    size: usize,
    stride: usize,
}

struct Reduce {
    kind: Reduction,
    /// Axes that are not reduced, outermost first, without a run of adjacent elements.
    kept: Vec<Axis>,
    /// Reduced axes, outermost first, without a run of adjacent elements.
    folded: Vec<Axis>,
    /// Adjacent elements that belong to different results.
    inner: usize,
    /// Adjacent elements that belong to one result. One of `inner` and `line` is 1.
    line: usize,
    /// Number of elements of each result.
    terms: usize,
    /// Product of the sizes of `kept`.
    rows: usize,
    len: usize,
}

/// Returns the offset of element `index` of a row-major traversal of `axes`.
#[inline(always)]
fn offset(axes: &[Axis], mut index: usize) -> usize {
    let mut offset = 0;
    for axis in axes.iter().rev() {
        offset += index % axis.size * axis.stride;
        index /= axis.size;
    }
    offset
}

impl Loops for Reduce {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let terms = self.terms as f32;
        let identity = |x: f32| x;
        match self.kind {
            // SAFETY: the requirements of `Loops::run` are those of `fold`.
            Reduction::Sum => unsafe {
                self.fold(io, worker, 0.0, identity, |a, x| a + x, identity)
            },
            // SAFETY: as above.
            Reduction::Mean => unsafe {
                self.fold(io, worker, 0.0, identity, |a, x| a + x, |sum| sum / terms);
            },
            // SAFETY: as above.
            Reduction::Maximum => unsafe {
                self.fold(io, worker, f32::NEG_INFINITY, identity, larger, identity);
            },
            // SAFETY: as above.
            Reduction::Minimum => unsafe {
                self.fold(io, worker, f32::INFINITY, identity, smaller, identity);
            },
            // SAFETY: as above.
            Reduction::Product => unsafe {
                self.fold(io, worker, 1.0, identity, |a, x| a * x, identity);
            },
            // SAFETY: as above.
            Reduction::L1 => unsafe {
                self.fold(io, worker, 0.0, f32::abs, |a, x| a + x, identity);
            },
            // SAFETY: as above.
            Reduction::L2 => unsafe {
                self.fold(io, worker, 0.0, |x| x * x, |a, x| a + x, f32::sqrt);
            },
            // SAFETY: as above.
            Reduction::SumOfSquares => unsafe {
                self.fold(io, worker, 0.0, |x| x * x, |a, x| a + x, identity);
            },
            // SAFETY: as above.
            Reduction::LogSumExp => unsafe { self.log_sum_exp(io, worker) },
        }
    }
}

/// Returns the larger number, or NaN if one of the two is.
#[inline(always)]
pub(super) fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

/// Returns the smaller number, or NaN if one of the two is.
#[inline(always)]
pub(super) fn smaller(a: f32, b: f32) -> f32 {
    if a < b || a.is_nan() { a } else { b }
}

impl Reduce {
    /// Joins `map` of all elements of each result, beginning with `start`, and writes what `end`
    /// makes of it.
    ///
    /// # Safety
    /// The requirements of [`Loops::run`].
    #[inline(always)]
    unsafe fn fold(
        &self,
        io: &Io<'_>,
        worker: &Worker<'_>,
        start: f32,
        map: impl Fn(f32) -> f32 + Copy,
        join: impl Fn(f32, f32) -> f32 + Copy,
        end: impl Fn(f32) -> f32,
    ) {
        // SAFETY: input 0 holds `len` numbers, and no thread writes an input during the run.
        let input = unsafe { io.input::<f32>(0, self.len) };
        let lines = self.terms / self.line;
        let blocks = self.inner.div_ceil(BLOCK);
        for unit in worker.share(self.rows * blocks) {
            let (row, column) = (unit / blocks, unit % blocks * BLOCK);
            let base = offset(&self.kept, row) + column;
            let count = BLOCK.min(self.inner - column);
            // SAFETY: blocks of the output are disjoint and within it.
            let output = unsafe { io.output::<f32>(row * self.inner + column, count) };
            let mut results = [start; BLOCK];
            for index in 0..lines {
                let from = base + offset(&self.folded, index);
                if self.line > 1 {
                    // Every lane has every `BLOCK`th element.
                    let (chunks, rest) = input[from..from + self.line].as_chunks::<BLOCK>();
                    for chunk in chunks {
                        for (result, &x) in results.iter_mut().zip(chunk) {
                            *result = join(*result, map(x));
                        }
                    }
                    for (result, &x) in results.iter_mut().zip(rest) {
                        *result = join(*result, map(x));
                    }
                } else if let Some(chunk) = input[from..].first_chunk::<BLOCK>()
                    && count == BLOCK
                {
                    for (result, &x) in results.iter_mut().zip(chunk) {
                        *result = join(*result, map(x));
                    }
                } else {
                    for (result, &x) in results.iter_mut().zip(&input[from..from + count]) {
                        *result = join(*result, map(x));
                    }
                }
            }
            if self.inner == 1 {
                output[0] = end(results.iter().copied().fold(start, join));
            } else {
                for (out, &result) in output.iter_mut().zip(&results) {
                    *out = end(result);
                }
            }
        }
    }

    /// Writes the logarithm of the sum of the exponentials of each result's elements, which are
    /// shifted by their largest one so that nothing overflows.
    ///
    /// # Safety
    /// The requirements of [`Loops::run`].
    #[inline(always)]
    unsafe fn log_sum_exp(&self, io: &Io<'_>, worker: &Worker<'_>) {
        // SAFETY: input 0 holds `len` numbers, and no thread writes an input during the run.
        let input = unsafe { io.input::<f32>(0, self.len) };
        let lines = self.terms / self.line;
        for result in worker.share(self.rows * self.inner) {
            let base = offset(&self.kept, result / self.inner) + result % self.inner;
            let parts = || {
                (0..lines).map(|index| {
                    let from = base + offset(&self.folded, index);
                    &input[from..from + self.line]
                })
            };
            let largest = parts().flatten().copied().fold(f32::NEG_INFINITY, larger);
            // Infinite elements shift nothing, or the difference would be no number.
            let shift = if largest.is_finite() { largest } else { 0.0 };
            let sum: f32 = parts().flatten().map(|&x| exp(x - shift)).sum();
            // SAFETY: every result is one worker's.
            let output = unsafe { io.output::<f32>(result, 1) };
            output[0] = if largest.is_finite() { log(sum) + shift } else { largest };
        }
    }
}
