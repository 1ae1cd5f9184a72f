//! Convolution algorithms: one file each, listed by [`algorithms`].
//!
//! To add one: write its file with a type that implements [`Algorithm`], and add a line to
//! [`algorithms`]. The tests there run every algorithm on every instruction set of the machine
//! against a double-precision reference.

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

/// The order of an activation's numbers in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Batch, channels, height, width ("NCHW").
    Planar,
    /// Batch, height, width, channels ("NHWC").
    ChannelsLast,
    /// Batch, blocks of so many channels, height, width, channels of the block ("NCHW16c"): every block is an image with its
    /// channels last. Only where blocks divide the channels.
    ChannelBlocked(usize),
}

impl Layout {
    /// Where a number of an image of `[channels, pixels]` lies.
    #[must_use]
    pub fn place(self, [channels, pixels]: [usize; 2], channel: usize, pixel: usize) -> usize {
        match self {
            Self::Planar => channel * pixels + pixel,
            Self::ChannelsLast => pixel * channels + channel,
            Self::ChannelBlocked(block) => (channel / block * pixels + pixel) * block + channel % block,
        }
    }
}

/// How an activation's numbers are held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element {
    /// Single precision.
    F32,
    /// Unsigned 8 bit on this grid.
    U8(Quantization),
}

/// What an algorithm is asked to prepare: the problem, the numbers, and what surrounds it.
pub struct Request<'a> {
    /// Geometry and sizes, batch included.
    pub problem: ConvProblem,
    /// In a format that the algorithm [executes](Algorithm::executes). Where `packing` finds what was packed before,
    /// they may be without numbers.
    pub weights: &'a Weights,
    /// Fused into the store.
    pub activation: Activation,
    /// How the input is held.
    pub input: Element,
    /// How the output is to be held.
    pub output: Element,
    /// How the residual that is added before the activation is held, if there is one; its layout is the output's.
    pub residual: Option<Element>,
    /// Every tunable of the algorithm present, with a value from its list.
    pub schedule: &'a Schedule,
    /// How many workers will run it together.
    pub threads: usize,
    /// The widest instruction set that may be used.
    pub isa: Isa,
    /// Where packed numbers come from.
    pub packing: &'a Packing,
}

/// Addresses for one run of a [`Kernel`], valid for the sizes of its [`Request`].
#[derive(Clone, Copy)]
pub struct Call {
    /// The input activation.
    pub input: *const u8,
    /// The residual, or null.
    pub residual: *const u8,
    /// Where the result goes; overlaps neither input nor residual.
    pub output: *mut u8,
    /// [`Kernel::workspace_bytes`] bytes, 64-byte aligned, shared by all workers.
    pub workspace: *mut u8,
}

/// A way to compute convolutions.
pub trait Algorithm: Send + Sync {
    /// Name in schedules: `snake_case`, stable.
    fn name(&self) -> &'static str;

    /// One line for people.
    fn about(&self) -> &'static str;

    /// Whether it computes on integer weights and 8-bit activations, else in single precision.
    fn integer(&self) -> bool {
        false
    }

    /// Whether it executes weights of `format`. Zeros are held in memory, so what is for dense weights
    /// executes every pattern.
    fn executes(&self, format: WeightFormat) -> bool;

    /// Whether it can solve `problem` with instruction set `isa`.
    fn supports(&self, problem: &ConvProblem, isa: Isa) -> bool;

    /// Whether it is a good guess for a problem that it supports, where nothing has been measured.
    fn preferred(&self, _problem: &ConvProblem) -> bool {
        true
    }

    /// What it leaves to the search, for this problem on this machine.
    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable>;

    /// What must hold between the tunables, as expressions over their names.
    fn constraints(&self) -> &'static [&'static str] {
        &[]
    }

    /// How it wants the input laid out, and how the residual and the output. `schedule` has every tunable.
    fn layouts(&self, schedule: &Schedule, isa: Isa) -> [Layout; 2];

    /// Packs the weights and fixes all sizes, so that running allocates nothing. Everything that is made of weights comes
    /// from [`Request::packing`], asked in the same order every time, and sizes from the problem alone.
    ///
    /// # Errors
    /// Where the request is not what the algorithm supports.
    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError>;
}

/// A convolution with its weights packed, ready to run any number of times.
pub trait Kernel: Send + Sync {
    /// Bytes of scratch memory that all workers share during a run.
    fn workspace_bytes(&self) -> usize;

    /// Bytes that the packed weights occupy.
    fn weight_bytes(&self) -> usize;

    /// This worker's part of the work. All workers of a team call it with the same `call`; when all
    /// have returned *and* passed the executor's barrier, the output is complete.
    ///
    /// # Safety
    /// The addresses in `call` are valid for the sizes of the request that made this kernel, and
    /// `worker` belongs to a team of the requested size whose every member makes this call.
    unsafe fn run(&self, call: &Call, worker: &Worker<'_>);
}

/// Every algorithm there is, in order of preference for defaults.
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

/// Algorithms that nothing is offered but what asks for them by name: for comparisons.
#[must_use]
pub fn baselines() -> &'static [&'static dyn Algorithm] {
    &[&naive::Naive { sparse: false }, &naive::Naive { sparse: true }]
}

/// The algorithm called `name`.
#[must_use]
pub fn algorithm(name: &str) -> Option<&'static dyn Algorithm> {
    algorithms().iter().chain(baselines()).copied().find(|algorithm| algorithm.name() == name)
}

/// The algorithms that can run `problem` with weights of `format`, best default first.
#[must_use]
pub fn candidates(problem: &ConvProblem, format: WeightFormat, isa: Isa) -> Vec<&'static dyn Algorithm> {
    let mut found = supporting(problem, isa);
    found.retain(|algorithm| algorithm.executes(format));
    found
}

/// The algorithms that can run `problem` with weights of some format, best default first.
#[must_use]
pub fn supporting(problem: &ConvProblem, isa: Isa) -> Vec<&'static dyn Algorithm> {
    let all = algorithms().iter().copied();
    let mut found: Vec<_> = all.filter(|algorithm| algorithm.supports(problem, isa)).collect();
    found.sort_by_key(|algorithm| !algorithm.preferred(problem));
    found
}
