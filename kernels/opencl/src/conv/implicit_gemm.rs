//! Implicit GEMM with weights in single or half precision; see `kernels/implicit_gemm.cl`.

use super::tile;
use super::tile::{MAX_SUMS, Sizes, Tile};
use super::{Algorithm, Chosen, Request, bias, half, packed, powers, real, switch, unfit};
use crate::launch::{Prepared, bytes_of};
use crate::limits::Limits;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::plan::tunable::HALF;
use paretune_base::registry::{AlgorithmInfo, BackendKind, Numerics};
use paretune_simd::half::FP16_MAX;

/// Weight type of the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ImplicitGemm {
    /// Weights are stored in single precision.
    Fp32,
    /// Weights in half precision, which halves the bytes to read. Products are summed in single
    /// precision. If the device has half-precision arithmetic and the schedule selects it, the sums
    /// of a chunk are in half precision.
    Fp16,
}

const SOURCE: &str =
    concat!(include_str!("../kernels/implicit_gemm.cl"), include_str!("../kernels/tile.cl"));

impl AlgorithmInfo for ImplicitGemm {
    fn name(&self) -> &'static str {
        match self {
            Self::Fp32 => "opencl_implicit_gemm",
            Self::Fp16 => "opencl_implicit_gemm_wfp16",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Self::Fp32 => {
                "matrix product over tiles of the unrolled input that are fetched as needed \
                 (OpenCL)"
            }
            Self::Fp16 => {
                "the same matrix product with weights in fp16: 10 bits of mantissa (OpenCL)"
            }
        }
    }

    fn numerics(&self) -> Numerics {
        if *self == Self::Fp16 { Numerics::Reduced } else { Numerics::Exact }
    }

    fn largest_weight(&self) -> f32 {
        if *self == Self::Fp16 { FP16_MAX } else { f32::INFINITY }
    }

    fn backend(&self) -> BackendKind {
        BackendKind::OpenCl
    }
}

impl Algorithm for ImplicitGemm {
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
        if *self == Self::Fp16 && limits.half_arithmetic {
            tunables.push(switch(
                HALF,
                "whether chunks are multiplied and added up in half precision",
                false,
            ));
        }
        tunables
    }

    fn constraints(&self, _: &ConvProblem, limits: &Limits) -> Vec<String> {
        tile::constraints(
            limits,
            "threads_m * thread_m",
            format!("thread_m * thread_n <= {MAX_SUMS}"),
        )
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Prepared, KernelError> {
        let problem = &request.problem;
        let chosen = Chosen(&request.schedule.tunables);
        let tile =
            Tile::of(self.name(), request, chosen.get("threads_m") * chosen.get("thread_m"))?;
        let (inner, outputs) = (Sizes::of(problem).inner, problem.group_out());
        let (rows, columns) =
            (inner.next_multiple_of(tile.chunk()), outputs.next_multiple_of(tile.m));
        let weights = packed(real(request.weights)?, problem.groups, outputs, inner, rows, columns);
        let mut launch = tile.launch(SOURCE, request, 2);
        launch.macros.define("K_PAD", rows).define("M_PAD", columns);
        let half = chosen.is_on(HALF, false);
        if half && !(*self == Self::Fp16 && request.limits.half_arithmetic) {
            return Err(unfit(self.name(), "there is no arithmetic in half precision for it here"));
        }
        launch.macros.define("HALF_MATH", u8::from(half));
        let weights = if *self == Self::Fp16 {
            launch.macros.define("HALF_WEIGHTS", 1);
            half::bytes_of_halves(self.name(), &weights)?
        } else {
            bytes_of(&weights)
        };
        Ok(Prepared {
            launches: vec![launch],
            constants: vec![weights, bytes_of(&bias(request.weights))],
        })
    }
}
