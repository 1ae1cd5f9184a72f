//! AVX-512: 16 lanes, 32 registers, with or without the dot products of VNNI and BF16.

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::*;

use crate::methods::{entries, methods};
use crate::{Avx2, Isa, Simd, SimdFn, SimdOp};

/// Token of AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

/// Token of AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Vnni(());

/// Token of AVX-512 F, BW, DQ, VL, VNNI and BF16.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Bf16(());

impl Avx512 {
    /// Returns the token, or `None` if this processor does not execute the set.
    #[must_use]
    pub fn new() -> Option<Self> {
        let detected = Avx2::new().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        detected.then_some(Self(()))
    }
}

impl Avx512Vnni {
    /// Returns the token, or `None` if this processor does not execute the set.
    #[must_use]
    pub fn new() -> Option<Self> {
        (Avx512::new().is_some() && is_x86_feature_detected!("avx512vnni")).then_some(Self(()))
    }
}

impl Avx512Bf16 {
    /// Returns the token, or `None` if this processor does not execute the set.
    #[must_use]
    pub fn new() -> Option<Self> {
        (Avx512Vnni::new().is_some() && is_x86_feature_detected!("avx512bf16")).then_some(Self(()))
    }
}

impl From<Avx512Vnni> for Avx512 {
    fn from(_: Avx512Vnni) -> Self {
        Self(())
    }
}

impl From<Avx512Bf16> for Avx512 {
    fn from(_: Avx512Bf16) -> Self {
        Self(())
    }
}

impl From<Avx512Bf16> for Avx512Vnni {
    fn from(_: Avx512Bf16) -> Self {
        Self(())
    }
}

/// Implements [`Simd`]; `$others` are the items that differ between the sets.
macro_rules! avx512 {
    ($set:ident, $features:literal, { $($others:tt)* }) => {
        // SAFETY: `$set::new` checks all features, and the other ways to a token take one of a
        // larger set. Vectors are 16 elements of 32 bits. Masked lanes access no memory.
        unsafe impl Simd for $set {
            const ISA: Isa = Isa::$set;
            const LANES: usize = 16;
            const REGISTERS: usize = 32;
            type F32 = __m512;
            type I32 = __m512i;
            type Groups = __m512i;
            type LowBitAct = u8;
            const LOW_BIT_GROUP: usize = 4;
            type Bytes = __m512i;

            entries!($set, $features);

            methods! {
                $features
                fn splat(self, x: f32) -> __m512 {
                    _mm512_set1_ps(x)
                }
                fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
                    _mm512_fmadd_ps(a, b, c)
                }
                fn add(self, a: __m512, b: __m512) -> __m512 {
                    _mm512_add_ps(a, b)
                }
                fn sub(self, a: __m512, b: __m512) -> __m512 {
                    _mm512_sub_ps(a, b)
                }
                fn mul(self, a: __m512, b: __m512) -> __m512 {
                    _mm512_mul_ps(a, b)
                }
                fn at_least(self, bound: __m512, x: __m512) -> __m512 {
                    // The second operand is the result if either is not a number.
                    _mm512_max_ps(bound, x)
                }
                fn at_most(self, bound: __m512, x: __m512) -> __m512 {
                    _mm512_min_ps(bound, x)
                }
                fn transpose_quads(self, v: [__m512; 4]) -> [__m512; 4] {
                    let [a, b, c, d] = v;
                    let ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
                    let ab_high = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
                    let cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
                    let cd_high = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
                    [
                        _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
                        _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)),
                        _mm512_castpd_ps(_mm512_unpacklo_pd(ab_high, cd_high)),
                        _mm512_castpd_ps(_mm512_unpackhi_pd(ab_high, cd_high)),
                    ]
                }
                fn zero_i32(self,) -> __m512i {
                    _mm512_setzero_si512()
                }
                fn add_i32(self, a: __m512i, b: __m512i) -> __m512i {
                    _mm512_add_epi32(a, b)
                }
                fn sub_i32(self, a: __m512i, b: __m512i) -> __m512i {
                    _mm512_sub_epi32(a, b)
                }
                fn to_f32(self, v: __m512i) -> __m512 {
                    _mm512_cvtepi32_ps(v)
                }
                fn add_i16(self, a: __m512i, b: __m512i) -> __m512i {
                    _mm512_add_epi16(a, b)
                }
                fn sub_i16(self, a: __m512i, b: __m512i) -> __m512i {
                    _mm512_sub_epi16(a, b)
                }
                fn dot_i16(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
                    dot_i16(acc, a, b)
                }
                fn unpack<const BITS: u32>(self, packed: __m512i, field: u32) -> __m512i {
                    // The count is a constant in unrolled loops. Bits shifted in from the upper
                    // byte of a pair are masked out.
                    let down = _mm512_srl_epi16(packed, _mm_cvtsi32_si128((BITS * field) as i32));
                    let codes = _mm512_and_si512(down, _mm512_set1_epi8((1 << BITS) - 1));
                    _mm512_sub_epi8(codes, _mm512_set1_epi8(1 << (BITS - 1)))
                }
                fn to_bytes(self, v: [__m512; 4]) -> __m512i {
                    let low = _mm512_packs_epi32(_mm512_cvtps_epi32(v[0]), _mm512_cvtps_epi32(v[1]));
                    let high = _mm512_packs_epi32(_mm512_cvtps_epi32(v[2]), _mm512_cvtps_epi32(v[3]));
                    _mm512_packus_epi16(low, high)
                }
            }

            #[inline(always)]
            fn low_bit_code<const BITS: u32>(weight: i8) -> u32 {
                // Codes count from the lowest weight, as there are no arithmetic shifts of bytes.
                (i32::from(weight) + (1 << (BITS - 1))) as u32 & ((1 << BITS) - 1)
            }
            #[inline(always)]
            fn prefetch<T>(self, address: *const T) {
                // SAFETY: all processors of the set have the instruction, and it never faults.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
            }
            #[inline(always)]
            unsafe fn load(self, from: *const f32) -> __m512 {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has 16
                // numbers at `from`.
                unsafe { _mm512_loadu_ps(from) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32, v: __m512) {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has room
                // for 16 numbers at `to`.
                unsafe { _mm512_storeu_ps(to, v) }
            }
            #[inline(always)]
            unsafe fn load_f16(self, from: *const u16) -> __m512 {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has 16
                // numbers of 2 bytes at `from`.
                unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
            }
            #[inline(always)]
            unsafe fn load_partial(self, from: *const f32, count: usize) -> __m512 {
                // SAFETY: the token shows that the processor has AVX-512. The mask selects the
                // `count` numbers that the caller has at `from`.
                unsafe { _mm512_maskz_loadu_ps(mask(count), from) }
            }
            #[inline(always)]
            unsafe fn store_partial(self, to: *mut f32, count: usize, v: __m512) {
                // SAFETY: the token shows that the processor has AVX-512. The mask selects the
                // `count` numbers for which the caller has room at `to`.
                unsafe { _mm512_mask_storeu_ps(to, mask(count), v) }
            }
            #[inline(always)]
            unsafe fn permute(self, from: *const f32, indices: *const i32) -> __m512 {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has 32
                // numbers at `from` and 16 at `indices`.
                unsafe {
                    let indices = _mm512_loadu_si512(indices.cast());
                    let present = !_mm512_movepi32_mask(indices);
                    let (low, high) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16)));
                    _mm512_maskz_permutex2var_ps(present, low, indices, high)
                }
            }
            #[inline(always)]
            unsafe fn load_quads(self, from: *const f32, step: usize) -> __m512 {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has four
                // numbers at four multiples of `step`.
                unsafe {
                    let v = _mm512_castps128_ps512(_mm_loadu_ps(from));
                    let v = _mm512_insertf32x4::<1>(v, _mm_loadu_ps(from.add(step)));
                    let v = _mm512_insertf32x4::<2>(v, _mm_loadu_ps(from.add(2 * step)));
                    _mm512_insertf32x4::<3>(v, _mm_loadu_ps(from.add(3 * step)))
                }
            }
            #[inline(always)]
            unsafe fn load_i32(self, from: *const i32) -> __m512i {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has 16
                // integers at `from`.
                unsafe { _mm512_loadu_si512(from.cast()) }
            }
            #[inline(always)]
            unsafe fn load_u8(self, from: *const u8) -> __m512 {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has 16
                // bytes at `from`.
                unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
            }
            #[inline(always)]
            unsafe fn store_u8(self, to: *mut u8, v: __m512) {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has room
                // for 16 bytes at `to`.
                unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(v))) }
            }
            #[inline(always)]
            unsafe fn load_i16(self, from: *const i16) -> __m512i {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has 32
                // integers of 2 bytes at `from`.
                unsafe { _mm512_loadu_si512(from.cast()) }
            }
            #[inline(always)]
            unsafe fn store_i16(self, to: *mut i16, v: __m512i) {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has room
                // for 32 integers of 2 bytes at `to`.
                unsafe { _mm512_storeu_si512(to.cast(), v) }
            }
            #[inline(always)]
            unsafe fn load_u8_as_i16(self, from: *const u8) -> __m512i {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has 32
                // bytes at `from`.
                unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast())) }
            }
            #[inline(always)]
            unsafe fn broadcast_i16(self, from: *const i16) -> __m512i {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has two
                // integers of 2 bytes at `from`.
                unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
            }
            #[inline(always)]
            unsafe fn load_packed(self, from: *const u8) -> __m512i {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has 64
                // bytes at `from`.
                unsafe { _mm512_loadu_si512(from.cast()) }
            }
            #[inline(always)]
            unsafe fn broadcast_low_bit(self, from: *const u8) -> __m512i {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has four
                // bytes at `from`.
                unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
            }
            #[inline(always)]
            unsafe fn load_bytes(self, from: *const u8) -> __m512i {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has 64
                // bytes at `from`.
                unsafe { _mm512_loadu_si512(from.cast()) }
            }
            #[inline(always)]
            unsafe fn store_bytes(self, to: *mut u8, v: __m512i) {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has room
                // for 64 bytes at `to`.
                unsafe { _mm512_storeu_si512(to.cast(), v) }
            }
            #[inline(always)]
            unsafe fn load_bytes_partial(self, from: *const u8, count: usize) -> __m512i {
                // SAFETY: the token shows that the processor has AVX-512. The mask selects the
                // `count` bytes that the caller has at `from`.
                unsafe { _mm512_maskz_loadu_epi8(byte_mask(count), from.cast()) }
            }
            #[inline(always)]
            unsafe fn store_bytes_partial(self, to: *mut u8, count: usize, v: __m512i) {
                // SAFETY: the token shows that the processor has AVX-512. The mask selects the
                // `count` bytes for which the caller has room at `to`.
                unsafe { _mm512_mask_storeu_epi8(to.cast(), byte_mask(count), v) }
            }
            $($others)*
        }
    };
}

avx512!(Avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", {
    type Act = i16;
    const GROUP: usize = 2;
    type Tap = i16;
    const TAPS: usize = 2;

    #[inline(always)]
    unsafe fn load_weights(self, from: *const i8) -> __m512i {
        // SAFETY: the token shows that the processor has AVX-512, and the caller has 32 bytes at
        // `from`.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn broadcast(self, from: *const i16) -> __m512i {
        // SAFETY: the caller has two integers at `from`.
        unsafe { self.broadcast_i16(from) }
    }
    #[inline(always)]
    unsafe fn dot_taps(
        self,
        acc: [__m512i; 4],
        taps: [__m512i; 4],
        weights: *const i16,
    ) -> [__m512i; 4] {
        let [a, b, c, d] = widened_pairs(self, taps[0], taps[1]);
        // SAFETY: the caller has 4 * 16 * 2 weights, which are four vectors of 32.
        unsafe {
            [
                self.dot_i16(acc[0], a, self.load_i16(weights)),
                self.dot_i16(acc[1], b, self.load_i16(weights.add(32))),
                self.dot_i16(acc[2], c, self.load_i16(weights.add(64))),
                self.dot_i16(acc[3], d, self.load_i16(weights.add(96))),
            ]
        }
    }
    methods! {
        "avx512f,avx512bw,avx512dq,avx512vl"
        fn dot(self, acc: __m512i, weights: __m512i, activations: __m512i) -> __m512i {
            dot_i16(acc, weights, activations)
        }
        fn dot_low_bit(
            self, acc: __m512i, weights: [__m512i; 2], activations: [__m512i; 2],
        ) -> __m512i {
            // Pairs of products with weights of 4 bits are below 2 * 255 * 8, four of them below
            // 2^14: neither the saturating product nor the sum of two saturates.
            let first = _mm512_maddubs_epi16(activations[0], weights[0]);
            let second = _mm512_maddubs_epi16(activations[1], weights[1]);
            let pairs = _mm512_add_epi16(first, second);
            _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
    }
});

/// The items of a set with VNNI.
macro_rules! vnni {
    ($set:ident, $features:literal, { $($others:tt)* }) => {
        avx512!($set, $features, {
            type Act = u8;
            const GROUP: usize = 4;
            type Tap = i8;
            const TAPS: usize = 4;

            #[inline(always)]
            unsafe fn load_weights(self, from: *const i8) -> __m512i {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has 64
                // bytes at `from`.
                unsafe { _mm512_loadu_si512(from.cast()) }
            }
            #[inline(always)]
            unsafe fn broadcast(self, from: *const u8) -> __m512i {
                // SAFETY: the token shows that the processor has AVX-512, and the caller has four
                // bytes at `from`.
                unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
            }
            #[inline(always)]
            unsafe fn dot_taps(
                self,
                acc: [__m512i; 4],
                taps: [__m512i; 4],
                weights: *const i8,
            ) -> [__m512i; 4] {
                let [a, b, c, d] = interleaved(self.into(), taps);
                // SAFETY: the caller has 4 * 16 * 4 weights, which are four vectors of 64.
                unsafe {
                    [
                        self.dot(acc[0], self.load_weights(weights), a),
                        self.dot(acc[1], self.load_weights(weights.add(64)), b),
                        self.dot(acc[2], self.load_weights(weights.add(128)), c),
                        self.dot(acc[3], self.load_weights(weights.add(192)), d),
                    ]
                }
            }
            methods! {
                "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
                fn dot(self, acc: __m512i, weights: __m512i, activations: __m512i) -> __m512i {
                    // Activations are unsigned, weights signed. This form wraps at 32 bits and
                    // never saturates.
                    _mm512_dpbusd_epi32(acc, activations, weights)
                }
                fn dot_low_bit(
                    self, acc: __m512i, weights: [__m512i; 2], activations: [__m512i; 2],
                ) -> __m512i {
                    let first = _mm512_dpbusd_epi32(acc, activations[0], weights[0]);
                    _mm512_dpbusd_epi32(first, activations[1], weights[1])
                }
            }
            $($others)*
        });
    };
}

vnni!(Avx512Vnni, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma", {});

vnni!(Avx512Bf16, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma", {
    methods! {
        "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"
        fn dot_bf16(self, acc: __m512, a: __m512, b: __m512) -> __m512 {
            _mm512_dpbf16_ps(acc, pairs(a), pairs(b))
        }
    }

    #[inline(always)]
    unsafe fn round_to_bf16(self, from: *const f32, to: *mut u16, count: usize) {
        let mut done = 0;
        while done + 16 <= count {
            // SAFETY: the token shows that the processor has BF16. `done + 16 <= count` numbers are
            // valid at both addresses.
            unsafe {
                let rounded = halves(_mm512_cvtneps_pbh(_mm512_loadu_ps(from.add(done))));
                _mm256_storeu_si256(to.add(done).cast(), rounded);
            }
            done += 16;
        }
        if done < count {
            let mask = mask(count - done);
            // SAFETY: the token shows that the processor has BF16. The mask selects the
            // `count - done` numbers that are left.
            unsafe {
                let rounded =
                    halves(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from.add(done))));
                _mm256_mask_storeu_epi16(to.add(done).cast(), mask, rounded);
            }
        }
    }
});

/// Returns `acc` plus the sum of `a * b` over each pair of 16-bit integers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn dot_i16(acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(acc, _mm512_madd_epi16(a, b))
}

/// Interleaves the bytes of two taps as pairs of 16-bit integers, the vectors of a quartered block.
#[inline(always)]
fn widened_pairs(_: Avx512, first: __m512i, second: __m512i) -> [__m512i; 4] {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn compiled(first: __m512i, second: __m512i) -> [__m512i; 4] {
        let zero = _mm512_setzero_si512();
        let low = _mm512_unpacklo_epi8(first, second);
        let high = _mm512_unpackhi_epi8(first, second);
        [
            _mm512_unpacklo_epi8(low, zero),
            _mm512_unpackhi_epi8(low, zero),
            _mm512_unpacklo_epi8(high, zero),
            _mm512_unpackhi_epi8(high, zero),
        ]
    }
    // SAFETY: the token shows that the processor has AVX-512.
    unsafe { compiled(first, second) }
}

/// Interleaves the bytes of four taps, the vectors of a quartered block.
#[inline(always)]
fn interleaved(_: Avx512Vnni, taps: [__m512i; 4]) -> [__m512i; 4] {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn compiled([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
        let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
        let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
        [
            _mm512_unpacklo_epi16(ab, cd),
            _mm512_unpackhi_epi16(ab, cd),
            _mm512_unpacklo_epi16(ab_high, cd_high),
            _mm512_unpackhi_epi16(ab_high, cd_high),
        ]
    }
    // SAFETY: the token shows that the processor has AVX-512.
    unsafe { compiled(taps) }
}

/// Takes lanes as pairs of bfloat16.
#[inline(always)]
fn pairs(v: __m512) -> __m512bh {
    // SAFETY: both are 64 bytes, and any bits are valid for both.
    unsafe { std::mem::transmute(v) }
}

/// Takes numbers in bfloat16 as their bits.
#[inline(always)]
fn halves(v: __m256bh) -> __m256i {
    // SAFETY: both are 32 bytes, and any bits are valid for both.
    unsafe { std::mem::transmute(v) }
}

/// Returns ones for the first `count` lanes.
#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    debug_assert!(count < 16);
    (1 << count) - 1
}

/// Returns ones for the first `count` bytes.
#[inline(always)]
fn byte_mask(count: usize) -> __mmask64 {
    debug_assert!(count < 64);
    (1 << count) - 1
}
