//! Runs plans.
//!
//! [`Executor::new`] checks a plan ([`validate()`]), decides every schedule ([`resolve()`]), and
//! lowers the plan to a flat list of kernel calls with packed weights and planned memory. It keeps
//! nothing of the plan itself. A run then neither allocates nor decides anything.
//!
//! The executor does not choose good schedules, which is the task of the search, and it does not
//! measure latency: [`Executor::profile`] only shows how the time of a run is distributed over its
//! steps.

use crate::conv::{Packing, Recording};
use crate::error::KernelError;
use crate::hardware::Isa;
use crate::opencl::DeviceExecutor;
use crate::plan::{Backend, Plan, ValueId};

mod arena;
mod cpu;
mod draft;
mod forms;
mod lower;
mod mixed;
mod program;
mod resolve;
mod segments;
mod validate;

pub(crate) use arena::Lifetime;
use cpu::CpuExecutor;
use mixed::MixedExecutor;
pub use resolve::{Resolved, conv_problem, resolve};
pub use validate::validate;
pub(crate) use validate::validate_structure;

/// Options for loading a plan.
#[derive(Clone, Copy, Debug)]
pub struct ExecutorOptions {
    /// Number of images per run.
    pub batch: usize,
    /// Number of threads; more than the machine has cores are of no use.
    pub threads: usize,
    /// Widest instruction set to use.
    pub isa: Isa,
}

/// A loaded plan. It runs on the processor, on an OpenCL device or on several of them, according to
/// the plan's [`Backend`] and cut points.
pub struct Executor {
    place: Place,
    batch: usize,
    input_len: usize,
    output_len: usize,
}

enum Place {
    Cpu(Box<CpuExecutor>),
    Device(Box<DeviceExecutor>),
    Mixed(Box<MixedExecutor>),
}

/// A plan or some of its steps, with the values that enter and leave.
pub(crate) struct Part<'a> {
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

/// Packs the weights of `plan` for storage in a file.
///
/// # Errors
/// Fails if the plan is invalid, if it does not run on the processor alone, or if an algorithm does
/// not support its step.
pub(crate) fn pack(plan: &Plan, options: &ExecutorOptions) -> Result<Recording, KernelError> {
    validate(plan, options.batch)?;
    if !plan.is_on_processor() {
        let problem =
            "only what runs on the processor can be packed ahead; an OpenCL device has a part in this plan";
        return Err(KernelError::Data(problem.into()));
    }
    let packing = Packing::recording();
    let whole = Part { plan, inputs: vec![plan.input], outputs: vec![plan.output] };
    lower::lower(&whole, options, &packing)?;
    Ok(packing.recorded())
}

impl Executor {
    /// Loads a plan: packs weights, chooses layouts, plans memory and, for a device, builds
    /// kernels.
    ///
    /// # Errors
    /// Fails if the plan is invalid, if an algorithm does not support its step, or if its device is
    /// missing or refuses.
    pub fn new(plan: &Plan, options: &ExecutorOptions) -> Result<Self, KernelError> {
        validate(plan, options.batch)?;
        Self::with(plan, options, &Packing::fresh())
    }

    /// Loads a plan from weights that were packed earlier. The weights in the plan itself are not
    /// read.
    ///
    /// # Errors
    /// Fails with [`KernelError::Packed`] if the packed weights do not match the plan, and
    /// otherwise like [`Executor::new`].
    pub(crate) fn packed(
        plan: &Plan,
        options: &ExecutorOptions,
        packing: &Packing,
    ) -> Result<Self, KernelError> {
        validate_structure(plan, options.batch)?;
        // Only the processor's kernels read `packing`; devices would read the plan's own, empty
        // weights.
        if !plan.is_on_processor() {
            return Err(KernelError::Packed("an OpenCL device has a part in this plan".into()));
        }
        Self::with(plan, options, packing)
    }

    fn with(plan: &Plan, options: &ExecutorOptions, packing: &Packing) -> Result<Self, KernelError> {
        let batch = options.batch;
        let whole = Part { plan, inputs: vec![plan.input], outputs: vec![plan.output] };
        let place = match &plan.backend {
            _ if !plan.switches.is_empty() => Place::Mixed(Box::new(MixedExecutor::new(plan, options)?)),
            Backend::Cpu => Place::Cpu(Box::new(CpuExecutor::new(&whole, options, packing)?)),
            Backend::OpenCl { device } => {
                Place::Device(Box::new(DeviceExecutor::new(&whole, device, batch)?))
            }
        };
        let len = |value: ValueId| plan.values[value].len() * batch;
        Ok(Self { place, batch, input_len: len(plan.input), output_len: len(plan.output) })
    }

    /// Runs one batch. `input` holds `batch` images in row-major order, and `output` is written
    /// likewise. On a device, the run includes the transfers of both.
    ///
    /// # Errors
    /// Fails if a length is wrong or if a device fails.
    pub fn run(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), KernelError> {
        self.check(input.len(), output.len())?;
        match &mut self.place {
            Place::Cpu(executor) => executor.run(input, output),
            Place::Device(executor) => executor.run(input, output),
            Place::Mixed(executor) => executor.run(input, output),
        }
    }

    /// Runs one batch and returns the seconds of each of [`Executor::steps`]. Seconds on a device
    /// are kernel times, without transfers and gaps between kernels. In a plan with cut points,
    /// transfers are steps too, timed by how long the host waits for them.
    ///
    /// # Errors
    /// Fails if a length is wrong or if a device fails.
    pub fn profile(&mut self, input: &[f32], output: &mut [f32]) -> Result<Vec<f64>, KernelError> {
        self.check(input.len(), output.len())?;
        match &mut self.place {
            Place::Cpu(executor) => executor.profile(input, output),
            Place::Device(executor) => executor.profile(input, output),
            Place::Mixed(executor) => executor.profile(input, output),
        }
    }

    /// Runs one batch and passes each value of the plan to `see` when it is computed, the input
    /// first. Values are `f32`, row-major with batch outermost. Meant for calibration and
    /// comparison.
    ///
    /// # Errors
    /// Fails if a length is wrong or if a device fails.
    pub fn observe(
        &mut self,
        input: &[f32],
        see: &mut dyn FnMut(ValueId, &[f32]),
    ) -> Result<(), KernelError> {
        self.check(input.len(), self.output_len)?;
        match &mut self.place {
            Place::Cpu(executor) => executor.observe(input, see),
            Place::Device(executor) => executor.observe(input, see),
            Place::Mixed(executor) => executor.observe(input, see),
        }
    }

    /// Returns the executed steps, including conversions and transfers.
    #[must_use]
    pub fn steps(&self) -> &[StepInfo] {
        match &self.place {
            Place::Cpu(executor) => executor.steps(),
            Place::Device(executor) => executor.steps(),
            Place::Mixed(executor) => executor.steps(),
        }
    }

    /// Returns the bytes that the loaded plan holds, by purpose.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        match &self.place {
            Place::Cpu(executor) => executor.memory(),
            Place::Device(executor) => executor.memory(),
            Place::Mixed(executor) => executor.memory(),
        }
    }

    /// Returns the bytes held on devices and pinned by their drivers, which the process's own
    /// allocator does not count.
    #[must_use]
    pub fn device_bytes(&self) -> u64 {
        match &self.place {
            Place::Cpu(_) => 0,
            Place::Mixed(executor) => executor.device_bytes(),
            Place::Device(executor) => {
                let MemoryUse { weights, activations, workspace } = executor.memory();
                weights + activations + workspace
            }
        }
    }

    /// Returns the bytes of [`MemoryUse::weights`] that are used directly from a mapped file, which
    /// the process's own allocator does not count either.
    #[must_use]
    pub fn mapped_bytes(&self) -> u64 {
        match &self.place {
            Place::Cpu(executor) => executor.mapped_bytes(),
            // Weights packed for devices are never stored in files.
            Place::Device(_) | Place::Mixed(_) => 0,
        }
    }

    /// Returns the mean seconds of one pass of a device's kernels over `passes` consecutive passes,
    /// without transfers. Returns `None` if the processor runs any step.
    ///
    /// # Errors
    /// Fails if the device fails.
    pub fn pass_seconds(&mut self, passes: usize) -> Result<Option<f64>, KernelError> {
        match &mut self.place {
            Place::Cpu(_) | Place::Mixed(_) => Ok(None),
            Place::Device(executor) => executor.pass_seconds(passes).map(Some),
        }
    }

    /// Returns the numbers of elements that one run reads and writes, batch included.
    #[must_use]
    pub fn lengths(&self) -> (usize, usize) {
        (self.input_len, self.output_len)
    }

    fn check(&self, input: usize, output: usize) -> Result<(), KernelError> {
        for (what, len, expected) in [("input", input, self.input_len), ("output", output, self.output_len)] {
            if len != expected {
                let batch = self.batch;
                return Err(KernelError::Data(format!(
                    "the {what} has {len} numbers; a batch of {batch} has {expected}"
                )));
            }
        }
        Ok(())
    }
}
