//! Runs plans.

use crate::error::KernelError;
use crate::hardware::Isa;
use crate::plan::{Plan, ValueId};

/// How a plan is to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct ExecutorOptions {
    /// Images at a time.
    pub batch: usize,
    /// Workers; at most the cores of the machine are useful.
    pub threads: usize,
    /// Widest instruction set to use.
    pub isa: Isa,
}

/// A loaded plan: packed weights, buffers, and a flat list of kernel calls.
pub struct Executor {}

/// What one executed step is and, when profiled, how long it took. Conversions that the executor
/// inserted (layouts, 8-bit grids) are steps of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct StepInfo {
    /// The plan's step, or `step:conversion`.
    pub name: String,
    /// Algorithm of a convolution, or the operator's name.
    pub algorithm: String,
    /// Multiply-adds for the whole batch; 0 where that means nothing.
    pub multiply_adds: u64,
    /// Bytes of activations and weights that must move at least once.
    pub bytes: u64,
}

/// Bytes that a loaded plan holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Packed weights and constants.
    pub weights: u64,
    /// The arena of activations.
    pub activations: u64,
    /// Scratch of the kernels.
    pub workspace: u64,
}

impl Executor {
    /// Packs weights, chooses layouts, plans memory.
    ///
    /// # Errors
    /// Where the plan does not fit together or an algorithm does not support its step.
    pub fn new(_plan: &Plan, _options: &ExecutorOptions) -> Result<Self, KernelError> {
        todo!()
    }

    /// Runs one batch: `input` is `batch` images row-major, `output` is written likewise.
    ///
    /// # Errors
    /// Where a length is wrong.
    pub fn run(&mut self, _input: &[f32], _output: &mut [f32]) -> Result<(), KernelError> {
        todo!()
    }

    /// Runs one batch and returns the seconds of each of [`Executor::steps`].
    ///
    /// # Errors
    /// Where a length is wrong.
    pub fn profile(&mut self, _input: &[f32], _output: &mut [f32]) -> Result<Vec<f64>, KernelError> {
        todo!()
    }

    /// Runs one batch and shows every value of the plan (input first) as `f32`, row-major with batch
    /// outermost, as soon as it is there: for calibration and comparison.
    ///
    /// # Errors
    /// Where a length is wrong.
    pub fn observe(
        &mut self,
        _input: &[f32],
        _see: &mut dyn FnMut(ValueId, &[f32]),
    ) -> Result<(), KernelError> {
        todo!()
    }

    /// The steps as they are executed.
    #[must_use]
    pub fn steps(&self) -> &[StepInfo] {
        todo!()
    }

    /// What is held.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        todo!()
    }
}
