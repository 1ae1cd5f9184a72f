//! The executor of the processor: a thread pool that works through a flat list of kernel calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::builder::Storage;
use super::program::{Ends, ObservedValue, Program};
use super::{ExecutorOptions, lower};
use paretune_base::error::KernelError;
use paretune_base::execution::{LoadedPlan, MemoryUse, Part, StepInfo};
use paretune_base::memory::block::Block;
use paretune_base::plan::ValueId;
use paretune_base::threads::{Barrier, ThreadPool, Worker};
use paretune_cpu::conv::support::packing::Packing;
use paretune_cpu::operators::convert;
use paretune_cpu::operators::convert::TensorFormat;
use paretune_cpu::operators::{Context, Io, planes};
use paretune_simd::Isa;

/// A loaded plan, or a part of one: packed weights, buffers, and a flat list of kernel calls.
pub(super) struct CpuExecutor {
    program: Program,
    pool: ThreadPool,
    batch: usize,
    /// Shapes of all values, for [`CpuExecutor::observe`].
    dims: Vec<Vec<usize>>,
    output_len: usize,
    /// Bytes of packed weights that are read from a memory-mapped file.
    mapped_bytes: usize,
    /// Seconds of each step of the profiled run, as bits of an `f64`.
    seconds: Vec<AtomicU64>,
}

impl CpuExecutor {
    /// Packs the weights of a valid plan or takes them from `packing`, chooses layouts, and plans
    /// memory.
    ///
    /// # Errors
    /// Fails if an algorithm does not support its step, if `packing` does not match the plan, or if
    /// the machine refuses memory or threads.
    pub fn new(
        part: &Part<'_>,
        options: &ExecutorOptions,
        packing: &Packing,
    ) -> Result<Self, KernelError> {
        let ExecutorOptions { batch, threads, isa } = *options;
        if !isa.is_available() {
            return Err(KernelError::System(format!("this machine does not have {}", isa.name())));
        }
        let program = Program::assemble(lower::lower(part, options, packing)?)?;
        let pool = ThreadPool::new(threads)?;
        let seconds = (0..program.len()).map(|_| AtomicU64::new(0)).collect();
        Ok(Self {
            pool,
            batch,
            dims: part.plan.values.iter().map(|value| value.dims.clone()).collect(),
            output_len: part.plan.values[part.plan.output].len() * batch,
            mapped_bytes: packing.mapped_bytes(),
            seconds,
            program,
        })
    }

    /// Runs one batch of the part, with inputs and outputs in the memory that `ends` names.
    ///
    /// # Safety
    /// The memory behind each end must be as large as its value, must stay valid until this
    /// returns, and must not be used by anyone else meanwhile.
    pub unsafe fn run_between(&mut self, ends: &Ends<'_>) -> Result<(), KernelError> {
        self.program.connect(ends);
        let program = &self.program;
        self.pool.run(|worker| {
            for step in 0..program.len() {
                // SAFETY: connected above to memory of the right sizes; all workers make these
                // calls, separated by barriers; `&mut self` keeps others away.
                unsafe { program.run_step(step, worker) };
                worker.wait();
            }
        })
    }

    /// Runs one batch like [`CpuExecutor::run_between`] and returns the seconds of each step.
    ///
    /// # Safety
    /// The requirements of [`CpuExecutor::run_between`] apply.
    pub unsafe fn profile_between(&mut self, ends: &Ends<'_>) -> Result<Vec<f64>, KernelError> {
        self.program.connect(ends);
        let (program, seconds) = (&self.program, &self.seconds);
        self.pool.run(|worker| {
            // All threads start together, so that the first step does not include their wake-up
            // time.
            worker.wait();
            let mut before = Instant::now();
            for (step, seconds) in seconds.iter().enumerate() {
                // SAFETY: as in `run_between`.
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

    /// Runs one batch like [`CpuExecutor::run_between`] and passes each value of the part to `see`
    /// once it is computed, the inputs first. Values are `f32`, row-major with batch outermost.
    ///
    /// # Safety
    /// The requirements of [`CpuExecutor::run_between`] apply.
    pub unsafe fn observe_between(
        &mut self,
        ends: &Ends<'_>,
        see: &mut dyn FnMut(ValueId, &[f32]),
    ) -> Result<(), KernelError> {
        self.program.connect(ends);
        let largest =
            self.dims.iter().map(|dims| dims.iter().product::<usize>()).max().unwrap_or(0);
        let mut plain = vec![0.0_f32; largest * self.batch];
        let mut observed = self.program.observed.iter().peekable();
        for done in 0..=self.program.len() {
            while let Some(value) = observed.next_if(|value| value.ready == done) {
                let address = match value.storage {
                    Storage::Arena | Storage::Constant(_) => value.address,
                    storage => ends.of(storage).map_or(value.address, <*mut u8>::cast_const),
                };
                let len = self.show(value, address, &mut plain);
                see(value.value, &plain[..len]);
            }
            if done < self.program.len() {
                let program = &self.program;
                // SAFETY: as in `run_between`; a pool's return is a barrier too.
                self.pool.run(|worker| unsafe { program.run_step(done, worker) })?;
            }
        }
        Ok(())
    }

    /// Writes the value at `address` to `plain` in row-major single precision and returns its
    /// length.
    fn show(&self, value: &ObservedValue, address: *const u8, plain: &mut [f32]) -> usize {
        let dims = &self.dims[value.value];
        let len: usize = dims.iter().product();
        let [channels, pixels] = planes(dims).unwrap_or([1, len]);
        let context = Context { batch: self.batch, isa: Isa::Portable };
        let kernel = convert::prepare(context, channels, pixels, value.form, TensorFormat::PLAIN);
        let barrier = Barrier::new(1);
        let io = Io { inputs: &[address], output: plain.as_mut_ptr().cast() };
        // SAFETY: the value is there in full and nobody writes it now; `plain` is at least as long
        // as any value; this is a pool of one.
        unsafe { kernel.run(&io, &Worker::alone(&barrier)) };
        len * self.batch
    }
}

impl LoadedPlan for CpuExecutor {
    fn run(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), KernelError> {
        let (input, output) = (input.as_ptr().cast(), output.as_mut_ptr().cast());
        // SAFETY: the caller has checked the lengths; both slices are borrowed until this returns.
        unsafe { self.run_between(&Ends { input: &|_| input, output: &|_| output }) }
    }

    fn profile(&mut self, input: &[f32], output: &mut [f32]) -> Result<Vec<f64>, KernelError> {
        let (input, output) = (input.as_ptr().cast(), output.as_mut_ptr().cast());
        // SAFETY: as in `run`.
        unsafe { self.profile_between(&Ends { input: &|_| input, output: &|_| output }) }
    }

    fn observe(
        &mut self,
        input: &[f32],
        see: &mut dyn FnMut(ValueId, &[f32]),
    ) -> Result<(), KernelError> {
        let block = Block::new(self.output_len * 4)?;
        let (input, output) = (input.as_ptr().cast(), block.start());
        // SAFETY: as in `run`; the block is as large as the output.
        unsafe { self.observe_between(&Ends { input: &|_| input, output: &|_| output }, see) }
    }

    fn steps(&self) -> &[StepInfo] {
        &self.program.infos
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse {
            weights: self.program.weight_bytes as u64,
            activations: self.program.activation_bytes as u64,
            workspace: self.program.workspace_bytes as u64,
        }
    }

    fn mapped_bytes(&self) -> u64 {
        self.mapped_bytes as u64
    }
}
