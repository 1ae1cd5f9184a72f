//! NEON: 4 lanes, 32 registers; with or without the dot product of signed bytes.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Job, Simd, copy_few};

/// 64-bit Arm.
#[derive(Clone, Copy)]
pub struct Neon;

/// The same with the dot product of signed bytes (part of Armv8.4, an option since Armv8.2).
#[derive(Clone, Copy)]
pub struct NeonDot;

/// `acc + sum over each pair of a * b`, of 16-bit integers.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn dot_pairs(acc: int32x4_t, a: int16x8_t, b: int16x8_t) -> int32x4_t {
    // SAFETY: the caller's promise.
    unsafe {
        let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
        let high = vmull_high_s16(a, b);
        vaddq_s32(acc, vpaddq_s32(low, high))
    }
}

/// `acc + sum over each four of a * b`, of signed bytes.
///
/// # Safety
/// The processor has the dot product.
#[inline(always)]
unsafe fn dot_bytes(mut acc: int32x4_t, a: int16x8_t, b: int16x8_t) -> int32x4_t {
    // SAFETY: one instruction that touches nothing but its registers; the standard library's name for it is not
    // stable yet.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) acc, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// Numbers in half precision, given as their bits.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn widened(halves: uint16x4_t) -> float32x4_t {
    let numbers: float32x4_t;
    // SAFETY: one instruction that touches nothing but its registers and status flags; the standard library's name for it
    // takes a type that is not stable yet.
    unsafe {
        asm!(
            "fcvtl {0:v}.4s, {1:v}.4h",
            out(vreg) numbers, in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    numbers
}

/// Bytes less 128, as signed ones.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn shifted(bytes: uint8x16_t) -> int16x8_t {
    // SAFETY: the caller's promise.
    unsafe { vreinterpretq_s16_u8(veorq_u8(bytes, vdupq_n_u8(0x80))) }
}

/// What both share; `$integers` are the items that differ.
macro_rules! neon {
    ($set:ident, $features:literal, { $($integers:tt)* }) => {
        // SAFETY: (of every block) the trait's contract says that the processor has the instruction set and that
        // pointers are valid for what each function is documented to touch; loads and stores are unaligned ones.
        unsafe impl Simd for $set {
            const LANES: usize = 4;
            const REGISTERS: usize = 32;
            type F = float32x4_t;
            type I = int32x4_t;
            type D = int16x8_t;

            #[inline(always)]
            unsafe fn vectorize<J: Job>(job: J) {
                #[inline(never)]
                #[target_feature(enable = $features)]
                unsafe fn inner<J: Job>(job: J) {
                    // SAFETY: the caller vouches for the processor and the job.
                    unsafe { job.run::<$set>() }
                }
                // SAFETY: as above.
                unsafe { inner(job) }
            }

            #[inline(always)]
            unsafe fn splat(x: f32) -> float32x4_t {
                unsafe { vdupq_n_f32(x) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> float32x4_t {
                unsafe { vld1q_f32(from) }
            }
            #[inline(always)]
            unsafe fn load_halves(from: *const u16) -> float32x4_t {
                unsafe { widened(vld1_u16(from)) }
            }
            #[inline(always)]
            unsafe fn store(to: *mut f32, v: float32x4_t) {
                unsafe { vst1q_f32(to, v) }
            }
            #[inline(always)]
            unsafe fn load_first(from: *const f32, count: usize) -> float32x4_t {
                let mut lanes = [0.0_f32; 4];
                unsafe {
                    copy_few(from, lanes.as_mut_ptr(), count);
                    vld1q_f32(lanes.as_ptr())
                }
            }
            #[inline(always)]
            unsafe fn store_first(to: *mut f32, count: usize, v: float32x4_t) {
                let mut lanes = [0.0_f32; 4];
                unsafe {
                    vst1q_f32(lanes.as_mut_ptr(), v);
                    copy_few(lanes.as_ptr(), to, count);
                }
            }
            #[inline(always)]
            unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
                unsafe { vfmaq_f32(c, a, b) }
            }
            #[inline(always)]
            unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
                unsafe { vaddq_f32(a, b) }
            }
            #[inline(always)]
            unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
                unsafe { vsubq_f32(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
                unsafe { vmulq_f32(a, b) }
            }
            #[inline(always)]
            unsafe fn at_least(bound: float32x4_t, x: float32x4_t) -> float32x4_t {
                // These propagate what is not a number.
                unsafe { vmaxq_f32(bound, x) }
            }
            #[inline(always)]
            unsafe fn at_most(bound: float32x4_t, x: float32x4_t) -> float32x4_t {
                unsafe { vminq_f32(bound, x) }
            }

            #[inline(always)]
            unsafe fn pick(from: *const f32, picks: *const i32) -> float32x4_t {
                let mut numbers = [0.0; 4];
                for (i, number) in numbers.iter_mut().enumerate() {
                    // SAFETY: picks that are not negative name numbers that the caller vouches for.
                    unsafe {
                        if let Ok(pick) = usize::try_from(*picks.add(i)) {
                            *number = *from.add(pick);
                        }
                    }
                }
                unsafe { vld1q_f32(numbers.as_ptr()) }
            }

            #[inline(always)]
            unsafe fn load_quads(from: *const f32, _step: usize) -> float32x4_t {
                unsafe { vld1q_f32(from) }
            }
            #[inline(always)]
            unsafe fn turn_quads([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
                unsafe {
                    let pairs = |a, b| {
                        let even = vreinterpretq_f64_f32(vtrn1q_f32(a, b));
                        (even, vreinterpretq_f64_f32(vtrn2q_f32(a, b)))
                    };
                    let ((even_ab, odd_ab), (even_cd, odd_cd)) = (pairs(a, b), pairs(c, d));
                    [
                        vreinterpretq_f32_f64(vtrn1q_f64(even_ab, even_cd)),
                        vreinterpretq_f32_f64(vtrn1q_f64(odd_ab, odd_cd)),
                        vreinterpretq_f32_f64(vtrn2q_f64(even_ab, even_cd)),
                        vreinterpretq_f32_f64(vtrn2q_f64(odd_ab, odd_cd)),
                    ]
                }
            }

            #[inline(always)]
            unsafe fn load_i32(from: *const i32) -> int32x4_t {
                unsafe { vld1q_s32(from) }
            }
            #[inline(always)]
            unsafe fn add_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t {
                unsafe { vaddq_s32(a, b) }
            }
            #[inline(always)]
            unsafe fn to_f32(v: int32x4_t) -> float32x4_t {
                unsafe { vcvtq_f32_s32(v) }
            }
            #[inline(always)]
            unsafe fn load_u8(from: *const u8) -> float32x4_t {
                unsafe {
                    let bytes = vcreate_u8(u64::from(from.cast::<u32>().read_unaligned()));
                    vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
                }
            }
            #[inline(always)]
            unsafe fn store_u8(to: *mut u8, v: float32x4_t) {
                unsafe {
                    let shorts = vmovn_u32(vcvtnq_u32_f32(v));
                    let bytes = vmovn_u16(vcombine_u16(shorts, shorts));
                    to.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)));
                }
            }

            #[inline(always)]
            unsafe fn sub_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t {
                unsafe { vsubq_s32(a, b) }
            }
            #[inline(always)]
            unsafe fn load_wide(from: *const i16) -> int16x8_t {
                unsafe { vld1q_s16(from) }
            }
            #[inline(always)]
            unsafe fn store_wide(to: *mut i16, v: int16x8_t) {
                unsafe { vst1q_s16(to, v) }
            }
            #[inline(always)]
            unsafe fn widen(from: *const u8) -> int16x8_t {
                unsafe { vreinterpretq_s16_u16(vmovl_u8(vld1_u8(from))) }
            }
            #[inline(always)]
            unsafe fn add_wide(a: int16x8_t, b: int16x8_t) -> int16x8_t {
                unsafe { vaddq_s16(a, b) }
            }
            #[inline(always)]
            unsafe fn sub_wide(a: int16x8_t, b: int16x8_t) -> int16x8_t {
                unsafe { vsubq_s16(a, b) }
            }
            #[inline(always)]
            unsafe fn broadcast_wide(from: *const i16) -> int16x8_t {
                unsafe { vreinterpretq_s16_s32(vdupq_n_s32(from.cast::<i32>().read_unaligned())) }
            }
            #[inline(always)]
            unsafe fn dot_wide(acc: int32x4_t, a: int16x8_t, b: int16x8_t) -> int32x4_t {
                unsafe { dot_pairs(acc, a, b) }
            }

            #[inline(always)]
            fn code<const BITS: u32>(weight: i8) -> u32 {
                weight as u32 & ((1 << BITS) - 1)
            }
            #[inline(always)]
            unsafe fn load_packed(from: *const u8) -> int16x8_t {
                unsafe { vreinterpretq_s16_u8(vld1q_u8(from)) }
            }
            type Bytes = uint8x16_t;
            #[inline(always)]
            unsafe fn load_bytes(from: *const u8) -> uint8x16_t {
                unsafe { vld1q_u8(from) }
            }
            #[inline(always)]
            unsafe fn store_bytes(to: *mut u8, v: uint8x16_t) {
                unsafe { vst1q_u8(to, v) }
            }
            #[inline(always)]
            unsafe fn to_bytes(v: [float32x4_t; 4]) -> uint8x16_t {
                unsafe {
                    let low = vcombine_u16(vmovn_u32(vcvtnq_u32_f32(v[0])), vmovn_u32(vcvtnq_u32_f32(v[1])));
                    let high = vcombine_u16(vmovn_u32(vcvtnq_u32_f32(v[2])), vmovn_u32(vcvtnq_u32_f32(v[3])));
                    vcombine_u8(vmovn_u16(low), vmovn_u16(high))
                }
            }

            $($integers)*
        }
    };
}

neon!(Neon, "neon", {
    type Act = i16;
    const GROUP: usize = 2;
    type Few = i16;
    const FEW_GROUP: usize = 2;
    type Tap = i16;
    const TAPS: usize = 2;

    #[inline(always)]
    unsafe fn load_weights(from: *const i8) -> int16x8_t {
        unsafe { vmovl_s8(vld1_s8(from)) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const i16) -> int16x8_t {
        unsafe { Self::broadcast_wide(from) }
    }
    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, weights: int16x8_t, activations: int16x8_t) -> int32x4_t {
        unsafe { dot_pairs(acc, weights, activations) }
    }
    #[inline(always)]
    unsafe fn unpack<const BITS: u32>(packed: int16x8_t, field: u32) -> int16x8_t {
        // To the top, and back down with the sign: a negative count is a shift to the right.
        unsafe {
            let up = vshlq_s16(packed, vdupq_n_s16((16 - BITS * (field + 1)) as i16));
            vshlq_s16(up, vdupq_n_s16(BITS as i16 - 16))
        }
    }
    #[inline(always)]
    unsafe fn broadcast_few(from: *const i16) -> int16x8_t {
        unsafe { Self::broadcast(from) }
    }
    #[inline(always)]
    unsafe fn dot_few(acc: int32x4_t, weights: [int16x8_t; 2], activations: [int16x8_t; 2]) -> int32x4_t {
        unsafe { Self::dot(Self::dot(acc, weights[0], activations[0]), weights[1], activations[1]) }
    }
    #[inline(always)]
    unsafe fn dot_taps(acc: [int32x4_t; 4], taps: [uint8x16_t; 4], weights: *const i16) -> [int32x4_t; 4] {
        unsafe {
            let (low, high) = (vzip1q_u8(taps[0], taps[1]), vzip2q_u8(taps[0], taps[1]));
            let wide = |bytes| vreinterpretq_s16_u16(vmovl_u8(bytes));
            [
                Self::dot(acc[0], vld1q_s16(weights), wide(vget_low_u8(low))),
                Self::dot(acc[1], vld1q_s16(weights.add(8)), wide(vget_high_u8(low))),
                Self::dot(acc[2], vld1q_s16(weights.add(16)), wide(vget_low_u8(high))),
                Self::dot(acc[3], vld1q_s16(weights.add(24)), wide(vget_high_u8(high))),
            ]
        }
    }
});

neon!(NeonDot, "neon,dotprod", {
    type Act = u8;
    const GROUP: usize = 4;
    type Few = u8;
    const FEW_GROUP: usize = 4;
    // There is no product of unsigned and signed bytes: what is stored as 0..=255 is multiplied as -128..=127.
    const SHIFT: i32 = 128;
    type Tap = i8;
    const TAPS: usize = 4;

    #[inline(always)]
    unsafe fn load_weights(from: *const i8) -> int16x8_t {
        unsafe { vreinterpretq_s16_s8(vld1q_s8(from)) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const u8) -> int16x8_t {
        unsafe { shifted(vreinterpretq_u8_u32(vdupq_n_u32(from.cast::<u32>().read_unaligned()))) }
    }
    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, weights: int16x8_t, activations: int16x8_t) -> int32x4_t {
        unsafe { dot_bytes(acc, weights, activations) }
    }
    #[inline(always)]
    unsafe fn unpack<const BITS: u32>(packed: int16x8_t, field: u32) -> int16x8_t {
        // To the top, and back down with the sign: a negative count is a shift to the right.
        unsafe {
            let up = vshlq_s8(vreinterpretq_s8_s16(packed), vdupq_n_s8((8 - BITS * (field + 1)) as i8));
            vreinterpretq_s16_s8(vshlq_s8(up, vdupq_n_s8(BITS as i8 - 8)))
        }
    }
    #[inline(always)]
    unsafe fn broadcast_few(from: *const u8) -> int16x8_t {
        unsafe { Self::broadcast(from) }
    }
    #[inline(always)]
    unsafe fn dot_few(acc: int32x4_t, weights: [int16x8_t; 2], activations: [int16x8_t; 2]) -> int32x4_t {
        unsafe { dot_bytes(dot_bytes(acc, weights[0], activations[0]), weights[1], activations[1]) }
    }
    #[inline(always)]
    unsafe fn dot_taps(acc: [int32x4_t; 4], taps: [uint8x16_t; 4], weights: *const i8) -> [int32x4_t; 4] {
        unsafe {
            let pairs = |a, b| vreinterpretq_u16_u8(vzip1q_u8(a, b));
            let pairs_behind = |a, b| vreinterpretq_u16_u8(vzip2q_u8(a, b));
            let (low, low_behind) = (pairs(taps[0], taps[1]), pairs(taps[2], taps[3]));
            let (high, high_behind) = (pairs_behind(taps[0], taps[1]), pairs_behind(taps[2], taps[3]));
            let bytes = |fours| shifted(vreinterpretq_u8_u16(fours));
            [
                dot_bytes(acc[0], Self::load_weights(weights), bytes(vzip1q_u16(low, low_behind))),
                dot_bytes(acc[1], Self::load_weights(weights.add(16)), bytes(vzip2q_u16(low, low_behind))),
                dot_bytes(acc[2], Self::load_weights(weights.add(32)), bytes(vzip1q_u16(high, high_behind))),
                dot_bytes(acc[3], Self::load_weights(weights.add(48)), bytes(vzip2q_u16(high, high_behind))),
            ]
        }
    }
});
