//! The vectors of an instruction set, and the two forms of code that is generic over them.

use crate::copy::{copy_below_64, copy_few};
use crate::{Activate, Isa};

/// An operation that is generic over the vectors it uses.
pub trait SimdOp {
    /// Type of the operation's result.
    type Output;
    /// Evaluates the operation with the vectors of `simd`. Implementations that calculate with
    /// vectors must be `#[inline(always)]`, or they are not compiled for the instruction set.
    fn eval<S: Simd>(self, simd: S) -> Self::Output;
}

/// A function that is generic over the vectors it uses and is called through a pointer, such as a
/// microkernel.
pub trait SimdFn {
    /// Type of the function's arguments.
    type Args<'a>;
    /// Calls the function with the vectors of `simd`. Implementations must be `#[inline(always)]`,
    /// or they are not compiled for the instruction set.
    ///
    /// # Safety
    /// The addresses in `args` must be valid for what the type of the arguments says.
    unsafe fn call<S: Simd>(simd: S, args: Self::Args<'_>);
}

/// Token of an instruction set, and its vectors of [`Simd::LANES`] numbers. Addresses need no
/// alignment.
///
/// # Safety
/// Values must exist only on processors that execute the set. `LANES` must be at most 16, and
/// vectors must consist of their elements, one behind the other. Methods must access no memory
/// other than what they are documented to.
pub unsafe trait Simd: Copy + Send + Sync + 'static {
    /// Instruction set of the token.
    const ISA: Isa;
    /// Number of single-precision elements per vector.
    const LANES: usize;
    /// Number of vectors that kernels may expect to keep in registers.
    const REGISTERS: usize;
    /// Vector of `LANES` single-precision numbers.
    type F32: Copy;
    /// Vector of `LANES` 32-bit integers.
    type I32: Copy;
    /// Operand of [`Simd::dot`]: `LANES` groups of [`Simd::GROUP`] small integers. As operand of
    /// [`Simd::dot_i16`] it is a vector of `2 * LANES` 16-bit integers.
    type Groups: Copy;
    /// Format of the activations for [`Simd::dot`].
    type Act: Activate;
    /// Number of products of small integers that [`Simd::dot`] sums into each lane.
    const GROUP: usize;
    /// Number that dot products of bytes ([`Simd::dot`], [`Simd::dot_low_bit`] and
    /// [`Simd::dot_taps`]) subtract from every stored activation, on processors that only multiply
    /// signed bytes. It is 0 if activations are [`Activate::CENTERED`].
    const SHIFT: i32 = 0;
    /// Format of the activations for [`Simd::dot_low_bit`].
    type LowBitAct: Activate;
    /// Number of products that each half of [`Simd::dot_low_bit`] sums into each lane.
    const LOW_BIT_GROUP: usize;
    /// Vector of `4 * LANES` bytes, one for each channel of a [`quartered`] block.
    type Bytes: Copy;
    /// Format of the weights for [`Simd::dot_taps`].
    type Tap: Copy + Default + From<i8>;
    /// Number of taps that [`Simd::dot_taps`] multiplies at a time, at most 4.
    const TAPS: usize;

    /// Evaluates `op` with the features of the set enabled. It is compiled to a call, which keeps
    /// long or rare code out of the caller's.
    fn vectorize<O: SimdOp>(self, op: O) -> O::Output;

    /// Returns a pointer to the function, compiled with the features of the set enabled. Calling it
    /// takes what [`SimdFn::call`] asks for.
    fn pointer<F: SimdFn>(self) -> for<'a> unsafe fn(F::Args<'a>);

    /// Calls the function of [`Simd::pointer`], which keeps its code out of the caller's.
    ///
    /// # Safety
    /// The arguments must be valid for [`SimdFn::call`].
    #[inline(always)]
    unsafe fn call<F: SimdFn>(self, args: F::Args<'_>) {
        let function = self.pointer::<F>();
        // SAFETY: the caller keeps to the contract of `F`.
        unsafe { function(args) }
    }

    /// Prefetches the cache line of an address, which need not be valid. Does nothing on
    /// instruction sets without such an instruction.
    #[inline(always)]
    fn prefetch<T>(self, _address: *const T) {}

    /// Returns a vector with `x` in every lane.
    fn splat(self, x: f32) -> Self::F32;
    /// Loads `LANES` numbers.
    ///
    /// # Safety
    /// `from` must be valid for `LANES` numbers.
    unsafe fn load(self, from: *const f32) -> Self::F32;
    /// Stores `LANES` numbers.
    ///
    /// # Safety
    /// `to` must be valid for `LANES` numbers.
    unsafe fn store(self, to: *mut f32, v: Self::F32);
    /// Loads `LANES` half-precision numbers exactly, subnormal ones included.
    ///
    /// # Safety
    /// `from` must be valid for `LANES` numbers.
    unsafe fn load_f16(self, from: *const u16) -> Self::F32;
    /// Loads the first `count < LANES` numbers, and zeros in the other lanes.
    ///
    /// # Safety
    /// `from` must be valid for `count` numbers.
    unsafe fn load_partial(self, from: *const f32, count: usize) -> Self::F32;
    /// Stores the first `count < LANES` numbers.
    ///
    /// # Safety
    /// `to` must be valid for `count` numbers.
    unsafe fn store_partial(self, to: *mut f32, count: usize, v: Self::F32);
    /// Returns the numbers of the vector, followed by zeros.
    #[inline(always)]
    fn to_lanes(self, v: Self::F32) -> [f32; 16] {
        let mut lanes = [0.0; 16];
        // SAFETY: `lanes` has 16 numbers, which is at least `LANES`.
        unsafe { self.store(lanes.as_mut_ptr(), v) };
        lanes
    }
    /// Returns `a * b + c`, with one rounding if the processor has such an instruction.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// Returns `a + b`.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Returns `a - b`.
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Returns `a * b`.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Returns the greater of `bound` and `x`, and `x` if it is not a number.
    fn at_least(self, bound: Self::F32, x: Self::F32) -> Self::F32;
    /// Returns the lesser of `bound` and `x`, and `x` if it is not a number.
    fn at_most(self, bound: Self::F32, x: Self::F32) -> Self::F32;

    /// Returns for every lane the number at its index of the `2 * LANES` numbers at `from`, or 0 if
    /// the index is negative.
    ///
    /// # Safety
    /// `from` must be valid for `2 * LANES` numbers and `indices` for `LANES` integers, which must
    /// be less than `2 * LANES`.
    unsafe fn permute(self, from: *const f32, indices: *const i32) -> Self::F32;

    /// Loads four numbers each from `from` and from every `step` numbers after that.
    ///
    /// # Safety
    /// `from` must be valid for `LANES / 4` groups of four numbers, `step` numbers apart.
    unsafe fn load_quads(self, from: *const f32, step: usize) -> Self::F32;
    /// Transposes each square of four numbers that the four vectors have in the same four lanes.
    fn transpose_quads(self, v: [Self::F32; 4]) -> [Self::F32; 4];

    /// Returns per lane `acc + a[0] * b[0] + a[1] * b[1]`, where the lanes of `a` and `b` are pairs
    /// of bfloat16. [`crate::Bf16Token`] tells which processors have an instruction for it.
    #[inline(always)]
    fn dot_bf16(self, acc: Self::F32, a: Self::F32, b: Self::F32) -> Self::F32 {
        let [mut acc, a, b] = [acc, a, b].map(|v| self.to_lanes(v));
        let halves = |pair: f32| {
            let bits = pair.to_bits();
            [bits << 16, bits & 0xFFFF_0000].map(f32::from_bits)
        };
        for ((acc, a), b) in acc.iter_mut().zip(a).zip(b) {
            let ([a0, a1], [b0, b1]) = (halves(a), halves(b));
            *acc += a0 * b0 + a1 * b1;
        }
        // SAFETY: there are 16 numbers, which is at least `LANES`.
        unsafe { self.load(acc.as_ptr()) }
    }
    /// Rounds `count` numbers to the nearest bfloat16, ties to even.
    ///
    /// # Safety
    /// Both addresses must be valid for `count` numbers, which must not overlap.
    #[inline(always)]
    unsafe fn round_to_bf16(self, from: *const f32, to: *mut u16, count: usize) {
        for i in 0..count {
            // SAFETY: `i` is less than `count`.
            unsafe {
                let rounded = crate::half::round_to_bf16(from.add(i).read_unaligned());
                to.add(i).write_unaligned((rounded.to_bits() >> 16) as u16);
            }
        }
    }

    /// Returns a vector of integers with 0 in every lane.
    fn zero_i32(self) -> Self::I32;
    /// Loads `LANES` integers.
    ///
    /// # Safety
    /// `from` must be valid for `LANES` integers.
    unsafe fn load_i32(self, from: *const i32) -> Self::I32;
    /// Stores `LANES` integers.
    ///
    /// # Safety
    /// `to` must be valid for `LANES` integers.
    #[inline(always)]
    unsafe fn store_i32(self, to: *mut i32, v: Self::I32) {
        // SAFETY: vectors consist of their elements, and there is room for `LANES` of them.
        unsafe { to.cast::<Self::I32>().write_unaligned(v) }
    }
    /// Returns `a + b`.
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Returns `a - b`.
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Converts to single precision, rounded to nearest.
    fn to_f32(self, v: Self::I32) -> Self::F32;
    /// Loads `LANES` bytes as numbers.
    ///
    /// # Safety
    /// `from` must be valid for `LANES` bytes.
    unsafe fn load_u8(self, from: *const u8) -> Self::F32;
    /// Stores `LANES` numbers in 0..=255 as bytes, rounded to nearest, ties to even.
    ///
    /// # Safety
    /// `to` must be valid for `LANES` bytes.
    unsafe fn store_u8(self, to: *mut u8, v: Self::F32);
    /// Stores two vectors one behind the other like [`Simd::store_u8`].
    ///
    /// # Safety
    /// `to` must be valid for `2 * LANES` bytes.
    #[inline(always)]
    unsafe fn store_u8_twice(self, to: *mut u8, first: Self::F32, second: Self::F32) {
        // SAFETY: the first vector takes `LANES` of the `2 * LANES` bytes, the second the others.
        unsafe {
            self.store_u8(to, first);
            self.store_u8(to.add(Self::LANES), second);
        }
    }

    /// Loads `2 * LANES` 16-bit integers.
    ///
    /// # Safety
    /// `from` must be valid for `2 * LANES` integers.
    unsafe fn load_i16(self, from: *const i16) -> Self::Groups;
    /// Stores `2 * LANES` 16-bit integers.
    ///
    /// # Safety
    /// `to` must be valid for `2 * LANES` integers.
    unsafe fn store_i16(self, to: *mut i16, v: Self::Groups);
    /// Loads `2 * LANES` bytes as 16-bit integers.
    ///
    /// # Safety
    /// `from` must be valid for `2 * LANES` bytes.
    unsafe fn load_u8_as_i16(self, from: *const u8) -> Self::Groups;
    /// Returns `a + b` of 16-bit integers.
    fn add_i16(self, a: Self::Groups, b: Self::Groups) -> Self::Groups;
    /// Returns `a - b` of 16-bit integers.
    fn sub_i16(self, a: Self::Groups, b: Self::Groups) -> Self::Groups;
    /// Loads two 16-bit integers into every lane.
    ///
    /// # Safety
    /// `from` must be valid for two integers.
    unsafe fn broadcast_i16(self, from: *const i16) -> Self::Groups;
    /// Returns `acc` plus the sum of `a * b` over each pair of 16-bit integers, exactly.
    fn dot_i16(self, acc: Self::I32, a: Self::Groups, b: Self::Groups) -> Self::I32;

    /// Loads `LANES * GROUP` weights, `[channel][element of the group]`.
    ///
    /// # Safety
    /// `from` must be valid for `LANES * GROUP` weights.
    unsafe fn load_weights(self, from: *const i8) -> Self::Groups;
    /// Loads `GROUP` activations into every lane.
    ///
    /// # Safety
    /// `from` must be valid for `GROUP` activations.
    unsafe fn broadcast(self, from: *const Self::Act) -> Self::Groups;
    /// Returns `acc` plus the sum of `weight * (activation - SHIFT)` over each group, exactly.
    fn dot(self, acc: Self::I32, weights: Self::Groups, activations: Self::Groups) -> Self::I32;

    /// Encodes a weight of `BITS` bits, at most 4, for [`Simd::unpack`].
    fn low_bit_code<const BITS: u32>(weight: i8) -> u32;
    /// Loads `LANES` packed groups of 4 bytes each.
    ///
    /// # Safety
    /// `from` must be valid for `4 * LANES` bytes.
    unsafe fn load_packed(self, from: *const u8) -> Self::Groups;
    /// Decodes the weights whose codes have index `field` in every element of packed groups, lowest
    /// bits first. An element has the `32 / LOW_BIT_GROUP` bits of an element of the group.
    fn unpack<const BITS: u32>(self, packed: Self::Groups, field: u32) -> Self::Groups;
    /// Loads `LOW_BIT_GROUP` activations into every lane.
    ///
    /// # Safety
    /// `from` must be valid for `LOW_BIT_GROUP` activations.
    unsafe fn broadcast_low_bit(self, from: *const Self::LowBitAct) -> Self::Groups;
    /// Returns `acc` plus the sum of `weight * (activation - SHIFT)` over both groups, exactly. The
    /// weights come from [`Simd::unpack`].
    fn dot_low_bit(
        self,
        acc: Self::I32,
        weights: [Self::Groups; 2],
        activations: [Self::Groups; 2],
    ) -> Self::I32;

    /// Loads `4 * LANES` bytes.
    ///
    /// # Safety
    /// `from` must be valid for `4 * LANES` bytes.
    unsafe fn load_bytes(self, from: *const u8) -> Self::Bytes;
    /// Stores `4 * LANES` bytes.
    ///
    /// # Safety
    /// `to` must be valid for `4 * LANES` bytes.
    unsafe fn store_bytes(self, to: *mut u8, v: Self::Bytes);
    /// Converts the numbers in 0..=255 of a [`quartered`] block to bytes, rounded to nearest, ties
    /// to even.
    fn to_bytes(self, v: [Self::F32; 4]) -> Self::Bytes;
    /// Returns for every channel of a [`quartered`] block `acc` plus the sum of `(tap - SHIFT) *
    /// weight` over the first `TAPS` taps, exactly. Weights are `[vector][lane][tap]`.
    ///
    /// # Safety
    /// `weights` must be valid for `4 * LANES * TAPS` weights.
    unsafe fn dot_taps(
        self,
        acc: [Self::I32; 4],
        taps: [Self::Bytes; 4],
        weights: *const Self::Tap,
    ) -> [Self::I32; 4];

    /// Loads the first `count < 4 * LANES` bytes. The other bytes are unspecified.
    ///
    /// # Safety
    /// `from` must be valid for `count` bytes.
    #[inline(always)]
    unsafe fn load_bytes_partial(self, from: *const u8, count: usize) -> Self::Bytes {
        let mut bytes = [0_u8; 64];
        // SAFETY: `count` bytes are valid at `from`, fewer than the 64 of `bytes`, of which
        // `4 * LANES` are loaded.
        unsafe {
            copy_below_64(from, bytes.as_mut_ptr(), count);
            self.load_bytes(bytes.as_ptr())
        }
    }

    /// Stores the first `count < 4 * LANES` bytes.
    ///
    /// # Safety
    /// `to` must be valid for `count` bytes.
    #[inline(always)]
    unsafe fn store_bytes_partial(self, to: *mut u8, count: usize, v: Self::Bytes) {
        let mut bytes = [0_u8; 64];
        // SAFETY: `bytes` has room for `4 * LANES <= 64` bytes, and `count` of them fit `to`.
        unsafe {
            self.store_bytes(bytes.as_mut_ptr(), v);
            copy_below_64(bytes.as_ptr(), to, count);
        }
    }

    /// Loads `count < LANES` bytes as numbers.
    ///
    /// # Safety
    /// `from` must be valid for `count` bytes.
    #[inline(always)]
    unsafe fn load_u8_partial(self, from: *const u8, count: usize) -> Self::F32 {
        let mut bytes = [0_u8; 16];
        // SAFETY: `count` bytes are valid at `from`, fewer than the 16 of `bytes`, of which `LANES`
        // are loaded.
        unsafe {
            copy_few(from, bytes.as_mut_ptr(), count);
            self.load_u8(bytes.as_ptr())
        }
    }

    /// Stores the first `count < LANES` numbers like [`Simd::store_u8`].
    ///
    /// # Safety
    /// `to` must be valid for `count` bytes.
    #[inline(always)]
    unsafe fn store_u8_partial(self, to: *mut u8, count: usize, v: Self::F32) {
        let mut bytes = [0_u8; 16];
        // SAFETY: `bytes` has room for `LANES <= 16` bytes, and `count` of them fit `to`.
        unsafe {
            self.store_u8(bytes.as_mut_ptr(), v);
            copy_few(bytes.as_ptr(), to, count);
        }
    }
}

/// Returns vector and lane of a channel in a *quartered* block of `4 * LANES` channels, the order
/// that interleaving bytes and then pairs within 128 bits gives. The first vector has the first
/// four channels of every sixteen, the second the next four, and so on, for any number of lanes.
#[must_use]
pub fn quartered(channel: usize) -> [usize; 2] {
    [channel % 16 / 4, channel / 16 * 4 + channel % 4]
}
