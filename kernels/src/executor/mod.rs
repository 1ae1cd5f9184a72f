//! Runs plans.
//!
//! [`Executor::new`] checks a plan ([`validate`]), decides every schedule ([`resolve`]), lowers it to a
//! flat list of kernel calls with packed weights and planned memory, and keeps nothing of the plan
//! itself. A run then neither allocates nor decides anything.
//!
//! What is left to others: which schedules are good (search), and how long a run takes (whoever
//! measures; [`Executor::profile`] only tells how a run's time is divided).

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

/// A loaded plan: on the processor, on an OpenCL device, or partly here and partly there, as the plan's [`Backend`] and
/// its switches say.
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

/// A plan or some of its steps, with what is given to them and what is wanted of them.
pub(crate) struct Part<'a> {
    /// All values and weights, and the steps of the part.
    pub plan: &'a Plan,
    /// Values that none of the steps makes.
    pub inputs: Vec<ValueId>,
    /// Each once.
    pub outputs: Vec<ValueId>,
}

/// What one executed step is and, when profiled, how long it took. Conversions that the executor
/// inserted (layouts, 8-bit grids) are steps of their own, and so is what a plan with switches brings from one side to
/// the other.
#[derive(Clone, Debug, PartialEq)]
pub struct StepInfo {
    /// The plan's step, or `step:conversion`, or `step:upload` and `step:download` of what it made.
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
    /// What the kernels' scratch adds to it: scratch lies where no activation is alive, if it fits.
    pub workspace: u64,
}

/// What the kernels of `plan` pack, as it is to lie in a file.
///
/// # Errors
/// Where the plan does not fit together, does not run on the processor, or an algorithm does not support its step.
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
    /// Packs weights, chooses layouts, plans memory; on a device, builds kernels too.
    ///
    /// # Errors
    /// Where the plan does not fit together, an algorithm does not support its step, or its device is not
    /// there or refuses.
    pub fn new(plan: &Plan, options: &ExecutorOptions) -> Result<Self, KernelError> {
        validate(plan, options.batch)?;
        Self::with(plan, options, &Packing::fresh())
    }

    /// [`Executor::new`] with what was packed before, of a plan whose weights have no numbers.
    ///
    /// # Errors
    /// [`KernelError::Packed`] where something else was packed; otherwise as there.
    pub(crate) fn packed(
        plan: &Plan,
        options: &ExecutorOptions,
        packing: &Packing,
    ) -> Result<Self, KernelError> {
        validate_structure(plan, options.batch)?;
        // Only the processor's kernels ask the packing; devices would read weights that have no numbers.
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

    /// Runs one batch: `input` is `batch` images row-major, `output` is written likewise. On a device, the
    /// transfers of both are part of it.
    ///
    /// # Errors
    /// Where a length is wrong, or a device fails.
    pub fn run(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), KernelError> {
        self.check(input.len(), output.len())?;
        match &mut self.place {
            Place::Cpu(executor) => executor.run(input, output),
            Place::Device(executor) => executor.run(input, output),
            Place::Mixed(executor) => executor.run(input, output),
        }
    }

    /// Runs one batch and returns the seconds of each of [`Executor::steps`]; of a device, those that it
    /// worked on them, without transfers and the gaps between kernels. Of a plan with switches, transfers are
    /// steps as well, each as long as the host waits for it.
    ///
    /// # Errors
    /// Where a length is wrong, or a device fails.
    pub fn profile(&mut self, input: &[f32], output: &mut [f32]) -> Result<Vec<f64>, KernelError> {
        self.check(input.len(), output.len())?;
        match &mut self.place {
            Place::Cpu(executor) => executor.profile(input, output),
            Place::Device(executor) => executor.profile(input, output),
            Place::Mixed(executor) => executor.profile(input, output),
        }
    }

    /// Runs one batch and shows every value of the plan (input first) as `f32`, row-major with batch
    /// outermost, as soon as it is there: for calibration and comparison.
    ///
    /// # Errors
    /// Where a length is wrong, or a device fails.
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

    /// The steps as they are executed.
    #[must_use]
    pub fn steps(&self) -> &[StepInfo] {
        match &self.place {
            Place::Cpu(executor) => executor.steps(),
            Place::Device(executor) => executor.steps(),
            Place::Mixed(executor) => executor.steps(),
        }
    }

    /// What is held.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        match &self.place {
            Place::Cpu(executor) => executor.memory(),
            Place::Device(executor) => executor.memory(),
            Place::Mixed(executor) => executor.memory(),
        }
    }

    /// Bytes held on devices and pinned by their drivers, which the machine's own allocator does not see.
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

    /// Bytes of [`MemoryUse::weights`] that are used where they lie in a mapped file, which the machine's own allocator
    /// does not see either.
    #[must_use]
    pub fn mapped_bytes(&self) -> u64 {
        match &self.place {
            Place::Cpu(executor) => executor.mapped_bytes(),
            // What either packs is never kept in files.
            Place::Device(_) | Place::Mixed(_) => 0,
        }
    }

    /// Seconds of one pass of a device's kernels without transfers, the mean over `passes` that follow each
    /// other; `None` where the processor runs anything.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn pass_seconds(&mut self, passes: usize) -> Result<Option<f64>, KernelError> {
        match &mut self.place {
            Place::Cpu(_) | Place::Mixed(_) => Ok(None),
            Place::Device(executor) => executor.pass_seconds(passes).map(Some),
        }
    }

    /// How many numbers one run reads and writes, batch included.
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
