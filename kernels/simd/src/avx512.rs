//! AVX-512: 16 lanes, 32 registers; with or without the byte dot product of VNNI.

use std::arch::x86_64::*;

use super::{Job, Simd};

/// x86-64 with AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub struct Avx512;

/// The same with VNNI.
#[derive(Clone, Copy)]
pub struct Avx512Vnni;

/// What both share; `$integers` are the items that differ.
macro_rules! avx512 {
    ($set:ident, $name:literal, $features:literal, { $($integers:tt)* }) => {
        // SAFETY: (of every block) the trait's contract says that the processor has the instruction set
        // and that pointers are valid for what each function is documented to touch; loads and stores
        // are unaligned ones, and masked lanes touch no memory.
        unsafe impl Simd for $set {
            const LANES: usize = 16;
            const REGISTERS: usize = 32;
            type F = __m512;
            type I = __m512i;
            type D = __m512i;
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
            unsafe fn splat(x: f32) -> __m512 {
                unsafe { _mm512_set1_ps(x) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> __m512 {
                unsafe { _mm512_loadu_ps(from) }
            }
            #[inline(always)]
            unsafe fn load_halves(from: *const u16) -> __m512 {
                unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
            }
            #[inline(always)]
            unsafe fn store(to: *mut f32, v: __m512) {
                unsafe { _mm512_storeu_ps(to, v) }
            }
            #[inline(always)]
            unsafe fn load_first(from: *const f32, count: usize) -> __m512 {
                unsafe { _mm512_maskz_loadu_ps(mask(count), from) }
            }
            #[inline(always)]
            unsafe fn store_first(to: *mut f32, count: usize, v: __m512) {
                unsafe { _mm512_mask_storeu_ps(to, mask(count), v) }
            }
            #[inline(always)]
            unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
                unsafe { _mm512_fmadd_ps(a, b, c) }
            }
            #[inline(always)]
            unsafe fn add(a: __m512, b: __m512) -> __m512 {
                unsafe { _mm512_add_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn sub(a: __m512, b: __m512) -> __m512 {
                unsafe { _mm512_sub_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: __m512, b: __m512) -> __m512 {
                unsafe { _mm512_mul_ps(a, b) }
            }
            #[inline(always)]
            unsafe fn at_least(bound: __m512, x: __m512) -> __m512 {
                // The second operand is the result where one is not a number.
                unsafe { _mm512_max_ps(bound, x) }
            }
            #[inline(always)]
            unsafe fn at_most(bound: __m512, x: __m512) -> __m512 {
                unsafe { _mm512_min_ps(bound, x) }
            }

            #[inline(always)]
            unsafe fn pick(from: *const f32, picks: *const i32) -> __m512 {
                unsafe {
                    let picks = _mm512_loadu_si512(picks.cast());
                    let there = !_mm512_movepi32_mask(picks);
                    let (low, high) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16)));
                    _mm512_maskz_permutex2var_ps(there, low, picks, high)
                }
            }

            #[inline(always)]
            unsafe fn load_quads(from: *const f32, step: usize) -> __m512 {
                unsafe {
                    let quad = |number: usize| _mm_loadu_ps(from.add(number * step));
                    let v = _mm512_castps128_ps512(quad(0));
                    let v = _mm512_insertf32x4::<1>(v, quad(1));
                    let v = _mm512_insertf32x4::<2>(v, quad(2));
                    _mm512_insertf32x4::<3>(v, quad(3))
                }
            }
            #[inline(always)]
            unsafe fn turn_quads([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
                unsafe {
                    let pairs = |a, b| {
                        let low = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
                        (low, _mm512_castps_pd(_mm512_unpackhi_ps(a, b)))
                    };
                    let ((ab, ab_high), (cd, cd_high)) = (pairs(a, b), pairs(c, d));
                    [
                        _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
                        _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)),
                        _mm512_castpd_ps(_mm512_unpacklo_pd(ab_high, cd_high)),
                        _mm512_castpd_ps(_mm512_unpackhi_pd(ab_high, cd_high)),
                    ]
                }
            }

            #[inline(always)]
            unsafe fn load_i32(from: *const i32) -> __m512i {
                unsafe { _mm512_loadu_si512(from.cast()) }
            }
            #[inline(always)]
            unsafe fn add_i32(a: __m512i, b: __m512i) -> __m512i {
                unsafe { _mm512_add_epi32(a, b) }
            }
            #[inline(always)]
            unsafe fn to_f32(v: __m512i) -> __m512 {
                unsafe { _mm512_cvtepi32_ps(v) }
            }
            #[inline(always)]
            unsafe fn load_u8(from: *const u8) -> __m512 {
                unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
            }
            #[inline(always)]
            unsafe fn store_u8(to: *mut u8, v: __m512) {
                unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(v))) }
            }
            #[inline(always)]
            unsafe fn sub_i32(a: __m512i, b: __m512i) -> __m512i {
                unsafe { _mm512_sub_epi32(a, b) }
            }
            #[inline(always)]
            unsafe fn load_wide(from: *const i16) -> __m512i {
                unsafe { _mm512_loadu_si512(from.cast()) }
            }
            #[inline(always)]
            unsafe fn store_wide(to: *mut i16, v: __m512i) {
                unsafe { _mm512_storeu_si512(to.cast(), v) }
            }
            #[inline(always)]
            unsafe fn widen(from: *const u8) -> __m512i {
                unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast())) }
            }
            #[inline(always)]
            unsafe fn add_wide(a: __m512i, b: __m512i) -> __m512i {
                unsafe { _mm512_add_epi16(a, b) }
            }
            #[inline(always)]
            unsafe fn sub_wide(a: __m512i, b: __m512i) -> __m512i {
                unsafe { _mm512_sub_epi16(a, b) }
            }
            #[inline(always)]
            unsafe fn broadcast_wide(from: *const i16) -> __m512i {
                unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
            }
            #[inline(always)]
            unsafe fn dot_wide(acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
                unsafe { _mm512_add_epi32(acc, _mm512_madd_epi16(a, b)) }
            }
            #[inline(always)]
            fn code<const BITS: u32>(weight: i8) -> u32 {
                // Counted from the lowest: there are no shifts of bytes that keep the sign.
                (i32::from(weight) + (1 << (BITS - 1))) as u32 & ((1 << BITS) - 1)
            }
            #[inline(always)]
            unsafe fn load_packed(from: *const u8) -> __m512i {
                unsafe { _mm512_loadu_si512(from.cast()) }
            }
            #[inline(always)]
            unsafe fn unpack<const BITS: u32>(packed: __m512i, field: u32) -> __m512i {
                // The count is a constant once loops are unrolled. Bits that come over from the upper byte of
                // a pair are masked out.
                unsafe {
                    let down = _mm512_srl_epi16(packed, _mm_cvtsi32_si128((BITS * field) as i32));
                    let codes = _mm512_and_si512(down, _mm512_set1_epi8((1 << BITS) - 1));
                    _mm512_sub_epi8(codes, _mm512_set1_epi8(1 << (BITS - 1)))
                }
            }
            #[inline(always)]
            unsafe fn broadcast_few(from: *const u8) -> __m512i {
                unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
            }
            type Bytes = __m512i;
            #[inline(always)]
            unsafe fn load_bytes(from: *const u8) -> __m512i {
                unsafe { _mm512_loadu_si512(from.cast()) }
            }
            #[inline(always)]
            unsafe fn store_bytes(to: *mut u8, v: __m512i) {
                unsafe { _mm512_storeu_si512(to.cast(), v) }
            }
            #[inline(always)]
            unsafe fn load_first_bytes(from: *const u8, count: usize) -> __m512i {
                unsafe { _mm512_maskz_loadu_epi8(byte_mask(count), from.cast()) }
            }
            #[inline(always)]
            unsafe fn store_first_bytes(to: *mut u8, count: usize, v: __m512i) {
                unsafe { _mm512_mask_storeu_epi8(to.cast(), byte_mask(count), v) }
            }
            #[inline(always)]
            unsafe fn to_bytes(v: [__m512; 4]) -> __m512i {
                unsafe {
                    let low = _mm512_packs_epi32(_mm512_cvtps_epi32(v[0]), _mm512_cvtps_epi32(v[1]));
                    let high = _mm512_packs_epi32(_mm512_cvtps_epi32(v[2]), _mm512_cvtps_epi32(v[3]));
                    _mm512_packus_epi16(low, high)
                }
            }
            $($integers)*
        }
    };
}

avx512!(Avx512, "avx512", "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", {
    type Act = i16;
    const GROUP: usize = 2;

    #[inline(always)]
    unsafe fn load_weights(from: *const i8) -> __m512i {
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const i16) -> __m512i {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot(acc: __m512i, weights: __m512i, activations: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(acc, _mm512_madd_epi16(weights, activations)) }
    }
    type Tap = i16;
    const TAPS: usize = 2;
    #[inline(always)]
    unsafe fn dot_taps(acc: [__m512i; 4], taps: [__m512i; 4], weights: *const i16) -> [__m512i; 4] {
        unsafe {
            let zero = _mm512_setzero_si512();
            let low = _mm512_unpacklo_epi8(taps[0], taps[1]);
            let high = _mm512_unpackhi_epi8(taps[0], taps[1]);
            [
                Self::dot_wide(acc[0], _mm512_unpacklo_epi8(low, zero), Self::load_wide(weights)),
                Self::dot_wide(acc[1], _mm512_unpackhi_epi8(low, zero), Self::load_wide(weights.add(32))),
                Self::dot_wide(acc[2], _mm512_unpacklo_epi8(high, zero), Self::load_wide(weights.add(64))),
                Self::dot_wide(acc[3], _mm512_unpackhi_epi8(high, zero), Self::load_wide(weights.add(96))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn dot_few(acc: __m512i, weights: [__m512i; 2], activations: [__m512i; 2]) -> __m512i {
        // Pairs of products with weights of 4 bits are below 2 * 255 * 8, four of them below 2^14: neither the
        // saturating product nor the sum of two saturates.
        unsafe {
            let first = _mm512_maddubs_epi16(activations[0], weights[0]);
            let second = _mm512_maddubs_epi16(activations[1], weights[1]);
            let pairs = _mm512_add_epi16(first, second);
            _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
    }
});

avx512!(Avx512Vnni, "avx512_vnni", "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma", {
    type Act = u8;
    const GROUP: usize = 4;

    #[inline(always)]
    unsafe fn load_weights(from: *const i8) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const u8) -> __m512i {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot(acc: __m512i, weights: __m512i, activations: __m512i) -> __m512i {
        // Unsigned activations, signed weights; this form wraps at 32 bits and saturates nowhere.
        unsafe { _mm512_dpbusd_epi32(acc, activations, weights) }
    }
    type Tap = i8;
    const TAPS: usize = 4;
    #[inline(always)]
    unsafe fn dot_taps(acc: [__m512i; 4], taps: [__m512i; 4], weights: *const i8) -> [__m512i; 4] {
        unsafe {
            let [a, b, c, d] = taps;
            let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
            let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
            [
                Self::dot(acc[0], Self::load_weights(weights), _mm512_unpacklo_epi16(ab, cd)),
                Self::dot(acc[1], Self::load_weights(weights.add(64)), _mm512_unpackhi_epi16(ab, cd)),
                Self::dot(
                    acc[2],
                    Self::load_weights(weights.add(128)),
                    _mm512_unpacklo_epi16(ab_high, cd_high),
                ),
                Self::dot(
                    acc[3],
                    Self::load_weights(weights.add(192)),
                    _mm512_unpackhi_epi16(ab_high, cd_high),
                ),
            ]
        }
    }
    #[inline(always)]
    unsafe fn dot_few(acc: __m512i, weights: [__m512i; 2], activations: [__m512i; 2]) -> __m512i {
        unsafe { Self::dot(Self::dot(acc, weights[0], activations[0]), weights[1], activations[1]) }
    }
});

/// Ones for the first `count` lanes.
#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    debug_assert!(count < 16);
    (1 << count) - 1
}

/// Ones for the first `count` bytes.
#[inline(always)]
fn byte_mask(count: usize) -> __mmask64 {
    debug_assert!(count < 64);
    (1 << count) - 1
}
