//! Compilation of one loop for every instruction set.
//!
//! The compiler vectorizes a loop for the target features of the function it is inlined into.
//! [`Loops::run`] is inlined into one function per vector width, so the loops are written once.
//! Loops that the compiler does not vectorize well are written with vectors, as a [`SimdFn`]. Both
//! are reached through [`entry_for`].

use std::marker::PhantomData;

use super::{Io, OperatorKernel};
use paretune_base::threads::Worker;
use paretune_simd::{Dispatch, Isa, IsaToken, Simd, SimdFn};

/// Loops of an operator. `run` and the functions that its loops call must be `#[inline(always)]`.
pub trait Loops: Send + Sync {
    /// Computes this thread's share of the work, like [`OperatorKernel::run`].
    ///
    /// # Safety
    /// The requirements of [`OperatorKernel::run`].
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>);

    /// Returns the size in bytes of the constants, see [`OperatorKernel::constant_bytes`].
    fn constant_bytes(&self) -> usize {
        0
    }
}

/// Compiles `loops` for `isa`, or as portable code if the machine lacks `isa`
/// ([`Isa::is_available`]).
pub fn on<L: Loops + 'static>(isa: Isa, loops: L) -> Box<dyn OperatorKernel> {
    Box::new(On { entry: entry_for::<Compiled<L>>(isa), loops })
}

/// Loops, and their entry point for an instruction set.
struct On<L> {
    entry: unsafe fn(LoopsArgs<'_, L>),
    loops: L,
}

/// Arguments of [`Loops::run`], as one value for a function pointer.
struct LoopsArgs<'a, L> {
    loops: &'a L,
    io: &'a Io<'a>,
    worker: &'a Worker<'a>,
}

impl<L: Loops> OperatorKernel for On<L> {
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        // SAFETY: the buffers of `io` are valid for the sizes that the loops were built for, and
        // every thread makes this call.
        unsafe { (self.entry)(LoopsArgs { loops: &self.loops, io, worker }) }
    }

    fn constant_bytes(&self) -> usize {
        self.loops.constant_bytes()
    }
}

/// The function that runs loops of type `L`.
struct Compiled<L>(PhantomData<L>);

impl<L: Loops + 'static> SimdFn for Compiled<L> {
    type Args<'a> = LoopsArgs<'a, L>;

    #[inline(always)]
    unsafe fn call<S: Simd>(_: S, args: LoopsArgs<'_, L>) {
        // SAFETY: [`On::run`] has the same requirements as these loops.
        unsafe { args.loops.run(args.io, args.worker) }
    }
}

/// Returns the entry point of a function for the vectors of `isa` in single precision, or as
/// portable code if the machine lacks `isa`.
pub(super) fn entry_for<F: SimdFn>(isa: Isa) -> for<'a> unsafe fn(F::Args<'a>) {
    IsaToken::new_or_portable(isa).f32().pointer::<F>()
}
