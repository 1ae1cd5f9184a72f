//! Runs plans on an OpenCL device: weights resident, buffers planned once, one in-order queue, no waiting
//! between steps, one upload and one download per run.

use std::ffi::CString;
use std::sync::Arc;
use std::time::Instant;

use super::api::{Event, Kernel, Memory, Program, Queue};
use super::device::{self, Device};
use super::launch::{Argument, Launch};
use super::layout::{Layout, Place, PreparedStep};
use super::program::build;
use crate::error::KernelError;
use crate::executor::{MemoryUse, StepInfo, validate};
use crate::plan::{Plan, ValueId};

/// A plan loaded on a device.
pub(crate) struct DeviceExecutor {
    device: Arc<Device>,
    queue: Queue,
    /// A queue whose commands are timed, once somebody has asked.
    timed: Option<Queue>,
    stages: Vec<Stage>,
    infos: Vec<StepInfo>,
    /// Where each value lies.
    homes: Vec<Option<Arc<Memory>>>,
    /// Values in the order in which they get ready, with the number of stages that must have run.
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

/// A kernel with its arguments.
struct Ready {
    kernel: Kernel,
    global: [usize; 3],
    local: [usize; 3],
    /// What the arguments refer to.
    _buffers: Vec<Arc<Memory>>,
}

impl DeviceExecutor {
    /// Builds kernels, uploads weights, plans memory.
    ///
    /// # Errors
    /// Where the plan does not fit together, a schedule does not fit the device, a kernel does not build,
    /// or the device refuses.
    pub fn new(plan: &Plan, device: &str, batch: usize) -> Result<Self, KernelError> {
        validate(plan, batch)?;
        let opened = device::open(device)?;
        let device = Arc::clone(&opened);
        let _turn = opened.turn();
        let queue = Queue::new(&device.context, device.id, false)?;
        let mut layout = Layout::new(plan, batch);
        let mut prepared = Vec::new();
        for step in &plan.steps {
            if let Some((info, step)) = layout.step(plan, step, batch, &device)? {
                prepared.push((info, step));
            }
        }
        let programs = build(&device, &prepared)?;
        let arena = layout.arena(plan, &device)?;
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

    /// Runs one batch; see [`crate::Executor::run`]. Lengths are checked by the caller.
    pub fn run(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), KernelError> {
        let device = Arc::clone(&self.device);
        let _turn = device.turn();
        let (from, to) = (self.home(self.input)?, self.home(self.output)?);
        // SAFETY: the download below waits for the queue before `input` is given back, and where anything
        // fails before it, `finish` does.
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

    /// Runs one batch and returns the seconds that the device spent on each step.
    pub fn profile(&mut self, input: &[f32], output: &mut [f32]) -> Result<Vec<f64>, KernelError> {
        let device = Arc::clone(&self.device);
        let _turn = device.turn();
        if self.timed.is_none() {
            self.timed = Some(Queue::new(&self.device.context, self.device.id, true)?);
        }
        let Some(queue) = &self.timed else { return Ok(Vec::new()) };
        queue.write(self.home(self.input)?, input)?;
        let mut events: Vec<Vec<Event>> = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            let launches = stage.kernels.iter();
            let launches = launches.map(|ready| queue.launch(&ready.kernel, &ready.global, &ready.local));
            events.push(launches.collect::<Result<_, _>>()?);
        }
        queue.read(self.home(self.output)?, output)?;
        events
            .iter()
            .map(|events| {
                events.iter().try_fold(0.0, |sum, event| {
                    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of one run")]
                    let nanoseconds = event.nanoseconds()? as f64;
                    Ok(sum + 1e-9 * nanoseconds)
                })
            })
            .collect()
    }

    /// Seconds of one pass of all kernels, without transfers: the mean over `passes` that follow each other.
    pub fn pass_seconds(&mut self, passes: usize) -> Result<f64, KernelError> {
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
        Ok(start.elapsed().as_secs_f64() / passes)
    }

    /// Runs one batch and shows every value as soon as it is there.
    pub fn observe(
        &mut self,
        input: &[f32],
        see: &mut dyn FnMut(ValueId, &[f32]),
    ) -> Result<(), KernelError> {
        let device = Arc::clone(&self.device);
        let _turn = device.turn();
        self.queue.write(self.home(self.input)?, input)?;
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
        Ok(())
    }

    pub fn steps(&self) -> &[StepInfo] {
        &self.infos
    }

    pub fn memory(&self) -> MemoryUse {
        self.memory
    }

    fn home(&self, value: ValueId) -> Result<&Memory, KernelError> {
        self.homes[value]
            .as_deref()
            .ok_or_else(|| KernelError::Data(format!("value {value} has no memory on the device")))
    }
}

impl Drop for DeviceExecutor {
    fn drop(&mut self) {
        let device = Arc::clone(&self.device);
        let _turn = device.turn();
        // Nothing may be running when its memory goes. A lost device has nothing running.
        let _ = self.queue.finish();
        self.stages.clear();
        self.homes.clear();
        self.timed = None;
    }
}

impl Ready {
    fn new(program: &Program, launch: &Launch, buffers: Vec<Arc<Memory>>) -> Result<Self, KernelError> {
        let name = CString::new(launch.kernel)
            .map_err(|_| KernelError::System("OpenCL: a kernel's name with a zero byte".to_owned()))?;
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
