//! Compilation of one loop for every instruction set.
//!
//! The compiler vectorizes a loop for the target features of the function it is inlined into.
//! [`Loops::run`] is inlined into one function per instruction set, so the loops are written once.
//! Loops that the compiler does not vectorize well are written with vectors, as a [`Job`]: see
//! [`job_on`].

use std::marker::PhantomData;

use super::{Io, OperatorKernel};
use paretune_base::threads::Worker;
use paretune_simd::Isa;
use paretune_simd::{Build, Job, Portable, Simd, Usable, build_f32};

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

/// Compiles `loops` for `isa`; portable code runs instead if the machine lacks `isa`
/// ([`Isa::is_available`]).
pub fn on<L: Loops + 'static>(isa: Isa, loops: L) -> Box<dyn OperatorKernel> {
    let isa = if isa.is_available() { isa } else { Isa::Portable };
    Box::new(On { isa, loops })
}

struct On<L> {
    isa: Isa,
    loops: L,
}

impl<L: Loops> OperatorKernel for On<L> {
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        match self.isa {
            // SAFETY: `on` admits available instruction sets only; the rest is the caller's promise.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => unsafe { avx512(&self.loops, io, worker) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => unsafe { avx2(&self.loops, io, worker) },
            // Vectors of 128 bits belong to the baseline of both x86-64 and 64-bit Arm.
            // SAFETY: the caller's promise.
            _ => unsafe { self.loops.run(io, worker) },
        }
    }

    fn constant_bytes(&self) -> usize {
        self.loops.constant_bytes()
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<L: Loops>(loops: &L, io: &Io<'_>, worker: &Worker<'_>) {
    // SAFETY: the caller's promise.
    unsafe { loops.run(io, worker) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn avx512<L: Loops>(loops: &L, io: &Io<'_>, worker: &Worker<'_>) {
    // SAFETY: the caller's promise.
    unsafe { loops.run(io, worker) }
}

/// Returns the entry point of the job on `P`, compiled for `isa`, or for portable code if the
/// machine lacks `isa`. The caller must meet the safety requirements of the job; this function has
/// checked the processor.
pub(super) fn job_on<P: 'static>(isa: Isa) -> unsafe fn(&P)
where
    for<'a> &'a P: Job,
{
    struct Select<P>(PhantomData<P>);
    impl<P: 'static> Build for Select<P>
    where
        for<'a> &'a P: Job,
    {
        type Output = unsafe fn(&P);
        fn build<S: Simd>(self) -> Self::Output {
            job::<P, S>
        }
    }
    Usable::check(isa)
        .map_or(job::<P, Portable> as unsafe fn(&P), |usable| build_f32(usable, Select(PhantomData)))
}

/// Runs the job on `part` with the vectors of `S`.
///
/// # Safety
/// The requirements of the job must be met, and the processor must execute `S`.
unsafe fn job<P, S: Simd>(part: &P)
where
    for<'a> &'a P: Job,
{
    // SAFETY: passed on.
    unsafe { S::vectorize(part) }
}
