//! Cost of every step of a loaded network, compared with the hardware's ceilings.

use paretune_kernels::Plan;
use paretune_kernels::bundle::stored_bytes;
use paretune_kernels::executor::StepInfo;
use paretune_kernels::hardware::{LevelCeilings, ThreadCeilings};
use paretune_kernels::operator::Operator;
use paretune_record::step::StepCost;

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
