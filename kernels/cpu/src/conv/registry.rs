//! The list of all convolution algorithms of the processor.

use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::plan::weights::WeightFormat;
use paretune_base::registry::Registry;
use paretune_simd::Isa;

use super::algorithm::Algorithm;
use super::algorithms::{
    bsr_gemm, bsr_gemm_i8, csr_naive, depthwise, depthwise_i8, depthwise_nchw, direct_nchw,
    direct_nchwc, im2col_gemm, implicit_gemm, implicit_gemm_bf16, implicit_gemm_i8,
    implicit_gemm_wfp16, naive, spmm_nchw, winograd, winograd_i8,
};

/// Returns all algorithms, in order of preference for defaults.
#[must_use]
pub fn algorithms() -> &'static [&'static dyn Algorithm] {
    &[
        &depthwise::Depthwise,
        &depthwise_nchw::DepthwiseNchw,
        &implicit_gemm_bf16::ImplicitGemmBf16,
        &implicit_gemm_wfp16::ImplicitGemmWfp16,
        &direct_nchwc::DirectNchwc,
        &implicit_gemm::ImplicitGemm,
        &winograd::Winograd,
        &im2col_gemm::Im2colGemm,
        &direct_nchw::DirectNchw,
        &bsr_gemm::BsrGemm,
        &spmm_nchw::SpmmNchw,
        &csr_naive::CsrNaive,
        &depthwise_i8::DepthwiseI8,
        &winograd_i8::WinogradI8,
        &implicit_gemm_i8::ImplicitGemmI8,
        &bsr_gemm_i8::BsrGemmI8,
        &bsr_gemm_i8::GemmLowBitI8,
    ]
}

/// Returns the algorithms that are used only if named explicitly, for comparisons.
#[must_use]
pub fn baselines() -> &'static [&'static dyn Algorithm] {
    &[&naive::Naive { sparse: false }, &naive::Naive { sparse: true }]
}

/// The algorithms of a processor with this instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Processor(pub Isa);

impl Registry for Processor {
    type Algorithm = dyn Algorithm;

    fn algorithms(&self) -> &'static [&'static dyn Algorithm] {
        algorithms()
    }

    fn baselines(&self) -> &'static [&'static dyn Algorithm] {
        baselines()
    }

    fn supports(&self, algorithm: &dyn Algorithm, problem: &ConvProblem) -> bool {
        algorithm.supports(problem, self.0)
    }

    fn is_preferred(&self, algorithm: &dyn Algorithm, problem: &ConvProblem) -> bool {
        algorithm.preferred(problem)
    }

    fn tunables(&self, algorithm: &dyn Algorithm, problem: &ConvProblem) -> Vec<Tunable> {
        algorithm.tunables(problem, self.0)
    }
}

/// Returns the algorithm called `name`, which may be a former name.
#[must_use]
pub fn algorithm(name: &str) -> Option<&'static dyn Algorithm> {
    Processor(Isa::Portable).find(name)
}

/// Returns the algorithms that can run `problem` with weights of `format`, best default first.
#[must_use]
pub fn candidates(
    problem: &ConvProblem,
    format: WeightFormat,
    isa: Isa,
) -> Vec<&'static dyn Algorithm> {
    Processor(isa).candidates(problem, format)
}
