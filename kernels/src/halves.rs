//! Real numbers of 16 bits: bfloat16, which is the upper half of single precision, and half precision (IEEE 754 binary16,
//! "fp16"), which trades range for mantissa. Everything here works on bits, so that it is exact for subnormal numbers too,
//! even in threads that flush those of single precision. Which weights are held so is said in [`crate::weights`].

/// The greatest finite number in half precision.
pub const FP16_MAX: f32 = 65504.0;

/// `x` with the last 16 bits zero, rounded to nearest even, as processors do it: numbers too small to be normal become 0.
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

/// What single precision and half precision differ by in the bias of their exponents, at single precision's place.
const REBIAS: u32 = (127 - 15) << 23;

/// The half-precision number nearest to `x`, the even one of two, as its bits: infinite from 65520 on.
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
        // Normal ones; a carry out of the greatest makes it infinite.
        0x3880_0000.. => rounded(magnitude - REBIAS, 13),
        // Whole numbers of 2^-24: below half of one nothing is left.
        0x3300_0000.. => rounded(magnitude & 0x007F_FFFF | 0x0080_0000, 126 - (magnitude >> 23)),
        _ => 0,
    };
    sign | half as u16
}

/// The number that has these bits in half precision.
#[inline(always)]
#[must_use]
pub fn fp16_number(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7FFF);
    let number = match magnitude {
        // Whole numbers of 2^-24, as the last bits of something near a half.
        ..0x0400 => (f32::from_bits(0.5_f32.to_bits() | magnitude) - 0.5).to_bits(),
        0x7C00.. => (magnitude << 13) + 2 * REBIAS,
        _ => (magnitude << 13) + REBIAS,
    };
    f32::from_bits(sign | number)
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

    /// By the definition of the format.
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
            // Beyond the greatest lies what would be the next one.
            let high = if high.is_finite() { high } else { 65536.0 };
            let middle = ((low + high) / 2.0) as f32;
            assert_eq!(f64::from(middle), (low + high) / 2.0);
            let even = bits + bits % 2;
            for (x, want) in [(middle.next_down(), bits), (middle, even), (middle.next_up(), bits + 1)] {
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
