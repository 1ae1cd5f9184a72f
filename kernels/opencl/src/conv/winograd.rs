//! Host side of Winograd convolution; see `kernels/winograd.cl`.

use super::{Algorithm, Chosen, Request, bias, powers, real, unfit};
use crate::launch::{Launch, Prepared, bytes_of};
use crate::limits::Limits;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::plan::tunable::OUTPUT_TILE;
use paretune_base::registry::{AlgorithmInfo, BackendKind, Numerics};

pub(super) struct Winograd;

const NAME: &str = "opencl_winograd";

/// Maximum number of sums that a work-item can hold in registers.
const MAX_SUMS: usize = 80;

impl AlgorithmInfo for Winograd {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "3x3 windows by fewer multiplications on transformed tiles, in one kernel (OpenCL)"
    }

    fn numerics(&self) -> Numerics {
        Numerics::RoundsDifferently
    }

    fn backend(&self) -> BackendKind {
        BackendKind::OpenCl
    }
}

impl Algorithm for Winograd {
    fn supports(&self, problem: &ConvProblem, limits: &Limits) -> bool {
        let window = &problem.window;
        window.kernel == [3, 3]
            && window.stride == [1, 1]
            && window.dilation == [1, 1]
            && problem.groups == 1
            // The smallest tiles of one stage.
            && limits.local_memory >= 4 * 36 * 4
    }

    fn tunables(&self, problem: &ConvProblem, limits: &Limits) -> Vec<Tunable> {
        let [height, width] = problem.window.output(problem.input, false).unwrap_or([1, 1]);
        let tiles = problem.batch * height.div_ceil(2) * width.div_ceil(2);
        let group = limits.work_group;
        let largest = if height.min(width) < 3 { 2 } else { 4 };
        let output_tile =
            powers(OUTPUT_TILE, "pixels of a tile along each axis", 2, largest, largest, 2);
        vec![
            output_tile,
            powers("threads_m", "work-items along outputs", 2, 32, problem.out_channels, 8),
            powers("threads_t", "work-items along tiles", 4, 32.min(group / 2), tiles, 16),
            powers("thread_m", "outputs of a work-item", 1, 4, problem.out_channels.div_ceil(2), 2),
            powers("stage", "channels transformed at a time", 1, 16, problem.in_channels, 2),
            powers(
                "split_k",
                "slices of a work-group that share the channels",
                1,
                16,
                problem.in_channels,
                1,
            ),
        ]
    }

    fn constraints(&self, _: &ConvProblem, limits: &Limits) -> Vec<String> {
        let (group, floats) = (limits.work_group.min(1024), limits.local_memory / 4);
        vec![
            format!("threads_m * threads_t * split_k <= {group}"),
            format!("thread_m * (output_tile + 2) * (output_tile + 2) <= {MAX_SUMS}"),
            format!(
                "split_k * stage * threads_t * (output_tile + 2) * (output_tile + 2) <= {floats}"
            ),
            format!(
                "split_k == 1 or split_k * threads_m * thread_m * threads_t * output_tile * \
                 output_tile <= {floats}"
            ),
        ]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Prepared, KernelError> {
        let Request { problem, limits, .. } = request;
        let chosen = Chosen(&request.schedule.tunables);
        let [output_tile, threads_m, threads_t] =
            [OUTPUT_TILE, "threads_m", "threads_t"].map(|name| chosen.get(name));
        let [thread_m, stage, split] =
            ["thread_m", "stage", "split_k"].map(|name| chosen.get(name));
        let (span, tile_m, threads) =
            (output_tile + 2, threads_m * thread_m, threads_m * threads_t * split);
        let staged = split * stage * threads_t * span * span;
        let reduced =
            if split > 1 { split * tile_m * threads_t * output_tile * output_tile } else { 0 };
        let fits = threads <= limits.work_group.min(1024)
            && thread_m * span * span <= MAX_SUMS
            && 4 * staged.max(reduced) <= limits.local_memory;
        if !fits || !self.supports(problem, limits) || ![2, 4].contains(&output_tile) {
            return Err(unfit(NAME, "its tiles do not fit this device, each other, or the window"));
        }
        let columns = problem.out_channels.next_multiple_of(tile_m);
        let weights = transformed(real(request.weights)?, problem, output_tile, columns);
        let mut macros = request.macros();
        macros
            .define("M_PAD", columns)
            .define("OUTPUT_TILE", output_tile)
            .define("THREADS_M", threads_m)
            .define("THREADS_T", threads_t)
            .define("THREAD_M", thread_m)
            .define("STAGE", stage)
            .define("SPLIT", split);
        let [height, width] = request.output;
        let tiles = problem.batch * height.div_ceil(output_tile) * width.div_ceil(output_tile);
        Ok(Prepared {
            launches: vec![Launch {
                source: include_str!("../kernels/winograd.cl"),
                kernel: "convolve",
                macros,
                groups: [tiles.div_ceil(threads_t), problem.out_channels.div_ceil(tile_m), 1],
                threads,
                arguments: request.arguments(2),
            }],
            constants: vec![bytes_of(&weights), bytes_of(&bias(request.weights))],
        })
    }
}

/// Returns the transform `G g G'` of every window, as `[channel][spot][columns]`.
fn transformed(
    weights: &[f32],
    problem: &ConvProblem,
    output_tile: usize,
    columns: usize,
) -> Vec<f32> {
    const G2: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
    const G4: [[f64; 3]; 6] = [
        [0.25, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];
    let rows: &[[f64; 3]] = if output_tile == 2 { &G2 } else { &G4 };
    let span = rows.len();
    let mut all = vec![0.0; problem.in_channels * span * span * columns];
    for (index, window) in weights.chunks_exact(9).enumerate() {
        let (output, channel) = (index / problem.in_channels, index % problem.in_channels);
        for (y, row) in rows.iter().enumerate() {
            let half: [f64; 3] = std::array::from_fn(|x| {
                (0..3).map(|k| row[k] * f64::from(window[3 * k + x])).sum()
            });
            for (x, row) in rows.iter().enumerate() {
                let sum: f64 = (0..3).map(|k| half[k] * row[k]).sum();
                #[expect(clippy::cast_possible_truncation, reason = "weights are single precision")]
                let sum = sum as f32;
                all[(channel * span * span + y * span + x) * columns + output] = sum;
            }
        }
    }
    all
}
