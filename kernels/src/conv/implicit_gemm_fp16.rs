//! Implicit GEMM of half-precision weights over NHWC activations in single precision, for every
//! instruction set. It halves the weight bytes, for layers limited by reading weights.
//!
//! Weights are widened exactly in registers when they are loaded; everything else is
//! [`super::implicit_gemm`].

use super::gemm::Held;
use super::implicit_gemm::{prepare, tunables};
use super::request::sensible;
use super::{Algorithm, Kernel, Layout, Request};
use crate::error::KernelError;
use crate::hardware::Isa;
use crate::operator::ConvProblem;
use crate::schedule::{Schedule, Tunable};
use crate::weights::{Numbers, WeightFormat};

/// Implicit GEMM of half-precision weights.
pub(super) struct ImplicitGemmFp16;

impl Algorithm for ImplicitGemmFp16 {
    fn name(&self) -> &'static str {
        "implicit_gemm_fp16"
    }

    fn about(&self) -> &'static str {
        "matrix product of weights in half precision over the taps of a channels-last input, in registers"
    }

    fn executes(&self, format: WeightFormat) -> bool {
        format.numbers == Numbers::Fp16
    }

    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        // Depthwise layers have few weights, and algorithms of their own.
        sensible(problem) && !problem.is_depthwise()
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        tunables(problem, isa, Held::Halves)
    }

    fn layouts(&self, _schedule: &Schedule, _isa: Isa) -> [Layout; 2] {
        [Layout::ChannelsLast; 2]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        if !self.executes(request.weights.format()) {
            return Err(KernelError::Data(format!("`{}` needs weights in half precision", self.name())));
        }
        prepare(request, Held::Halves)
    }
}
