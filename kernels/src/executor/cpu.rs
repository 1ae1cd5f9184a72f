//! Plans on this machine's processor: a team of threads that walks a flat list of kernel calls together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::draft::Home;
use super::program::{Program, Sight};
use super::{ExecutorOptions, MemoryUse, StepInfo, lower};
use crate::block::Block;
use crate::conv::Packing;
use crate::error::KernelError;
use crate::hardware::Isa;
use crate::operators::convert::{self, Form};
use crate::operators::{Context, Io, planes};
use crate::plan::{Plan, ValueId};
use crate::team::{Barrier, Team, Worker};

/// A loaded plan: packed weights, buffers, and a flat list of kernel calls.
pub(super) struct CpuExecutor {
    program: Program,
    team: Team,
    batch: usize,
    /// Shapes of all values, for [`CpuExecutor::observe`].
    dims: Vec<Vec<usize>>,
    input_len: usize,
    output_len: usize,
    /// Bytes of weights that lie in a file.
    mapped_bytes: usize,
    /// Seconds of each step of the run being profiled, as bits.
    seconds: Vec<AtomicU64>,
}

impl CpuExecutor {
    /// Packs the weights of a valid plan or finds them packed, chooses layouts, plans memory.
    ///
    /// # Errors
    /// Where an algorithm does not support its step, or something else was packed.
    pub fn new(plan: &Plan, options: &ExecutorOptions, packing: &Packing) -> Result<Self, KernelError> {
        let ExecutorOptions { batch, threads, isa } = *options;
        if !isa.is_available() {
            return Err(KernelError::System(format!("this machine does not have {}", isa.name())));
        }
        let program = Program::assemble(lower::lower(plan, options, packing)?)?;
        let team = Team::new(threads)?;
        let seconds = (0..program.len()).map(|_| AtomicU64::new(0)).collect();
        let len = |value: ValueId| plan.values[value].len() * batch;
        Ok(Self {
            team,
            batch,
            dims: plan.values.iter().map(|value| value.dims.clone()).collect(),
            input_len: len(plan.input),
            output_len: len(plan.output),
            mapped_bytes: packing.mapped_bytes(),
            seconds,
            program,
        })
    }

    /// Runs one batch: `input` is `batch` images row-major, `output` is written likewise.
    ///
    /// # Errors
    /// Where a length is wrong.
    pub fn run(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), KernelError> {
        self.connect(input, output)?;
        let program = &self.program;
        self.team.run(|worker| {
            for step in 0..program.len() {
                // SAFETY: connected above to memory of checked sizes; all workers make the same calls,
                // separated by barriers; `&mut self` keeps others away.
                unsafe { program.run_step(step, worker) };
                worker.wait();
            }
        })
    }

    /// Runs one batch and returns the seconds of each of [`Executor::steps`].
    ///
    /// # Errors
    /// Where a length is wrong.
    pub fn profile(&mut self, input: &[f32], output: &mut [f32]) -> Result<Vec<f64>, KernelError> {
        self.connect(input, output)?;
        let (program, seconds) = (&self.program, &self.seconds);
        self.team.run(|worker| {
            // All start together, so that the first step does not pay for waking the others.
            worker.wait();
            let mut before = Instant::now();
            for (step, seconds) in seconds.iter().enumerate() {
                // SAFETY: as in `run`.
                unsafe { program.run_step(step, worker) };
                worker.wait();
                if worker.index == 0 {
                    let now = Instant::now();
                    seconds.store((now - before).as_secs_f64().to_bits(), Ordering::Relaxed);
                    before = now;
                }
            }
        })?;
        Ok(self.seconds.iter().map(|bits| f64::from_bits(bits.load(Ordering::Relaxed))).collect())
    }

    /// Runs one batch and shows every value of the plan (input first) as `f32`, row-major with batch
    /// outermost, as soon as it is there: for calibration and comparison.
    ///
    /// # Errors
    /// Where a length is wrong.
    pub fn observe(
        &mut self,
        input: &[f32],
        see: &mut dyn FnMut(ValueId, &[f32]),
    ) -> Result<(), KernelError> {
        let output = Block::new(self.output_len * 4)?;
        // SAFETY: the block is aligned for `f32`, holds that many, is initialized, and is ours.
        let output = unsafe { std::slice::from_raw_parts_mut(output.start().cast::<f32>(), self.output_len) };
        self.connect(input, output)?;
        let largest = self.dims.iter().map(|dims| dims.iter().product::<usize>()).max().unwrap_or(0);
        let mut plain = vec![0.0_f32; largest * self.batch];
        let mut sights = self.program.sights.iter().peekable();
        for done in 0..=self.program.len() {
            while let Some(sight) = sights.next_if(|sight| sight.ready == done) {
                let address = match sight.home {
                    Home::Input => input.as_ptr().cast(),
                    Home::Output => output.as_ptr().cast(),
                    Home::Arena | Home::Constant(_) => sight.address,
                };
                let len = self.show(sight, address, &mut plain);
                see(sight.value, &plain[..len]);
            }
            if done < self.program.len() {
                let program = &self.program;
                // SAFETY: as in `run`; a team's return is a barrier too.
                self.team.run(|worker| unsafe { program.run_step(done, worker) })?;
            }
        }
        Ok(())
    }

    /// Writes the value at `address` to `plain` in row-major single precision; returns its length.
    fn show(&self, sight: &Sight, address: *const u8, plain: &mut [f32]) -> usize {
        let dims = &self.dims[sight.value];
        let len: usize = dims.iter().product();
        let [channels, pixels] = planes(dims).unwrap_or([1, len]);
        let context = Context { batch: self.batch, isa: Isa::Portable };
        let kernel = convert::prepare(context, channels, pixels, sight.form, Form::PLAIN);
        let barrier = Barrier::new(1);
        let io = Io { inputs: &[address], output: plain.as_mut_ptr().cast() };
        // SAFETY: the value is there in full and nobody writes it now; `plain` is at least as long as
        // any value; this is a team of one.
        unsafe { kernel.run(&io, &Worker::alone(&barrier)) };
        len * self.batch
    }

    /// The steps as they are executed.
    #[must_use]
    pub fn steps(&self) -> &[StepInfo] {
        &self.program.infos
    }

    /// What is held.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        MemoryUse {
            weights: self.program.weight_bytes as u64,
            activations: self.program.activation_bytes as u64,
            workspace: self.program.workspace_bytes as u64,
        }
    }

    /// See [`super::Executor::mapped_bytes`].
    pub fn mapped_bytes(&self) -> u64 {
        self.mapped_bytes as u64
    }

    fn connect(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), KernelError> {
        for (what, len, expected) in
            [("input", input.len(), self.input_len), ("output", output.len(), self.output_len)]
        {
            if len != expected {
                let batch = self.batch;
                return Err(KernelError::Data(format!(
                    "the {what} has {len} numbers; a batch of {batch} has {expected}"
                )));
            }
        }
        self.program.connect(input.as_ptr().cast(), output.as_mut_ptr().cast());
        Ok(())
    }
}
