//! Products of bfloat16, which are pairs in the place of single-precision numbers: `LANES` pairs per vector, summed in single
//! precision.

use std::arch::x86_64::*;

/// Per lane, `acc + a[0] * b[0] + a[1] * b[1]`, the lanes of `a` and `b` being pairs.
///
/// # Safety
/// The processor has AVX-512 BF16, and the caller was compiled for it.
#[inline(always)]
pub unsafe fn dot(acc: __m512, a: __m512, b: __m512) -> __m512 {
    // SAFETY: the caller's promise; registers are only called something else.
    unsafe {
        let pairs = |v: __m512| std::mem::transmute::<__m512, __m512bh>(v);
        _mm512_dpbf16_ps(acc, pairs(a), pairs(b))
    }
}

/// Rounds `count` numbers to nearest even.
///
/// # Safety
/// The processor has AVX-512 BF16, both are valid for `count` numbers and do not overlap.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub unsafe fn round(from: *const f32, to: *mut u16, count: usize) {
    let mut done = 0;
    // SAFETY: the pieces add up to `count`; masked lanes touch no memory.
    unsafe {
        let rounded = |numbers| std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(numbers));
        while done + 16 <= count {
            _mm256_storeu_si256(to.add(done).cast(), rounded(_mm512_loadu_ps(from.add(done))));
            done += 16;
        }
        if done < count {
            let mask: __mmask16 = (1 << (count - done)) - 1;
            let numbers = _mm512_maskz_loadu_ps(mask, from.add(done));
            _mm256_mask_storeu_epi16(to.add(done).cast(), mask, rounded(numbers));
        }
    }
}
