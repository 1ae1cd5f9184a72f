//! `opencl_implicit_gemm`: see `kernels/implicit_gemm.cl`.

use super::super::device::Limits;
use super::super::launch::{Prepared, bytes_of};
use super::tile::{self, MOST_SUMS, Sizes, Tile};
use super::{Algorithm, Chosen, Request, bias, packed, powers, real};
use crate::error::KernelError;
use crate::operator::ConvProblem;
use crate::schedule::Tunable;

pub(super) struct ImplicitGemm;

const NAME: &str = "opencl_implicit_gemm";

const SOURCE: &str = concat!(include_str!("../kernels/implicit_gemm.cl"), include_str!("../kernels/tile.cl"));

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
        let (sizes, outputs) = (Sizes::of(problem), problem.group_out());
        let most = 64.min(limits.work_group / 4);
        let mut tunables = vec![
            powers("threads_m", "work-items along outputs", 4, 32, outputs, 8),
            powers("threads_n", "work-items along pixels", 2, most, sizes.columns, 16),
            powers("thread_m", "outputs of a work-item", 1, 8, outputs.div_ceil(4), 4),
        ];
        tunables.extend(sizes.tunables(16, 32, 8));
        tunables
    }

    fn constraints(&self, _: &ConvProblem, limits: &Limits) -> Vec<String> {
        tile::constraints(limits, "threads_m * thread_m", format!("thread_m * thread_n <= {MOST_SUMS}"))
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Prepared, KernelError> {
        let problem = &request.problem;
        let chosen = Chosen(&request.schedule.tunables);
        let tile = Tile::of(NAME, request, chosen.get("threads_m") * chosen.get("thread_m"))?;
        let (inner, outputs) = (Sizes::of(problem).inner, problem.group_out());
        let (rows, columns) = (inner.next_multiple_of(tile.chunk()), outputs.next_multiple_of(tile.m));
        let weights = packed(real(request.weights)?, problem.groups, outputs, inner, rows, columns);
        let mut launch = tile.launch(SOURCE, request, 2);
        launch.macros.define("K_PAD", rows).define("M_PAD", columns);
        Ok(Prepared {
            launches: vec![launch],
            constants: vec![bytes_of(&weights), bytes_of(&bias(request.weights))],
        })
    }
}
