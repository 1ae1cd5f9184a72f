//! The executor of an OpenCL device. Weights stay on the device, buffers are planned once, and one
//! in-order queue runs all steps without waiting between them. A run has one upload and one
//! download.

use std::ffi::CString;
use std::sync::Arc;
use std::time::Instant;

use super::api::{Event, Kernel, Memory, Program, Queue};
use super::boundary::DeviceBoundary;
use super::build::build;
use super::device::Device;
use super::launch::{Argument, Launch};
use super::layout::{Layout, Place, PreparedStep};
use paretune_base::error::KernelError;
use paretune_base::execution::{LoadedPlan, MemoryUse, Part, StepInfo};
use paretune_base::plan::ValueId;

/// A plan, or a part of one, loaded on a device.
pub struct DeviceExecutor {
    device: Arc<Device>,
    queue: Arc<Queue>,
    /// A queue with profiling, created on first use.
    timed: Option<Queue>,
    stages: Vec<Stage>,
    infos: Vec<StepInfo>,
    /// Device memory of each value.
    homes: Vec<Option<Arc<Memory>>>,
    /// Values in the order in which they become ready, with the number of stages that must have
    /// run.
    ready: Vec<(usize, ValueId)>,
    lengths: Vec<usize>,
    input: ValueId,
    output: ValueId,
    memory: MemoryUse,
}

/// The kernels of one executed step.
struct Stage {
    kernels: Vec<Ready>,
}

/// A kernel with its arguments and sizes.
struct Ready {
    kernel: Kernel,
    global: [usize; 3],
    local: [usize; 3],
    /// Buffers that the arguments refer to.
    _buffers: Vec<Arc<Memory>>,
}

impl DeviceExecutor {
    /// Loads a validated plan: builds kernels, uploads weights, and plans memory.
    ///
    /// # Errors
    /// Fails if a schedule does not fit the device, if a kernel does not build, or if the device
    /// refuses.
    pub fn new(part: &Part<'_>, device: &str, batch: usize) -> Result<Self, KernelError> {
        Self::on(part, &DeviceBoundary::new(device)?, batch)
    }

    /// Loads a part of a plan like [`DeviceExecutor::new`]. Its inputs and outputs are at
    /// `boundary`.
    ///
    /// # Errors
    /// Fails like [`DeviceExecutor::new`].
    pub fn on(
        part: &Part<'_>,
        boundary: &DeviceBoundary,
        batch: usize,
    ) -> Result<Self, KernelError> {
        let plan = part.plan;
        let device = Arc::clone(&boundary.device);
        let opened = Arc::clone(&device);
        let _turn = opened.turn();
        let queue = Arc::clone(&boundary.queue);
        let mut layout = Layout::new(part, batch, |value| boundary.memory(value).is_some());
        let mut prepared = Vec::new();
        for step in &plan.steps {
            if let Some((info, step)) = layout.step(plan, step, batch, &device)? {
                prepared.push((info, step));
            }
        }
        let programs = build(&device, &prepared)?;
        let arena = layout.arena(&device)?;
        let mut weights: u64 = 0;
        let mut upload = |bytes: &[u8]| -> Result<Arc<Memory>, KernelError> {
            let memory = Memory::new(&device.context, bytes.len())?;
            queue.write(&memory, bytes)?;
            weights += bytes.len() as u64;
            Ok(Arc::new(memory))
        };
        let constants: Vec<Arc<Memory>> =
            layout.constants.iter().map(|bytes| upload(bytes)).collect::<Result<_, _>>()?;
        let homes: Vec<Option<Arc<Memory>>> = layout
            .places
            .iter()
            .map(|place| {
                Some(Arc::clone(match (*place)? {
                    Place::Arena(buffer) => &arena.1[buffer],
                    Place::Constant(constant) => &constants[constant],
                    Place::DeviceBoundary(value) => boundary.memory(value)?,
                }))
            })
            .collect();
        let (mut stages, mut infos) = (Vec::new(), Vec::new());
        for (info, PreparedStep { prepared, inputs, output }) in prepared {
            let own: Vec<Arc<Memory>> =
                prepared.constants.iter().map(|bytes| upload(bytes)).collect::<Result<_, _>>()?;
            let home = |value: ValueId| {
                homes[value]
                    .as_ref()
                    .ok_or_else(|| KernelError::plan(&info.name, "has a value without memory"))
            };
            let mut kernels = Vec::new();
            for launch in &prepared.launches {
                let Some(program) = programs.get(&launch.macros.complete(launch.source)) else {
                    return Err(KernelError::plan(&info.name, "has no program"));
                };
                let buffers = launch
                    .arguments
                    .iter()
                    .map(|argument| match *argument {
                        Argument::Input(index) => match inputs.get(index) {
                            Some(&value) => home(value).map(Arc::clone),
                            None => Err(KernelError::plan(&info.name, "has no such input")),
                        },
                        Argument::Output => home(output).map(Arc::clone),
                        Argument::Constant(index) => own
                            .get(index)
                            .map(Arc::clone)
                            .ok_or_else(|| KernelError::plan(&info.name, "has no such constant")),
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                let ready = Ready::new(program, launch, buffers)
                    .map_err(|error| KernelError::plan(&info.name, error.to_string()))?;
                kernels.push(ready);
            }
            stages.push(Stage { kernels });
            infos.push(info);
        }
        queue.finish()?;
        Ok(Self {
            queue,
            timed: None,
            stages,
            infos,
            homes,
            ready: layout.ready,
            lengths: plan.values.iter().map(|value| value.len() * batch).collect(),
            input: plan.input,
            output: plan.output,
            memory: MemoryUse { weights, activations: arena.0 as u64, workspace: 0 },
            device,
        })
    }

    /// Enqueues all kernels of a part whose inputs are at the boundary. They are done when the
    /// queue has finished.
    pub fn start(&mut self) -> Result<(), KernelError> {
        let _turn = self.device.turn();
        for ready in self.stages.iter().flat_map(|stage| &stage.kernels) {
            self.queue.start(&ready.kernel, &ready.global, &ready.local)?;
        }
        // A processor that is used as a device must be idle for the next segment.
        if self.device.limits.cpu { self.queue.finish() } else { Ok(()) }
    }

    /// Runs a part whose inputs are at the boundary, and returns the seconds that the device spent
    /// on each step.
    pub fn profile_part(&mut self) -> Result<Vec<f64>, KernelError> {
        let device = Arc::clone(&self.device);
        let _turn = device.turn();
        self.queue.finish()?;
        let (queue, events) = self.start_timed()?;
        queue.finish()?;
        seconds(&events)
    }

    /// Enqueues all kernels on the queue with profiling.
    fn start_timed(&mut self) -> Result<(&Queue, Vec<Vec<Event>>), KernelError> {
        let queue = match &mut self.timed {
            Some(queue) => queue,
            none => none.insert(Queue::new(&self.device.context, self.device.id, true)?),
        };
        let mut events = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            let launches = stage.kernels.iter();
            let launches =
                launches.map(|ready| queue.launch(&ready.kernel, &ready.global, &ready.local));
            events.push(launches.collect::<Result<_, _>>()?);
        }
        Ok((queue, events))
    }

    /// Runs a part whose inputs are at the boundary, and passes each value to `see` when it is
    /// computed.
    pub fn observe_part(
        &mut self,
        see: &mut dyn FnMut(ValueId, &[f32]),
    ) -> Result<(), KernelError> {
        let device = Arc::clone(&self.device);
        let _turn = device.turn();
        let mut ready = self.ready.iter().peekable();
        let mut plain = Vec::new();
        for done in 0..=self.stages.len() {
            while let Some((_, value)) = ready.next_if(|(after, _)| *after == done) {
                plain.resize(self.lengths[*value], 0.0);
                if !plain.is_empty() {
                    self.queue.read(self.home(*value)?, &mut plain)?;
                }
                see(*value, &plain);
            }
            for kernel in self.stages.get(done).iter().flat_map(|stage| &stage.kernels) {
                self.queue.start(&kernel.kernel, &kernel.global, &kernel.local)?;
            }
        }
        self.queue.finish()
    }

    fn home(&self, value: ValueId) -> Result<&Memory, KernelError> {
        self.homes[value]
            .as_deref()
            .ok_or_else(|| KernelError::Data(format!("value {value} has no memory on the device")))
    }
}

impl LoadedPlan for DeviceExecutor {
    fn run(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), KernelError> {
        let device = Arc::clone(&self.device);
        let _turn = device.turn();
        let (from, to) = (self.home(self.input)?, self.home(self.output)?);
        // SAFETY: the download below waits for the queue before `input` is given back, and where
        // anything fails before it, `finish` does.
        let uploaded = unsafe { self.queue.upload(from, input) }.map(drop);
        let done = uploaded.and_then(|()| {
            for ready in self.stages.iter().flat_map(|stage| &stage.kernels) {
                self.queue.start(&ready.kernel, &ready.global, &ready.local)?;
            }
            self.queue.read(to, output).map(drop)
        });
        if done.is_err() {
            // The first error is the one to tell.
            let _ = self.queue.finish();
        }
        done
    }

    fn profile(&mut self, input: &[f32], output: &mut [f32]) -> Result<Vec<f64>, KernelError> {
        let device = Arc::clone(&self.device);
        let _turn = device.turn();
        self.queue.write(self.home(self.input)?, input)?;
        let (queue, events) = self.start_timed()?;
        queue.finish()?;
        self.queue.read(self.home(self.output)?, output)?;
        seconds(&events)
    }

    fn observe(
        &mut self,
        input: &[f32],
        see: &mut dyn FnMut(ValueId, &[f32]),
    ) -> Result<(), KernelError> {
        {
            let _turn = self.device.turn();
            self.queue.write(self.home(self.input)?, input)?;
        }
        self.observe_part(see)
    }

    fn steps(&self) -> &[StepInfo] {
        &self.infos
    }

    fn memory(&self) -> MemoryUse {
        self.memory
    }

    fn pass_seconds(&mut self, passes: usize) -> Result<Option<f64>, KernelError> {
        let device = Arc::clone(&self.device);
        let _turn = device.turn();
        let pass = || -> Result<(), KernelError> {
            for ready in self.stages.iter().flat_map(|stage| &stage.kernels) {
                self.queue.start(&ready.kernel, &ready.global, &ready.local)?;
            }
            Ok(())
        };
        pass()?;
        self.queue.finish()?;
        let start = Instant::now();
        for _ in 0..passes.max(1) {
            pass()?;
        }
        self.queue.finish()?;
        #[expect(clippy::cast_precision_loss, reason = "a handful of passes")]
        let passes = passes.max(1) as f64;
        Ok(Some(start.elapsed().as_secs_f64() / passes))
    }

    fn device_bytes(&self) -> u64 {
        let MemoryUse { weights, activations, workspace } = self.memory();
        weights + activations + workspace
    }
}

/// Returns the seconds that the device spent on the commands of each step.
fn seconds(events: &[Vec<Event>]) -> Result<Vec<f64>, KernelError> {
    let of_step = |events: &Vec<Event>| {
        events.iter().try_fold(0.0, |sum, event| {
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of one run")]
            let nanoseconds = event.nanoseconds()? as f64;
            Ok(sum + 1e-9 * nanoseconds)
        })
    };
    events.iter().map(of_step).collect()
}

impl Drop for DeviceExecutor {
    fn drop(&mut self) {
        let device = Arc::clone(&self.device);
        let _turn = device.turn();
        // No command may run when its memory is released. After a device loss, none does.
        let _ = self.queue.finish();
        self.stages.clear();
        self.homes.clear();
        self.timed = None;
    }
}

impl Ready {
    fn new(
        program: &Program,
        launch: &Launch,
        buffers: Vec<Arc<Memory>>,
    ) -> Result<Self, KernelError> {
        let name = CString::new(launch.kernel).map_err(|_| {
            KernelError::System("OpenCL: a kernel's name with a zero byte".to_owned())
        })?;
        let mut kernel = program.kernel(&name)?;
        for (index, buffer) in buffers.iter().enumerate() {
            // SAFETY: kept beside the kernel; the sizes are those that the launch was prepared for.
            unsafe { kernel.set(index, buffer)? };
        }
        let [x, y, z] = launch.groups;
        Ok(Self {
            kernel,
            global: [x * launch.threads, y, z],
            local: [launch.threads, 1, 1],
            _buffers: buffers,
        })
    }
}
