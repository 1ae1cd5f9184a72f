//! Weights as they are stored: compact, in one canonical order, independent of the algorithms that
//! will run them.
//!
//! A [`WeightFormat`] is two choices that have nothing to do with each other: what the numbers are
//! ([`Numbers`]) and which of them may be other than zero ([`Pattern`]). Algorithms pack from these
//! at load time, unless a bundle has what they pack. What a bundle of coded weights weighs on disk
//! therefore depends on compression alone and never on the schedule.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod format;

pub use format::{Grid, Numbers, Pattern, UnknownPattern, WeightFormat};
pub use paretune_simd::half::{FP16_MAX, fp16_number, round_to_bf16};

/// The weights of one convolution or dense layer, and its bias.
///
/// `dims` is `[out_channels, in_channels / groups, kernel_height, kernel_width]`, row-major
/// ("OIHW"). A dense layer is a 1x1 convolution: `[out, in, 1, 1]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// Shape `[out_channels, in_channels / groups, kernel_height, kernel_width]`.
    pub dims: [usize; 4],
    /// Values of all weights, zeros included.
    pub values: WeightValues,
    /// Pattern of zeros. Kernels may use it for speed only: every kernel checks or ignores it.
    pub pattern: Pattern,
    /// Bias per output channel, if any.
    pub bias: Option<Arc<[f32]>>,
}

/// The values of [`Weights`] in the order of [`Weights::dims`], zeros included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WeightValues {
    /// Values in single precision, stored in 32 bits.
    F32(Arc<[f32]>),
    /// bfloat16 values ([`round_to_bf16`]), held in single precision with the last 16 bits zero.
    Bf16(Arc<[f32]>),
    /// Half-precision values, held in single precision and stored in 16 bits.
    Fp16(Arc<[f32]>),
    /// Integers on a grid per output channel, which run with 8-bit activations.
    Integer(IntegerWeights),
}

/// Integer weights on a grid: `weight = value * scale[out_channel]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntegerWeights {
    /// Values in the order of [`Weights::dims`], each within the [`Grid::levels`].
    pub values: Arc<[i8]>,
    /// One scale per output channel, finite, not zero. A negative scale gives the longer end of an
    /// asymmetric grid to negative weights.
    pub scales: Arc<[f32]>,
    /// Grid that the values are taken from.
    pub grid: Grid,
}

impl Weights {
    /// Creates dense weights in single precision.
    #[must_use]
    pub fn dense(dims: [usize; 4], values: Arc<[f32]>, bias: Option<Arc<[f32]>>) -> Self {
        Self { dims, values: WeightValues::F32(values), pattern: Pattern::Dense, bias }
    }

    /// Returns the weight type and the pattern of these weights.
    #[must_use]
    pub fn format(&self) -> WeightFormat {
        let numbers = match &self.values {
            WeightValues::F32(_) => Numbers::F32,
            WeightValues::Bf16(_) => Numbers::Bf16,
            WeightValues::Fp16(_) => Numbers::Fp16,
            WeightValues::Integer(integer) => Numbers::Integer(integer.grid),
        };
        WeightFormat { numbers, pattern: self.pattern }
    }
}

/// Error for a finite weight beyond the range of the weight type that should store it.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "a weight of {weight} is beyond the greatest number of {}",
    numbers.half().unwrap_or("single precision")
)]
pub struct Beyond {
    /// Value of the weight before rounding.
    pub weight: f32,
    /// Weight type that cannot represent it.
    pub numbers: Numbers,
}

impl WeightValues {
    /// Returns an empty list of weights of this weight type.
    #[must_use]
    pub fn none(numbers: Numbers) -> Self {
        match numbers {
            Numbers::F32 => Self::F32([].into()),
            Numbers::Bf16 => Self::Bf16([].into()),
            Numbers::Fp16 => Self::Fp16([].into()),
            Numbers::Integer(grid) => {
                Self::Integer(IntegerWeights { values: [].into(), scales: [].into(), grid })
            }
        }
    }

    /// Rounds real weights to the nearest values of `numbers`. Integer weights are returned
    /// unchanged, and so are all weights if `numbers` is an integer type.
    ///
    /// # Errors
    /// Fails if a finite weight becomes infinite.
    pub fn rounded(self, numbers: Numbers) -> Result<Self, Beyond> {
        let (Some(values), true) = (self.reals(), numbers.is_real()) else { return Ok(self) };
        let round = |&weight: &f32| {
            let rounded = numbers.nearest(weight);
            if rounded.is_infinite() && weight.is_finite() {
                return Err(Beyond { weight, numbers });
            }
            Ok(rounded)
        };
        let rounded = values.iter().map(round).collect::<Result<Arc<[f32]>, Beyond>>()?;
        let mut values = Self::none(numbers);
        if let Some(reals) = values.reals_mut() {
            *reals = rounded;
        }
        Ok(values)
    }

    /// Returns the values of real weights, and `None` for integers.
    #[must_use]
    pub fn reals(&self) -> Option<&Arc<[f32]>> {
        match self {
            Self::F32(values) | Self::Bf16(values) | Self::Fp16(values) => Some(values),
            Self::Integer(_) => None,
        }
    }

    /// Returns the values of real weights for modification, and `None` for integers.
    pub fn reals_mut(&mut self) -> Option<&mut Arc<[f32]>> {
        match self {
            Self::F32(values) | Self::Bf16(values) | Self::Fp16(values) => Some(values),
            Self::Integer(_) => None,
        }
    }

    /// Returns the number of weights, zeros included.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) | Self::Bf16(values) | Self::Fp16(values) => values.len(),
            Self::Integer(integer) => integer.values.len(),
        }
    }

    /// Returns whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_not_made_infinite() {
        let of = |values: &[f32]| WeightValues::F32(values.into());
        let fits = of(&[1.0 + 1.0 / 4096.0, -FP16_MAX, 65519.0, 3.0e-8, 2.0_f32.powi(-24)]);
        let halves = fits.clone().rounded(Numbers::Fp16).unwrap();
        let least = 2.0_f32.powi(-24);
        assert_eq!(halves, WeightValues::Fp16([1.0, -FP16_MAX, FP16_MAX, least, least].into()));
        assert!(halves.reals().unwrap().iter().all(|&x| Numbers::Fp16.holds(x)));
        assert!(
            [65520.0, f32::INFINITY, 1.0 + 1.0 / 4096.0].iter().all(|&x| !Numbers::Fp16.holds(x))
        );
        let error = of(&[1.0, -65520.0]).rounded(Numbers::Fp16).unwrap_err();
        assert_eq!(error.to_string(), "a weight of -65520 is beyond the greatest number of fp16");
        assert!(
            of(&[65520.0]).rounded(Numbers::Bf16).is_ok()
                && of(&[f32::MAX]).rounded(Numbers::Bf16).is_err()
        );
        assert_eq!(fits.clone().rounded(Numbers::F32), Ok(fits));
    }
}
