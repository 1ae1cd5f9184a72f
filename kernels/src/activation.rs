//! Pointwise nonlinearities that kernels can fuse into the store of a tile.

use serde::{Deserialize, Serialize};

/// A pointwise function applied to the result of an operator.
///
/// Parameters are stored as `f32` and compared bitwise by the plan's content hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Activation {
    /// `x`
    #[default]
    Identity,
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, low), high)`
    Clip {
        /// Smallest result.
        low: f32,
        /// Largest result.
        high: f32,
    },
    /// `x` where positive, `slope * x` elsewhere
    LeakyRelu {
        /// Slope of the negative half.
        slope: f32,
    },
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `min(max(alpha * x + beta, 0), 1)`
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Offset.
        beta: f32,
    },
    /// `x * min(max(x / 6 + 1/2, 0), 1)`
    HardSwish,
}

impl Activation {
    /// The function's value at `x`; the scalar definition that every kernel is checked against.
    #[must_use]
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Relu => x.max(0.0),
            Self::Clip { low, high } => x.max(low).min(high),
            Self::LeakyRelu { slope } => {
                if x > 0.0 {
                    x
                } else {
                    slope * x
                }
            }
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::HardSigmoid { alpha, beta } => (alpha * x + beta).clamp(0.0, 1.0),
            Self::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        }
    }

    /// The interval that a *clamping* activation keeps values in (`Identity`, `Relu`, `Clip`), which
    /// is what microkernels fuse as a minimum and a maximum; `None` for the others.
    #[must_use]
    pub fn as_clamp(self) -> Option<(f32, f32)> {
        match self {
            Self::Identity => Some((f32::NEG_INFINITY, f32::INFINITY)),
            Self::Relu => Some((0.0, f32::INFINITY)),
            Self::Clip { low, high } => Some((low, high)),
            _ => None,
        }
    }
}
