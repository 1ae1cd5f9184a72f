//! Pointwise activation functions, which kernels can fuse into their epilogue.

use serde::{Deserialize, Serialize};

/// A pointwise function that is applied to the result of an operator.
///
/// Parameters are stored as `f32`, and the plan's content hash compares them bitwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Activation {
    /// The identity function, `x` itself.
    #[default]
    Identity,
    /// The rectified linear function `max(x, 0)`.
    Relu,
    /// The clipping function `min(max(x, low), high)`.
    Clip {
        /// Smallest result of the function.
        low: f32,
        /// Largest result of the function.
        high: f32,
    },
    /// The function that is `x` for positive `x`, and `slope * x` otherwise.
    LeakyRelu {
        /// Slope of the function for negative inputs.
        slope: f32,
    },
    /// The logistic function `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The piecewise linear sigmoid `min(max(alpha * x + beta, 0), 1)`.
    HardSigmoid {
        /// Slope of the linear part.
        alpha: f32,
        /// Offset of the linear part.
        beta: f32,
    },
    /// The function `x * min(max(x / 6 + 1/2, 0), 1)`.
    HardSwish,
}

impl Activation {
    /// Returns the function's value at `x`. This scalar definition is the reference for every
    /// kernel.
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

    /// Returns the interval of a clamping activation (`Identity`, `Relu`, `Clip`), and `None` for
    /// the others. Microkernels fuse a clamp as a minimum and a maximum.
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
