//! The list of all convolution algorithms of the processor.

use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::plan::weights::WeightFormat;
use paretune_base::registry::Registry;
use paretune_simd::Isa;

use super::algorithm::Algorithm;
use super::algorithms::{
    block_sparse, csr, depthwise, depthwise_int8, depthwise_planar, direct, direct_blocked, im2col_gemm,
    implicit_gemm, implicit_gemm_bf16, implicit_gemm_fp16, implicit_gemm_int8, naive, sparse_planar,
    streams_int8, winograd, winograd_int8,
};

/// Returns all algorithms, in order of preference for defaults.
#[must_use]
pub fn algorithms() -> &'static [&'static dyn Algorithm] {
    &[
        &depthwise::Depthwise,
        &depthwise_planar::DepthwisePlanar,
        &implicit_gemm_bf16::ImplicitGemmBf16,
        &implicit_gemm_fp16::ImplicitGemmFp16,
        &direct_blocked::DirectBlocked,
        &implicit_gemm::ImplicitGemm,
        &winograd::Winograd,
        &im2col_gemm::Im2colGemm,
        &direct::Direct,
        &block_sparse::BlockSparse,
        &sparse_planar::SparsePlanar,
        &csr::Csr,
        &depthwise_int8::DepthwiseInt8,
        &winograd_int8::WinogradInt8,
        &implicit_gemm_int8::ImplicitGemmInt8,
        &streams_int8::BlockSparseInt8,
        &streams_int8::LowBitGemm,
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

    fn constraints(&self, algorithm: &dyn Algorithm, _problem: &ConvProblem) -> Vec<String> {
        algorithm.constraints().iter().map(|&text| text.to_owned()).collect()
    }
}

/// Returns the algorithm called `name`, which may be a former name.
#[must_use]
pub fn algorithm(name: &str) -> Option<&'static dyn Algorithm> {
    Processor(Isa::Portable).find(name)
}

/// Returns the algorithms that can run `problem` with weights of `format`, best default first.
#[must_use]
pub fn candidates(problem: &ConvProblem, format: WeightFormat, isa: Isa) -> Vec<&'static dyn Algorithm> {
    Processor(isa).candidates(problem, format)
}
