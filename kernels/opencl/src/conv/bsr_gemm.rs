//! Host side of the block-sparse GEMM; see `kernels/bsr_gemm.cl`.

use super::tile;
use super::tile::{MAX_SUMS, Sizes, Tile};
use super::{Algorithm, Chosen, Request, bias, powers, real, unfit};
use crate::launch::{Prepared, bytes_of};
use crate::limits::Limits;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::plan::weights::{Pattern, WeightFormat};
use paretune_base::registry::{AlgorithmInfo, BackendKind};

pub(super) struct BsrGemm;

const NAME: &str = "opencl_bsr_gemm";

const SOURCE: &str =
    concat!(include_str!("../kernels/bsr_gemm.cl"), include_str!("../kernels/tile.cl"));

/// Largest number of outputs in a block. Constraints do not know the weights and assume this size
/// for all blocks.
const MAX_OUTPUTS: usize = 16;

impl AlgorithmInfo for BsrGemm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "matrix product over the blocks of output channels that are not zero (OpenCL)"
    }

    /// Accepts blocks of 8 or 16 outputs only: narrower blocks use each fetched input too rarely.
    fn executes(&self, format: WeightFormat) -> bool {
        format.numbers.is_real()
            && matches!(format.pattern, Pattern::Blocks { outputs: 8 | 16, .. })
    }

    fn backend(&self) -> BackendKind {
        BackendKind::OpenCl
    }
}

impl Algorithm for BsrGemm {
    fn supports(&self, problem: &ConvProblem, _: &Limits) -> bool {
        let [height, width] = problem.window.kernel;
        let dilation = problem.window.dilation;
        // Row and column offsets of a step are stored in 16 bits each. At least half a block should
        // be outputs.
        problem.group_out() >= 4
            && height.saturating_mul(dilation[0]) < 1 << 15
            && width.saturating_mul(dilation[1]) < 1 << 15
    }

    fn tunables(&self, problem: &ConvProblem, limits: &Limits) -> Vec<Tunable> {
        let (sizes, outputs) = (Sizes::of(problem), problem.group_out());
        let most = (limits.work_group.min(1024) / 4).clamp(4, 256);
        let mut tunables = vec![
            powers(
                "blocks",
                "blocks of outputs of a work-group, whose lists are merged",
                1,
                4,
                outputs.div_ceil(8),
                1,
            ),
            powers("threads_m", "work-items along outputs", 1, 8, outputs, 2),
            powers("threads_n", "work-items along pixels", 4, most, sizes.columns, 32),
        ];
        tunables.extend(sizes.tunables(8, 16, 16));
        tunables
    }

    fn constraints(&self, _: &ConvProblem, limits: &Limits) -> Vec<String> {
        tile::constraints(
            limits,
            &format!("{MAX_OUTPUTS} * blocks"),
            format!("{MAX_OUTPUTS} * blocks * thread_n <= {MAX_SUMS} * threads_m"),
        )
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Prepared, KernelError> {
        let Request { problem, limits, .. } = request;
        let Pattern::Blocks { outputs, .. } = request.weights.pattern else {
            return Err(unfit(NAME, "it needs weights that are zero in blocks"));
        };
        if !self.executes(request.weights.format()) || !self.supports(problem, limits) {
            return Err(unfit(NAME, "it does not run these weights"));
        }
        let blocks = Chosen(&request.schedule.tunables).get("blocks");
        let tile = Tile::of(NAME, request, usize::from(outputs) * blocks)?;
        let lists = Lists::of(problem, real(request.weights)?, tile.m, tile.chunk())?;
        let words = |words: &[i32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(Prepared {
            launches: vec![tile.launch(SOURCE, request, 4)],
            constants: vec![
                bytes_of(&lists.weights),
                bytes_of(&bias(request.weights)),
                words(&lists.steps),
                words(&lists.begins),
            ],
        })
    }
}

/// Nonzero weights, grouped by tiles of outputs.
struct Lists {
    /// Weights as `[chunk][step of the chunk][output of the tile]`; steps that fill up a chunk are
    /// zero.
    weights: Vec<f32>,
    /// Steps as `[chunk][step of the chunk]`, each with the offset of its input from the corner of
    /// a window, and the row and column of that offset.
    steps: Vec<i32>,
    /// First chunk of each tile, group by group, followed by the number of chunks.
    begins: Vec<i32>,
}

impl Lists {
    /// Builds the lists for weights `[out, in, taps]`, in tiles of `tile` outputs and chunks of
    /// `chunk` steps.
    fn of(
        problem: &ConvProblem,
        stored: &[f32],
        tile: usize,
        chunk: usize,
    ) -> Result<Self, KernelError> {
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
    use paretune_base::plan::operator::Window;

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
        // Outputs 0 to 7 form the first tile, 8 and 9 the second.
        weights[2 * 6 + 3] = 1.0;
        weights[5 * 6 + 3] = 2.0;
        weights[7 * 6] = 3.0;
        let lists = Lists::of(&problem, &weights, 8, 4).unwrap();
        assert_eq!(lists.begins, [0, 1, 1]);
        // Channel 0, tap 0; then channel 1, tap 1, repeated to fill the chunk.
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
