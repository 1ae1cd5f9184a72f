//! The executor of partitioned plans, in which the processor runs some steps and OpenCL devices run
//! others. Each segment has an executor of its own, and values cross the device boundaries through
//! pinned memory.
//!
//! Module [`segments`](super::segments) decides at load time which segments exist and which values
//! cross. A run decides nothing.

use std::time::Instant;

use super::ExecutorOptions;
use super::cpu::CpuExecutor;
use super::program::Ends;
use super::segments::{Action, HOST, Segments};
use paretune_base::error::KernelError;
use paretune_base::execution::{LoadedPlan, MemoryUse, Part, StepInfo};
use paretune_base::memory::block::Block;
use paretune_base::plan::{Backend, Plan, ValueId};
use paretune_cpu::conv::support::packing::Packing;
use paretune_opencl::{DeviceBoundary, DeviceExecutor, Pages};

/// A loaded plan with cut points, which runs on several devices.
pub(super) struct MixedExecutor {
    // Executors are dropped before the device boundaries that they use.
    executors: Vec<SegmentExecutor>,
    host: HostValues,
    /// Device boundaries, indexed by place minus one: the processor has place 0.
    boundaries: Vec<DeviceBoundary>,
    work: Vec<Work>,
    infos: Vec<StepInfo>,
}

/// Executor of a segment, on the processor or a device.
enum SegmentExecutor {
    Cpu { executor: Box<CpuExecutor>, inputs: Vec<ValueId>, outputs: Vec<ValueId> },
    Device(Box<DeviceExecutor>),
}

/// An action of a run, with the index of the device boundary where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Upload {
        value: ValueId,
        boundary: usize,
    },
    Run(usize),
    Download {
        value: ValueId,
        boundary: usize,
    },
    /// Waits for all commands that were submitted to the boundary's device.
    Finish(usize),
}

/// Values in the processor's memory that cross a device boundary.
struct HostValues {
    input: ValueId,
    output: ValueId,
    /// Memory by value; `None` for values in the caller's memory and for those that do not cross.
    memory: Vec<Option<HostMemory>>,
    /// Elements of each value, batch included.
    lengths: Vec<usize>,
}

enum HostMemory {
    /// Ordinary memory, which no device reads or writes.
    Block(Block),
    Pages(Pages),
}

/// [`HostValues`] together with the caller's memory.
#[derive(Clone, Copy)]
struct Host<'a> {
    values: &'a HostValues,
    input: *const f32,
    output: *mut f32,
}

impl Host<'_> {
    /// Returns the address from which a value is read.
    fn from(&self, value: ValueId) -> *const f32 {
        if value == self.values.input { self.input } else { self.to(value).cast_const() }
    }

    /// Returns the address to which a value is written.
    fn to(&self, value: ValueId) -> *mut f32 {
        if value == self.values.output {
            return self.output;
        }
        match &self.values.memory[value] {
            Some(HostMemory::Block(block)) => block.start().cast(),
            Some(HostMemory::Pages(pages)) => pages.start(),
            // Memory for each crossing value was allocated when the plan was loaded.
            None => unreachable!("value {value} crosses without memory"),
        }
    }
}

impl HostValues {
    fn with(&self, input: &[f32], output: &mut [f32]) -> Host<'_> {
        Host { values: self, input: input.as_ptr(), output: output.as_mut_ptr() }
    }
}

impl MixedExecutor {
    /// Loads a valid plan with cut points.
    ///
    /// # Errors
    /// Fails if an algorithm does not support its step, or if a device is missing or refuses.
    pub fn new(plan: &Plan, options: &ExecutorOptions) -> Result<Self, KernelError> {
        let (mut boundaries, places) = boundaries(plan)?;
        let Segments { segments, actions } = Segments::of(plan, &places);
        let lengths: Vec<usize> =
            plan.values.iter().map(|value| value.len() * options.batch).collect();
        let mut memory: Vec<Option<HostMemory>> = plan.values.iter().map(|_| None).collect();
        let is_callers = |value: ValueId| value == plan.input || value == plan.output;
        for action in &actions {
            let (Action::Upload { value, place } | Action::Download { value, place }) = *action
            else {
                continue;
            };
            if !is_callers(value) && memory[value].is_none() {
                memory[value] =
                    Some(HostMemory::Pages(boundaries[place - 1].pages(lengths[value])?));
            }
        }
        for segment in &segments {
            for &value in segment.inputs.iter().chain(&segment.outputs) {
                if segment.place != HOST {
                    boundaries[segment.place - 1].add(value, lengths[value])?;
                } else if !is_callers(value) && memory[value].is_none() {
                    memory[value] =
                        Some(HostMemory::Block(Block::new(lengths[value] * size_of::<f32>())?));
                }
            }
        }
        let mut executors = Vec::with_capacity(segments.len());
        for segment in segments {
            let whole = Plan { steps: segment.steps, switches: Vec::new(), ..plan.clone() };
            let part = Part { plan: &whole, inputs: segment.inputs, outputs: segment.outputs };
            executors.push(match segment.place {
                HOST => {
                    let executor = Box::new(CpuExecutor::new(&part, options, &Packing::fresh())?);
                    SegmentExecutor::Cpu { executor, inputs: part.inputs, outputs: part.outputs }
                }
                place => {
                    let executor =
                        DeviceExecutor::on(&part, &boundaries[place - 1], options.batch)?;
                    SegmentExecutor::Device(Box::new(executor))
                }
            });
        }
        let work = work(&actions, &places);
        let infos = infos(plan, &work, &executors, &lengths);
        let host = HostValues { input: plan.input, output: plan.output, memory, lengths };
        Ok(Self { executors, host, boundaries, work, infos })
    }

    /// Returns the bytes of crossing values, both on devices and in pinned memory.
    fn boundary_bytes(&self) -> u64 {
        let pinned = self.host.memory.iter().flatten().map(|memory| match memory {
            HostMemory::Block(_) => 0,
            HostMemory::Pages(pages) => pages.bytes(),
        });
        self.boundaries.iter().map(DeviceBoundary::bytes).sum::<u64>() + pinned.sum::<u64>()
    }
}

impl LoadedPlan for MixedExecutor {
    fn run(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), KernelError> {
        let Self { executors, host, boundaries, work, .. } = self;
        let host = host.with(input, output);
        let done = work.iter().try_for_each(|work| match *work {
            // SAFETY: the caller's memory is borrowed until this returns, after everything has
            // finished.
            Work::Upload { .. } | Work::Download { .. } => unsafe {
                transfer(*work, &host, boundaries)
            },
            Work::Finish(boundary) => boundaries[boundary].finish(),
            Work::Run(index) => match &mut executors[index] {
                SegmentExecutor::Device(executor) => executor.start(),
                SegmentExecutor::Cpu { executor, inputs, outputs } => {
                    let input = |index: usize| host.from(inputs[index]).cast();
                    let output = |index: usize| host.to(outputs[index]).cast();
                    // SAFETY: values have memory of their size, and what a device writes there is
                    // finished.
                    unsafe { executor.run_between(&Ends { input: &input, output: &output }) }
                }
            },
        });
        settle(done, boundaries)
    }

    fn profile(&mut self, input: &[f32], output: &mut [f32]) -> Result<Vec<f64>, KernelError> {
        let Self { executors, host, boundaries, work, .. } = self;
        let host = host.with(input, output);
        let mut seconds = Vec::new();
        let done = work.iter().try_for_each(|work| {
            match *work {
                Work::Upload { boundary, .. } | Work::Download { boundary, .. } => {
                    let begun = Instant::now();
                    // SAFETY: as in `run`.
                    unsafe { transfer(*work, &host, boundaries) }?;
                    boundaries[boundary].finish()?;
                    seconds.push(begun.elapsed().as_secs_f64());
                }
                Work::Finish(boundary) => boundaries[boundary].finish()?,
                Work::Run(index) => match &mut executors[index] {
                    SegmentExecutor::Device(executor) => seconds.extend(executor.profile_part()?),
                    SegmentExecutor::Cpu { executor, inputs, outputs } => {
                        let input = |index: usize| host.from(inputs[index]).cast();
                        let output = |index: usize| host.to(outputs[index]).cast();
                        // SAFETY: as in `run`.
                        let times = unsafe {
                            executor.profile_between(&Ends { input: &input, output: &output })
                        };
                        seconds.extend(times?);
                    }
                },
            }
            Ok(())
        });
        settle(done, boundaries)?;
        Ok(seconds)
    }

    fn observe(
        &mut self,
        input: &[f32],
        see: &mut dyn FnMut(ValueId, &[f32]),
    ) -> Result<(), KernelError> {
        let Self { executors, host, boundaries, work, .. } = self;
        let mut seen = vec![false; host.lengths.len()];
        let mut once = |value: ValueId, numbers: &[f32]| {
            if !std::mem::replace(&mut seen[value], true) {
                see(value, numbers);
            }
        };
        once(host.input, input);
        let mut output = vec![0.0; host.lengths[host.output]];
        let host = host.with(input, &mut output);
        let done = work.iter().try_for_each(|work| match *work {
            // SAFETY: as in `run`.
            Work::Upload { .. } | Work::Download { .. } => unsafe {
                transfer(*work, &host, boundaries)
            },
            Work::Finish(boundary) => boundaries[boundary].finish(),
            Work::Run(index) => match &mut executors[index] {
                SegmentExecutor::Device(executor) => executor.observe_part(&mut once),
                SegmentExecutor::Cpu { executor, inputs, outputs } => {
                    let input = |index: usize| host.from(inputs[index]).cast();
                    let output = |index: usize| host.to(outputs[index]).cast();
                    // SAFETY: as in `run`.
                    unsafe {
                        executor
                            .observe_between(&Ends { input: &input, output: &output }, &mut once)
                    }
                }
            },
        });
        settle(done, boundaries)
    }

    fn steps(&self) -> &[StepInfo] {
        &self.infos
    }

    fn memory(&self) -> MemoryUse {
        let mut all = MemoryUse { weights: 0, activations: self.boundary_bytes(), workspace: 0 };
        for executor in &self.executors {
            let memory = match executor {
                SegmentExecutor::Cpu { executor, .. } => executor.memory(),
                SegmentExecutor::Device(executor) => executor.memory(),
            };
            all.weights += memory.weights;
            all.activations += memory.activations;
            all.workspace += memory.workspace;
        }
        for memory in self.host.memory.iter().zip(&self.host.lengths) {
            if let (Some(HostMemory::Block(_)), len) = memory {
                all.activations += (len * size_of::<f32>()) as u64;
            }
        }
        all
    }

    fn device_bytes(&self) -> u64 {
        let of_executor = |executor: &SegmentExecutor| match executor {
            SegmentExecutor::Cpu { .. } => 0,
            SegmentExecutor::Device(executor) => {
                let MemoryUse { weights, activations, workspace } = executor.memory();
                weights + activations + workspace
            }
        };
        self.boundary_bytes() + self.executors.iter().map(of_executor).sum::<u64>()
    }
}

/// Returns the boundary of each distinct device of a plan, and the place of each segment.
fn boundaries(plan: &Plan) -> Result<(Vec<DeviceBoundary>, Vec<usize>), KernelError> {
    let mut boundaries: Vec<DeviceBoundary> = Vec::new();
    let mut places = Vec::new();
    for backend in
        std::iter::once(&plan.backend).chain(plan.switches.iter().map(|switch| &switch.backend))
    {
        let Backend::OpenCl { device } = backend else {
            places.push(HOST);
            continue;
        };
        let boundary = DeviceBoundary::new(device)?;
        let known = boundaries.iter().position(|known| known.is_of(&boundary));
        places.push(
            1 + known.unwrap_or_else(|| {
                boundaries.push(boundary);
                boundaries.len() - 1
            }),
        );
    }
    Ok((boundaries, places))
}

/// Converts the actions and adds the waits: after each group of downloads from a device, and for
/// all busy devices at the end of the run.
fn work(actions: &[Action], places: &[usize]) -> Vec<Work> {
    let mut work = Vec::new();
    let mut busy: Vec<usize> = Vec::new();
    for (index, action) in actions.iter().enumerate() {
        let place = match *action {
            Action::Upload { value, place } => {
                work.push(Work::Upload { value, boundary: place - 1 });
                place
            }
            Action::Run(segment) => {
                work.push(Work::Run(segment));
                places[segment]
            }
            Action::Download { value, place } => {
                work.push(Work::Download { value, boundary: place - 1 });
                place
            }
        };
        if place != HOST && !busy.contains(&place) {
            busy.push(place);
        }
        let down = matches!(action, Action::Download { .. });
        if down && !matches!(actions.get(index + 1), Some(Action::Download { .. })) {
            busy.retain(|other| *other != place);
            work.push(Work::Finish(place - 1));
        }
    }
    work.extend(busy.into_iter().map(|place| Work::Finish(place - 1)));
    work
}

/// Describes each timed action, in order.
fn infos(
    plan: &Plan,
    work: &[Work],
    executors: &[SegmentExecutor],
    lengths: &[usize],
) -> Vec<StepInfo> {
    let crossing = |value: ValueId, way: &str| {
        let maker = plan.steps.iter().find(|step| step.output == value);
        let name = maker.map_or("(input)", |step| &step.name);
        StepInfo {
            name: format!("{name}:{way}"),
            algorithm: "transfer".to_owned(),
            multiply_adds: 0,
            bytes: (lengths[value] * size_of::<f32>()) as u64,
        }
    };
    let mut infos = Vec::new();
    for work in work {
        match *work {
            Work::Upload { value, .. } => infos.push(crossing(value, "upload")),
            Work::Download { value, .. } => infos.push(crossing(value, "download")),
            Work::Finish(_) => {}
            Work::Run(index) => infos.extend_from_slice(match &executors[index] {
                SegmentExecutor::Cpu { executor, .. } => executor.steps(),
                SegmentExecutor::Device(executor) => executor.steps(),
            }),
        }
    }
    infos
}

/// Enqueues the transfer of a value over a device boundary. Does nothing for other actions.
///
/// # Safety
/// The caller must wait for the device boundary before it accesses the value or frees its memory.
unsafe fn transfer(
    work: Work,
    host: &Host<'_>,
    boundaries: &[DeviceBoundary],
) -> Result<(), KernelError> {
    match work {
        Work::Upload { value, boundary } => {
            // SAFETY: a value's memory has so many numbers, which nobody writes any more.
            let data =
                unsafe { std::slice::from_raw_parts(host.from(value), host.values.lengths[value]) };
            // SAFETY: the caller waits for the boundary before anybody writes the value or frees
            // its memory.
            unsafe { boundaries[boundary].upload(value, data) }
        }
        Work::Download { value, boundary } => {
            let len = host.values.lengths[value];
            // SAFETY: a value's memory has so many numbers, which nobody else has now.
            let data = unsafe { std::slice::from_raw_parts_mut(host.to(value), len) };
            // SAFETY: the caller waits for the boundary before anybody uses the value or frees its
            // memory.
            unsafe { boundaries[boundary].download(value, data) }
        }
        Work::Run(_) | Work::Finish(_) => Ok(()),
    }
}

/// After a failure, waits until no command is pending on any device.
fn settle(done: Result<(), KernelError>, boundaries: &[DeviceBoundary]) -> Result<(), KernelError> {
    if done.is_err() {
        for boundary in boundaries {
            // The first error is the one to report.
            let _ = boundary.finish();
        }
    }
    done
}
