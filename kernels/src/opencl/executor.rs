//! Runs plans on an OpenCL device: weights resident, buffers planned once, one in-order queue, no waiting
//! between steps, one upload and one download per run.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;
use std::time::Instant;

use super::api::{Event, Kernel, Memory, Program, Queue};
use super::conv::Request;
use super::device::{self, Device};
use super::launch::{Argument, Launch, Prepared};
use super::resolve::{Resolved, resolve};
use super::source::OPTIONS;
use super::{launch, operators};
use crate::error::KernelError;
use crate::executor::{Lifetime, MemoryUse, StepInfo, conv_problem, place, validate};
use crate::operator::Operator;
use crate::plan::{Plan, Step, ValueId};

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

/// Where a value lies, before there is memory.
#[derive(Clone, Copy)]
enum Place {
    /// Index of a buffer in the arena.
    Arena(usize),
    /// Index of an uploaded constant.
    Constant(usize),
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
                homes[value].as_ref().ok_or_else(|| KernelError::plan(&info.name, "has a value without memory"))
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
                        // Kernels without a residual do not touch what is given in its place.
                        Argument::Input(index) => match inputs.get(index) {
                            Some(&value) => home(value).map(Arc::clone),
                            None => home(output).map(Arc::clone),
                        },
                        Argument::Output => home(output).map(Arc::clone),
                        Argument::Constant(index) => own
                            .get(index)
                            .map(Arc::clone)
                            .ok_or_else(|| KernelError::plan(&info.name, "has no such constant")),
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                let ready = Ready::new(&device, program, launch, buffers)
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
                self.queue.launch(&ready.kernel, &ready.global, &ready.local)?;
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
                self.queue.launch(&ready.kernel, &ready.global, &ready.local)?;
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
                self.queue.launch(&kernel.kernel, &kernel.global, &kernel.local)?;
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
    fn new(
        device: &Device,
        program: &Program,
        launch: &Launch,
        buffers: Vec<Arc<Memory>>,
    ) -> Result<Self, KernelError> {
        let name = CString::new(launch.kernel)
            .map_err(|_| KernelError::System("OpenCL: a kernel's name with a zero byte".to_owned()))?;
        let mut kernel = program.kernel(&name)?;
        let most = kernel.most_work_items(device.id)?;
        if launch.threads > most {
            let threads = launch.threads;
            return Err(KernelError::System(format!(
                "OpenCL: work-groups of {threads} need more registers than there are; {most} is the most"
            )));
        }
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

/// A step with the values that its arguments stand for.
struct PreparedStep {
    prepared: Prepared,
    inputs: Vec<ValueId>,
    output: ValueId,
}

/// Where values lie, and for how long.
struct Layout {
    places: Vec<Option<Place>>,
    /// Of buffers in the arena: bytes, first and last stage (0: the upload).
    buffers: Vec<Lifetime>,
    constants: Vec<Vec<u8>>,
    ready: Vec<(usize, ValueId)>,
    stages: usize,
}

impl Layout {
    fn new(plan: &Plan, batch: usize) -> Self {
        let mut layout = Self {
            places: vec![None; plan.values.len()],
            buffers: Vec::new(),
            constants: Vec::new(),
            ready: vec![(0, plan.input)],
            stages: 0,
        };
        layout.create(plan, plan.input, batch);
        layout
    }

    fn create(&mut self, plan: &Plan, value: ValueId, batch: usize) {
        let bytes = plan.values[value].len() * batch * 4;
        self.places[value] = Some(Place::Arena(self.buffers.len()));
        self.buffers.push(Lifetime { bytes, first: self.stages, last: self.stages });
    }

    fn touch(&mut self, value: ValueId) {
        if let Some(Some(Place::Arena(buffer))) = self.places.get(value) {
            self.buffers[*buffer].last = self.stages;
        }
    }

    /// What becomes of a step; nothing where it only names what is there.
    fn step(
        &mut self,
        plan: &Plan,
        step: &Step,
        batch: usize,
        device: &Device,
    ) -> Result<Option<(StepInfo, PreparedStep)>, KernelError> {
        let (mut algorithm, mut multiply_adds) = (name_of(&step.operator).to_owned(), 0);
        let prepared = match &step.operator {
            Operator::Constant { constant } => {
                let bytes = launch::bytes_of(&plan.constants[*constant]).repeat(batch);
                self.places[step.output] = Some(Place::Constant(self.constants.len()));
                self.constants.push(bytes);
                self.ready.push((self.stages, step.output));
                return Ok(None);
            }
            Operator::Reshape => {
                let input = step.inputs.first().copied();
                self.places[step.output] = input.and_then(|input| self.places[input]);
                self.ready.push((self.stages, step.output));
                return Ok(None);
            }
            Operator::Conv(conv) => {
                let problem = conv_problem(plan, step, batch)
                    .ok_or_else(|| KernelError::plan(&step.name, "has no input"))?;
                let weights = &plan.weights[conv.weights];
                let Resolved { algorithm: chosen, schedule, .. } =
                    resolve(&step.name, conv, problem, weights.format(), &device.limits)?;
                chosen.name().clone_into(&mut algorithm);
                multiply_adds = problem.multiply_adds();
                let request = Request {
                    problem,
                    output: problem.output()?,
                    weights,
                    activation: conv.activation,
                    residual: step.inputs.len() > 1,
                    input_grid: plan.values[step.inputs[0]].quantization,
                    schedule: &schedule,
                    limits: &device.limits,
                };
                let named = |error: KernelError| KernelError::plan(&step.name, error.to_string());
                chosen.prepare(&request).map_err(named)?
            }
            _ => operators::prepare(plan, step, batch)?,
        };
        self.stages += 1;
        self.create(plan, step.output, batch);
        self.ready.push((self.stages, step.output));
        step.inputs.iter().for_each(|&input| self.touch(input));
        let empty = plan.values[step.output].is_empty();
        let prepared = if empty { Prepared::default() } else { prepared };
        let moved = step.inputs.iter().chain([&step.output]).map(|&id| plan.values[id].len() * batch * 4);
        let bytes = moved.sum::<usize>() + prepared.constants.iter().map(Vec::len).sum::<usize>();
        let info = StepInfo { name: step.name.clone(), algorithm, multiply_adds, bytes: bytes as u64 };
        Ok(Some((info, PreparedStep { prepared, inputs: step.inputs.clone(), output: step.output })))
    }

    /// One block of device memory, and every buffer as a part of it.
    fn arena(&mut self, plan: &Plan, device: &Device) -> Result<(usize, Vec<Arc<Memory>>), KernelError> {
        self.stages += 1;
        self.touch(plan.output);
        let alignment = device.limits.alignment;
        for buffer in &mut self.buffers {
            buffer.bytes = buffer.bytes.max(1).next_multiple_of(alignment);
        }
        let (offsets, total) = place(&self.buffers);
        if total > device.limits.largest_buffer {
            return Err(KernelError::System(format!(
                "activations take {total} bytes; `{}` has buffers of at most {}",
                device.name, device.limits.largest_buffer
            )));
        }
        let block = Memory::new(&device.context, total)?;
        let parts = offsets
            .iter()
            .zip(&self.buffers)
            .map(|(&offset, buffer)| block.part(offset, buffer.bytes).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok((total, parts))
    }
}

/// The programs of all launches, by their text; where there are several to build, several threads do.
fn build(
    device: &Device,
    steps: &[(StepInfo, PreparedStep)],
) -> Result<HashMap<String, Arc<Program>>, KernelError> {
    let mut texts: HashMap<String, &str> = HashMap::new();
    for (info, step) in steps {
        for launch in &step.prepared.launches {
            texts.entry(launch.macros.complete(launch.source)).or_insert(&info.name);
        }
    }
    let todo: Vec<(&String, &&str)> = texts.iter().collect();
    // Compilers that run on the device itself gain nothing from company.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let builders = if device.limits.cpu { 1 } else { cores.min(todo.len()).max(1) };
    let share = todo.len().div_ceil(builders).max(1);
    let built = std::thread::scope(|scope| {
        let builders: Vec<_> = todo
            .chunks(share)
            .map(|part| {
                scope.spawn(move || {
                    part.iter()
                        .map(|(text, step)| {
                            let program = device.programs.get(device, text, OPTIONS);
                            let program =
                                program.map_err(|error| KernelError::plan(**step, error.to_string()))?;
                            Ok(((*text).clone(), program))
                        })
                        .collect::<Result<Vec<_>, KernelError>>()
                })
            })
            .collect();
        let lost = || KernelError::System("a thread that builds kernels died".to_owned());
        builders.into_iter().map(|builder| builder.join().map_err(|_| lost())?).collect::<Result<Vec<_>, _>>()
    })?;
    Ok(built.into_iter().flatten().collect())
}

/// An operator's name for profiles.
fn name_of(operator: &Operator) -> &'static str {
    match operator {
        Operator::Conv(_) => "conv",
        Operator::MaxPool { .. } => "max_pool",
        Operator::AveragePool { .. } => "average_pool",
        Operator::GlobalAveragePool => "global_mean",
        Operator::ReduceMean { .. } => "mean",
        Operator::Add(_) => "add",
        Operator::Mul(_) => "mul",
        Operator::Activation(_) => "activation",
        Operator::ScaleShift { .. } => "scale_shift",
        Operator::Constant { .. } => "constant",
        Operator::Concat { .. } => "concat",
        Operator::Pad { .. } => "pad",
        Operator::Transpose { .. } => "transpose",
        Operator::Reshape => "reshape",
        Operator::Softmax { .. } => "softmax",
        Operator::Lrn { .. } => "lrn",
    }
}
