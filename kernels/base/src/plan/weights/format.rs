//! Formats of weights: the weight type ([`Numbers`]) and the pattern of zeros ([`Pattern`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use paretune_simd::half::{fp16_bits, fp16_number, round_to_bf16};

/// The range of integer weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Grid {
    /// The values -1, 0 and 1.
    Ternary,
    /// The 2-bit integers from -2 to 1.
    Bits2,
    /// The 3-bit integers from -4 to 3.
    Bits3,
    /// The 4-bit integers from -8 to 7.
    Bits4,
    /// The 6-bit integers from -32 to 31.
    Bits6,
    /// The symmetric 8-bit integers from -127 to 127.
    Bits8,
}

/// Pattern of the weights that may be nonzero.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum Pattern {
    /// Any weight may be nonzero.
    #[default]
    Dense,
    /// Zeros anywhere, and many of them.
    Unstructured,
    /// Block sparsity: at each tap of the kernel, blocks of consecutive output channels times
    /// consecutive input channels are zero as a whole or not. Blocks start at multiples of their
    /// size in each group, and the last ones may be cut off.
    Blocks {
        /// Output channels of a block.
        outputs: u8,
        /// Input channels of a block.
        inputs: u8,
    },
    /// N:M sparsity: of every `m` consecutive input channels, at most `n` are nonzero,
    /// separately for each output channel and tap.
    #[serde(alias = "Grouped")]
    NofM {
        /// Maximum number of nonzero weights in a group.
        #[serde(alias = "kept")]
        n: u8,
        /// Number of weights in a group.
        #[serde(alias = "of")]
        m: u8,
    },
}

/// Weight type: the number format of weights.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum Numbers {
    /// Single precision, with activations in single precision.
    #[default]
    F32,
    /// bfloat16, the upper half of single precision, with its full range and 8 bits of mantissa.
    /// Activations are in single precision; algorithms may round them to bfloat16 in
    /// multiplications.
    Bf16,
    /// Half precision ("fp16"), with 11 bits of mantissa and values up to 65504. Activations and
    /// all arithmetic are in single precision.
    Fp16,
    /// Integers on a grid, with 8-bit activations.
    Integer(Grid),
}

/// Format of weights; every convolution algorithm states which formats it executes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct WeightFormat {
    /// Weight type of the values.
    pub numbers: Numbers,
    /// Pattern of the weights that may be nonzero.
    pub pattern: Pattern,
}

impl Grid {
    /// All grids, the coarsest first.
    pub const ALL: [Self; 6] =
        [Self::Ternary, Self::Bits2, Self::Bits3, Self::Bits4, Self::Bits6, Self::Bits8];

    /// Returns the lowest and the highest value.
    #[must_use]
    pub const fn levels(self) -> (i8, i8) {
        match self {
            Self::Ternary => (-1, 1),
            Self::Bits2 => (-2, 1),
            Self::Bits3 => (-4, 3),
            Self::Bits4 => (-8, 7),
            Self::Bits6 => (-32, 31),
            Self::Bits8 => (-127, 127),
        }
    }

    /// Returns the bits per weight; for the ternary grid the binary logarithm of 3, to two
    /// decimals.
    #[must_use]
    pub const fn bits(self) -> f64 {
        match self {
            Self::Ternary => 1.58,
            Self::Bits2 => 2.0,
            Self::Bits3 => 3.0,
            Self::Bits4 => 4.0,
            Self::Bits6 => 6.0,
            Self::Bits8 => 8.0,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense => f.write_str("dense"),
            Self::Unstructured => f.write_str("unstructured"),
            Self::Blocks { outputs, inputs } => write!(f, "blocks_{outputs}x{inputs}"),
            Self::NofM { n, m } => write!(f, "{n}_of_{m}"),
        }
    }
}

/// Error for a text that names no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no pattern of zeros; there are dense, unstructured, blocks_OUTPUTSxINPUTS and N_of_M"
)]
pub struct UnknownPattern(String);

impl FromStr for Pattern {
    type Err = UnknownPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pair = |text: &str, between: &str| -> Option<(u8, u8)> {
            let (first, second) = text.split_once(between)?;
            let number = |text: &str| text.parse().ok().filter(|&number| number > 0);
            Some((number(first)?, number(second)?))
        };
        let parsed = match text {
            "dense" => Some(Self::Dense),
            "unstructured" => Some(Self::Unstructured),
            _ => match text.strip_prefix("blocks_") {
                Some(size) => {
                    pair(size, "x").map(|(outputs, inputs)| Self::Blocks { outputs, inputs })
                }
                None => {
                    pair(text, "_of_").filter(|(n, m)| n <= m).map(|(n, m)| Self::NofM { n, m })
                }
            },
        };
        parsed.ok_or_else(|| UnknownPattern(text.to_owned()))
    }
}

impl Numbers {
    /// Returns the bits per weight.
    #[must_use]
    pub const fn bits(self) -> f64 {
        match self {
            Self::F32 => 32.0,
            Self::Bf16 | Self::Fp16 => 16.0,
            Self::Integer(grid) => grid.bits(),
        }
    }

    /// Returns the weight type with this many bits, if one exists. 1.58 stands for ternary, and 16
    /// for bfloat16.
    #[must_use]
    pub fn of_bits(bits: f64) -> Option<Self> {
        Self::all().find(|numbers| (numbers.bits() - bits).abs() < 1e-6)
    }

    /// The weight types of 16 bits.
    pub const HALVES: [Self; 2] = [Self::Bf16, Self::Fp16];

    /// Returns the name of a 16-bit weight type in [`Numbers::HALVES`], and `None` for all others.
    #[must_use]
    pub const fn half(self) -> Option<&'static str> {
        match self {
            Self::Bf16 => Some("bf16"),
            Self::Fp16 => Some("fp16"),
            Self::F32 | Self::Integer(_) => None,
        }
    }

    /// Returns the 16-bit weight type with this [name](Self::half).
    #[must_use]
    pub fn of_half(name: &str) -> Option<Self> {
        Self::HALVES.into_iter().find(|numbers| numbers.half() == Some(name))
    }

    /// Rounds `x` to the nearest value of a real weight type, possibly infinite. Integer types
    /// return `x` unchanged.
    #[must_use]
    pub fn nearest(self, x: f32) -> f32 {
        match self {
            Self::Bf16 => round_to_bf16(x),
            Self::Fp16 => fp16_number(fp16_bits(x)),
            Self::F32 | Self::Integer(_) => x,
        }
    }

    /// Returns whether a real weight type represents `x` exactly. True for integer types.
    #[must_use]
    pub fn holds(self, x: f32) -> bool {
        match self {
            Self::Bf16 => x.to_bits() & 0xFFFF == 0,
            Self::Fp16 => x.is_finite() && self.nearest(x).to_bits() == x.to_bits(),
            Self::F32 | Self::Integer(_) => true,
        }
    }

    /// Returns all weight types, the coarsest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + Clone {
        Grid::ALL.into_iter().map(Self::Integer).chain([Self::Bf16, Self::Fp16, Self::F32])
    }

    /// Returns whether the weights are real numbers, held in single precision.
    #[must_use]
    pub const fn is_real(self) -> bool {
        !self.is_integer()
    }

    /// Returns whether the weights are integers.
    #[must_use]
    pub const fn is_integer(self) -> bool {
        matches!(self, Self::Integer(_))
    }
}

impl WeightFormat {
    /// Dense bfloat16 weights without zeros.
    pub const BF16: Self = Self { numbers: Numbers::Bf16, pattern: Pattern::Dense };
    /// Dense half-precision weights without zeros.
    pub const FP16: Self = Self { numbers: Numbers::Fp16, pattern: Pattern::Dense };
    /// Dense single-precision weights without zeros.
    pub const F32: Self = Self { numbers: Numbers::F32, pattern: Pattern::Dense };
    /// Single-precision weights with zeros anywhere.
    pub const SPARSE_F32: Self = Self { numbers: Numbers::F32, pattern: Pattern::Unstructured };
    /// Dense 8-bit integer weights without zeros.
    pub const I8: Self = Self { numbers: Numbers::Integer(Grid::Bits8), pattern: Pattern::Dense };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_read_back() {
        for pattern in [
            Pattern::Dense,
            Pattern::Unstructured,
            Pattern::Blocks { outputs: 16, inputs: 1 },
            Pattern::NofM { n: 2, m: 4 },
        ] {
            assert_eq!(pattern.to_string().parse(), Ok(pattern));
        }
        for text in ["", "blocks_0x1", "blocks_16", "5_of_4", "2_of_", "blocks_999x1"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_named_by_their_bits() {
        for numbers in Numbers::all() {
            let named = match numbers.half() {
                Some(name) => Numbers::of_half(name),
                None => Numbers::of_bits(numbers.bits()),
            };
            assert_eq!(named, Some(numbers));
        }
        assert_eq!((Numbers::of_bits(16.0), Numbers::of_bits(5.0)), (Some(Numbers::Bf16), None));
    }
}
