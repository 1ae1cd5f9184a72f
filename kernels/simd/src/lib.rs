//! Vectors: one small trait, [`Simd`], that kernels are written against once, and one file per
//! instruction set that fulfills it.
//!
//! A kernel is a [`Job`]: a struct of arguments whose `run` is generic over the vectors. Everything in
//! it is inlined into the one function per instruction set that carries `#[target_feature]`
//! ([`Simd::vectorize`]), so that intrinsics become single instructions. A function pointer to such a
//! job can only be had through [`Usable`], the token that the processor really executes the set: a
//! wrong dispatch cannot be written. (The idea is rten's.)
//!
//! What this module leaves to others: every algorithm, every tile size.

#![allow(clippy::missing_safety_doc, reason = "the trait states the requirements of all its functions")]

pub use isa::Isa;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
pub mod bf16;
pub mod half;
mod isa;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx2::{Avx2, AvxVnni};
#[cfg(target_arch = "x86_64")]
pub use avx512::{Avx512, Avx512Vnni};
#[cfg(target_arch = "aarch64")]
pub use neon::{Neon, NeonDot};
pub use portable::Portable;

/// Proof that this processor executes an instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usable(Isa);

impl Usable {
    /// The proof, where it holds and where kernels for `isa` have been compiled in.
    pub fn check(isa: Isa) -> Option<Self> {
        isa.is_available().then_some(Self(isa))
    }

    /// Which instruction set it is about.
    pub fn isa(self) -> Isa {
        self.0
    }
}

/// Work that is generic over the vectors it uses.
pub trait Job {
    /// Does it. Implementations are `#[inline(always)]`, or they lose the instruction set.
    ///
    /// # Safety
    /// The processor executes `S`'s instructions; pointers in `self` are valid for what the job says.
    unsafe fn run<S: Simd>(self);
}

/// Vectors of [`Simd::LANES`] numbers, and the few operations that convolutions need.
///
/// # Safety
/// Every function requires that the processor executes the instruction set, that pointers are valid
/// for the numbers they are said to cover (no alignment is asked for), and nothing else.
/// All are `#[inline(always)]` and must be reached from [`Simd::vectorize`] to be fast.
pub unsafe trait Simd: Copy + Send + Sync + 'static {
    /// Numbers per vector.
    const LANES: usize;
    /// How many vectors kernels may count on keeping in registers.
    const REGISTERS: usize;
    /// `LANES` single-precision numbers.
    type F: Copy;
    /// `LANES` 32-bit integers.
    type I: Copy;
    /// Operands of [`Simd::dot`]: `LANES` groups of [`Simd::GROUP`] small integers.
    type D: Copy;
    /// How activations are held for [`Simd::dot`].
    type Act: Activate;
    /// How many products of small integers [`Simd::dot`] sums into each lane.
    const GROUP: usize;
    /// What dot products of bytes ([`Simd::dot`], [`Simd::dot_few`] and [`Simd::dot_taps`]) take every stored activation to
    /// be less by, where the processor only multiplies signed bytes; 0 where they are [`Activate::CENTERED`].
    const SHIFT: i32 = 0;

    /// Calls `job` with this instruction set switched on. It is a call indeed: from within another job
    /// it keeps what is rarely needed, or long, out of that job's code.
    unsafe fn vectorize<J: Job>(job: J);

    /// Asks for the cache line of an address, which need not be valid; nothing where that cannot be asked.
    #[inline(always)]
    fn prefetch<T>(_address: *const T) {}
    /// `x` in every lane.
    unsafe fn splat(x: f32) -> Self::F;
    /// `LANES` numbers.
    unsafe fn load(from: *const f32) -> Self::F;
    /// `LANES` numbers.
    unsafe fn store(to: *mut f32, v: Self::F);
    /// `LANES` numbers in half precision, exactly, those that are subnormal there as well.
    unsafe fn load_halves(from: *const u16) -> Self::F;
    /// The first `count < LANES` numbers; zeros in the other lanes. Touches nothing else.
    unsafe fn load_first(from: *const f32, count: usize) -> Self::F;
    /// The first `count < LANES` numbers. Touches nothing else.
    unsafe fn store_first(to: *mut f32, count: usize, v: Self::F);
    /// `a * b + c`, in one rounding where the processor can.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a + b`
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// The greater of `bound` and `x`; `x` where it is not a number.
    unsafe fn at_least(bound: Self::F, x: Self::F) -> Self::F;
    /// The lesser of `bound` and `x`; `x` where it is not a number.
    unsafe fn at_most(bound: Self::F, x: Self::F) -> Self::F;

    /// For every lane the number of `2 * LANES` from `from` on that its pick names, or 0 where that is negative.
    unsafe fn pick(from: *const f32, picks: *const i32) -> Self::F;

    /// Four numbers each from `from` on, and from every `step` numbers after that.
    unsafe fn load_quads(from: *const f32, step: usize) -> Self::F;
    /// The transposition of every square that the four vectors have in the same four lanes.
    unsafe fn turn_quads(v: [Self::F; 4]) -> [Self::F; 4];

    /// `LANES` integers.
    unsafe fn load_i32(from: *const i32) -> Self::I;
    /// `a + b`
    unsafe fn add_i32(a: Self::I, b: Self::I) -> Self::I;
    /// As single precision, rounded to nearest.
    unsafe fn to_f32(v: Self::I) -> Self::F;
    /// `LANES` bytes as numbers.
    unsafe fn load_u8(from: *const u8) -> Self::F;
    /// `LANES` numbers, which lie in 0..=255, rounded to nearest even.
    unsafe fn store_u8(to: *mut u8, v: Self::F);

    /// [`Simd::store_u8`] of two vectors, one behind the other.
    #[inline(always)]
    unsafe fn store_u8_twice(to: *mut u8, first: Self::F, second: Self::F) {
        // SAFETY: the caller vouches for `2 * LANES` bytes.
        unsafe {
            Self::store_u8(to, first);
            Self::store_u8(to.add(Self::LANES), second);
        }
    }

    /// `a - b`
    unsafe fn sub_i32(a: Self::I, b: Self::I) -> Self::I;

    /// `2 * LANES` 16-bit integers.
    unsafe fn load_wide(from: *const i16) -> Self::D;
    /// `2 * LANES` 16-bit integers.
    unsafe fn store_wide(to: *mut i16, v: Self::D);
    /// `2 * LANES` bytes as 16-bit integers.
    unsafe fn widen(from: *const u8) -> Self::D;
    /// `a + b`, of 16-bit integers.
    unsafe fn add_wide(a: Self::D, b: Self::D) -> Self::D;
    /// `a - b`, of 16-bit integers.
    unsafe fn sub_wide(a: Self::D, b: Self::D) -> Self::D;
    /// Two 16-bit integers, the same for every lane.
    unsafe fn broadcast_wide(from: *const i16) -> Self::D;
    /// `acc + sum over each pair of a * b`, exactly, of 16-bit integers.
    unsafe fn dot_wide(acc: Self::I, a: Self::D, b: Self::D) -> Self::I;

    /// `LANES * GROUP` weights, channel by channel.
    unsafe fn load_weights(from: *const i8) -> Self::D;
    /// `GROUP` activations, the same for every lane.
    unsafe fn broadcast(from: *const Self::Act) -> Self::D;
    /// `acc + sum over the group of weights * (activations - SHIFT)`, exactly.
    unsafe fn dot(acc: Self::I, weights: Self::D, activations: Self::D) -> Self::I;
    /// How activations are held for [`Simd::dot_few`].
    type Few: Activate;
    /// How many products of [`Simd::dot_few`] each of its pairs sums into each lane.
    const FEW_GROUP: usize;
    /// What a weight of `BITS` bits, at most 4, is in a packed element; see [`Simd::unpack`].
    fn code<const BITS: u32>(weight: i8) -> u32;
    /// `LANES` packed groups, 4 bytes each.
    unsafe fn load_packed(from: *const u8) -> Self::D;
    /// The weights whose codes are number `field` of every element of packed groups, lowest bits first. An
    /// element has the `32 / FEW_GROUP` bits of an element of the group.
    unsafe fn unpack<const BITS: u32>(packed: Self::D, field: u32) -> Self::D;
    /// `FEW_GROUP` activations, the same for every lane.
    unsafe fn broadcast_few(from: *const Self::Few) -> Self::D;
    /// `acc + sum over both groups of weights * (activations - SHIFT)`, exactly: the weights come from
    /// [`Simd::unpack`].
    unsafe fn dot_few(acc: Self::I, weights: [Self::D; 2], activations: [Self::D; 2]) -> Self::I;
    /// `4 * LANES` bytes, one for each channel of a block whose numbers are [`quartered`].
    type Bytes: Copy;
    /// How a weight is held for [`Simd::dot_taps`].
    type Tap: Copy + Default + From<i8>;
    /// How many taps [`Simd::dot_taps`] multiplies at a time, at most 4.
    const TAPS: usize;
    /// `4 * LANES` bytes.
    unsafe fn load_bytes(from: *const u8) -> Self::Bytes;
    /// `4 * LANES` bytes.
    unsafe fn store_bytes(to: *mut u8, v: Self::Bytes);
    /// The numbers of a quartered block, which lie in 0..=255, rounded to nearest even.
    unsafe fn to_bytes(v: [Self::F; 4]) -> Self::Bytes;
    /// For every channel of a quartered block `acc + sum over the first TAPS taps of (tap - SHIFT) * weight`,
    /// exactly. Weights are `[vector][lane][tap]`.
    unsafe fn dot_taps(acc: [Self::I; 4], taps: [Self::Bytes; 4], weights: *const Self::Tap) -> [Self::I; 4];

    /// The first `count < 4 * LANES` bytes; whatever there may be in the others. Touches nothing else.
    #[inline(always)]
    unsafe fn load_first_bytes(from: *const u8, count: usize) -> Self::Bytes {
        let mut bytes = [0_u8; 64];
        // SAFETY: the caller vouches for `count < 4 * LANES <= 64` bytes at `from`.
        unsafe {
            copy_below_64(from, bytes.as_mut_ptr(), count);
            Self::load_bytes(bytes.as_ptr())
        }
    }

    /// The first `count < 4 * LANES` bytes. Touches nothing else.
    #[inline(always)]
    unsafe fn store_first_bytes(to: *mut u8, count: usize, v: Self::Bytes) {
        let mut bytes = [0_u8; 64];
        // SAFETY: the caller vouches for `count < 4 * LANES <= 64` bytes at `to`.
        unsafe {
            Self::store_bytes(bytes.as_mut_ptr(), v);
            copy_below_64(bytes.as_ptr(), to, count);
        }
    }

    /// [`Simd::load_u8`] of `count < LANES` bytes; touches nothing else.
    #[inline(always)]
    unsafe fn load_first_u8(from: *const u8, count: usize) -> Self::F {
        let mut bytes = [0_u8; 16];
        // SAFETY: the caller vouches for `count < LANES <= 16` bytes at `from`.
        unsafe {
            copy_few(from, bytes.as_mut_ptr(), count);
            Self::load_u8(bytes.as_ptr())
        }
    }

    /// [`Simd::store_u8`] of `count < LANES` bytes; touches nothing else.
    #[inline(always)]
    unsafe fn store_first_u8(to: *mut u8, count: usize, v: Self::F) {
        let mut bytes = [0_u8; 16];
        // SAFETY: the caller vouches for `count < LANES <= 16` bytes at `to`.
        unsafe {
            Self::store_u8(bytes.as_mut_ptr(), v);
            copy_few(bytes.as_ptr(), to, count);
        }
    }
}

/// Copies up to 15 numbers without the call that `copy_nonoverlapping` of unknown length is, nor a loop.
///
/// # Safety
/// Both are valid for `count` numbers and do not overlap.
#[inline(always)]
pub unsafe fn copy_few<T: Copy>(from: *const T, to: *mut T, count: usize) {
    debug_assert!(count < 16);
    let mut done = 0;
    macro_rules! piece {
        ($size:literal) => {
            if count & $size != 0 {
                // SAFETY: the pieces add up to `count`.
                unsafe {
                    let numbers = from.add(done).cast::<[T; $size]>().read_unaligned();
                    to.add(done).cast::<[T; $size]>().write_unaligned(numbers);
                }
                done += $size;
            }
        };
    }
    piece!(8);
    piece!(4);
    piece!(2);
    if count & 1 != 0 {
        // SAFETY: the last of them.
        unsafe { *to.add(done) = *from.add(done) };
    }
}

/// [`copy_few`] of up to 63 bytes.
///
/// # Safety
/// Both are valid for `count` bytes and do not overlap.
#[inline(always)]
unsafe fn copy_below_64(from: *const u8, to: *mut u8, count: usize) {
    debug_assert!(count < 64);
    let mut done = 0;
    // SAFETY: the pieces add up to `count`.
    unsafe {
        while done + 16 <= count {
            to.add(done).cast::<[u8; 16]>().write(from.add(done).cast::<[u8; 16]>().read());
            done += 16;
        }
        copy_few(from.add(done), to.add(done), count - done);
    }
}

/// Vector and lane of a channel in a *quartered* block of `4 * LANES` channels: what interleaving bytes and then pairs within
/// 128 bits makes of them. The first vector has the first four channels of every sixteen, the second the next four, and
/// so on, whatever the number of lanes.
pub fn quartered(channel: usize) -> [usize; 2] {
    [channel % 16 / 4, channel / 16 * 4 + channel % 4]
}

/// An 8-bit activation in the form that a dot product takes.
pub trait Activate: Copy + Default + Send + Sync + 'static {
    /// Whether the zero point has been subtracted, so that padding is zero and sums need no compensation.
    const CENTERED: bool;
    /// From the stored byte.
    fn activate(byte: u8, zero_point: u8) -> Self;
}

impl Activate for u8 {
    const CENTERED: bool = false;
    #[inline(always)]
    fn activate(byte: u8, _zero_point: u8) -> Self {
        byte
    }
}

impl Activate for i16 {
    const CENTERED: bool = true;
    #[inline(always)]
    fn activate(byte: u8, zero_point: u8) -> Self {
        i16::from(byte) - i16::from(zero_point)
    }
}

/// Something to be built for one instruction set: how code that knows an [`Isa`] reaches code that is
/// generic over [`Simd`].
pub trait Build {
    /// What is built.
    type Output;
    /// Builds it for `S`.
    fn build<S: Simd>(self) -> Self::Output;
}

/// Builds for the instruction set that `usable` proves.
pub fn build<B: Build>(usable: Usable, builder: B) -> B::Output {
    match usable.isa() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => builder.build::<Avx2>(),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => builder.build::<AvxVnni>(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => builder.build::<Avx512>(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Avx512Bf16 => builder.build::<Avx512Vnni>(),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => builder.build::<Neon>(),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => builder.build::<NeonDot>(),
        // `Usable` exists for sets of this architecture only; the rest is portable.
        _ => builder.build::<Portable>(),
    }
}

/// [`build`] for what computes in single precision only, which is the same with and without dot products of
/// bytes and need not be compiled twice.
pub fn build_f32<B: Build>(usable: Usable, builder: B) -> B::Output {
    match usable.isa() {
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => builder.build::<Avx2>(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Avx512Bf16 => builder.build::<Avx512>(),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => builder.build::<Neon>(),
        _ => build(usable, builder),
    }
}

/// Numbers per vector of `isa`, whether this machine has it or not.
pub fn lanes(isa: Isa) -> usize {
    match isa {
        Isa::Portable | Isa::Neon | Isa::NeonDot => 4,
        Isa::Avx2 | Isa::AvxVnni => 8,
        Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => 16,
    }
}
