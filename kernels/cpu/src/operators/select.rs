//! Elements at chosen positions along one axis, and weighted sums of such elements.

use super::{Context, Io, Loops, OperatorKernel, Physical, on};
use paretune_base::plan::layout::Layout;
use paretune_base::plan::tensor::Picks;
use paretune_base::threads::Worker;

/// Builds the selection of `picks` along `axis` (batch not counted) from values of shape `dims` in
/// `layout`.
pub fn prepare(
    context: Context,
    dims: &[usize],
    axis: usize,
    picks: &Picks,
    layout: Layout,
) -> Box<dyn OperatorKernel> {
    let [outer, size, inner] = Physical::new(context.batch, dims, layout).around(axis);
    let runs = runs(picks);
    let count = picks.len();
    on(context.isa, Select { outer, size, inner, count, runs })
}

/// A part of the output along the axis that copies consecutive positions, or one that is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    to: usize,
    from: Option<usize>,
    len: usize,
}

/// Joins consecutive positions to runs.
fn runs(picks: &Picks) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for to in 0..picks.len() {
        let from = picks.at(to);
        match runs.last_mut() {
            Some(run) if from.is_some() && run.from.map(|start| start + run.len) == from => {
                run.len += 1;
            }
            Some(run) if from.is_none() && run.from.is_none() => run.len += 1,
            _ => runs.push(Run { to, from, len: 1 }),
        }
    }
    runs
}

struct Select {
    outer: usize,
    size: usize,
    inner: usize,
    count: usize,
    runs: Vec<Run>,
}

impl Loops for Select {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let Self { outer, size, inner, count, .. } = *self;
        // SAFETY: input 0 holds `outer * size * inner` numbers, and no thread writes an input
        // during the run.
        let input = unsafe { io.input::<f32>(0, outer * size * inner) };
        let runs = self.runs.len();
        let copy = |row: usize, Run { to, from, len }: Run| {
            // SAFETY: runs of the output are disjoint and within it.
            let output = unsafe { io.output::<f32>((row * count + to) * inner, len * inner) };
            match from {
                Some(from) if len * inner == 1 => output[0] = input[row * size + from],
                Some(from) => {
                    let start = (row * size + from) * inner;
                    output.copy_from_slice(&input[start..start + len * inner]);
                }
                None => output.fill(0.0),
            }
        };
        // Short rows are not divided among threads.
        if outer >= 64 {
            for row in worker.share(outer) {
                self.runs.iter().for_each(|&run| copy(row, run));
            }
        } else {
            worker.share(outer * runs).for_each(|unit| copy(unit / runs, self.runs[unit % runs]));
        }
    }

    fn constant_bytes(&self) -> usize {
        self.runs.len() * size_of::<Run>()
    }
}

/// Builds weighted sums along `axis` (batch not counted) of values of shape `dims` in `layout`.
/// `indices` and `weights` hold `taps` entries for each element of the output, and every index is
/// a position on the axis.
pub fn resample(
    context: Context,
    dims: &[usize],
    axis: usize,
    taps: usize,
    indices: &[u32],
    weights: &[f32],
    layout: Layout,
) -> Box<dyn OperatorKernel> {
    let [outer, size, inner] = Physical::new(context.batch, dims, layout).around(axis);
    let indices = indices.iter().map(|&index| index as usize).collect();
    on(context.isa, Resample { outer, size, inner, taps, indices, weights: weights.into() })
}

struct Resample {
    outer: usize,
    size: usize,
    inner: usize,
    taps: usize,
    indices: Box<[usize]>,
    weights: Box<[f32]>,
}

impl Loops for Resample {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let Self { outer, size, inner, taps, .. } = *self;
        // SAFETY: input 0 holds `outer * size * inner` numbers, and no thread writes an input
        // during the run.
        let input = unsafe { io.input::<f32>(0, outer * size * inner) };
        let count = self.indices.len() / taps;
        if inner == 1 {
            for row in worker.share(outer) {
                let input = &input[row * size..(row + 1) * size];
                // SAFETY: rows of the output are disjoint and within it.
                let output = unsafe { io.output::<f32>(row * count, count) };
                let sums = self.indices.chunks_exact(taps).zip(self.weights.chunks_exact(taps));
                for (out, (indices, weights)) in output.iter_mut().zip(sums) {
                    *out =
                        indices.iter().zip(weights).map(|(&at, weight)| input[at] * weight).sum();
                }
            }
            return;
        }
        for unit in worker.share(outer * count) {
            let (row, at) = (unit / count, unit % count);
            // SAFETY: lines of the output are disjoint and within it.
            let output = unsafe { io.output::<f32>(unit * inner, inner) };
            for tap in at * taps..(at + 1) * taps {
                let start = (row * size + self.indices[tap]) * inner;
                let (line, weight) = (&input[start..start + inner], self.weights[tap]);
                if tap == at * taps {
                    for (out, x) in output.iter_mut().zip(line) {
                        *out = x * weight;
                    }
                } else {
                    for (out, x) in output.iter_mut().zip(line) {
                        *out += x * weight;
                    }
                }
            }
        }
    }

    fn constant_bytes(&self) -> usize {
        self.indices.len() * (size_of::<usize>() + size_of::<f32>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_positions_become_runs() {
        let list = Picks::List(vec![2, 3, Picks::NONE, Picks::NONE, 3, 0]);
        let run = |to, from, len| Run { to, from, len };
        assert_eq!(
            runs(&list),
            [run(0, Some(2), 2), run(2, None, 2), run(4, Some(3), 1), run(5, Some(0), 1)]
        );
        let all = Picks::Range { start: 1, step: 1, count: 5 };
        assert_eq!(runs(&all), [run(0, Some(1), 5)]);
        let back = Picks::Range { start: 2, step: -1, count: 2 };
        assert_eq!(runs(&back), [run(0, Some(2), 1), run(1, Some(1), 1)]);
    }
}
