//! Conversion of weights to half precision (IEEE 754 binary16) for a device.

use super::unfit;
use paretune_base::error::KernelError;
use paretune_simd::half::{FP16_MAX, fp16_bits};

/// Returns the bytes of `weights` in half precision.
///
/// # Errors
/// Fails if a weight is larger than [`FP16_MAX`] or NaN.
pub(super) fn bytes_of_halves(name: &str, weights: &[f32]) -> Result<Vec<u8>, KernelError> {
    check(name, weights)?;
    Ok(weights.iter().flat_map(|&weight| fp16_bits(weight).to_ne_bytes()).collect())
}

/// Checks that all `weights` of algorithm `name` are in the range of half precision.
///
/// # Errors
/// Fails like [`bytes_of_halves`].
pub(super) fn check(name: &str, weights: &[f32]) -> Result<(), KernelError> {
    let beyond = weights.iter().find(|weight| weight.is_nan() || weight.abs() > FP16_MAX);
    beyond.map_or(Ok(()), |weight| {
        Err(unfit(name, &format!("half precision has no weight of {weight}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_half_precision_has_not_is_refused() {
        assert_eq!(
            bytes_of_halves("x", &[1.0, -FP16_MAX]).unwrap(),
            [0x3c00_u16, 0xfbff].map(u16::to_ne_bytes).concat()
        );
        for weight in [65505.0, f32::NEG_INFINITY, f32::NAN] {
            assert!(
                bytes_of_halves("x", &[0.5, weight])
                    .unwrap_err()
                    .to_string()
                    .contains("no weight of")
            );
        }
    }
}
