//! AVX2, FMA and F16C: 8 lanes, 16 registers, with or without the dot product of AVX-VNNI.

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::*;

use crate::copy::copy_few;
use crate::methods::{entries, methods};
use crate::{Isa, Simd, SimdFn, SimdOp};

/// Token of AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

/// Token of AVX2, FMA, F16C and AVX-VNNI.
#[derive(Clone, Copy, Debug)]
pub struct AvxVnni(());

impl Avx2 {
    /// Returns the token, or `None` if this processor does not execute the set.
    #[must_use]
    pub fn new() -> Option<Self> {
        let detected = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        detected.then_some(Self(()))
    }
}

impl AvxVnni {
    /// Returns the token, or `None` if this processor does not execute the set.
    #[must_use]
    pub fn new() -> Option<Self> {
        (Avx2::new().is_some() && is_x86_feature_detected!("avxvnni")).then_some(Self(()))
    }
}

impl From<AvxVnni> for Avx2 {
    fn from(_: AvxVnni) -> Self {
        Self(())
    }
}

/// Implements [`Simd`]; `$others` are the items that differ between the sets.
macro_rules! avx2 {
    ($set:ident, $features:literal, { $($others:tt)* }) => {
        // SAFETY: `$set::new` checks all features, and the other way to a token takes one of a
        // larger set. Vectors are 8 elements of 32 bits. Masked lanes access no memory.
        unsafe impl Simd for $set {
            const ISA: Isa = Isa::$set;
            const LANES: usize = 8;
            const REGISTERS: usize = 16;
            type F32 = __m256;
            type I32 = __m256i;
            type Groups = __m256i;
            type LowBitAct = u8;
            const LOW_BIT_GROUP: usize = 4;
            type Bytes = __m256i;

            entries!($set, $features);

            methods! {
                $features
                fn splat(self, x: f32) -> __m256 {
                    _mm256_set1_ps(x)
                }
                fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
                    _mm256_fmadd_ps(a, b, c)
                }
                fn add(self, a: __m256, b: __m256) -> __m256 {
                    _mm256_add_ps(a, b)
                }
                fn sub(self, a: __m256, b: __m256) -> __m256 {
                    _mm256_sub_ps(a, b)
                }
                fn mul(self, a: __m256, b: __m256) -> __m256 {
                    _mm256_mul_ps(a, b)
                }
                fn at_least(self, bound: __m256, x: __m256) -> __m256 {
                    // The second operand is the result if either is not a number.
                    _mm256_max_ps(bound, x)
                }
                fn at_most(self, bound: __m256, x: __m256) -> __m256 {
                    _mm256_min_ps(bound, x)
                }
                fn transpose_quads(self, v: [__m256; 4]) -> [__m256; 4] {
                    let [a, b, c, d] = v;
                    let ab = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
                    let ab_high = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
                    let cd = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
                    let cd_high = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
                    [
                        _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)),
                        _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)),
                        _mm256_castpd_ps(_mm256_unpacklo_pd(ab_high, cd_high)),
                        _mm256_castpd_ps(_mm256_unpackhi_pd(ab_high, cd_high)),
                    ]
                }
                fn zero_i32(self,) -> __m256i {
                    _mm256_setzero_si256()
                }
                fn add_i32(self, a: __m256i, b: __m256i) -> __m256i {
                    _mm256_add_epi32(a, b)
                }
                fn sub_i32(self, a: __m256i, b: __m256i) -> __m256i {
                    _mm256_sub_epi32(a, b)
                }
                fn to_f32(self, v: __m256i) -> __m256 {
                    _mm256_cvtepi32_ps(v)
                }
                fn add_i16(self, a: __m256i, b: __m256i) -> __m256i {
                    _mm256_add_epi16(a, b)
                }
                fn sub_i16(self, a: __m256i, b: __m256i) -> __m256i {
                    _mm256_sub_epi16(a, b)
                }
                fn dot_i16(self, acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
                    dot_i16(acc, a, b)
                }
                fn unpack<const BITS: u32>(self, packed: __m256i, field: u32) -> __m256i {
                    // The count is a constant in unrolled loops. Bits shifted in from the upper
                    // byte of a pair are masked out.
                    let down = _mm256_srl_epi16(packed, _mm_cvtsi32_si128((BITS * field) as i32));
                    let codes = _mm256_and_si256(down, _mm256_set1_epi8((1 << BITS) - 1));
                    _mm256_sub_epi8(codes, _mm256_set1_epi8(1 << (BITS - 1)))
                }
                fn to_bytes(self, v: [__m256; 4]) -> __m256i {
                    let low = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
                    let high = _mm256_packs_epi32(_mm256_cvtps_epi32(v[2]), _mm256_cvtps_epi32(v[3]));
                    _mm256_packus_epi16(low, high)
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
            unsafe fn load(self, from: *const f32) -> __m256 {
                // SAFETY: the token shows that the processor has AVX, and the caller has 8 numbers
                // at `from`.
                unsafe { _mm256_loadu_ps(from) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32, v: __m256) {
                // SAFETY: the token shows that the processor has AVX, and the caller has room for 8
                // numbers at `to`.
                unsafe { _mm256_storeu_ps(to, v) }
            }
            #[inline(always)]
            unsafe fn load_f16(self, from: *const u16) -> __m256 {
                // SAFETY: the token shows that the processor has F16C, and the caller has 8 numbers
                // of 2 bytes at `from`.
                unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
            }
            #[inline(always)]
            unsafe fn load_partial(self, from: *const f32, count: usize) -> __m256 {
                // Masked loads are fast on all processors.
                // SAFETY: the token shows that the processor has AVX. The mask selects the `count`
                // numbers that the caller has at `from`.
                unsafe { _mm256_maskload_ps(from, mask(self.into(), count)) }
            }
            #[inline(always)]
            unsafe fn store_partial(self, to: *mut f32, count: usize, v: __m256) {
                // Masked stores are microcoded on AMD, so this one goes through the stack.
                let mut lanes = [0.0_f32; 8];
                // SAFETY: `lanes` has room for a vector, and `to` for the first `count` of its
                // numbers.
                unsafe {
                    self.store(lanes.as_mut_ptr(), v);
                    copy_few(lanes.as_ptr(), to, count);
                }
            }
            #[inline(always)]
            unsafe fn permute(self, from: *const f32, indices: *const i32) -> __m256 {
                // SAFETY: the token shows that the processor has AVX2, and the caller has 16
                // numbers at `from` and 8 at `indices`.
                unsafe {
                    let indices = _mm256_loadu_si256(indices.cast());
                    let low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(from), indices);
                    let high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(from.add(8)), indices);
                    // The fourth bit selects the half. The sign marks absent numbers.
                    let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(indices));
                    _mm256_andnot_ps(
                        _mm256_castsi256_ps(_mm256_srai_epi32::<31>(indices)),
                        _mm256_blendv_ps(low, high, upper),
                    )
                }
            }
            #[inline(always)]
            unsafe fn load_quads(self, from: *const f32, step: usize) -> __m256 {
                // SAFETY: the token shows that the processor has AVX, and the caller has four
                // numbers at `from` and `step` numbers later.
                unsafe {
                    let low = _mm256_castps128_ps256(_mm_loadu_ps(from));
                    _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(from.add(step)))
                }
            }
            #[inline(always)]
            unsafe fn load_i32(self, from: *const i32) -> __m256i {
                // SAFETY: the token shows that the processor has AVX, and the caller has 8 integers
                // at `from`.
                unsafe { _mm256_loadu_si256(from.cast()) }
            }
            #[inline(always)]
            unsafe fn load_u8(self, from: *const u8) -> __m256 {
                // SAFETY: the token shows that the processor has AVX2, and the caller has 8 bytes
                // at `from`.
                unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))) }
            }
            #[inline(always)]
            unsafe fn store_u8(self, to: *mut u8, v: __m256) {
                // SAFETY: the token shows that the processor has AVX2, and the caller has room for
                // 8 bytes at `to`.
                unsafe {
                    let words = _mm256_cvtps_epi32(v);
                    let shorts =
                        _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
                    _mm_storel_epi64(to.cast(), _mm_packus_epi16(shorts, shorts));
                }
            }
            #[inline(always)]
            unsafe fn store_u8_twice(self, to: *mut u8, first: __m256, second: __m256) {
                // Packing works on halves: elements 0..4 of both vectors come first, then 4..8.
                // SAFETY: the token shows that the processor has AVX2, and the caller has room for
                // 16 bytes at `to`.
                unsafe {
                    let shorts = _mm256_packus_epi32(_mm256_cvtps_epi32(first), _mm256_cvtps_epi32(second));
                    let shorts = _mm256_permute4x64_epi64::<0b11_01_10_00>(shorts);
                    let bytes =
                        _mm_packus_epi16(_mm256_castsi256_si128(shorts), _mm256_extracti128_si256::<1>(shorts));
                    _mm_storeu_si128(to.cast(), bytes);
                }
            }
            #[inline(always)]
            unsafe fn load_i16(self, from: *const i16) -> __m256i {
                // SAFETY: the token shows that the processor has AVX, and the caller has 16
                // integers of 2 bytes at `from`.
                unsafe { _mm256_loadu_si256(from.cast()) }
            }
            #[inline(always)]
            unsafe fn store_i16(self, to: *mut i16, v: __m256i) {
                // SAFETY: the token shows that the processor has AVX, and the caller has room for
                // 16 integers of 2 bytes at `to`.
                unsafe { _mm256_storeu_si256(to.cast(), v) }
            }
            #[inline(always)]
            unsafe fn load_u8_as_i16(self, from: *const u8) -> __m256i {
                // SAFETY: the token shows that the processor has AVX2, and the caller has 16 bytes
                // at `from`.
                unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast())) }
            }
            #[inline(always)]
            unsafe fn broadcast_i16(self, from: *const i16) -> __m256i {
                // SAFETY: the token shows that the processor has AVX, and the caller has two
                // integers of 2 bytes at `from`.
                unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
            }
            #[inline(always)]
            unsafe fn load_packed(self, from: *const u8) -> __m256i {
                // SAFETY: the token shows that the processor has AVX, and the caller has 32 bytes
                // at `from`.
                unsafe { _mm256_loadu_si256(from.cast()) }
            }
            #[inline(always)]
            unsafe fn broadcast_low_bit(self, from: *const u8) -> __m256i {
                // SAFETY: the token shows that the processor has AVX, and the caller has four bytes
                // at `from`.
                unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
            }
            #[inline(always)]
            unsafe fn load_bytes(self, from: *const u8) -> __m256i {
                // SAFETY: the token shows that the processor has AVX, and the caller has 32 bytes
                // at `from`.
                unsafe { _mm256_loadu_si256(from.cast()) }
            }
            #[inline(always)]
            unsafe fn store_bytes(self, to: *mut u8, v: __m256i) {
                // SAFETY: the token shows that the processor has AVX, and the caller has room for
                // 32 bytes at `to`.
                unsafe { _mm256_storeu_si256(to.cast(), v) }
            }
            $($others)*
        }
    };
}

avx2!(Avx2, "avx2,fma,f16c", {
    // No product of bytes is exact, as `vpmaddubsw` saturates. 16-bit `vpmaddwd` is exact.
    type Act = i16;
    const GROUP: usize = 2;
    type Tap = i16;
    const TAPS: usize = 2;

    #[inline(always)]
    unsafe fn load_weights(self, from: *const i8) -> __m256i {
        // SAFETY: the token shows that the processor has AVX2, and the caller has 16 bytes at
        // `from`.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn broadcast(self, from: *const i16) -> __m256i {
        // SAFETY: the caller has two integers at `from`.
        unsafe { self.broadcast_i16(from) }
    }
    #[inline(always)]
    unsafe fn dot_taps(
        self,
        acc: [__m256i; 4],
        taps: [__m256i; 4],
        weights: *const i16,
    ) -> [__m256i; 4] {
        let [a, b, c, d] = widened_pairs(self, taps[0], taps[1]);
        // SAFETY: the caller has 4 * 8 * 2 weights, which are four vectors of 16.
        unsafe {
            [
                self.dot_i16(acc[0], a, self.load_i16(weights)),
                self.dot_i16(acc[1], b, self.load_i16(weights.add(16))),
                self.dot_i16(acc[2], c, self.load_i16(weights.add(32))),
                self.dot_i16(acc[3], d, self.load_i16(weights.add(48))),
            ]
        }
    }
    methods! {
        "avx2,fma,f16c"
        fn dot(self, acc: __m256i, weights: __m256i, activations: __m256i) -> __m256i {
            dot_i16(acc, weights, activations)
        }
        fn dot_low_bit(
            self, acc: __m256i, weights: [__m256i; 2], activations: [__m256i; 2],
        ) -> __m256i {
            // Pairs of products with weights of 4 bits are below 2 * 255 * 8, four of them below
            // 2^14: neither the saturating product nor the sum of two saturates.
            let first = _mm256_maddubs_epi16(activations[0], weights[0]);
            let second = _mm256_maddubs_epi16(activations[1], weights[1]);
            let pairs = _mm256_add_epi16(first, second);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
});

avx2!(AvxVnni, "avx2,fma,f16c,avxvnni", {
    type Act = u8;
    const GROUP: usize = 4;
    type Tap = i8;
    const TAPS: usize = 4;

    #[inline(always)]
    unsafe fn load_weights(self, from: *const i8) -> __m256i {
        // SAFETY: the token shows that the processor has AVX, and the caller has 32 bytes at
        // `from`.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn broadcast(self, from: *const u8) -> __m256i {
        // SAFETY: the token shows that the processor has AVX, and the caller has four bytes at
        // `from`.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot_taps(
        self,
        acc: [__m256i; 4],
        taps: [__m256i; 4],
        weights: *const i8,
    ) -> [__m256i; 4] {
        let [a, b, c, d] = interleaved(self, taps);
        // SAFETY: the caller has 4 * 8 * 4 weights, which are four vectors of 32.
        unsafe {
            [
                self.dot(acc[0], self.load_weights(weights), a),
                self.dot(acc[1], self.load_weights(weights.add(32)), b),
                self.dot(acc[2], self.load_weights(weights.add(64)), c),
                self.dot(acc[3], self.load_weights(weights.add(96)), d),
            ]
        }
    }
    methods! {
        "avx2,fma,f16c,avxvnni"
        fn dot(self, acc: __m256i, weights: __m256i, activations: __m256i) -> __m256i {
            // Activations are unsigned, weights signed. This form wraps at 32 bits and never
            // saturates.
            _mm256_dpbusd_avx_epi32(acc, activations, weights)
        }
        fn dot_low_bit(
            self, acc: __m256i, weights: [__m256i; 2], activations: [__m256i; 2],
        ) -> __m256i {
            let first = _mm256_dpbusd_avx_epi32(acc, activations[0], weights[0]);
            _mm256_dpbusd_avx_epi32(first, activations[1], weights[1])
        }
    }
});

/// Returns `acc` plus the sum of `a * b` over each pair of 16-bit integers.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_i16(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(acc, _mm256_madd_epi16(a, b))
}

/// Interleaves the bytes of two taps as pairs of 16-bit integers, the vectors of a quartered block.
#[inline(always)]
fn widened_pairs(_: Avx2, first: __m256i, second: __m256i) -> [__m256i; 4] {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn compiled(first: __m256i, second: __m256i) -> [__m256i; 4] {
        let zero = _mm256_setzero_si256();
        let low = _mm256_unpacklo_epi8(first, second);
        let high = _mm256_unpackhi_epi8(first, second);
        [
            _mm256_unpacklo_epi8(low, zero),
            _mm256_unpackhi_epi8(low, zero),
            _mm256_unpacklo_epi8(high, zero),
            _mm256_unpackhi_epi8(high, zero),
        ]
    }
    // SAFETY: the token shows that the processor has AVX2.
    unsafe { compiled(first, second) }
}

/// Interleaves the bytes of four taps, the vectors of a quartered block.
#[inline(always)]
fn interleaved(_: AvxVnni, taps: [__m256i; 4]) -> [__m256i; 4] {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn compiled([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
        let (ab, cd) = (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d));
        let (ab_high, cd_high) = (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d));
        [
            _mm256_unpacklo_epi16(ab, cd),
            _mm256_unpackhi_epi16(ab, cd),
            _mm256_unpacklo_epi16(ab_high, cd_high),
            _mm256_unpackhi_epi16(ab_high, cd_high),
        ]
    }
    // SAFETY: the token shows that the processor has AVX2.
    unsafe { compiled(taps) }
}

/// Returns all ones in the first `count` lanes.
#[inline(always)]
fn mask(_: Avx2, count: usize) -> __m256i {
    const ONES_THEN_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    debug_assert!(count <= 8);
    let window = ONES_THEN_ZEROS.as_ptr().wrapping_add(8 - count.min(8));
    // SAFETY: the token shows that the processor has AVX. The window begins at one of the first
    // nine integers of sixteen.
    unsafe { _mm256_loadu_si256(window.cast()) }
}
