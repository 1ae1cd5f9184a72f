//! Runs plans.
//!
//! [`Executor::new`] checks a plan ([`validate()`]), decides every schedule ([`resolve()`]), and
//! lowers the plan to a flat list of kernel calls with packed weights and planned memory. It keeps
//! nothing of the plan itself. A run then neither allocates nor decides anything.
//!
//! The executor does not choose good schedules, which is the task of the search, and it does not
//! measure latency: [`Executor::profile`] only shows how the time of a run is distributed over its
//! steps.

use paretune_base::error::KernelError;
#[cfg(feature = "opencl")]
use paretune_base::plan::Backend;
use paretune_base::plan::{Plan, ValueId};
use paretune_cpu::conv::support::packing::{Packing, Recording};
#[cfg(feature = "opencl")]
use paretune_opencl::DeviceExecutor;

mod builder;
mod cpu;
mod formats;
mod lower;
mod lower_tensor;
#[cfg(feature = "opencl")]
mod mixed;
mod options;
mod program;
mod resolve;
#[cfg(feature = "opencl")]
mod segments;
mod validate;
#[cfg(feature = "opencl")]
pub(crate) mod verify;
mod work;

use cpu::CpuExecutor;
#[cfg(feature = "opencl")]
use mixed::MixedExecutor;
pub use options::ExecutorOptions;
use paretune_base::execution::{LoadedPlan, Part};
pub use paretune_base::execution::{MemoryUse, StepInfo};
pub use paretune_base::plan::shape::conv_problem;
pub use resolve::{Resolved, resolve};
pub use validate::validate;
pub(crate) use validate::validate_structure;

/// A loaded plan. It runs on the processor, on an OpenCL device or on several of them, according to
/// the plan's [`Backend`] and cut points.
///
/// # Examples
/// ```
/// use paretune_kernels::hardware::Isa;
/// use paretune_kernels::operator::Operator;
/// use paretune_kernels::{Activation, Executor, ExecutorOptions, Plan, Step, ValueSpec};
///
/// let value = ValueSpec { dims: vec![4], quantization: None };
/// let plan = Plan {
///     values: vec![value.clone(), value],
///     input: 0,
///     output: 1,
///     steps: vec![Step {
///         name: "relu".into(),
///         operator: Operator::Activation(Activation::Relu),
///         inputs: vec![0],
///         output: 1,
///     }],
///     threads: 1,
///     ..Plan::default()
/// };
///
/// let options = ExecutorOptions { batch: 1, threads: 1, isa: Isa::detect() };
/// let mut executor = Executor::new(&plan, &options)?;
/// let mut output = [0.0; 4];
/// executor.run(&[-2.0, -1.0, 1.0, 2.0], &mut output)?;
/// assert_eq!(output, [0.0, 0.0, 1.0, 2.0]);
/// # Ok::<(), paretune_kernels::KernelError>(())
/// ```
pub struct Executor {
    loaded: Box<dyn LoadedPlan>,
    batch: usize,
    input_len: usize,
    output_len: usize,
}

/// Packs the weights of `plan` for storage in a file.
///
/// # Errors
/// Fails if the plan is invalid, if it does not run on the processor alone, or if an algorithm does
/// not support its step.
pub(crate) fn pack(plan: &Plan, options: &ExecutorOptions) -> Result<Recording, KernelError> {
    validate(plan, options.batch)?;
    if !plan.is_on_processor() {
        let problem = "only what runs on the processor can be packed ahead; an OpenCL device has \
             a part in this plan";
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

    fn with(
        plan: &Plan,
        options: &ExecutorOptions,
        packing: &Packing,
    ) -> Result<Self, KernelError> {
        let batch = options.batch;
        let whole = Part { plan, inputs: vec![plan.input], outputs: vec![plan.output] };
        #[cfg(feature = "opencl")]
        let loaded: Box<dyn LoadedPlan> = match &plan.backend {
            _ if !plan.switches.is_empty() => Box::new(MixedExecutor::new(plan, options)?),
            Backend::Cpu => Box::new(CpuExecutor::new(&whole, options, packing)?),
            Backend::OpenCl { device } => Box::new(DeviceExecutor::new(&whole, device, batch)?),
        };
        #[cfg(not(feature = "opencl"))]
        let loaded: Box<dyn LoadedPlan> = if plan.is_on_processor() {
            Box::new(CpuExecutor::new(&whole, options, packing)?)
        } else {
            let problem =
                "the plan is for an OpenCL device, and this program was built without OpenCL";
            return Err(KernelError::System(problem.into()));
        };
        let len = |value: ValueId| plan.values[value].len() * batch;
        Ok(Self { loaded, batch, input_len: len(plan.input), output_len: len(plan.output) })
    }

    /// Runs one batch. `input` holds `batch` images in row-major order, and `output` is written
    /// likewise. On a device, the run includes the transfers of both.
    ///
    /// # Errors
    /// Fails if a length is wrong or if a device fails.
    pub fn run(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), KernelError> {
        self.check(input.len(), output.len())?;
        self.loaded.run(input, output)
    }

    /// Runs one batch and returns the seconds of each of [`Executor::steps`]. Seconds on a device
    /// are kernel times, without transfers and gaps between kernels. In a plan with cut points,
    /// transfers are steps too, timed by how long the host waits for them.
    ///
    /// # Errors
    /// Fails if a length is wrong or if a device fails.
    pub fn profile(&mut self, input: &[f32], output: &mut [f32]) -> Result<Vec<f64>, KernelError> {
        self.check(input.len(), output.len())?;
        self.loaded.profile(input, output)
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
        self.loaded.observe(input, see)
    }

    /// Returns the executed steps, including conversions and transfers.
    #[must_use]
    pub fn steps(&self) -> &[StepInfo] {
        self.loaded.steps()
    }

    /// Returns the bytes that the loaded plan holds, by purpose.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        self.loaded.memory()
    }

    /// Returns the bytes held on devices and pinned by their drivers, which the process's own
    /// allocator does not count.
    #[must_use]
    pub fn device_bytes(&self) -> u64 {
        self.loaded.device_bytes()
    }

    /// Returns the bytes of [`MemoryUse::weights`] that are used directly from a mapped file, which
    /// the process's own allocator does not count either.
    #[must_use]
    pub fn mapped_bytes(&self) -> u64 {
        self.loaded.mapped_bytes()
    }

    /// Returns the mean seconds of one pass of a device's kernels over `passes` consecutive passes,
    /// without transfers. Returns `None` if the processor runs any step.
    ///
    /// # Errors
    /// Fails if the device fails.
    pub fn pass_seconds(&mut self, passes: usize) -> Result<Option<f64>, KernelError> {
        self.loaded.pass_seconds(passes)
    }

    /// Returns the numbers of elements that one run reads and writes, batch included.
    #[must_use]
    pub fn lengths(&self) -> (usize, usize) {
        (self.input_len, self.output_len)
    }

    fn check(&self, input: usize, output: usize) -> Result<(), KernelError> {
        for (what, len, expected) in
            [("input", input, self.input_len), ("output", output, self.output_len)]
        {
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
