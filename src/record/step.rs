//! The cost of one step of a network.

use serde::{Deserialize, Serialize};

/// A timed step of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepCost {
    /// Name of the step; a conversion between layers is a step of its own.
    pub name: String,
    /// Name of the algorithm that computes it.
    pub algorithm: String,
    /// Seconds of the step per inference.
    pub seconds: f64,
    /// Bytes of its weights and bias in the bundle.
    pub weight_bytes: u64,
    /// Lower bound of the time by the hardware's ceilings, divided by the measured time; `None`
    /// without a bound.
    pub ceiling_share: Option<f64>,
}
