//! Plain Rust on arrays of four, which compilers turn into whatever vectors the target has.

use super::{Job, Simd};
use crate::half::fp16_number;

/// Any processor.
#[derive(Clone, Copy)]
pub struct Portable;

#[inline(always)]
fn zip(a: [f32; 4], b: [f32; 4], f: impl Fn(f32, f32) -> f32) -> [f32; 4] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

// SAFETY: (of every block) the trait's contract says that pointers are valid for what each function is
// documented to touch; reads and writes are unaligned ones.
unsafe impl Simd for Portable {
    const LANES: usize = 4;
    const REGISTERS: usize = 8;
    type F = [f32; 4];
    type I = [i32; 4];
    type D = [[i16; 2]; 4];
    type Act = i16;
    const GROUP: usize = 2;
    type Few = i16;
    const FEW_GROUP: usize = 2;

    #[inline(always)]
    unsafe fn vectorize<J: Job>(job: J) {
        #[inline(never)]
        unsafe fn inner<J: Job>(job: J) {
            // SAFETY: the caller vouches for the job.
            unsafe { job.run::<Portable>() }
        }
        // SAFETY: as above.
        unsafe { inner(job) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_halves(from: *const u16) -> [f32; 4] {
        unsafe { from.cast::<[u16; 4]>().read_unaligned() }.map(fp16_number)
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: [f32; 4]) {
        unsafe { to.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> [f32; 4] {
        std::array::from_fn(|i| if i < count { unsafe { *from.add(i) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, count: usize, v: [f32; 4]) {
        for (i, x) in v.into_iter().enumerate().take(count) {
            unsafe { *to.add(i) = x };
        }
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        // Two roundings: `mul_add` is a slow library call where the target has no such instruction.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn at_least(bound: [f32; 4], x: [f32; 4]) -> [f32; 4] {
        zip(bound, x, |bound, x| if bound > x { bound } else { x })
    }
    #[inline(always)]
    unsafe fn at_most(bound: [f32; 4], x: [f32; 4]) -> [f32; 4] {
        zip(bound, x, |bound, x| if bound < x { bound } else { x })
    }

    #[inline(always)]
    unsafe fn pick(from: *const f32, picks: *const i32) -> [f32; 4] {
        let mut numbers = [0.0; 4];
        for (i, number) in numbers.iter_mut().enumerate() {
            // SAFETY: picks that are not negative name numbers that the caller vouches for.
            unsafe {
                if let Ok(pick) = usize::try_from(*picks.add(i)) {
                    *number = *from.add(pick);
                }
            }
        }
        numbers
    }

    #[inline(always)]
    unsafe fn load_quads(from: *const f32, _step: usize) -> [f32; 4] {
        unsafe { Self::load(from) }
    }
    #[inline(always)]
    unsafe fn turn_quads(v: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
        std::array::from_fn(|column| v.map(|row| row[column]))
    }

    #[inline(always)]
    unsafe fn load_i32(from: *const i32) -> [i32; 4] {
        unsafe { from.cast::<[i32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn add_i32(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn to_f32(v: [i32; 4]) -> [f32; 4] {
        v.map(|x| x as f32)
    }
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> [f32; 4] {
        unsafe { from.cast::<[u8; 4]>().read() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn store_u8(to: *mut u8, v: [f32; 4]) {
        // Adding 1.5 * 2^23 leaves the integer, rounded to nearest even, in the low bits.
        let bytes = v.map(|x| (x + 12_582_912.0).to_bits() as u8);
        unsafe { to.cast::<[u8; 4]>().write(bytes) }
    }

    #[inline(always)]
    unsafe fn sub_i32(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    unsafe fn load_wide(from: *const i16) -> [[i16; 2]; 4] {
        unsafe { from.cast::<[[i16; 2]; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_wide(to: *mut i16, v: [[i16; 2]; 4]) {
        unsafe { to.cast::<[[i16; 2]; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn widen(from: *const u8) -> [[i16; 2]; 4] {
        unsafe { from.cast::<[[u8; 2]; 4]>().read() }.map(|pair| pair.map(i16::from))
    }
    #[inline(always)]
    unsafe fn add_wide(a: [[i16; 2]; 4], b: [[i16; 2]; 4]) -> [[i16; 2]; 4] {
        std::array::from_fn(|i| [a[i][0].wrapping_add(b[i][0]), a[i][1].wrapping_add(b[i][1])])
    }
    #[inline(always)]
    unsafe fn sub_wide(a: [[i16; 2]; 4], b: [[i16; 2]; 4]) -> [[i16; 2]; 4] {
        std::array::from_fn(|i| [a[i][0].wrapping_sub(b[i][0]), a[i][1].wrapping_sub(b[i][1])])
    }
    #[inline(always)]
    unsafe fn broadcast_wide(from: *const i16) -> [[i16; 2]; 4] {
        unsafe { Self::broadcast(from) }
    }
    #[inline(always)]
    unsafe fn dot_wide(acc: [i32; 4], a: [[i16; 2]; 4], b: [[i16; 2]; 4]) -> [i32; 4] {
        unsafe { Self::dot(acc, a, b) }
    }

    #[inline(always)]
    unsafe fn load_weights(from: *const i8) -> [[i16; 2]; 4] {
        unsafe { from.cast::<[[i8; 2]; 4]>().read() }.map(|pair| pair.map(i16::from))
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const i16) -> [[i16; 2]; 4] {
        [unsafe { from.cast::<[i16; 2]>().read_unaligned() }; 4]
    }
    #[inline(always)]
    unsafe fn dot(acc: [i32; 4], weights: [[i16; 2]; 4], activations: [[i16; 2]; 4]) -> [i32; 4] {
        std::array::from_fn(|i| {
            let (w, a) = (weights[i], activations[i]);
            acc[i] + i32::from(w[0]) * i32::from(a[0]) + i32::from(w[1]) * i32::from(a[1])
        })
    }
    #[inline(always)]
    fn code<const BITS: u32>(weight: i8) -> u32 {
        weight as u32 & ((1 << BITS) - 1)
    }
    #[inline(always)]
    unsafe fn load_packed(from: *const u8) -> [[i16; 2]; 4] {
        unsafe { from.cast::<[[i16; 2]; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn unpack<const BITS: u32>(packed: [[i16; 2]; 4], field: u32) -> [[i16; 2]; 4] {
        packed.map(|pair| pair.map(|x| x << (16 - BITS * (field + 1)) >> (16 - BITS)))
    }
    #[inline(always)]
    unsafe fn broadcast_few(from: *const i16) -> [[i16; 2]; 4] {
        unsafe { Self::broadcast(from) }
    }
    #[inline(always)]
    unsafe fn dot_few(
        acc: [i32; 4],
        weights: [[[i16; 2]; 4]; 2],
        activations: [[[i16; 2]; 4]; 2],
    ) -> [i32; 4] {
        unsafe { Self::dot(Self::dot(acc, weights[0], activations[0]), weights[1], activations[1]) }
    }
    type Bytes = [u8; 16];
    type Tap = i16;
    const TAPS: usize = 2;
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> [u8; 16] {
        unsafe { from.cast::<[u8; 16]>().read() }
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, v: [u8; 16]) {
        unsafe { to.cast::<[u8; 16]>().write(v) }
    }
    #[inline(always)]
    unsafe fn to_bytes(v: [[f32; 4]; 4]) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (vector, numbers) in v.into_iter().enumerate() {
            unsafe { Self::store_u8(bytes[4 * vector..].as_mut_ptr(), numbers) };
        }
        bytes
    }
    #[inline(always)]
    unsafe fn dot_taps(acc: [[i32; 4]; 4], taps: [[u8; 16]; 4], weights: *const i16) -> [[i32; 4]; 4] {
        let w = unsafe { weights.cast::<[[[i16; 2]; 4]; 4]>().read_unaligned() };
        std::array::from_fn(|v| {
            std::array::from_fn(|i| {
                let tap = |tap: usize| i32::from(w[v][i][tap]) * i32::from(taps[tap][4 * v + i]);
                acc[v][i] + tap(0) + tap(1)
            })
        })
    }
}
