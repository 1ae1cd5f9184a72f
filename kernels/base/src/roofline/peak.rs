//! Loops for measuring peak rates: loops of multiply-adds in registers, and a loop that only reads
//! memory.

use std::hint::black_box;

use paretune_simd::Isa;

/// Number of independent accumulators: more than latency times throughput of any processor so far
/// (5 x 2), and few enough to leave registers for the operands.
const CHAINS: usize = 12;

/// Executes `rounds` single-precision multiply-adds in each of many independent chains, and returns
/// the total number of multiply-adds.
pub(super) fn multiply_adds_f32(isa: Isa, rounds: usize) -> u64 {
    let lanes = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 if isa.is_available() => {
            // SAFETY: the guard has found the instruction set on this processor.
            unsafe { x86::f32_avx512(rounds) };
            16
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::AvxVnni if isa.is_available() => {
            // SAFETY: the guard has found the instruction set on this processor.
            unsafe { x86::f32_avx2(rounds) };
            8
        }
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::NeonDot => {
            // SAFETY: part of the base of 64-bit Arm.
            unsafe { arm::f32_neon(rounds) };
            4
        }
        _ => {
            portable_f32(rounds);
            4
        }
    };
    (rounds * CHAINS * lanes) as u64
}

/// Returns whether [`multiply_adds_i8`] has instructions to use.
pub(super) fn has_i8(isa: Isa) -> bool {
    !matches!(isa, Isa::Portable | Isa::Neon) && isa.is_available()
}

/// Executes multiply-adds of unsigned (with NEON signed) and signed 8-bit numbers with 32-bit sums,
/// and returns their number. Returns 0 unless [`has_i8`].
pub(super) fn multiply_adds_i8(isa: Isa, rounds: usize) -> u64 {
    let lanes = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Avx512Bf16 if isa.is_available() => {
            // SAFETY: the guard has found the instruction set on this processor.
            unsafe { x86::i8_vnni(rounds) };
            64
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.is_available() => {
            // SAFETY: the guard has found the instruction set on this processor.
            unsafe { x86::i8_avx512(rounds) };
            64
        }
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni if isa.is_available() => {
            // SAFETY: the guard has found the instruction set on this processor.
            unsafe { x86::i8_avx_vnni(rounds) };
            32
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.is_available() => {
            // SAFETY: the guard has found the instruction set on this processor.
            unsafe { x86::i8_avx2(rounds) };
            32
        }
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot if isa.is_available() => {
            // SAFETY: the guard has found the instruction set on this processor.
            unsafe { arm::i8_neon_dot(rounds) };
            16
        }
        _ => 0,
    };
    (rounds * CHAINS * lanes) as u64
}

/// Returns the sum of `numbers`, limited only by the speed of reading them.
pub(super) fn sum(isa: Isa, numbers: &[u64]) -> u64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 if isa.is_available() => {
            // SAFETY: the guard has found the instruction set on this processor.
            unsafe { x86::sum_avx512(numbers) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::AvxVnni if isa.is_available() => {
            // SAFETY: the guard has found the instruction set on this processor.
            unsafe { x86::sum_avx2(numbers) }
        }
        _ => sum_in_lanes(numbers),
    }
}

#[inline(always)]
fn sum_in_lanes(numbers: &[u64]) -> u64 {
    // Eight vectors of eight: enough concurrent loads for any cache.
    let mut lanes = [0_u64; 64];
    let (chunks, rest) = numbers.as_chunks::<64>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(*x);
        }
    }
    lanes.iter().chain(rest).fold(0, |sum, x| sum.wrapping_add(*x))
}

/// Executes multiplications and additions of 128-bit vectors separately, like plain code.
fn portable_f32(rounds: usize) {
    let mut chains = [[1.0_f32; 4]; CHAINS];
    let (x, y) = (black_box([0.999_f32; 4]), black_box([0.001_f32; 4]));
    for _ in 0..rounds {
        for chain in &mut chains {
            for lane in 0..4 {
                chain[lane] = chain[lane] * x[lane] + y[lane];
            }
        }
    }
    black_box(chains);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{CHAINS, sum_in_lanes};

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn f32_avx2(rounds: usize) {
        let (x, y) = (black_box(_mm256_set1_ps(0.999)), black_box(_mm256_set1_ps(0.001)));
        let mut chains = [_mm256_set1_ps(1.0); CHAINS];
        for _ in 0..rounds {
            for chain in &mut chains {
                *chain = _mm256_fmadd_ps(*chain, x, y);
            }
        }
        black_box(chains);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn f32_avx512(rounds: usize) {
        let (x, y) = (black_box(_mm512_set1_ps(0.999)), black_box(_mm512_set1_ps(0.001)));
        let mut chains = [_mm512_set1_ps(1.0); CHAINS];
        for _ in 0..rounds {
            for chain in &mut chains {
                *chain = _mm512_fmadd_ps(*chain, x, y);
            }
        }
        black_box(chains);
    }

    /// Three instructions for 32 multiply-adds are the minimum with AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) fn i8_avx2(rounds: usize) {
        let ones = black_box(_mm256_set1_epi16(1));
        let mut x = black_box(_mm256_set1_epi8(3));
        let y = black_box(_mm256_set1_epi8(5));
        let mut chains = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..rounds {
            for chain in &mut chains {
                let pairs = _mm256_maddubs_epi16(x, y);
                *chain = _mm256_add_epi32(*chain, _mm256_madd_epi16(pairs, ones));
                // SAFETY: no instruction at all; it only hides from the compiler that `x` is the
                // same as before, or the products would be computed once for all.
                unsafe {
                    asm!("/* {0} */", inout(ymm_reg) x, options(nomem, nostack, preserves_flags))
                };
            }
        }
        black_box((chains, x));
    }

    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) fn i8_avx_vnni(rounds: usize) {
        let (x, y) = (black_box(_mm256_set1_epi8(3)), black_box(_mm256_set1_epi8(5)));
        let mut chains = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..rounds {
            for chain in &mut chains {
                *chain = _mm256_dpbusd_avx_epi32(*chain, x, y);
            }
        }
        black_box(chains);
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn i8_avx512(rounds: usize) {
        let ones = black_box(_mm512_set1_epi16(1));
        let mut x = black_box(_mm512_set1_epi8(3));
        let y = black_box(_mm512_set1_epi8(5));
        let mut chains = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..rounds {
            for chain in &mut chains {
                let pairs = _mm512_maddubs_epi16(x, y);
                *chain = _mm512_add_epi32(*chain, _mm512_madd_epi16(pairs, ones));
                // SAFETY: no instruction at all; it only hides that `x` does not change.
                unsafe {
                    asm!("/* {0} */", inout(zmm_reg) x, options(nomem, nostack, preserves_flags))
                };
            }
        }
        black_box((chains, x));
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn i8_vnni(rounds: usize) {
        let (x, y) = (black_box(_mm512_set1_epi8(3)), black_box(_mm512_set1_epi8(5)));
        let mut chains = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..rounds {
            for chain in &mut chains {
                *chain = _mm512_dpbusd_epi32(*chain, x, y);
            }
        }
        black_box(chains);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn sum_avx2(numbers: &[u64]) -> u64 {
        sum_in_lanes(numbers)
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn sum_avx512(numbers: &[u64]) -> u64 {
        sum_in_lanes(numbers)
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;
    use std::arch::asm;
    use std::hint::black_box;

    use super::CHAINS;

    #[target_feature(enable = "neon")]
    pub(super) fn f32_neon(rounds: usize) {
        let (x, y) = (black_box(vdupq_n_f32(0.999)), black_box(vdupq_n_f32(0.001)));
        let mut chains = [vdupq_n_f32(1.0); CHAINS];
        for _ in 0..rounds {
            for chain in &mut chains {
                *chain = vfmaq_f32(*chain, x, y);
            }
        }
        black_box(chains);
    }

    #[target_feature(enable = "neon,dotprod")]
    pub(super) fn i8_neon_dot(rounds: usize) {
        let (x, y) = (black_box(vdupq_n_s8(3)), black_box(vdupq_n_s8(5)));
        let mut chains = [vdupq_n_s32(0); CHAINS];
        for _ in 0..rounds {
            for chain in &mut chains {
                // SAFETY: one instruction that touches nothing but its registers.
                unsafe {
                    asm!(
                        "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
                        inout(vreg) *chain, in(vreg) x, in(vreg) y,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
            }
        }
        black_box(chains);
    }
}
