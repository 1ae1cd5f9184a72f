//! Multiply-add peak that rates are compared with.

use std::hint::black_box;
use std::time::Instant;

/// Returns the single-precision operations per second of independent multiply-adds on the widest
/// vectors.
pub fn peak() -> f64 {
    const ROUNDS: u32 = 2_000_000;
    let mut best = f64::INFINITY;
    let mut lanes = 4.0;
    for _ in 0..20 {
        let start = Instant::now();
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") {
                lanes = 16.0;
                // SAFETY: the processor has the instructions.
                unsafe { chains_avx512(ROUNDS) }
            } else if std::arch::is_x86_feature_detected!("fma") {
                lanes = 8.0;
                // SAFETY: the processor has the instructions.
                unsafe { chains_avx2(ROUNDS) }
            }
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: every 64-bit Arm processor has the instructions.
        unsafe {
            lanes = 4.0;
            chains_neon(ROUNDS);
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    f64::from(ROUNDS) * 12.0 * lanes * 2.0 / best
}

/// Defines a function with twelve independent chains of multiply-adds.
macro_rules! chains {
    ($name:ident, $features:literal, $splat:expr, $fma:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name(rounds: u32) {
            let x = $splat(black_box(0.5));
            let mut sums = [x; 12];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = $fma(*sum, x, x);
                }
            }
            black_box(sums);
        }
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps};
#[cfg(target_arch = "x86_64")]
chains!(chains_avx2, "avx2,fma", _mm256_set1_ps, _mm256_fmadd_ps);
#[cfg(target_arch = "x86_64")]
chains!(chains_avx512, "avx512f", _mm512_set1_ps, _mm512_fmadd_ps);
#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::{vdupq_n_f32, vfmaq_f32};
#[cfg(target_arch = "aarch64")]
chains!(chains_neon, "neon", vdupq_n_f32, vfmaq_f32);
