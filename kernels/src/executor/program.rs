//! The executable program: a flat list of kernel calls with addresses, and the memory behind them.

use super::builder::{BufferId, ProgramBuilder, Storage};
use super::work::Work;
use paretune_base::arena;
use paretune_base::arena::Lifetime;
use paretune_base::error::KernelError;
use paretune_base::execution::StepInfo;
use paretune_base::memory::block::Block;
use paretune_base::plan::ValueId;
use paretune_base::threads::Worker;
use paretune_cpu::conv::algorithm::Call;
use paretune_cpu::operators::Io;
use paretune_cpu::operators::convert::TensorFormat;

/// Addresses of the caller's memory, by index among the inputs and the outputs of the part.
pub(super) struct Ends<'a> {
    pub input: &'a dyn Fn(usize) -> *const u8,
    pub output: &'a dyn Fn(usize) -> *mut u8,
}

impl Ends<'_> {
    /// Returns the caller's address for `storage`, or `None` for memory that the program owns.
    pub fn of(&self, storage: Storage) -> Option<*mut u8> {
        match storage {
            Storage::Input(index) => Some((self.input)(index).cast_mut()),
            Storage::Output(index) => Some((self.output)(index)),
            Storage::Arena | Storage::Constant(_) => None,
        }
    }
}

/// A kernel with the addresses that it reads and writes.
struct Step {
    work: Work,
    inputs: Vec<*const u8>,
    output: *mut u8,
    workspace: *mut u8,
}

/// An address in a step that depends on the caller's memory.
#[derive(Clone, Copy)]
struct Patch {
    step: usize,
    /// Index of the input, or `None` for the output of the step.
    input: Option<usize>,
    storage: Storage,
}

/// An observed value: its address and tensor format once `ready` steps have run.
#[derive(Clone, Copy)]
pub(super) struct ObservedValue {
    pub value: ValueId,
    pub form: TensorFormat,
    pub ready: usize,
    pub storage: Storage,
    /// Address of the value if the program owns its memory.
    pub address: *const u8,
}

/// A program together with its memory.
pub(super) struct Program {
    steps: Vec<Step>,
    patches: Vec<Patch>,
    pub infos: Vec<StepInfo>,
    pub observed: Vec<ObservedValue>,
    pub weight_bytes: usize,
    pub activation_bytes: usize,
    pub workspace_bytes: usize,
    // Memory that the addresses point into.
    _arena: Block,
    _constants: Vec<Block>,
}

// SAFETY: the addresses point into blocks that the program owns, or into the caller's memory for
// the duration of a run, which has exclusive access to the program.
unsafe impl Send for Program {}
// SAFETY: shared references are used by the workers of one run only, who write where the program
// was laid out to have no conflict.
unsafe impl Sync for Program {}

impl Program {
    /// Assigns an address to each buffer of a program builder.
    pub fn assemble(mut builder: ProgramBuilder<'_>) -> Result<Self, KernelError> {
        let renamed = share_buffers(&mut builder);
        let steps = builder.steps.len();
        // Lifetimes of all arena contents: buffers first, then workspaces.
        let mut lifetimes: Vec<Option<Lifetime>> = vec![None; builder.buffers.len()];
        for (at, step) in builder.steps.iter().enumerate() {
            for &buffer in step.inputs.iter().chain([&step.output]) {
                let Buffered { storage: Storage::Arena, bytes } = Buffered::of(&builder, buffer)
                else {
                    continue;
                };
                lifetimes[buffer].get_or_insert(Lifetime { bytes, first: at, last: at }).last = at;
            }
        }
        let (ids, mut lifetimes): (Vec<BufferId>, Vec<Lifetime>) = lifetimes
            .iter()
            .enumerate()
            .filter_map(|(id, lifetime)| Some((id, (*lifetime)?)))
            .unzip();
        let activation_bytes = arena::place(&lifetimes).1;
        // The workspace of a step must fit beside the activations that are alive during that step.
        let scratch: Vec<usize> =
            (0..steps).filter(|&at| builder.steps[at].workspace > 0).collect();
        lifetimes.extend(scratch.iter().map(|&at| Lifetime {
            bytes: builder.steps[at].workspace,
            first: at,
            last: at,
        }));
        let (offsets, total) = arena::place(&lifetimes);
        let block = Block::new(total)?;
        let at_offset = |offset: usize| block.start().wrapping_add(offset);

        let mut addresses = vec![std::ptr::null_mut(); builder.buffers.len()];
        for (&id, &offset) in ids.iter().zip(&offsets) {
            addresses[id] = at_offset(offset);
        }
        for (id, buffer) in builder.buffers.iter().enumerate() {
            if let Storage::Constant(constant) = buffer.storage {
                addresses[id] = builder.constants[constant].start();
            }
        }
        let mut workspaces = vec![std::ptr::null_mut(); steps];
        for (&step, &offset) in scratch.iter().zip(&offsets[ids.len()..]) {
            workspaces[step] = at_offset(offset);
        }
        // The placement heuristic may, by accident, need less memory with workspaces than without.
        let activation_bytes = activation_bytes.min(total);
        let observed = observed(&builder, &renamed, &addresses);
        let mut program = Self {
            steps: Vec::with_capacity(steps),
            patches: Vec::new(),
            infos: Vec::with_capacity(steps),
            observed,
            weight_bytes: builder.weight_bytes,
            activation_bytes,
            workspace_bytes: total - activation_bytes,
            _arena: block,
            _constants: builder.constants,
        };
        for (at, step) in builder.steps.into_iter().enumerate() {
            for (input, &buffer) in step.inputs.iter().enumerate() {
                program.patch(at, Some(input), builder.buffers[buffer].storage);
            }
            program.patch(at, None, builder.buffers[step.output].storage);
            program.infos.push(step.info);
            program.steps.push(Step {
                work: step.work,
                inputs: step.inputs.iter().map(|&id| addresses[id].cast_const()).collect(),
                output: addresses[step.output],
                workspace: workspaces[at],
            });
        }
        Ok(program)
    }

    fn patch(&mut self, step: usize, input: Option<usize>, storage: Storage) {
        if matches!(storage, Storage::Input(_) | Storage::Output(_)) {
            self.patches.push(Patch { step, input, storage });
        }
    }

    /// Returns the number of steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Writes the addresses of the caller's memory into the steps.
    pub fn connect(&mut self, ends: &Ends<'_>) {
        for patch in &self.patches {
            let Some(address) = ends.of(patch.storage) else { continue };
            let step = &mut self.steps[patch.step];
            match patch.input {
                Some(index) => step.inputs[index] = address,
                None => step.output = address,
            }
        }
    }

    /// Runs this thread's part of step `index`.
    ///
    /// # Safety
    /// The program must be connected to memory of the right sizes. All threads of the pool must
    /// make this call, all earlier steps must be complete, and nobody else may use the program.
    #[inline]
    pub unsafe fn run_step(&self, index: usize, worker: &Worker<'_>) {
        let step = &self.steps[index];
        match &step.work {
            Work::Conv(kernel) => {
                let call = Call {
                    input: step.inputs[0],
                    residual: step.inputs.get(1).copied().unwrap_or(std::ptr::null()),
                    output: step.output,
                    workspace: step.workspace,
                };
                // SAFETY: addresses are those of buffers with the sizes of the kernel's request,
                // and the caller's workers all make this call.
                unsafe { kernel.run(&call, worker) };
            }
            Work::Operator(kernel) => {
                let io = Io { inputs: &step.inputs, output: step.output };
                // SAFETY: addresses are those of buffers with the sizes of the operator's values,
                // and the caller's workers all make this call.
                unsafe { kernel.run(&io, worker) };
            }
        }
    }
}

/// Storage and size of a buffer.
struct Buffered {
    storage: Storage,
    bytes: usize,
}

impl Buffered {
    fn of(builder: &ProgramBuilder<'_>, buffer: BufferId) -> Self {
        Self { storage: builder.buffers[buffer].storage, bytes: builder.buffers[buffer].bytes }
    }
}

/// Lets in-place steps overwrite an input that is not read again. Returns for each buffer the
/// buffer whose memory it now uses.
fn share_buffers(builder: &mut ProgramBuilder<'_>) -> Vec<BufferId> {
    let mut last_use = vec![0; builder.buffers.len()];
    for (at, step) in builder.steps.iter().enumerate() {
        for &input in &step.inputs {
            last_use[input] = at;
        }
    }
    let mut renamed: Vec<BufferId> = (0..builder.buffers.len()).collect();
    for at in 0..builder.steps.len() {
        let step = &mut builder.steps[at];
        for input in &mut step.inputs {
            *input = renamed[*input];
        }
        if !step.in_place {
            continue;
        }
        let output = step.output;
        let free = |&&input: &&BufferId| {
            last_use[input] == at
                && builder.buffers[input].storage == Storage::Arena
                && builder.buffers[input].bytes == builder.buffers[output].bytes
        };
        if let Some(&input) = step.inputs.iter().find(free) {
            step.output = input;
            renamed[output] = input;
            last_use[input] = last_use[output];
            builder.buffers[input].storage = builder.buffers[output].storage;
        }
    }
    renamed
}

/// Returns the observed value of each plan value, ordered by readiness, the input first.
fn observed(
    builder: &ProgramBuilder<'_>,
    renamed: &[BufferId],
    addresses: &[*mut u8],
) -> Vec<ObservedValue> {
    let mut observed: Vec<ObservedValue> = builder
        .formats
        .iter()
        .enumerate()
        .filter_map(|(value, formats)| {
            let &(form, buffer) = formats.first()?;
            let place = renamed[buffer];
            Some(ObservedValue {
                value,
                form,
                ready: builder.buffers[buffer].ready,
                storage: builder.buffers[place].storage,
                address: addresses[place].cast_const(),
            })
        })
        .collect();
    observed.sort_by_key(|value| (value.ready, value.value != builder.plan.input));
    observed
}
