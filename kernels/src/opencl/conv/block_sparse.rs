//! `opencl_block_sparse`: see `kernels/block_sparse.cl`.

use super::super::device::Limits;
use super::super::launch::{Launch, Prepared, bytes_of};
use super::{Algorithm, Chosen, Request, bias, powers, real, switch, unfit};
use crate::error::KernelError;
use crate::operator::ConvProblem;
use crate::schedule::Tunable;
use crate::weights::{Pattern, WeightFormat};

pub(super) struct BlockSparse;

const NAME: &str = "opencl_block_sparse";

/// Sums that a work-item can hold beside what it loads.
const MOST_SUMS: usize = 64;

/// Most outputs of a block; constraints, which know nothing of weights, take all blocks to have so many.
const MOST_OUTPUTS: usize = 16;

impl Algorithm for BlockSparse {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "matrix product over the blocks of output channels that are not zero (OpenCL)"
    }

    /// Narrower blocks use what is fetched too rarely.
    fn executes(&self, format: WeightFormat) -> bool {
        format.numbers.is_real() && matches!(format.pattern, Pattern::Blocks { outputs: 8 | 16, .. })
    }

    fn supports(&self, problem: &ConvProblem, _: &Limits) -> bool {
        let [height, width] = problem.window.kernel;
        let dilation = problem.window.dilation;
        // Rows and columns of a step are kept in 16 bits each; half a block at least should be outputs.
        problem.group_out() >= 4
            && height.saturating_mul(dilation[0]) < 1 << 15
            && width.saturating_mul(dilation[1]) < 1 << 15
    }

    fn tunables(&self, problem: &ConvProblem, limits: &Limits) -> Vec<Tunable> {
        let [height, width] = problem.window.output(problem.input, false).unwrap_or([1, 1]);
        let columns = problem.batch * height * width;
        let inner = problem.group_in() * problem.window.kernel[0] * problem.window.kernel[1];
        let (most, blocks) = (limits.work_group.min(1024) / 4, problem.group_out().div_ceil(8));
        vec![
            powers("blocks", "blocks of outputs of a work-group, whose lists are merged", 1, 4, blocks, 1),
            powers("threads_m", "work-items along outputs", 1, 8, problem.group_out(), 2),
            powers("threads_n", "work-items along pixels", 4, most.clamp(4, 256), columns, 32),
            powers("thread_n", "pixels of a work-item", 1, 8, columns.div_ceil(2), 4),
            powers("vector", "pixels read at once", 1, 4, columns.div_ceil(2), 1),
            powers("tile_k", "steps staged at once", 4, 32, inner, 8),
            powers("split", "slices of a work-group that share a list of steps", 1, 16, inner / 16, 1),
            switch("local", "whether inputs and weights are staged in local memory", true),
            powers("unroll", "steps that are unrolled", 1, 16, inner, 4),
        ]
    }

    fn constraints(&self, _: &ConvProblem, limits: &Limits) -> Vec<String> {
        let (group, floats) = (limits.work_group.min(1024), limits.local_memory / 4);
        vec![
            format!("threads_m * threads_n * split <= {group}"),
            format!("{MOST_OUTPUTS} * blocks * thread_n <= {MOST_SUMS} * threads_m"),
            "vector <= thread_n".to_owned(),
            "unroll <= tile_k".to_owned(),
            format!(
                "local == 0 or split * tile_k * ({MOST_OUTPUTS} * blocks + threads_n * thread_n) <= {floats}"
            ),
            format!("split == 1 or split * {MOST_OUTPUTS} * blocks * threads_n * thread_n <= {floats}"),
        ]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Prepared, KernelError> {
        let Request { problem, limits, .. } = request;
        let Pattern::Blocks { outputs, .. } = request.weights.pattern else {
            return Err(unfit(NAME, "it needs weights that are zero in blocks"));
        };
        if !self.executes(request.weights.format()) || !self.supports(problem, limits) {
            return Err(unfit(NAME, "it does not run these weights"));
        }
        let chosen = Chosen(&request.schedule.tunables);
        let [blocks, threads_m, threads_n, thread_n] =
            ["blocks", "threads_m", "threads_n", "thread_n"].map(|name| chosen.get(name));
        let [vector, tile_k, split, unroll] =
            ["vector", "tile_k", "split", "unroll"].map(|name| chosen.get(name));
        let local = request.schedule.tunables.get("local").copied().unwrap_or(1) != 0;
        let (tile_m, tile_n) = (usize::from(outputs) * blocks, threads_n * thread_n);
        let threads = threads_m * threads_n * split;
        let staged = if local { split * tile_k * (tile_m + tile_n) } else { 0 };
        let reduced = if split > 1 { split * tile_m * tile_n } else { 0 };
        let fits = threads <= limits.work_group.min(1024)
            && 4 * staged.max(reduced) <= limits.local_memory
            && tile_m * thread_n <= MOST_SUMS * threads_m
            && tile_m.is_multiple_of(threads_m)
            && vector <= thread_n
            && unroll <= tile_k;
        if !fits {
            return Err(unfit(NAME, "its tiles do not fit this device, or each other"));
        }
        let lists = Lists::of(problem, real(request.weights)?, tile_m, tile_k * split)?;
        let mut macros = request.macros();
        macros
            .define("TILE_M", tile_m)
            .define("TILE_N", tile_n)
            .define("TILE_K", tile_k)
            .define("THREAD_M", tile_m / threads_m)
            .define("THREAD_N", thread_n)
            .define("VECTOR", vector)
            .define("SPLIT", split)
            .define("LOCAL", u8::from(local))
            .define("UNROLL", unroll);
        let pixels = problem.batch * request.output[0] * request.output[1];
        let words = |words: &[i32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(Prepared {
            launches: vec![Launch {
                source: include_str!("../kernels/block_sparse.cl"),
                kernel: "convolve",
                macros,
                groups: [pixels.div_ceil(tile_n), problem.group_out().div_ceil(tile_m), problem.groups],
                threads,
                arguments: request.arguments(4),
            }],
            constants: vec![
                bytes_of(&lists.weights),
                bytes_of(&bias(request.weights)),
                words(&lists.steps),
                words(&lists.begins),
            ],
        })
    }
}

/// What is left of the weights, tile by tile of outputs.
struct Lists {
    /// `[chunk][step of the chunk][output of the tile]`; steps that fill up a chunk are zero.
    weights: Vec<f32>,
    /// `[chunk][step of the chunk]`: how far the input is from the corner of a window, and row and column of that.
    steps: Vec<i32>,
    /// The chunk with which each tile begins, group by group, and the end.
    begins: Vec<i32>,
}

impl Lists {
    /// Of weights `[out, in, taps]`, in tiles of `tile` outputs and chunks of `chunk` steps.
    fn of(problem: &ConvProblem, stored: &[f32], tile: usize, chunk: usize) -> Result<Self, KernelError> {
        let too_large = || unfit(NAME, "the layer is too large for 32-bit offsets");
        let word = |number: usize| i32::try_from(number).map_err(|_| too_large());
        let (group_in, group_out) = (problem.group_in(), problem.group_out());
        let [height, width] = problem.window.kernel;
        let dilation = problem.window.dilation;
        let inner = group_in * height * width;
        let mut lists = Self { weights: Vec::new(), steps: Vec::new(), begins: vec![0] };
        for group in 0..problem.groups {
            for first in (0..group_out).step_by(tile) {
                let rows = tile.min(group_out - first);
                let row = |m: usize| &stored[(group * group_out + first + m) * inner..][..inner];
                let left = (0..inner).filter(|&k| (0..rows).any(|m| row(m)[k] != 0.0));
                let left: Vec<usize> = left.collect();
                let Some(&last) = left.last() else {
                    lists.begins.push(word(lists.steps.len() / 2 / chunk)?);
                    continue;
                };
                for index in 0..left.len().next_multiple_of(chunk) {
                    let k = left.get(index).copied();
                    lists.weights.extend((0..tile).map(|m| match k {
                        Some(k) if m < rows => row(m)[k],
                        _ => 0.0,
                    }));
                    let k = k.unwrap_or(last);
                    let (channel, tap) = (k / (height * width), k % (height * width));
                    let (y, x) = (tap / width * dilation[0], tap % width * dilation[1]);
                    let at = (channel * problem.input[0] + y) * problem.input[1] + x;
                    lists.steps.extend([word(at)?, word(y << 16 | x)?]);
                }
                lists.begins.push(word(lists.steps.len() / 2 / chunk)?);
            }
        }
        Ok(lists)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::Window;

    #[test]
    fn lists_hold_what_is_left_and_nothing_else() {
        let problem = ConvProblem {
            batch: 1,
            in_channels: 3,
            out_channels: 10,
            groups: 1,
            input: [5, 7],
            window: Window { kernel: [1, 2], dilation: [1, 3], ..Window::POINT },
        };
        let mut weights = vec![0.0; 10 * 3 * 2];
        // Outputs 0 to 7 are a tile, 8 and 9 the other.
        weights[2 * 6 + 3] = 1.0;
        weights[5 * 6 + 3] = 2.0;
        weights[7 * 6] = 3.0;
        let lists = Lists::of(&problem, &weights, 8, 4).unwrap();
        assert_eq!(lists.begins, [0, 1, 1]);
        // Channel 0, tap 0; channel 1, tap 1, as often as the chunk has room.
        let second = [35 + 3, 3];
        assert_eq!(lists.steps, [[0, 0], second, second, second].concat());
        let expected = |m: usize| match m {
            7 => 3.0,
            10 => 1.0,
            13 => 2.0,
            _ => 0.0,
        };
        assert_eq!(lists.weights, (0..32).map(expected).collect::<Vec<f32>>());
    }
}
