//! The executable program: a flat list of kernel calls with addresses, and the memory behind them.

use super::draft::{BufferId, Draft, Home};
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
use paretune_cpu::operators::convert::Form;

/// Addresses of the caller's memory, by index among the inputs and the outputs of the part.
pub(super) struct Ends<'a> {
    pub input: &'a dyn Fn(usize) -> *const u8,
    pub output: &'a dyn Fn(usize) -> *mut u8,
}

impl Ends<'_> {
    /// Returns the caller's address for `home`, or `None` for memory that the program owns.
    pub fn of(&self, home: Home) -> Option<*mut u8> {
        match home {
            Home::Input(index) => Some((self.input)(index).cast_mut()),
            Home::Output(index) => Some((self.output)(index)),
            Home::Arena | Home::Constant(_) => None,
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
    home: Home,
}

/// An observed value: its address and tensor format once `ready` steps have run.
#[derive(Clone, Copy)]
pub(super) struct ObservedValue {
    pub value: ValueId,
    pub form: Form,
    pub ready: usize,
    pub home: Home,
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
    pub fn assemble(mut draft: Draft<'_>) -> Result<Self, KernelError> {
        let renamed = share_buffers(&mut draft);
        let steps = draft.steps.len();
        // Lifetimes of all arena contents: buffers first, then workspaces.
        let mut lifetimes: Vec<Option<Lifetime>> = vec![None; draft.buffers.len()];
        for (at, step) in draft.steps.iter().enumerate() {
            for &buffer in step.inputs.iter().chain([&step.output]) {
                let Buffered { home: Home::Arena, bytes } = Buffered::of(&draft, buffer) else {
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
        let scratch: Vec<usize> = (0..steps).filter(|&at| draft.steps[at].workspace > 0).collect();
        lifetimes.extend(scratch.iter().map(|&at| Lifetime {
            bytes: draft.steps[at].workspace,
            first: at,
            last: at,
        }));
        let (offsets, total) = arena::place(&lifetimes);
        let block = Block::new(total)?;
        let at_offset = |offset: usize| block.start().wrapping_add(offset);

        let mut addresses = vec![std::ptr::null_mut(); draft.buffers.len()];
        for (&id, &offset) in ids.iter().zip(&offsets) {
            addresses[id] = at_offset(offset);
        }
        for (id, buffer) in draft.buffers.iter().enumerate() {
            if let Home::Constant(constant) = buffer.home {
                addresses[id] = draft.constants[constant].start();
            }
        }
        let mut workspaces = vec![std::ptr::null_mut(); steps];
        for (&step, &offset) in scratch.iter().zip(&offsets[ids.len()..]) {
            workspaces[step] = at_offset(offset);
        }
        // The placement heuristic may, by accident, need less memory with workspaces than without.
        let activation_bytes = activation_bytes.min(total);
        let observed = observed(&draft, &renamed, &addresses);
        let mut program = Self {
            steps: Vec::with_capacity(steps),
            patches: Vec::new(),
            infos: Vec::with_capacity(steps),
            observed,
            weight_bytes: draft.weight_bytes,
            activation_bytes,
            workspace_bytes: total - activation_bytes,
            _arena: block,
            _constants: draft.constants,
        };
        for (at, step) in draft.steps.into_iter().enumerate() {
            for (input, &buffer) in step.inputs.iter().enumerate() {
                program.patch(at, Some(input), draft.buffers[buffer].home);
            }
            program.patch(at, None, draft.buffers[step.output].home);
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

    fn patch(&mut self, step: usize, input: Option<usize>, home: Home) {
        if matches!(home, Home::Input(_) | Home::Output(_)) {
            self.patches.push(Patch { step, input, home });
        }
    }

    /// Returns the number of steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Writes the addresses of the caller's memory into the steps.
    pub fn connect(&mut self, ends: &Ends<'_>) {
        for patch in &self.patches {
            let Some(address) = ends.of(patch.home) else { continue };
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
    home: Home,
    bytes: usize,
}

impl Buffered {
    fn of(draft: &Draft<'_>, buffer: BufferId) -> Self {
        Self { home: draft.buffers[buffer].home, bytes: draft.buffers[buffer].bytes }
    }
}

/// Lets in-place steps overwrite an input that is not read again. Returns for each buffer the
/// buffer whose memory it now uses.
fn share_buffers(draft: &mut Draft<'_>) -> Vec<BufferId> {
    let mut last_use = vec![0; draft.buffers.len()];
    for (at, step) in draft.steps.iter().enumerate() {
        for &input in &step.inputs {
            last_use[input] = at;
        }
    }
    let mut renamed: Vec<BufferId> = (0..draft.buffers.len()).collect();
    for at in 0..draft.steps.len() {
        let step = &mut draft.steps[at];
        for input in &mut step.inputs {
            *input = renamed[*input];
        }
        if !step.in_place {
            continue;
        }
        let output = step.output;
        let free = |&&input: &&BufferId| {
            last_use[input] == at
                && draft.buffers[input].home == Home::Arena
                && draft.buffers[input].bytes == draft.buffers[output].bytes
        };
        if let Some(&input) = step.inputs.iter().find(free) {
            step.output = input;
            renamed[output] = input;
            last_use[input] = last_use[output];
            draft.buffers[input].home = draft.buffers[output].home;
        }
    }
    renamed
}

/// Returns the observed value of each plan value, ordered by readiness, the input first.
fn observed(draft: &Draft<'_>, renamed: &[BufferId], addresses: &[*mut u8]) -> Vec<ObservedValue> {
    let mut observed: Vec<ObservedValue> = draft
        .forms
        .iter()
        .enumerate()
        .filter_map(|(value, forms)| {
            let &(form, buffer) = forms.first()?;
            let place = renamed[buffer];
            Some(ObservedValue {
                value,
                form,
                ready: draft.buffers[buffer].ready,
                home: draft.buffers[place].home,
                address: addresses[place].cast_const(),
            })
        })
        .collect();
    observed.sort_by_key(|value| (value.ready, value.value != draft.plan.input));
    observed
}
