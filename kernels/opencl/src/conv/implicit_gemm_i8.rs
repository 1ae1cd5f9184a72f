//! Implicit GEMM of 8-bit integers; see `kernels/implicit_gemm_i8.cl`.

use super::{Algorithm, Chosen, Request, bias, powers, unfit};
use crate::launch::{Launch, Prepared, bytes_of};
use crate::limits::Limits;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::plan::weights::WeightValues;
use paretune_base::registry::{AlgorithmInfo, BackendKind};

pub(super) struct ImplicitGemmI8;

const NAME: &str = "opencl_gemm_int8";

/// Maximum number of sums that a work-item can hold in registers beside its operands.
const MAX_SUMS: usize = 64;

impl AlgorithmInfo for ImplicitGemmI8 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "matrix product of 8-bit weights and inputs, four products at a time (OpenCL)"
    }

    fn is_integer(&self) -> bool {
        true
    }

    fn backend(&self) -> BackendKind {
        BackendKind::OpenCl
    }
}

impl Algorithm for ImplicitGemmI8 {
    fn supports(&self, problem: &ConvProblem, _: &Limits) -> bool {
        // Sums of products of two bytes stay within 32 bits.
        problem.group_in() * problem.window.kernel[0] * problem.window.kernel[1] < 1 << 16
    }

    fn tunables(&self, problem: &ConvProblem, limits: &Limits) -> Vec<Tunable> {
        let [height, width] = problem.window.output(problem.input, false).unwrap_or([1, 1]);
        let columns = problem.batch * height * width;
        let inner = problem.group_in() * problem.window.kernel[0] * problem.window.kernel[1];
        let outputs = problem.group_out();
        vec![
            powers("threads_m", "work-items along outputs", 1, 32, outputs, 8),
            powers(
                "threads_n",
                "work-items along pixels",
                2,
                64.min(limits.work_group / 4),
                columns,
                16,
            ),
            powers("thread_m", "outputs of a work-item", 1, 8, outputs, 4),
            powers("thread_n", "pixels of a work-item", 1, 8, columns.div_ceil(2), 4),
            powers("tile_k", "steps of the inner dimension staged at once", 4, 64, inner, 32),
            powers(
                "split_k",
                "slices of a work-group that share the inner dimension",
                1,
                32,
                inner / 16,
                1,
            ),
            powers("unroll", "words of four steps unrolled", 1, 8, inner.div_ceil(4), 2),
        ]
    }

    fn constraints(&self, _: &ConvProblem, limits: &Limits) -> Vec<String> {
        let (group, words) = (limits.work_group.min(1024), limits.local_memory / 4);
        vec![
            format!("threads_m * threads_n * split_k <= {group}"),
            format!("thread_m * thread_n <= {MAX_SUMS}"),
            "4 * unroll <= tile_k".to_owned(),
            format!(
                "split_k * tile_k * (threads_m * thread_m + threads_n * thread_n) <= {}",
                words.saturating_mul(4)
            ),
            format!(
                "split_k == 1 or split_k * threads_m * thread_m * threads_n * thread_n <= {words}"
            ),
        ]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Prepared, KernelError> {
        let Request { problem, limits, .. } = request;
        let (WeightValues::Integer(integer), Some(grid)) =
            (&request.weights.values, request.input_grid)
        else {
            return Err(unfit(NAME, "it needs integer weights and an input with an 8-bit grid"));
        };
        let chosen = Chosen(&request.schedule.tunables);
        let [threads_m, threads_n, thread_m, thread_n] =
            ["threads_m", "threads_n", "thread_m", "thread_n"].map(|name| chosen.get(name));
        let [tile_k, split, unroll] = ["tile_k", "split_k", "unroll"].map(|name| chosen.get(name));
        let (tile_m, tile_n) = (threads_m * thread_m, threads_n * thread_n);
        let threads = threads_m * threads_n * split;
        let reduced = if split > 1 { split * tile_m * tile_n } else { 0 };
        let staged = split * tile_k / 4 * (tile_m + tile_n);
        let fits = threads <= limits.work_group.min(1024)
            && 4 * staged.max(reduced) <= limits.local_memory
            && thread_m * thread_n <= MAX_SUMS
            && 4 * unroll <= tile_k;
        if !fits || !self.supports(problem, limits) {
            return Err(unfit(NAME, "its tiles do not fit this device, or each other"));
        }
        let inner = problem.group_in() * problem.window.kernel[0] * problem.window.kernel[1];
        let outputs = problem.group_out();
        let (rows, columns) =
            (inner.next_multiple_of(tile_k * split), outputs.next_multiple_of(tile_m));
        // Words of four steps: [group][row / 4][column], the first step in the lowest byte.
        let mut words = vec![0_u8; problem.groups * rows * columns];
        let mut offsets = Vec::with_capacity(problem.out_channels);
        for (channel, row) in integer.values.chunks_exact(inner.max(1)).enumerate() {
            let (group, m) = (channel / outputs, channel % outputs);
            for (k, &weight) in row.iter().enumerate() {
                words[group * rows * columns + (k / 4 * columns + m) * 4 + k % 4] =
                    weight.to_ne_bytes()[0];
            }
            let sum: i32 = row.iter().map(|&weight| i32::from(weight)).sum();
            offsets.push(sum * i32::from(grid.zero_point));
        }
        let scales: Vec<f32> = integer.scales.iter().map(|scale| scale * grid.scale).collect();
        let dot =
            if limits.compute_capability >= 61 { 2 } else { u8::from(limits.integer_dot_product) };
        let mut macros = request.macros();
        macros
            .define("K_PAD", rows)
            .define("M_PAD", columns)
            .define("TILE_M", tile_m)
            .define("TILE_N", tile_n)
            .define("TILE_K", tile_k)
            .define("THREAD_M", thread_m)
            .define("THREAD_N", thread_n)
            .define("SPLIT", split)
            .define("UNROLL", unroll)
            .define("DOT", dot)
            .define_float("INPUT_SCALE", grid.scale)
            .define_float("ZERO_POINT", f32::from(grid.zero_point));
        let pixels = problem.batch * request.output[0] * request.output[1];
        Ok(Prepared {
            launches: vec![Launch {
                source: include_str!("../kernels/implicit_gemm_i8.cl"),
                kernel: "convolve",
                macros,
                groups: [pixels.div_ceil(tile_n), outputs.div_ceil(tile_m), problem.groups],
                threads,
                arguments: request.arguments(4),
            }],
            constants: vec![
                words,
                bytes_of(&bias(request.weights)),
                bytes_of(&scales),
                offsets.iter().flat_map(|offset| offset.to_ne_bytes()).collect(),
            ],
        })
    }
}
