//! `opencl_implicit_gemm`: see `kernels/implicit_gemm.cl`.

use super::super::device::Limits;
use super::super::launch::{Launch, Prepared, bytes_of};
use super::{Algorithm, Chosen, Request, bias, packed, powers, real, switch, unfit};
use crate::error::KernelError;
use crate::operator::ConvProblem;
use crate::schedule::Tunable;

pub(super) struct ImplicitGemm;

const NAME: &str = "opencl_implicit_gemm";

/// Sums that a work-item can hold beside what it loads: with 255 registers to a work-item and more of
/// them than that, compilers spill.
const MOST_SUMS: usize = 64;

impl Algorithm for ImplicitGemm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "matrix product over tiles of the unrolled input that are fetched as needed (OpenCL)"
    }

    fn supports(&self, _: &ConvProblem, _: &Limits) -> bool {
        true
    }

    fn tunables(&self, problem: &ConvProblem, limits: &Limits) -> Vec<Tunable> {
        let [height, width] = problem.window.output(problem.input, false).unwrap_or([1, 1]);
        let columns = problem.batch * height * width;
        let inner = problem.group_in() * problem.window.kernel[0] * problem.window.kernel[1];
        let group = limits.work_group;
        vec![
            powers("threads_m", "work-items along outputs", 4, 32, problem.group_out(), 8),
            powers("threads_n", "work-items along pixels", 2, 64.min(group / 4), columns, 16),
            powers("thread_m", "outputs of a work-item", 1, 8, problem.group_out().div_ceil(4), 4),
            powers("thread_n", "pixels of a work-item", 1, 8, columns.div_ceil(2), 4),
            powers("vector", "pixels read at once", 1, 4, columns.div_ceil(2), 1),
            powers("tile_k", "steps of the inner dimension staged at once", 4, 32, inner, 16),
            powers("split", "slices of a work-group that share the inner dimension", 1, 32, inner / 8, 1),
            switch("local", "whether tiles are staged in local memory", true),
            powers("unroll", "steps of the inner dimension unrolled", 1, 16, inner, 4),
        ]
    }

    fn constraints(&self, _: &ConvProblem, limits: &Limits) -> Vec<String> {
        let (group, floats) = (limits.work_group.min(1024), limits.local_memory / 4);
        vec![
            format!("threads_m * threads_n * split <= {group}"),
            format!("thread_m * thread_n <= {MOST_SUMS}"),
            "vector <= thread_n".to_owned(),
            "unroll <= tile_k".to_owned(),
            format!(
                "local == 0 or split * tile_k * (threads_m * thread_m + threads_n * thread_n) <= {floats}"
            ),
            format!("split == 1 or split * threads_m * thread_m * threads_n * thread_n <= {floats}"),
        ]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Prepared, KernelError> {
        let Request { problem, limits, .. } = request;
        let chosen = Chosen(&request.schedule.tunables);
        let [threads_m, threads_n, thread_m, thread_n] =
            ["threads_m", "threads_n", "thread_m", "thread_n"].map(|name| chosen.get(name));
        let [vector, tile_k, split, unroll] =
            ["vector", "tile_k", "split", "unroll"].map(|name| chosen.get(name));
        let local = request.schedule.tunables.get("local").copied().unwrap_or(1) != 0;
        let (tile_m, tile_n) = (threads_m * thread_m, threads_n * thread_n);
        let threads = threads_m * threads_n * split;
        let staged = if local { split * tile_k * (tile_m + tile_n) } else { 0 };
        let reduced = if split > 1 { split * tile_m * tile_n } else { 0 };
        let fits = threads <= limits.work_group.min(1024)
            && 4 * staged.max(reduced) <= limits.local_memory
            && thread_m * thread_n <= MOST_SUMS
            && vector <= thread_n
            && unroll <= tile_k;
        if !fits {
            return Err(unfit(NAME, "its tiles do not fit this device, or each other"));
        }
        let inner = problem.group_in() * problem.window.kernel[0] * problem.window.kernel[1];
        let (rows, columns) =
            (inner.next_multiple_of(tile_k * split), problem.group_out().next_multiple_of(tile_m));
        let weights =
            packed(real(request.weights)?, problem.groups, problem.group_out(), inner, rows, columns);
        let mut macros = request.macros();
        macros
            .define("K_PAD", rows)
            .define("M_PAD", columns)
            .define("TILE_M", tile_m)
            .define("TILE_N", tile_n)
            .define("TILE_K", tile_k)
            .define("THREAD_M", thread_m)
            .define("THREAD_N", thread_n)
            .define("VECTOR", vector)
            .define("SPLIT", split)
            .define("LOCAL", u8::from(local))
            .define("UNROLL", unroll);
        let pixels = problem.batch * request.output[0] * request.output[1];
        Ok(Prepared {
            launches: vec![Launch {
                source: include_str!("../kernels/implicit_gemm.cl"),
                kernel: "convolve",
                macros,
                groups: [pixels.div_ceil(tile_n), problem.group_out().div_ceil(tile_m), problem.groups],
                threads,
                arguments: request.arguments(2),
            }],
            constants: vec![bytes_of(&weights), bytes_of(&bias(request.weights))],
        })
    }
}
