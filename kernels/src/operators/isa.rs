//! Compiling one loop for every instruction set.
//!
//! The compiler vectorizes for the features of the function that a loop ends up in. [`Loops::run`] is
//! inlined into one function per instruction set, so the loops are written once. What the compiler does not find is
//! written in vectors, as a [`Job`]: see [`job_on`].

use std::marker::PhantomData;

use super::{Io, OperatorKernel};
use crate::hardware::Isa;
use crate::simd::{Build, Job, Portable, Simd, Usable, build_f32};
use crate::team::Worker;

/// The loops of an operator. `run`, and what it calls in its loops, must be `#[inline(always)]`.
pub(crate) trait Loops: Send + Sync {
    /// See [`OperatorKernel::run`].
    ///
    /// # Safety
    /// As there.
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>);

    /// See [`OperatorKernel::constant_bytes`].
    fn constant_bytes(&self) -> usize {
        0
    }
}

/// `loops` compiled for `isa`, which the machine must have ([`Isa::is_available`]; anything else is
/// run as portable code).
pub(crate) fn on<L: Loops + 'static>(isa: Isa, loops: L) -> Box<dyn OperatorKernel> {
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
            // Vectors of 128 bits are part of the base of both x86-64 and 64-bit Arm.
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

/// The job on a `P`, compiled for `isa`, which else is portable code. Calling it asks for what the job asks for, and for a
/// processor that executes `isa`, which is made sure of here.
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

/// # Safety
/// As for the job, and the processor executes `S`.
unsafe fn job<P, S: Simd>(part: &P)
where
    for<'a> &'a P: Job,
{
    // SAFETY: passed on.
    unsafe { S::vectorize(part) }
}
