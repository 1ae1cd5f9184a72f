//! Convolution algorithms: one file each, listed by [`algorithms`].
//!
//! To add one, write its file with a type that implements [`Algorithm`], and add a line to
//! [`algorithms`]. The tests of this module run every algorithm on every instruction set of the
//! machine against a double-precision reference.

pub mod reference;

mod block_sparse;
mod buffer;
mod csr;
mod depthwise;
mod depthwise_int8;
mod depthwise_planar;
mod direct;
mod direct_blocked;
mod finish;
mod finish_int8;
mod gemm;
mod gemm_int8;
mod im2col_gemm;
mod implicit_gemm;
mod implicit_gemm_bf16;
mod implicit_gemm_fp16;
mod implicit_gemm_int8;
mod layouts;
mod naive;
mod packing;
mod pad;
mod planar;
mod request;
mod rows;
mod sparse_planar;
mod split;
mod streams;
mod streams_int8;
mod taps;
#[cfg(test)]
mod tests;
mod tiles;
mod winograd;
mod winograd_int8;

use crate::activation::Activation;
use crate::error::KernelError;
use crate::hardware::Isa;
use crate::operator::ConvProblem;
use crate::plan::Quantization;
use crate::schedule::{Schedule, Tunable};
use crate::team::Worker;
use crate::weights::{WeightFormat, Weights};

pub use packing::Packing;
pub(crate) use packing::{PackedLayer, Recording, Section};

/// Order of an activation's elements in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// NCHW: batch, channels, height, width.
    Planar,
    /// NHWC: batch, height, width, channels.
    ChannelsLast,
    /// NCHWc: batch, blocks of channels, height, width, channels of the block. Holds the block
    /// size, which must divide the number of channels. Every block is an NHWC image.
    ChannelBlocked(usize),
}

impl Layout {
    /// Returns the position of an element in an image of `[channels, pixels]`.
    #[must_use]
    pub fn place(self, [channels, pixels]: [usize; 2], channel: usize, pixel: usize) -> usize {
        match self {
            Self::Planar => channel * pixels + pixel,
            Self::ChannelsLast => pixel * channels + channel,
            Self::ChannelBlocked(block) => (channel / block * pixels + pixel) * block + channel % block,
        }
    }
}

/// Element type of an activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element {
    /// Single precision.
    F32,
    /// Unsigned 8 bits with this quantization.
    U8(Quantization),
}

/// Specification of the kernel to prepare: problem, weights, fused operators, element types and
/// schedule.
pub struct Request<'a> {
    /// Geometry and sizes, batch included.
    pub problem: ConvProblem,
    /// Weights in a format that the algorithm [executes](Algorithm::executes). The values may be
    /// missing if `packing` finds weights that were packed before.
    pub weights: &'a Weights,
    /// Activation fused into the epilogue.
    pub activation: Activation,
    /// Element type of the input.
    pub input: Element,
    /// Element type of the output.
    pub output: Element,
    /// Element type of the residual that is added before the activation, if there is one. Its
    /// layout is that of the output.
    pub residual: Option<Element>,
    /// Schedule with a valid value for every tunable of the algorithm.
    pub schedule: &'a Schedule,
    /// Number of threads that run the kernel together.
    pub threads: usize,
    /// Widest instruction set that the kernel may use.
    pub isa: Isa,
    /// Source of the packed weights: stored weights or a file.
    pub packing: &'a Packing,
}

/// Buffer addresses for one run of a [`Kernel`], valid for the sizes of its [`Request`].
#[derive(Clone, Copy)]
pub struct Call {
    /// Address of the input activation.
    pub input: *const u8,
    /// Address of the residual, or null.
    pub residual: *const u8,
    /// Address of the output, which overlaps neither input nor residual.
    pub output: *mut u8,
    /// Address of [`Kernel::workspace_bytes`] bytes, 64-byte aligned, shared by all threads.
    pub workspace: *mut u8,
}

/// An algorithm that computes convolutions of some shapes and weight formats.
pub trait Algorithm: Send + Sync {
    /// Returns the name in schedules: `snake_case`, stable.
    fn name(&self) -> &'static str;

    /// Returns a description for people, one line long.
    fn about(&self) -> &'static str;

    /// Returns whether it computes on integer weights and 8-bit activations; otherwise it computes
    /// in single precision.
    fn integer(&self) -> bool {
        false
    }

    /// Returns whether it executes weights of `format`. Zeros are stored in memory, so an algorithm
    /// for dense weights executes every sparsity pattern.
    fn executes(&self, format: WeightFormat) -> bool;

    /// Returns whether it supports `problem` on instruction set `isa`.
    fn supports(&self, problem: &ConvProblem, isa: Isa) -> bool;

    /// Returns whether it is a good default for a supported problem that has not been measured.
    fn preferred(&self, _problem: &ConvProblem) -> bool {
        true
    }

    /// Returns the tunables for this problem on this machine.
    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable>;

    /// Returns the constraints on the tunables, as expressions over their names.
    fn constraints(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the layout of the input, and that of residual and output. `schedule` must have every
    /// tunable.
    fn layouts(&self, schedule: &Schedule, isa: Isa) -> [Layout; 2];

    /// Packs the weights and fixes all sizes, so that a run allocates nothing. Everything derived
    /// from weights must come from [`Request::packing`], requested in a fixed order, and sizes from
    /// the problem alone.
    ///
    /// # Errors
    /// Fails if the algorithm does not support the request.
    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError>;
}

/// A convolution with packed weights, ready for any number of runs.
pub trait Kernel: Send + Sync {
    /// Returns the bytes of scratch memory that all threads share during a run.
    fn workspace_bytes(&self) -> usize;

    /// Returns the bytes of the packed weights.
    fn weight_bytes(&self) -> usize;

    /// Computes this thread's part of the work. All threads of the pool call it with one `call`;
    /// the output is complete when all have returned *and* passed the executor's barrier.
    ///
    /// # Safety
    /// The addresses in `call` must be valid for the sizes of the request that this kernel was made
    /// for. `worker` must belong to a pool of the requested size, every thread of which makes this
    /// call.
    unsafe fn run(&self, call: &Call, worker: &Worker<'_>);
}

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

/// Returns the algorithm called `name`.
#[must_use]
pub fn algorithm(name: &str) -> Option<&'static dyn Algorithm> {
    algorithms().iter().chain(baselines()).copied().find(|algorithm| algorithm.name() == name)
}

/// Returns the algorithms that can run `problem` with weights of `format`, best default first.
#[must_use]
pub fn candidates(problem: &ConvProblem, format: WeightFormat, isa: Isa) -> Vec<&'static dyn Algorithm> {
    let mut found = supporting(problem, isa);
    found.retain(|algorithm| algorithm.executes(format));
    found
}

/// Returns the algorithms that can run `problem` with weights of some format, best default first.
#[must_use]
pub fn supporting(problem: &ConvProblem, isa: Isa) -> Vec<&'static dyn Algorithm> {
    let all = algorithms().iter().copied();
    let mut found: Vec<_> = all.filter(|algorithm| algorithm.supports(problem, isa)).collect();
    found.sort_by_key(|algorithm| !algorithm.preferred(problem));
    found
}
