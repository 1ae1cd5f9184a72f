//! The interface of convolution algorithms: requests, kernels and calls.

use paretune_base::error::KernelError;
use paretune_base::plan::activation::Activation;
use paretune_base::plan::layout::{Element, Layout};
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::{Schedule, Tunable};
use paretune_base::plan::weights::Weights;
use paretune_base::registry::AlgorithmInfo;
use paretune_base::threads::Worker;
use paretune_simd::Isa;

use super::support::packing::Packing;

/// Specification of the kernel to prepare: problem, weights, fused operators, element types and
/// schedule.
pub struct Request<'a> {
    /// Geometry and sizes, batch included.
    pub problem: ConvProblem,
    /// Weights in a format that the algorithm [executes](AlgorithmInfo::executes). The values may
    /// be missing if `packing` finds weights that were packed before.
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
pub trait Algorithm: AlgorithmInfo {
    /// Returns whether it supports `problem` on instruction set `isa`.
    fn supports(&self, problem: &ConvProblem, isa: Isa) -> bool;

    /// Returns whether it is a good default for a supported problem that has not been measured.
    fn preferred(&self, _problem: &ConvProblem) -> bool {
        true
    }

    /// Returns the tunables for this problem on this machine.
    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable>;

    /// Returns the layout of the input, and that of residual and output: by default NHWC for both.
    /// `schedule` must have every tunable.
    fn layouts(&self, _schedule: &Schedule, _isa: Isa) -> [Layout; 2] {
        [Layout::Nhwc; 2]
    }

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
