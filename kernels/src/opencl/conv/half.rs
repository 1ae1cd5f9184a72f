//! Weights in half precision (IEEE 754 binary16): which can be kept in it, and their bits.

use super::unfit;
use crate::error::KernelError;

/// The largest number of half precision.
pub(super) const LARGEST: f32 = 65504.0;

/// Bytes of `weights` in half precision.
///
/// # Errors
/// Where one is larger than [`LARGEST`], or no number.
pub(super) fn bytes_of_halves(name: &str, weights: &[f32]) -> Result<Vec<u8>, KernelError> {
    check(name, weights)?;
    Ok(weights.iter().flat_map(|&weight| half(weight).to_ne_bytes()).collect())
}

/// That all `weights` of algorithm `name` are there in half precision.
///
/// # Errors
/// As for [`bytes_of_halves`].
pub(super) fn check(name: &str, weights: &[f32]) -> Result<(), KernelError> {
    let beyond = weights.iter().find(|weight| weight.is_nan() || weight.abs() > LARGEST);
    beyond.map_or(Ok(()), |weight| Err(unfit(name, &format!("half precision has no weight of {weight}"))))
}

/// The bits of the nearest number of fp16 (IEEE 754 binary16, ties to even); 65504 for what is larger.
pub(super) fn half(x: f32) -> u16 {
    const LEAST_NORMAL: f32 = 6.103_515_6e-5;
    let size = x.abs().min(65504.0);
    let bits = if x.is_nan() {
        0x7e00
    } else if size < LEAST_NORMAL {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1024")]
        let steps = (size * 16_777_216.0).round_ties_even() as u16;
        steps
    } else {
        let narrow = size.to_bits() - (112 << 23);
        #[expect(clippy::cast_possible_truncation, reason = "15 bits are left")]
        let bits = ((narrow + 0xfff + (narrow >> 13 & 1)) >> 13) as u16;
        bits
    };
    bits | if x.is_sign_negative() { 0x8000 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_half_precision_has_not_is_refused() {
        assert_eq!(
            bytes_of_halves("x", &[1.0, -LARGEST]).unwrap(),
            [0x3c00_u16, 0xfbff].map(u16::to_ne_bytes).concat()
        );
        for weight in [65505.0, f32::NEG_INFINITY, f32::NAN] {
            assert!(bytes_of_halves("x", &[0.5, weight]).unwrap_err().to_string().contains("no weight of"));
        }
    }

    #[test]
    fn halves_are_the_nearest() {
        for (x, bits) in [
            (0.0, 0),
            (-1.0, 0xbc00),
            (1.0 + 1.0 / 1024.0, 0x3c01),
            // Ties to even.
            (1.0 + 1.0 / 2048.0, 0x3c00),
            (1.0 + 3.0 / 2048.0, 0x3c02),
            (65504.0, 0x7bff),
            (1e9, 0x7bff),
            (f32::NEG_INFINITY, 0xfbff),
            (6.103_515_6e-5, 0x0400),
            (5.960_464_5e-8, 1),
            (1e-9, 0),
        ] {
            assert_eq!(half(x), bits, "{x}");
        }
    }
}
