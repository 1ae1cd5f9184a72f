//! The list of all convolution algorithms for OpenCL devices.

use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::plan::weights::WeightFormat;
use paretune_base::registry::{Registry, present_name};

use super::{
    Algorithm, bsr_gemm, depthwise, direct, implicit_gemm, implicit_gemm_i8, tensor_core, winograd,
};
use crate::limits::Limits;

/// Returns all algorithms of this backend, in order of preference for defaults.
#[must_use]
pub fn algorithms() -> &'static [&'static dyn Algorithm] {
    &[
        &depthwise::Depthwise,
        &implicit_gemm::ImplicitGemm::Fp32,
        &direct::Direct::Fp32,
        &winograd::Winograd,
        &tensor_core::TensorCore::Fp32,
        &tensor_core::TensorCore::Tf32,
        &tensor_core::TensorCore::Fp16,
        &implicit_gemm::ImplicitGemm::Fp16,
        &direct::Direct::Fp16,
        &implicit_gemm_i8::ImplicitGemmI8,
        &bsr_gemm::BsrGemm,
    ]
}

/// Returns the algorithm called `name`, which may be a former name.
#[must_use]
pub fn algorithm(name: &str) -> Option<&'static dyn Algorithm> {
    let name = present_name(name);
    algorithms().iter().copied().find(|algorithm| algorithm.name() == name)
}

/// Returns the algorithms that can run `problem` with weights of `format`, the best default first.
#[must_use]
pub fn candidates(
    problem: &ConvProblem,
    format: WeightFormat,
    limits: &Limits,
) -> Vec<&'static dyn Algorithm> {
    limits.candidates(problem, format)
}

/// The algorithms of a device with these limits.
impl Registry for Limits {
    type Algorithm = dyn Algorithm;

    fn algorithms(&self) -> &'static [&'static dyn Algorithm] {
        algorithms()
    }

    fn supports(&self, algorithm: &dyn Algorithm, problem: &ConvProblem) -> bool {
        algorithm.supports(problem, self)
    }

    fn tunables(&self, algorithm: &dyn Algorithm, problem: &ConvProblem) -> Vec<Tunable> {
        algorithm.tunables(problem, self)
    }

    fn constraints(&self, algorithm: &dyn Algorithm, problem: &ConvProblem) -> Vec<String> {
        algorithm.constraints(problem, self)
    }
}
