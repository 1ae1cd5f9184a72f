//! 16-bit floating-point formats: bfloat16, the upper half of single precision, and half precision
//! (IEEE 754 binary16, "fp16"), which trades range for mantissa. All conversions work on bits, so
//! they are exact for subnormal numbers even in threads that flush single-precision subnormals.
//! Module `weights` of the plan states which weights are stored in these formats.

use crate::{Simd, SimdOp};

/// Largest finite number in half precision.
pub const FP16_MAX: f32 = 65504.0;

/// Rounds `x` to the nearest bfloat16, ties to even, and flushes subnormal numbers to 0 like
/// processors do.
#[must_use]
pub fn round_to_bf16(x: f32) -> f32 {
    if x.is_nan() {
        return f32::from_bits((x.to_bits() | 0x0040_0000) & 0xFFFF_0000);
    }
    if x.is_subnormal() {
        return 0.0_f32.copysign(x);
    }
    let bits = x.to_bits();
    let even = bits >> 16 & 1;
    f32::from_bits((bits + 0x7FFF + even) & 0xFFFF_0000)
}

/// Difference between the exponent biases of single and half precision, at single precision's
/// exponent position.
const REBIAS: u32 = (127 - 15) << 23;

/// Returns the bits of the half-precision number nearest to `x`, ties to even. Magnitudes from
/// 65520 on become infinite.
#[must_use]
pub fn fp16_bits(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16 & 0x8000) as u16;
    let magnitude = x.to_bits() & 0x7FFF_FFFF;
    let rounded = |bits: u32, dropped: u32| {
        let even = bits >> dropped & 1;
        (bits + (1 << (dropped - 1)) - 1 + even) >> dropped
    };
    let half = match magnitude {
        0x7F80_0001.. => 0x7E00,
        // 2^16 and above.
        0x4780_0000.. => 0x7C00,
        // Normal numbers; a carry out of the largest one makes it infinite.
        0x3880_0000.. => rounded(magnitude - REBIAS, 13),
        // Subnormal numbers, which are multiples of 2^-24: less than half of that rounds to 0.
        0x3300_0000.. => rounded(magnitude & 0x007F_FFFF | 0x0080_0000, 126 - (magnitude >> 23)),
        _ => 0,
    };
    sign | half as u16
}

/// Returns the number with these half-precision bits.
#[inline(always)]
#[must_use]
pub fn fp16_number(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7FFF);
    let number = match magnitude {
        // Subnormal numbers are multiples of 2^-24, computed as the last bits of a number near 0.5.
        ..0x0400 => (f32::from_bits(0.5_f32.to_bits() | magnitude) - 0.5).to_bits(),
        0x7C00.. => (magnitude << 13) + 2 * REBIAS,
        _ => (magnitude << 13) + REBIAS,
    };
    f32::from_bits(sign | number)
}

/// Widening of half-precision numbers to single precision, as many as fill whole vectors.
pub struct Widen<'a> {
    /// Bits of the half-precision numbers.
    pub halves: &'a [u16],
    /// Converted numbers in single precision, one for each of `halves`.
    pub numbers: &'a mut [f32],
}

impl SimdOp for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let steps = self.halves.chunks_exact(S::LANES).zip(self.numbers.chunks_exact_mut(S::LANES));
        for (from, to) in steps {
            // SAFETY: both chunks are as long as a vector.
            unsafe { simd.store(to.as_mut_ptr(), simd.load_f16(from.as_ptr())) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_to_bf16_goes_to_the_nearest_even_one() {
        for (bits, want) in [
            (0x3F80_0000, 0x3F80_0000),
            (0x3F80_7FFF, 0x3F80_0000),
            (0x3F80_8000, 0x3F80_0000),
            (0x3F81_8000, 0x3F82_0000),
            (0xBF80_8001, 0xBF81_0000),
            (0x7F7F_FFFF, 0x7F80_0000),
            (0x7F80_0000, 0x7F80_0000),
            (0x8000_0001, 0x8000_0000),
        ] {
            assert_eq!(round_to_bf16(f32::from_bits(bits)).to_bits(), want, "{bits:x}");
        }
        assert!(round_to_bf16(f32::NAN).is_nan());
    }

    /// Decodes half-precision bits by the definition of the format.
    fn defined(bits: u16) -> f64 {
        let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3FF));
        let magnitude = match exponent {
            0 => mantissa * 2.0_f64.powi(-24),
            31 if mantissa > 0.0 => f64::NAN,
            31 => f64::INFINITY,
            _ => (1.0 + mantissa / 1024.0) * 2.0_f64.powi(exponent - 15),
        };
        if bits & 0x8000 == 0 { magnitude } else { -magnitude }
    }

    #[test]
    fn every_half_is_the_number_that_it_should_be_and_comes_back() {
        for bits in 0..=u16::MAX {
            let (number, want) = (fp16_number(bits), defined(bits));
            if want.is_nan() {
                assert!(number.is_nan() && fp16_number(fp16_bits(number)).is_nan());
                continue;
            }
            assert_eq!(f64::from(number).to_bits(), want.to_bits(), "{bits:x}");
            assert_eq!(fp16_bits(number), bits, "{bits:x}");
        }
    }

    #[test]
    fn halves_are_the_nearest_ones_and_even_between_two() {
        for bits in 0..0x7C00_u16 {
            let (low, high) = (defined(bits), defined(bits + 1));
            // Beyond the largest finite number lies the next power of two.
            let high = if high.is_finite() { high } else { 65536.0 };
            let middle = ((low + high) / 2.0) as f32;
            assert_eq!(f64::from(middle), (low + high) / 2.0);
            let even = bits + bits % 2;
            for (x, want) in
                [(middle.next_down(), bits), (middle, even), (middle.next_up(), bits + 1)]
            {
                assert_eq!(fp16_bits(x), want, "{x:e}");
                assert_eq!(fp16_bits(-x), want | 0x8000, "-{x:e}");
            }
        }
        for x in [f32::MAX, f32::INFINITY, 65520.0] {
            assert_eq!(fp16_bits(x), 0x7C00);
        }
        for x in [0.0, f32::MIN_POSITIVE, 1e-40] {
            assert_eq!(fp16_bits(x), 0);
        }
    }
}
