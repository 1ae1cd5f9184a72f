//! What every step of a loaded network costs, and how near each is to what the hardware could do.

use paretune_kernels::Plan;
use paretune_kernels::bundle::stored_bytes;
use paretune_kernels::executor::StepInfo;
use paretune_kernels::hardware::{LevelCeilings, ThreadCeilings};
use paretune_kernels::operator::Operator;
use serde::{Deserialize, Serialize};

/// One step of a network, timed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepCost {
    /// The step's name; a conversion between layers has one of its own.
    pub name: String,
    /// How it is computed.
    pub algorithm: String,
    /// Seconds per inference.
    pub seconds: f64,
    /// Bytes of its weights and bias in the bundle.
    pub weight_bytes: u64,
    /// The time that the hardware needs at least, divided by the time taken; `None` where nothing bounds it.
    pub ceiling_share: Option<f64>,
}

/// Puts together what is known of the steps of `plan`, which took `seconds` each.
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

/// Seconds that the step cannot beat: the time that its multiply-adds would take at the measured peak, or its bytes at
/// the measured bandwidth of the smallest memory that holds all of it, whichever is longer.
#[must_use]
pub fn least_seconds(step: &StepInfo, ceilings: &ThreadCeilings) -> f64 {
    let integer = step.algorithm.ends_with("int8");
    let fits = |level: &LevelCeilings| level.bytes as u64 >= step.bytes;
    let level = ceilings.memory.iter().position(fits).unwrap_or(ceilings.memory.len().saturating_sub(1));
    ceilings.least_seconds(step.multiply_adds, integer, step.bytes, level)
}
