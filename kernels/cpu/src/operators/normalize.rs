//! Normalization over adjacent axes by mean and variance, or by the mean square alone.

use super::{Context, Io, Loops, OperatorKernel, Physical, on};
use paretune_base::plan::layout::Layout;
use paretune_base::threads::Worker;

/// Columns that are normalized together, and partial sums along memory.
const BLOCK: usize = 32;

/// Returns `[outer, terms, inner]` of the axes from `first` to `last` (batch not counted) in memory
/// order, or `None` if they are not adjacent in `layout`.
pub fn around(
    batch: usize,
    dims: &[usize],
    [first, last]: [usize; 2],
    layout: Layout,
) -> Option<[usize; 3]> {
    let physical = Physical::new(batch, dims, layout);
    let mut places: Vec<usize> =
        (first..=last).filter(|&axis| dims[axis] > 1).map(|axis| physical.position[axis]).collect();
    places.sort_unstable();
    let (Some(&start), Some(&end)) = (places.first(), places.last()) else {
        return Some([physical.len(), 1, 1]);
    };
    // Axes of size 1 between the others do not matter.
    let between = (start..=end).all(|at| places.contains(&at) || physical.dims[at] == 1);
    let size = |axes: &[usize]| axes.iter().product::<usize>();
    between.then(|| {
        [
            size(&physical.dims[..start]),
            size(&physical.dims[start..=end]),
            size(&physical.dims[end + 1..]),
        ]
    })
}

/// Builds the normalization of the middle one of the sizes that [`around`] returns.
pub fn prepare(
    context: Context,
    [outer, terms, inner]: [usize; 3],
    center: bool,
    epsilon: f32,
) -> Box<dyn OperatorKernel> {
    on(context.isa, Normalize { outer, terms, inner, center, epsilon })
}

struct Normalize {
    outer: usize,
    terms: usize,
    inner: usize,
    center: bool,
    epsilon: f32,
}

/// Returns the sum of `map` of all numbers.
#[inline(always)]
fn sum(numbers: &[f32], map: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; BLOCK];
    let (chunks, rest) = numbers.as_chunks::<BLOCK>();
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum += map(x);
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum += map(x);
    }
    let mut width = BLOCK;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            sums[i] += sums[i + width];
        }
    }
    sums[0]
}

impl Loops for Normalize {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let Self { outer, terms, inner, center, epsilon } = *self;
        // SAFETY: input 0 holds `outer * terms * inner` numbers, and no thread writes an input
        // during the run.
        let input = unsafe { io.input::<f32>(0, outer * terms * inner) };
        let share = 1.0 / terms as f32;
        if inner == 1 {
            for row in worker.share(outer) {
                let line = &input[row * terms..(row + 1) * terms];
                // SAFETY: rows of the output are disjoint and within it.
                let output = unsafe { io.output::<f32>(row * terms, terms) };
                let mean = if center { sum(line, |x| x) * share } else { 0.0 };
                let variance = sum(line, |x| (x - mean) * (x - mean)) * share;
                let factor = 1.0 / (variance + epsilon).sqrt();
                for (out, x) in output.iter_mut().zip(line) {
                    *out = (x - mean) * factor;
                }
            }
            return;
        }
        let blocks = inner.div_ceil(BLOCK);
        for unit in worker.share(outer * blocks) {
            let column = unit % blocks * BLOCK;
            let count = BLOCK.min(inner - column);
            let base = unit / blocks * terms * inner + column;
            let line = |term: usize| &input[base + term * inner..][..count];
            let mut means = [0.0_f32; BLOCK];
            if center {
                for term in 0..terms {
                    for (mean, x) in means.iter_mut().zip(line(term)) {
                        *mean += x;
                    }
                }
                means.iter_mut().for_each(|mean| *mean *= share);
            }
            let mut factors = [0.0_f32; BLOCK];
            for term in 0..terms {
                for ((sum, mean), x) in factors.iter_mut().zip(&means).zip(line(term)) {
                    *sum += (x - mean) * (x - mean);
                }
            }
            for factor in &mut factors {
                *factor = 1.0 / (*factor * share + epsilon).sqrt();
            }
            for term in 0..terms {
                // SAFETY: blocks of columns are disjoint and within the output.
                let output = unsafe { io.output::<f32>(base + term * inner, count) };
                let scales = means.iter().zip(&factors);
                for ((out, x), (mean, factor)) in output.iter_mut().zip(line(term)).zip(scales) {
                    *out = (x - mean) * factor;
                }
            }
        }
    }
}
