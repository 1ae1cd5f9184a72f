//! AVX2, FMA and F16C: 8 lanes, 16 registers; with or without the byte dot product of AVX-VNNI.

use std::arch::x86_64::*;

use super::{Job, Simd, copy_few};

/// x86-64 with AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2;

/// The same with the byte dot product of AVX-VNNI.
#[derive(Clone, Copy)]
pub struct AvxVnni;

/// What both share; `$integers` are the items that differ.
macro_rules! avx2 {
    ($set:ident, $features:literal, { $($integers:tt)* }) => {
        // SAFETY: (of every block) the trait's contract says that the processor has the instruction set and that
        // pointers are valid for what each function is documented to touch; loads and stores are unaligned ones.
        unsafe impl Simd for $set {
            const LANES: usize = 8;
            const REGISTERS: usize = 16;
            type F = __m256;
            type I = __m256i;
            type D = __m256i;
            type Few = u8;
            const FEW_GROUP: usize = 4;

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
            fn prefetch<T>(address: *const T) {
                // SAFETY: every processor of this set has the instruction, which never faults.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
            }
            #[inline(always)]
            unsafe fn splat(x: f32) -> __m256 {
                unsafe { _mm256_set1_ps(x) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> __m256 {
                unsafe { _mm256_loadu_ps(from) }
            }
            #[inline(always)]
            unsafe fn load_halves(from: *const u16) -> __m256 {
                unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
            }
            #[inline(always)]
            unsafe fn store(to: *mut f32, v: __m256) {
                unsafe { _mm256_storeu_ps(to, v) }
            }
            #[inline(always)]
            unsafe fn load_first(from: *const f32, count: usize) -> __m256 {
                // Masked loads do not fault on masked lanes and are fast everywhere.
                unsafe { _mm256_maskload_ps(from, mask(count)) }
            }
            #[inline(always)]
            unsafe fn store_first(to: *mut f32, count: usize, v: __m256) {
                // Masked stores are microcoded on AMD: go through the stack.
                let mut lanes = [0.0_f32; 8];
                unsafe {
                    _mm256_storeu_ps(lanes.as_mut_ptr(), v);
                    copy_few(lanes.as_ptr(), to, count);
                }
            }
            #[inline(always)]
            unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
                unsafe { _mm256_fmadd_ps(a, b, c) }
            }
            #[inline(always)]
            unsafe fn add(a: __m256, b: __m256) -> __m256 {
                unsafe { _mm256_add_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn sub(a: __m256, b: __m256) -> __m256 {
                unsafe { _mm256_sub_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: __m256, b: __m256) -> __m256 {
                unsafe { _mm256_mul_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn at_least(bound: __m256, x: __m256) -> __m256 {
                // The second operand is the result where one is not a number.
                unsafe { _mm256_max_ps(bound, x) }
            }
            #[inline(always)]
            unsafe fn at_most(bound: __m256, x: __m256) -> __m256 {
                unsafe { _mm256_min_ps(bound, x) }
            }

            #[inline(always)]
            unsafe fn pick(from: *const f32, picks: *const i32) -> __m256 {
                unsafe {
                    let picks = _mm256_loadu_si256(picks.cast());
                    let low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(from), picks);
                    let high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(from.add(8)), picks);
                    // The fourth bit tells which half; the sign, that there is nothing.
                    let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(picks));
                    _mm256_andnot_ps(
                        _mm256_castsi256_ps(_mm256_srai_epi32::<31>(picks)),
                        _mm256_blendv_ps(low, high, upper),
                    )
                }
            }

            #[inline(always)]
            unsafe fn load_quads(from: *const f32, step: usize) -> __m256 {
                unsafe {
                    let low = _mm256_castps128_ps256(_mm_loadu_ps(from));
                    _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(from.add(step)))
                }
            }
            #[inline(always)]
            unsafe fn turn_quads([a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
                unsafe {
                    let pairs = |a, b| {
                        let low = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
                        (low, _mm256_castps_pd(_mm256_unpackhi_ps(a, b)))
                    };
                    let ((ab, ab_high), (cd, cd_high)) = (pairs(a, b), pairs(c, d));
                    [
                        _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)),
                        _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)),
                        _mm256_castpd_ps(_mm256_unpacklo_pd(ab_high, cd_high)),
                        _mm256_castpd_ps(_mm256_unpackhi_pd(ab_high, cd_high)),
                    ]
                }
            }

            #[inline(always)]
            unsafe fn load_i32(from: *const i32) -> __m256i {
                unsafe { _mm256_loadu_si256(from.cast()) }
            }
            #[inline(always)]
            unsafe fn add_i32(a: __m256i, b: __m256i) -> __m256i {
                unsafe { _mm256_add_epi32(a, b) }
            }
            #[inline(always)]
            unsafe fn to_f32(v: __m256i) -> __m256 {
                unsafe { _mm256_cvtepi32_ps(v) }
            }
            #[inline(always)]
            unsafe fn load_u8(from: *const u8) -> __m256 {
                unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))) }
            }
            #[inline(always)]
            unsafe fn store_u8(to: *mut u8, v: __m256) {
                unsafe {
                    let words = _mm256_cvtps_epi32(v);
                    let shorts =
                        _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
                    _mm_storel_epi64(to.cast(), _mm_packus_epi16(shorts, shorts));
                }
            }

            #[inline(always)]
            unsafe fn store_u8_twice(to: *mut u8, first: __m256, second: __m256) {
                unsafe {
                    // Packing works on halves: 0..4 and 8..12 of the first half come together, and so on.
                    let shorts = _mm256_packus_epi32(_mm256_cvtps_epi32(first), _mm256_cvtps_epi32(second));
                    let shorts = _mm256_permute4x64_epi64::<0b11_01_10_00>(shorts);
                    let bytes =
                        _mm_packus_epi16(_mm256_castsi256_si128(shorts), _mm256_extracti128_si256::<1>(shorts));
                    _mm_storeu_si128(to.cast(), bytes);
                }
            }

            #[inline(always)]
            unsafe fn sub_i32(a: __m256i, b: __m256i) -> __m256i {
                unsafe { _mm256_sub_epi32(a, b) }
            }
            #[inline(always)]
            unsafe fn load_wide(from: *const i16) -> __m256i {
                unsafe { _mm256_loadu_si256(from.cast()) }
            }
            #[inline(always)]
            unsafe fn store_wide(to: *mut i16, v: __m256i) {
                unsafe { _mm256_storeu_si256(to.cast(), v) }
            }
            #[inline(always)]
            unsafe fn widen(from: *const u8) -> __m256i {
                unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast())) }
            }
            #[inline(always)]
            unsafe fn add_wide(a: __m256i, b: __m256i) -> __m256i {
                unsafe { _mm256_add_epi16(a, b) }
            }
            #[inline(always)]
            unsafe fn sub_wide(a: __m256i, b: __m256i) -> __m256i {
                unsafe { _mm256_sub_epi16(a, b) }
            }
            #[inline(always)]
            unsafe fn broadcast_wide(from: *const i16) -> __m256i {
                unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
            }
            #[inline(always)]
            unsafe fn dot_wide(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
                unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)) }
            }

            #[inline(always)]
            fn code<const BITS: u32>(weight: i8) -> u32 {
                // Counted from the lowest: there are no shifts of bytes that keep the sign.
                (i32::from(weight) + (1 << (BITS - 1))) as u32 & ((1 << BITS) - 1)
            }
            #[inline(always)]
            unsafe fn load_packed(from: *const u8) -> __m256i {
                unsafe { _mm256_loadu_si256(from.cast()) }
            }
            #[inline(always)]
            unsafe fn unpack<const BITS: u32>(packed: __m256i, field: u32) -> __m256i {
                // The count is a constant once loops are unrolled. Bits that come over from the upper byte of a pair
                // are masked out.
                unsafe {
                    let down = _mm256_srl_epi16(packed, _mm_cvtsi32_si128((BITS * field) as i32));
                    let codes = _mm256_and_si256(down, _mm256_set1_epi8((1 << BITS) - 1));
                    _mm256_sub_epi8(codes, _mm256_set1_epi8(1 << (BITS - 1)))
                }
            }
            #[inline(always)]
            unsafe fn broadcast_few(from: *const u8) -> __m256i {
                unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
            }
            type Bytes = __m256i;
            #[inline(always)]
            unsafe fn load_bytes(from: *const u8) -> __m256i {
                unsafe { _mm256_loadu_si256(from.cast()) }
            }
            #[inline(always)]
            unsafe fn store_bytes(to: *mut u8, v: __m256i) {
                unsafe { _mm256_storeu_si256(to.cast(), v) }
            }
            #[inline(always)]
            unsafe fn to_bytes(v: [__m256; 4]) -> __m256i {
                unsafe {
                    let low = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
                    let high = _mm256_packs_epi32(_mm256_cvtps_epi32(v[2]), _mm256_cvtps_epi32(v[3]));
                    _mm256_packus_epi16(low, high)
                }
            }
            $($integers)*
        }
    };
}

avx2!(Avx2, "avx2,fma,f16c", {
    // There is no exact product of bytes: `vpmaddubsw` saturates. 16-bit `vpmaddwd` is exact.
    type Act = i16;
    const GROUP: usize = 2;

    #[inline(always)]
    unsafe fn load_weights(from: *const i8) -> __m256i {
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const i16) -> __m256i {
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot(acc: __m256i, weights: __m256i, activations: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(weights, activations)) }
    }
    #[inline(always)]
    unsafe fn dot_few(acc: __m256i, weights: [__m256i; 2], activations: [__m256i; 2]) -> __m256i {
        // Pairs of products with weights of 4 bits are below 2 * 255 * 8, four of them below 2^14: neither the
        // saturating product nor the sum of two saturates.
        unsafe {
            let first = _mm256_maddubs_epi16(activations[0], weights[0]);
            let second = _mm256_maddubs_epi16(activations[1], weights[1]);
            let pairs = _mm256_add_epi16(first, second);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    type Tap = i16;
    const TAPS: usize = 2;
    #[inline(always)]
    unsafe fn dot_taps(acc: [__m256i; 4], taps: [__m256i; 4], weights: *const i16) -> [__m256i; 4] {
        unsafe {
            let zero = _mm256_setzero_si256();
            let low = _mm256_unpacklo_epi8(taps[0], taps[1]);
            let high = _mm256_unpackhi_epi8(taps[0], taps[1]);
            [
                Self::dot_wide(acc[0], _mm256_unpacklo_epi8(low, zero), Self::load_wide(weights)),
                Self::dot_wide(acc[1], _mm256_unpackhi_epi8(low, zero), Self::load_wide(weights.add(16))),
                Self::dot_wide(acc[2], _mm256_unpacklo_epi8(high, zero), Self::load_wide(weights.add(32))),
                Self::dot_wide(acc[3], _mm256_unpackhi_epi8(high, zero), Self::load_wide(weights.add(48))),
            ]
        }
    }
});

avx2!(AvxVnni, "avx2,fma,f16c,avxvnni", {
    type Act = u8;
    const GROUP: usize = 4;

    #[inline(always)]
    unsafe fn load_weights(from: *const i8) -> __m256i {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const u8) -> __m256i {
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot(acc: __m256i, weights: __m256i, activations: __m256i) -> __m256i {
        // Unsigned activations, signed weights; this form wraps at 32 bits and saturates nowhere.
        unsafe { _mm256_dpbusd_avx_epi32(acc, activations, weights) }
    }
    #[inline(always)]
    unsafe fn dot_few(acc: __m256i, weights: [__m256i; 2], activations: [__m256i; 2]) -> __m256i {
        unsafe { Self::dot(Self::dot(acc, weights[0], activations[0]), weights[1], activations[1]) }
    }
    type Tap = i8;
    const TAPS: usize = 4;
    #[inline(always)]
    unsafe fn dot_taps(acc: [__m256i; 4], taps: [__m256i; 4], weights: *const i8) -> [__m256i; 4] {
        unsafe {
            let [a, b, c, d] = taps;
            let (ab, cd) = (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d));
            let (ab_high, cd_high) = (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d));
            [
                Self::dot(acc[0], Self::load_weights(weights), _mm256_unpacklo_epi16(ab, cd)),
                Self::dot(acc[1], Self::load_weights(weights.add(32)), _mm256_unpackhi_epi16(ab, cd)),
                Self::dot(
                    acc[2],
                    Self::load_weights(weights.add(64)),
                    _mm256_unpacklo_epi16(ab_high, cd_high),
                ),
                Self::dot(
                    acc[3],
                    Self::load_weights(weights.add(96)),
                    _mm256_unpackhi_epi16(ab_high, cd_high),
                ),
            ]
        }
    }
});

/// All ones in the first `count` lanes.
#[inline(always)]
unsafe fn mask(count: usize) -> __m256i {
    const ONES_THEN_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    debug_assert!(count <= 8);
    // SAFETY: the window of 8 starts at 0..=8.
    unsafe { _mm256_loadu_si256(ONES_THEN_ZEROS.as_ptr().add(8 - count).cast()) }
}
