//! NEON: 4 lanes, 32 registers, with or without the dot product of signed bytes.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use crate::copy::copy_few;
use crate::methods::{entries, methods};
use crate::{Isa, Simd, SimdFn, SimdOp};

/// Token of NEON on 64-bit Arm.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

/// Token of NEON with the dot product of signed bytes (part of Armv8.4, an option since Armv8.2).
#[derive(Clone, Copy, Debug)]
pub struct NeonDot(());

impl Neon {
    /// Returns the token, or `None` if this processor does not execute the set.
    #[must_use]
    pub fn new() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

impl NeonDot {
    /// Returns the token, or `None` if this processor does not execute the set.
    #[must_use]
    pub fn new() -> Option<Self> {
        (Neon::new().is_some() && is_aarch64_feature_detected!("dotprod")).then_some(Self(()))
    }
}

impl From<NeonDot> for Neon {
    fn from(_: NeonDot) -> Self {
        Self(())
    }
}

/// Returns `acc` plus the sum of `a * b` over each pair of 16-bit integers.
#[inline]
#[target_feature(enable = "neon")]
fn dot_pairs(acc: int32x4_t, a: int16x8_t, b: int16x8_t) -> int32x4_t {
    let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
    let high = vmull_high_s16(a, b);
    vaddq_s32(acc, vpaddq_s32(low, high))
}

/// Returns `acc` plus the sum of `a * b` over each four signed bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_bytes(mut acc: int32x4_t, a: int16x8_t, b: int16x8_t) -> int32x4_t {
    // The standard library's name for the instruction is not stable yet.
    // SAFETY: the function is compiled for processors with this instruction, which accesses nothing
    // but its registers.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) acc, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// Converts half-precision numbers, given as their bits.
#[inline]
#[target_feature(enable = "neon")]
fn widened(halves: uint16x4_t) -> float32x4_t {
    let numbers: float32x4_t;
    // The standard library's name for the instruction takes a type that is not stable yet.
    // SAFETY: the function is compiled for processors with this instruction, which accesses nothing
    // but its registers and status flags.
    unsafe {
        asm!(
            "fcvtl {0:v}.4s, {1:v}.4h",
            out(vreg) numbers, in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    numbers
}

/// Subtracts 128 from bytes, which makes them signed.
#[inline]
#[target_feature(enable = "neon")]
fn shifted(bytes: uint8x16_t) -> int16x8_t {
    vreinterpretq_s16_u8(veorq_u8(bytes, vdupq_n_u8(0x80)))
}

/// Interleaves the bytes of two taps as pairs of 16-bit integers, the vectors of a quartered block.
#[inline]
#[target_feature(enable = "neon")]
fn widened_pairs(first: uint8x16_t, second: uint8x16_t) -> [int16x8_t; 4] {
    let (low, high) = (vzip1q_u8(first, second), vzip2q_u8(first, second));
    [
        vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(low))),
        vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(low))),
        vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(high))),
        vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(high))),
    ]
}

/// Interleaves the bytes of four taps, less 128, the vectors of a quartered block.
#[inline]
#[target_feature(enable = "neon")]
fn interleaved([a, b, c, d]: [uint8x16_t; 4]) -> [int16x8_t; 4] {
    let (ab, cd) = (vreinterpretq_u16_u8(vzip1q_u8(a, b)), vreinterpretq_u16_u8(vzip1q_u8(c, d)));
    let ab_high = vreinterpretq_u16_u8(vzip2q_u8(a, b));
    let cd_high = vreinterpretq_u16_u8(vzip2q_u8(c, d));
    [
        shifted(vreinterpretq_u8_u16(vzip1q_u16(ab, cd))),
        shifted(vreinterpretq_u8_u16(vzip2q_u16(ab, cd))),
        shifted(vreinterpretq_u8_u16(vzip1q_u16(ab_high, cd_high))),
        shifted(vreinterpretq_u8_u16(vzip2q_u16(ab_high, cd_high))),
    ]
}

/// Implements [`Simd`]; `$others` are the items that differ between the sets.
macro_rules! neon {
    ($set:ident, $features:literal, { $($others:tt)* }) => {
        // SAFETY: `$set::new` checks all features, and the other way to a token takes one of a
        // larger set. Vectors are 4 elements of 32 bits.
        unsafe impl Simd for $set {
            const ISA: Isa = Isa::$set;
            const LANES: usize = 4;
            const REGISTERS: usize = 32;
            type F32 = float32x4_t;
            type I32 = int32x4_t;
            type Groups = int16x8_t;
            type Bytes = uint8x16_t;

            entries!($set, $features);

            methods! {
                $features
                fn splat(self, x: f32) -> float32x4_t {
                    vdupq_n_f32(x)
                }
                fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
                    vfmaq_f32(c, a, b)
                }
                fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
                    vaddq_f32(a, b)
                }
                fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
                    vsubq_f32(a, b)
                }
                fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
                    vmulq_f32(a, b)
                }
                fn at_least(self, bound: float32x4_t, x: float32x4_t) -> float32x4_t {
                    // Operands that are not numbers are passed on to the result.
                    vmaxq_f32(bound, x)
                }
                fn at_most(self, bound: float32x4_t, x: float32x4_t) -> float32x4_t {
                    vminq_f32(bound, x)
                }
                fn transpose_quads(self, v: [float32x4_t; 4]) -> [float32x4_t; 4] {
                    let [a, b, c, d] = v;
                    let even_ab = vreinterpretq_f64_f32(vtrn1q_f32(a, b));
                    let odd_ab = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
                    let even_cd = vreinterpretq_f64_f32(vtrn1q_f32(c, d));
                    let odd_cd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
                    [
                        vreinterpretq_f32_f64(vtrn1q_f64(even_ab, even_cd)),
                        vreinterpretq_f32_f64(vtrn1q_f64(odd_ab, odd_cd)),
                        vreinterpretq_f32_f64(vtrn2q_f64(even_ab, even_cd)),
                        vreinterpretq_f32_f64(vtrn2q_f64(odd_ab, odd_cd)),
                    ]
                }
                fn zero_i32(self,) -> int32x4_t {
                    vdupq_n_s32(0)
                }
                fn add_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
                    vaddq_s32(a, b)
                }
                fn sub_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
                    vsubq_s32(a, b)
                }
                fn to_f32(self, v: int32x4_t) -> float32x4_t {
                    vcvtq_f32_s32(v)
                }
                fn add_i16(self, a: int16x8_t, b: int16x8_t) -> int16x8_t {
                    vaddq_s16(a, b)
                }
                fn sub_i16(self, a: int16x8_t, b: int16x8_t) -> int16x8_t {
                    vsubq_s16(a, b)
                }
                fn dot_i16(self, acc: int32x4_t, a: int16x8_t, b: int16x8_t) -> int32x4_t {
                    dot_pairs(acc, a, b)
                }
                fn to_bytes(self, v: [float32x4_t; 4]) -> uint8x16_t {
                    let low = vcombine_u16(vmovn_u32(vcvtnq_u32_f32(v[0])), vmovn_u32(vcvtnq_u32_f32(v[1])));
                    let high = vcombine_u16(vmovn_u32(vcvtnq_u32_f32(v[2])), vmovn_u32(vcvtnq_u32_f32(v[3])));
                    vcombine_u8(vmovn_u16(low), vmovn_u16(high))
                }
            }

            #[inline(always)]
            fn low_bit_code<const BITS: u32>(weight: i8) -> u32 {
                weight as u32 & ((1 << BITS) - 1)
            }
            #[inline(always)]
            unsafe fn load(self, from: *const f32) -> float32x4_t {
                // SAFETY: the token shows that the processor has NEON, and the caller has four
                // numbers at `from`.
                unsafe { vld1q_f32(from) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32, v: float32x4_t) {
                // SAFETY: the token shows that the processor has NEON, and the caller has room for
                // four numbers at `to`.
                unsafe { vst1q_f32(to, v) }
            }
            #[inline(always)]
            unsafe fn load_f16(self, from: *const u16) -> float32x4_t {
                // SAFETY: the token shows that the processor has NEON, and the caller has four
                // numbers of 2 bytes at `from`.
                unsafe { widened(vld1_u16(from)) }
            }
            #[inline(always)]
            unsafe fn load_partial(self, from: *const f32, count: usize) -> float32x4_t {
                let mut lanes = [0.0_f32; 4];
                // SAFETY: the caller has `count < 4` numbers at `from`, for which `lanes` has room.
                unsafe {
                    copy_few(from, lanes.as_mut_ptr(), count);
                    self.load(lanes.as_ptr())
                }
            }
            #[inline(always)]
            unsafe fn store_partial(self, to: *mut f32, count: usize, v: float32x4_t) {
                let mut lanes = [0.0_f32; 4];
                // SAFETY: `lanes` has room for a vector, and `to` for the first `count` of its
                // numbers.
                unsafe {
                    self.store(lanes.as_mut_ptr(), v);
                    copy_few(lanes.as_ptr(), to, count);
                }
            }
            #[inline(always)]
            unsafe fn permute(self, from: *const f32, indices: *const i32) -> float32x4_t {
                let mut numbers = [0.0; 4];
                for (i, number) in numbers.iter_mut().enumerate() {
                    // SAFETY: the caller has four integers at `indices` and eight numbers at
                    // `from`, and indices are less than eight.
                    unsafe {
                        if let Ok(index) = usize::try_from(indices.add(i).read_unaligned()) {
                            *number = from.add(index).read_unaligned();
                        }
                    }
                }
                // SAFETY: `numbers` has four numbers.
                unsafe { self.load(numbers.as_ptr()) }
            }
            #[inline(always)]
            unsafe fn load_quads(self, from: *const f32, _step: usize) -> float32x4_t {
                // SAFETY: the caller has four numbers at `from`.
                unsafe { self.load(from) }
            }
            #[inline(always)]
            unsafe fn load_i32(self, from: *const i32) -> int32x4_t {
                // SAFETY: the token shows that the processor has NEON, and the caller has four
                // integers at `from`.
                unsafe { vld1q_s32(from) }
            }
            #[inline(always)]
            unsafe fn load_u8(self, from: *const u8) -> float32x4_t {
                // SAFETY: the token shows that the processor has NEON, and the caller has four
                // bytes at `from`.
                unsafe {
                    let bytes = vcreate_u8(u64::from(from.cast::<u32>().read_unaligned()));
                    vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
                }
            }
            #[inline(always)]
            unsafe fn store_u8(self, to: *mut u8, v: float32x4_t) {
                // SAFETY: the token shows that the processor has NEON, and the caller has room for
                // four bytes at `to`.
                unsafe {
                    let shorts = vmovn_u32(vcvtnq_u32_f32(v));
                    let bytes = vmovn_u16(vcombine_u16(shorts, shorts));
                    to.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)));
                }
            }
            #[inline(always)]
            unsafe fn load_i16(self, from: *const i16) -> int16x8_t {
                // SAFETY: the token shows that the processor has NEON, and the caller has eight
                // integers at `from`.
                unsafe { vld1q_s16(from) }
            }
            #[inline(always)]
            unsafe fn store_i16(self, to: *mut i16, v: int16x8_t) {
                // SAFETY: the token shows that the processor has NEON, and the caller has room for
                // eight integers at `to`.
                unsafe { vst1q_s16(to, v) }
            }
            #[inline(always)]
            unsafe fn load_u8_as_i16(self, from: *const u8) -> int16x8_t {
                // SAFETY: the token shows that the processor has NEON, and the caller has eight
                // bytes at `from`.
                unsafe { vreinterpretq_s16_u16(vmovl_u8(vld1_u8(from))) }
            }
            #[inline(always)]
            unsafe fn broadcast_i16(self, from: *const i16) -> int16x8_t {
                // SAFETY: the token shows that the processor has NEON, and the caller has two
                // integers at `from`.
                unsafe { vreinterpretq_s16_s32(vdupq_n_s32(from.cast::<i32>().read_unaligned())) }
            }
            #[inline(always)]
            unsafe fn load_packed(self, from: *const u8) -> int16x8_t {
                // SAFETY: the token shows that the processor has NEON, and the caller has 16 bytes
                // at `from`.
                unsafe { vreinterpretq_s16_u8(vld1q_u8(from)) }
            }
            #[inline(always)]
            unsafe fn load_bytes(self, from: *const u8) -> uint8x16_t {
                // SAFETY: the token shows that the processor has NEON, and the caller has 16 bytes
                // at `from`.
                unsafe { vld1q_u8(from) }
            }
            #[inline(always)]
            unsafe fn store_bytes(self, to: *mut u8, v: uint8x16_t) {
                // SAFETY: the token shows that the processor has NEON, and the caller has room for
                // 16 bytes at `to`.
                unsafe { vst1q_u8(to, v) }
            }
            $($others)*
        }
    };
}

neon!(Neon, "neon", {
    type Act = i16;
    const GROUP: usize = 2;
    type LowBitAct = i16;
    const LOW_BIT_GROUP: usize = 2;
    type Tap = i16;
    const TAPS: usize = 2;

    methods! {
        "neon"
        fn dot(self, acc: int32x4_t, weights: int16x8_t, activations: int16x8_t) -> int32x4_t {
            dot_pairs(acc, weights, activations)
        }
        fn unpack<const BITS: u32>(self, packed: int16x8_t, field: u32) -> int16x8_t {
            // Shifts to the top, and back down with the sign: a negative count shifts to the right.
            let up = vshlq_s16(packed, vdupq_n_s16((16 - BITS * (field + 1)) as i16));
            vshlq_s16(up, vdupq_n_s16(BITS as i16 - 16))
        }
        fn dot_low_bit(
            self, acc: int32x4_t, weights: [int16x8_t; 2], activations: [int16x8_t; 2],
        ) -> int32x4_t {
            dot_pairs(dot_pairs(acc, weights[0], activations[0]), weights[1], activations[1])
        }
    }

    #[inline(always)]
    unsafe fn load_weights(self, from: *const i8) -> int16x8_t {
        // SAFETY: the token shows that the processor has NEON, and the caller has eight bytes at
        // `from`.
        unsafe { vmovl_s8(vld1_s8(from)) }
    }
    #[inline(always)]
    unsafe fn broadcast(self, from: *const i16) -> int16x8_t {
        // SAFETY: the caller has two integers at `from`.
        unsafe { self.broadcast_i16(from) }
    }
    #[inline(always)]
    unsafe fn broadcast_low_bit(self, from: *const i16) -> int16x8_t {
        // SAFETY: the caller has two integers at `from`.
        unsafe { self.broadcast_i16(from) }
    }
    #[inline(always)]
    unsafe fn dot_taps(
        self,
        acc: [int32x4_t; 4],
        taps: [uint8x16_t; 4],
        weights: *const i16,
    ) -> [int32x4_t; 4] {
        // SAFETY: the token shows that the processor has NEON, and the caller has 4 * 4 * 2
        // weights, which are four vectors of eight.
        unsafe {
            let [a, b, c, d] = widened_pairs(taps[0], taps[1]);
            [
                self.dot(acc[0], self.load_i16(weights), a),
                self.dot(acc[1], self.load_i16(weights.add(8)), b),
                self.dot(acc[2], self.load_i16(weights.add(16)), c),
                self.dot(acc[3], self.load_i16(weights.add(24)), d),
            ]
        }
    }
});

neon!(NeonDot, "neon,dotprod", {
    type Act = u8;
    const GROUP: usize = 4;
    type LowBitAct = u8;
    const LOW_BIT_GROUP: usize = 4;
    // There is no product of unsigned and signed bytes: bytes stored as 0..=255 are multiplied as
    // -128..=127.
    const SHIFT: i32 = 128;
    type Tap = i8;
    const TAPS: usize = 4;

    methods! {
        "neon,dotprod"
        fn dot(self, acc: int32x4_t, weights: int16x8_t, activations: int16x8_t) -> int32x4_t {
            dot_bytes(acc, weights, activations)
        }
        fn unpack<const BITS: u32>(self, packed: int16x8_t, field: u32) -> int16x8_t {
            // Shifts to the top, and back down with the sign: a negative count shifts to the right.
            let up = vshlq_s8(vreinterpretq_s8_s16(packed), vdupq_n_s8((8 - BITS * (field + 1)) as i8));
            vreinterpretq_s16_s8(vshlq_s8(up, vdupq_n_s8(BITS as i8 - 8)))
        }
        fn dot_low_bit(
            self, acc: int32x4_t, weights: [int16x8_t; 2], activations: [int16x8_t; 2],
        ) -> int32x4_t {
            dot_bytes(dot_bytes(acc, weights[0], activations[0]), weights[1], activations[1])
        }
    }

    #[inline(always)]
    unsafe fn load_weights(self, from: *const i8) -> int16x8_t {
        // SAFETY: the token shows that the processor has NEON, and the caller has 16 bytes at
        // `from`.
        unsafe { vreinterpretq_s16_s8(vld1q_s8(from)) }
    }
    #[inline(always)]
    unsafe fn broadcast(self, from: *const u8) -> int16x8_t {
        // SAFETY: the token shows that the processor has NEON, and the caller has four bytes at
        // `from`.
        unsafe { shifted(vreinterpretq_u8_u32(vdupq_n_u32(from.cast::<u32>().read_unaligned()))) }
    }
    #[inline(always)]
    unsafe fn broadcast_low_bit(self, from: *const u8) -> int16x8_t {
        // SAFETY: the caller has four bytes at `from`.
        unsafe { self.broadcast(from) }
    }
    #[inline(always)]
    unsafe fn dot_taps(
        self,
        acc: [int32x4_t; 4],
        taps: [uint8x16_t; 4],
        weights: *const i8,
    ) -> [int32x4_t; 4] {
        // SAFETY: the token shows that the processor has NEON, and the caller has 4 * 4 * 4
        // weights, which are four vectors of 16.
        unsafe {
            let [a, b, c, d] = interleaved(taps);
            [
                self.dot(acc[0], self.load_weights(weights), a),
                self.dot(acc[1], self.load_weights(weights.add(16)), b),
                self.dot(acc[2], self.load_weights(weights.add(32)), c),
                self.dot(acc[3], self.load_weights(weights.add(48)), d),
            ]
        }
    }
});
