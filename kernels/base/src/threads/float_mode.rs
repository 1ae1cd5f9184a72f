//! Flushing of denormal numbers, a mode of each thread instead of the process.
//!
//! Pruned networks produce denormals, each of which costs a hundred cycles on many processors.

/// Guard that enables the mode and restores the previous mode when dropped.
pub(super) struct FlushDenormals {
    before: u64,
}

impl FlushDenormals {
    /// Makes this thread treat denormals as zero until the guard is dropped.
    pub(super) fn on() -> Self {
        let before = read();
        write(before | FLUSH);
        Self { before }
    }
}

impl Drop for FlushDenormals {
    fn drop(&mut self) {
        write(self.before);
    }
}

/// Enables the mode for this thread permanently; for threads that the pool owns.
pub(super) fn flush_denormals() {
    write(read() | FLUSH);
}

/// MXCSR: flush to zero (bit 15), denormals are zero (bit 6).
#[cfg(target_arch = "x86_64")]
const FLUSH: u64 = 1 << 15 | 1 << 6;

#[cfg(target_arch = "x86_64")]
fn read() -> u64 {
    let mut word = 0_u32;
    // SAFETY: every x86-64 processor has the register; the instruction writes four bytes to `word`.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags));
    }
    u64::from(word)
}

#[cfg(target_arch = "x86_64")]
fn write(word: u64) {
    let word = word as u32;
    // SAFETY: the word was read from the register and differs in the two flush bits only, so no
    // reserved bit is set, exceptions stay masked and rounding stays as Rust assumes it. Flushing
    // alters results of denormal operands only, which this crate means to do.
    unsafe {
        std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack, preserves_flags, readonly));
    }
}

/// FPCR: flush to zero (bit 24).
#[cfg(target_arch = "aarch64")]
const FLUSH: u64 = 1 << 24;

#[cfg(target_arch = "aarch64")]
fn read() -> u64 {
    let word: u64;
    // SAFETY: reading FPCR has no side effect and is allowed in user mode.
    unsafe {
        std::arch::asm!("mrs {}, fpcr", out(reg) word, options(nomem, nostack, preserves_flags))
    };
    word
}

#[cfg(target_arch = "aarch64")]
fn write(word: u64) {
    // SAFETY: the word was read from FPCR and differs in the flush bit only.
    unsafe { std::arch::asm!("msr fpcr, {}", in(reg) word, options(nostack, preserves_flags)) };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const FLUSH: u64 = 0;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn read() -> u64 {
    0
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn write(_word: u64) {}

#[cfg(test)]
mod tests {
    use super::*;
    use paretune_simd::half::{Widen, fp16_number};
    use paretune_simd::{Dispatch, Isa, IsaToken};

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn denormals_vanish_and_come_back() {
        use std::hint::black_box;
        let tiny = f32::MIN_POSITIVE;
        let half = || black_box(black_box(tiny) * black_box(0.5));
        assert!(half() > 0.0);
        {
            let _mode = FlushDenormals::on();
            assert_eq!(half().to_bits(), 0);
        }
        assert!(half() > 0.0);
    }

    #[test]
    fn halves_are_widened_exactly_where_subnormal_numbers_are_flushed_too() {
        let halves: Vec<u16> = (0..=u16::MAX).collect();
        for isa in Isa::available() {
            let mut numbers = vec![0.0; halves.len()];
            {
                let _mode = FlushDenormals::on();
                let widen = Widen { halves: &halves, numbers: &mut numbers };
                IsaToken::new(isa).unwrap().dispatch(widen);
            }
            for (half, number) in halves.iter().zip(numbers) {
                let want = fp16_number(*half);
                assert!(
                    number.to_bits() == want.to_bits() || number.is_nan() && want.is_nan(),
                    "{isa:?}: {half:x} is {number:e}"
                );
            }
        }
    }
}
