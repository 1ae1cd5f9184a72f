//! Cost of every step of a loaded network, compared with the hardware's ceilings.

use paretune_kernels::Plan;
use paretune_kernels::bundle::stored_bytes;
use paretune_kernels::executor::StepInfo;
use paretune_kernels::hardware::{LevelCeilings, ThreadCeilings};
use paretune_kernels::operator::Operator;
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

/// Combines the measured `seconds` of the steps of `plan` with their other costs.
#[must_use]
pub fn costs(
    plan: &Plan,
    steps: &[StepInfo],
    seconds: &[f64],
    ceilings: Option<&ThreadCeilings>,
) -> Vec<StepCost> {
    let weight_bytes = |name: &str| {
        let step = plan.steps.iter().find(|step| step.name == name)?;
        let Operator::Conv(conv) = &step.operator else { return None };
        plan.weights.get(conv.weights).map(stored_bytes)
    };
    let cost = |(step, &seconds): (&StepInfo, &f64)| {
        let least = ceilings.map_or(0.0, |ceilings| least_seconds(step, ceilings));
        StepCost {
            name: step.name.clone(),
            algorithm: step.algorithm.clone(),
            seconds,
            weight_bytes: weight_bytes(&step.name).unwrap_or(0),
            ceiling_share: (least > 0.0 && seconds > 0.0).then(|| least / seconds),
        }
    };
    steps.iter().zip(seconds).map(cost).collect()
}

/// Returns the lower bound of a step's time: the longer of its multiply-adds at the measured peak
/// and its bytes at the measured bandwidth of the smallest memory that holds all of them.
#[must_use]
pub fn least_seconds(step: &StepInfo, ceilings: &ThreadCeilings) -> f64 {
    let integer = step.algorithm.ends_with("int8");
    let fits = |level: &LevelCeilings| level.bytes as u64 >= step.bytes;
    let level = ceilings.memory.iter().position(fits).unwrap_or(ceilings.memory.len().saturating_sub(1));
    ceilings.least_seconds(step.multiply_adds, integer, step.bytes, level)
}
