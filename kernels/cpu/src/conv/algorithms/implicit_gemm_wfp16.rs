//! Implicit GEMM of half-precision weights over NHWC activations in single precision, for every
//! instruction set. It halves the weight bytes, for layers limited by reading weights.
//!
//! Weights are widened exactly in registers when they are loaded; everything else is
//! [`super::implicit_gemm`].

use super::implicit_gemm::{prepare, tunables};
use crate::conv::algorithm::{Algorithm, Kernel, Request};
use crate::conv::gemm_f32::WeightStorage;
use crate::conv::support::request::sensible;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::plan::weights::{Numbers, WeightFormat};
use paretune_base::registry::AlgorithmInfo;
use paretune_simd::Isa;

/// Implicit GEMM of half-precision weights.
pub(crate) struct ImplicitGemmWfp16;

impl AlgorithmInfo for ImplicitGemmWfp16 {
    fn name(&self) -> &'static str {
        "implicit_gemm_wfp16"
    }

    fn about(&self) -> &'static str {
        "matrix product of weights in half precision over the taps of a channels-last input, in \
         registers"
    }

    fn executes(&self, format: WeightFormat) -> bool {
        format.numbers == Numbers::Fp16
    }
}

impl Algorithm for ImplicitGemmWfp16 {
    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        // Depthwise layers have few weights, and algorithms of their own.
        sensible(problem) && !problem.is_depthwise()
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        tunables(problem, isa, WeightStorage::F16)
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        if !self.executes(request.weights.format()) {
            return Err(KernelError::Data(format!(
                "`{}` needs weights in half precision",
                self.name()
            )));
        }
        prepare(request, WeightStorage::F16)
    }
}
