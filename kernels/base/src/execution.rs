//! Types that the executors of all backends share.

use crate::error::KernelError;
use crate::plan::{Plan, ValueId};

/// A plan or some of its steps, with what is given to them and what is wanted of them.
pub struct Part<'a> {
    /// All values and weights of the plan, and only the steps of the part.
    pub plan: &'a Plan,
    /// Values that none of the steps computes.
    pub inputs: Vec<ValueId>,
    /// Values that leave the part, each listed once.
    pub outputs: Vec<ValueId>,
}

/// Describes one executed step. Conversions that the executor inserted (layouts, 8-bit grids) are
/// separate steps, and so are transfers over device boundaries.
#[derive(Clone, Debug, PartialEq)]
pub struct StepInfo {
    /// Name of the plan's step, or `step:conversion`, or `step:upload` and `step:download` for
    /// transfers of the value that the step computed.
    pub name: String,
    /// Algorithm of a convolution, or name of the operator.
    pub algorithm: String,
    /// Multiply-adds for the whole batch; 0 for operators that have none.
    pub multiply_adds: u64,
    /// Bytes of activations and weights that must be moved at least once.
    pub bytes: u64,
}

/// Bytes that a loaded plan holds, by purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes of packed weights and constants.
    pub weights: u64,
    /// Bytes of the arena of activations.
    pub activations: u64,
    /// Bytes that the kernels' scratch memory adds to the arena. Scratch reuses arena memory
    /// without live activations where it fits.
    pub workspace: u64,
}

/// A plan that one backend, or several together, have loaded. Lengths are checked by the caller.
pub trait LoadedPlan: Send + Sync {
    /// Runs one batch: `input` is `batch` images row-major, `output` is written likewise.
    ///
    /// # Errors
    /// Fails if a device fails.
    fn run(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), KernelError>;

    /// Runs one batch and returns the seconds of each of [`LoadedPlan::steps`].
    ///
    /// # Errors
    /// Fails if a device fails.
    fn profile(&mut self, input: &[f32], output: &mut [f32]) -> Result<Vec<f64>, KernelError>;

    /// Runs one batch and shows every value of the plan as soon as it is there, the input first.
    ///
    /// # Errors
    /// Fails if a device fails.
    fn observe(
        &mut self,
        input: &[f32],
        see: &mut dyn FnMut(ValueId, &[f32]),
    ) -> Result<(), KernelError>;

    /// Returns the steps in the order in which they are executed.
    fn steps(&self) -> &[StepInfo];

    /// Returns the bytes that the loaded plan holds.
    fn memory(&self) -> MemoryUse;

    /// Returns the bytes held on devices and pinned by their drivers, which the process's own
    /// allocator does not count.
    fn device_bytes(&self) -> u64 {
        0
    }

    /// Returns the bytes of [`MemoryUse::weights`] that are used directly from a mapped file, which
    /// the process's own allocator does not count either.
    fn mapped_bytes(&self) -> u64 {
        0
    }

    /// Returns the mean seconds of one pass of a device's kernels without transfers, over `passes`
    /// that follow each other; `None` where the processor runs anything.
    ///
    /// # Errors
    /// Where the device fails.
    fn pass_seconds(&mut self, _passes: usize) -> Result<Option<f64>, KernelError> {
        Ok(None)
    }
}
