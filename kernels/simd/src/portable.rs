//! Plain Rust on arrays of four, which compilers turn into the vectors that the target has.

use crate::half::fp16_number;
use crate::{Isa, Simd, SimdFn, SimdOp};

/// Token of plain Rust, which every processor executes.
#[derive(Clone, Copy, Debug)]
pub struct Portable(());

impl Portable {
    /// Returns the token, which every machine has.
    #[must_use]
    pub fn new() -> Self {
        Self(())
    }
}

impl Default for Portable {
    fn default() -> Self {
        Self::new()
    }
}

#[inline(always)]
fn zip(a: [f32; 4], b: [f32; 4], f: impl Fn(f32, f32) -> f32) -> [f32; 4] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// Rounds numbers in 0..=255 to nearest, ties to even.
#[inline(always)]
fn bytes(v: [f32; 4]) -> [u8; 4] {
    // Adding 1.5 * 2^23 leaves the rounded integer in the low bits.
    v.map(|x| (x + 12_582_912.0).to_bits() as u8)
}

// SAFETY: no instructions other than the target's are used. Vectors are arrays of 4 elements.
unsafe impl Simd for Portable {
    const ISA: Isa = Isa::Portable;
    const LANES: usize = 4;
    const REGISTERS: usize = 8;
    type F32 = [f32; 4];
    type I32 = [i32; 4];
    type Groups = [[i16; 2]; 4];
    type Act = i16;
    const GROUP: usize = 2;
    type LowBitAct = i16;
    const LOW_BIT_GROUP: usize = 2;
    type Bytes = [u8; 16];
    type Tap = i16;
    const TAPS: usize = 2;

    #[inline(always)]
    fn vectorize<O: SimdOp>(self, op: O) -> O::Output {
        #[inline(never)]
        fn compiled<O: SimdOp>(simd: Portable, op: O) -> O::Output {
            op.eval(simd)
        }
        compiled(self, op)
    }
    #[inline(always)]
    fn pointer<F: SimdFn>(self) -> for<'a> unsafe fn(F::Args<'a>) {
        #[inline(never)]
        unsafe fn compiled<F: SimdFn>(args: F::Args<'_>) {
            // SAFETY: the caller keeps to the contract of `F`.
            unsafe { F::call(Portable::new(), args) }
        }
        compiled::<F>
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> [f32; 4] {
        // SAFETY: the caller has four numbers at `from`.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: [f32; 4]) {
        // SAFETY: the caller has room for four numbers at `to`.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> [f32; 4] {
        // SAFETY: the caller has four numbers of 2 bytes at `from`.
        unsafe { from.cast::<[u16; 4]>().read_unaligned() }.map(fp16_number)
    }
    #[inline(always)]
    unsafe fn load_partial(self, from: *const f32, count: usize) -> [f32; 4] {
        std::array::from_fn(|i| {
            // SAFETY: the caller has `count` numbers at `from`, and `i` is less.
            if i < count { unsafe { from.add(i).read_unaligned() } } else { 0.0 }
        })
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, count: usize, v: [f32; 4]) {
        for (i, x) in v.into_iter().enumerate().take(count) {
            // SAFETY: the caller has room for `count` numbers at `to`, and `i` is less.
            unsafe { to.add(i).write_unaligned(x) };
        }
    }
    #[inline(always)]
    fn fma(self, a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        // With two roundings, as `mul_add` is a slow library call on targets without the
        // instruction.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn add(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn at_least(self, bound: [f32; 4], x: [f32; 4]) -> [f32; 4] {
        zip(bound, x, |bound, x| if bound > x { bound } else { x })
    }
    #[inline(always)]
    fn at_most(self, bound: [f32; 4], x: [f32; 4]) -> [f32; 4] {
        zip(bound, x, |bound, x| if bound < x { bound } else { x })
    }

    #[inline(always)]
    unsafe fn permute(self, from: *const f32, indices: *const i32) -> [f32; 4] {
        // SAFETY: the caller has four integers at `indices`.
        let indices = unsafe { indices.cast::<[i32; 4]>().read_unaligned() };
        indices.map(|index| match usize::try_from(index) {
            // SAFETY: the caller has eight numbers at `from`, and indices are less.
            Ok(index) => unsafe { from.add(index).read_unaligned() },
            Err(_) => 0.0,
        })
    }

    #[inline(always)]
    unsafe fn load_quads(self, from: *const f32, _step: usize) -> [f32; 4] {
        // SAFETY: the caller has four numbers at `from`.
        unsafe { self.load(from) }
    }
    #[inline(always)]
    fn transpose_quads(self, v: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
        std::array::from_fn(|column| v.map(|row| row[column]))
    }

    #[inline(always)]
    fn zero_i32(self) -> [i32; 4] {
        [0; 4]
    }
    #[inline(always)]
    unsafe fn load_i32(self, from: *const i32) -> [i32; 4] {
        // SAFETY: the caller has four integers at `from`.
        unsafe { from.cast::<[i32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    fn add_i32(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sub_i32(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn to_f32(self, v: [i32; 4]) -> [f32; 4] {
        v.map(|x| x as f32)
    }
    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> [f32; 4] {
        // SAFETY: the caller has four bytes at `from`.
        unsafe { from.cast::<[u8; 4]>().read() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn store_u8(self, to: *mut u8, v: [f32; 4]) {
        // SAFETY: the caller has room for four bytes at `to`.
        unsafe { to.cast::<[u8; 4]>().write(bytes(v)) }
    }

    #[inline(always)]
    unsafe fn load_i16(self, from: *const i16) -> [[i16; 2]; 4] {
        // SAFETY: the caller has eight integers at `from`.
        unsafe { from.cast::<[[i16; 2]; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16, v: [[i16; 2]; 4]) {
        // SAFETY: the caller has room for eight integers at `to`.
        unsafe { to.cast::<[[i16; 2]; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_u8_as_i16(self, from: *const u8) -> [[i16; 2]; 4] {
        // SAFETY: the caller has eight bytes at `from`.
        unsafe { from.cast::<[[u8; 2]; 4]>().read() }.map(|pair| pair.map(i16::from))
    }
    #[inline(always)]
    fn add_i16(self, a: [[i16; 2]; 4], b: [[i16; 2]; 4]) -> [[i16; 2]; 4] {
        std::array::from_fn(|i| [a[i][0].wrapping_add(b[i][0]), a[i][1].wrapping_add(b[i][1])])
    }
    #[inline(always)]
    fn sub_i16(self, a: [[i16; 2]; 4], b: [[i16; 2]; 4]) -> [[i16; 2]; 4] {
        std::array::from_fn(|i| [a[i][0].wrapping_sub(b[i][0]), a[i][1].wrapping_sub(b[i][1])])
    }
    #[inline(always)]
    unsafe fn broadcast_i16(self, from: *const i16) -> [[i16; 2]; 4] {
        // SAFETY: the caller has two integers at `from`.
        [unsafe { from.cast::<[i16; 2]>().read_unaligned() }; 4]
    }
    #[inline(always)]
    fn dot_i16(self, acc: [i32; 4], a: [[i16; 2]; 4], b: [[i16; 2]; 4]) -> [i32; 4] {
        self.dot(acc, a, b)
    }

    #[inline(always)]
    unsafe fn load_weights(self, from: *const i8) -> [[i16; 2]; 4] {
        // SAFETY: the caller has eight bytes at `from`.
        unsafe { from.cast::<[[i8; 2]; 4]>().read() }.map(|pair| pair.map(i16::from))
    }
    #[inline(always)]
    unsafe fn broadcast(self, from: *const i16) -> [[i16; 2]; 4] {
        // SAFETY: the caller has two integers at `from`.
        unsafe { self.broadcast_i16(from) }
    }
    #[inline(always)]
    fn dot(self, acc: [i32; 4], weights: [[i16; 2]; 4], activations: [[i16; 2]; 4]) -> [i32; 4] {
        std::array::from_fn(|i| {
            let (w, a) = (weights[i], activations[i]);
            acc[i] + i32::from(w[0]) * i32::from(a[0]) + i32::from(w[1]) * i32::from(a[1])
        })
    }

    #[inline(always)]
    fn low_bit_code<const BITS: u32>(weight: i8) -> u32 {
        weight as u32 & ((1 << BITS) - 1)
    }
    #[inline(always)]
    unsafe fn load_packed(self, from: *const u8) -> [[i16; 2]; 4] {
        // SAFETY: the caller has 16 bytes at `from`.
        unsafe { from.cast::<[[i16; 2]; 4]>().read_unaligned() }
    }
    #[inline(always)]
    fn unpack<const BITS: u32>(self, packed: [[i16; 2]; 4], field: u32) -> [[i16; 2]; 4] {
        packed.map(|pair| pair.map(|x| x << (16 - BITS * (field + 1)) >> (16 - BITS)))
    }
    #[inline(always)]
    unsafe fn broadcast_low_bit(self, from: *const i16) -> [[i16; 2]; 4] {
        // SAFETY: the caller has two integers at `from`.
        unsafe { self.broadcast_i16(from) }
    }
    #[inline(always)]
    fn dot_low_bit(
        self,
        acc: [i32; 4],
        weights: [[[i16; 2]; 4]; 2],
        activations: [[[i16; 2]; 4]; 2],
    ) -> [i32; 4] {
        self.dot(self.dot(acc, weights[0], activations[0]), weights[1], activations[1])
    }

    #[inline(always)]
    unsafe fn load_bytes(self, from: *const u8) -> [u8; 16] {
        // SAFETY: the caller has 16 bytes at `from`.
        unsafe { from.cast::<[u8; 16]>().read() }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, v: [u8; 16]) {
        // SAFETY: the caller has room for 16 bytes at `to`.
        unsafe { to.cast::<[u8; 16]>().write(v) }
    }
    #[inline(always)]
    fn to_bytes(self, v: [[f32; 4]; 4]) -> [u8; 16] {
        let mut all = [0; 16];
        for (to, v) in all.chunks_exact_mut(4).zip(v) {
            to.copy_from_slice(&bytes(v));
        }
        all
    }
    #[inline(always)]
    unsafe fn dot_taps(
        self,
        acc: [[i32; 4]; 4],
        taps: [[u8; 16]; 4],
        weights: *const i16,
    ) -> [[i32; 4]; 4] {
        // SAFETY: the caller has 4 * 4 * 2 weights.
        let w = unsafe { weights.cast::<[[[i16; 2]; 4]; 4]>().read_unaligned() };
        std::array::from_fn(|v| {
            std::array::from_fn(|i| {
                let tap = |tap: usize| i32::from(w[v][i][tap]) * i32::from(taps[tap][4 * v + i]);
                acc[v][i] + tap(0) + tap(1)
            })
        })
    }
}
