//! Cost of every step of a loaded network, compared with the hardware's ceilings.

use paretune_kernels::Plan;
use paretune_kernels::bundle::stored_bytes;
use paretune_kernels::executor::StepInfo;
use paretune_kernels::hardware::{LevelCeilings, ThreadCeilings};
use paretune_kernels::operator::Operator;
use paretune_kernels::registry;
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
    let integer = registry::info(&step.algorithm).is_some_and(registry::AlgorithmInfo::is_integer);
    let fits = |level: &LevelCeilings| level.bytes as u64 >= step.bytes;
    let level =
        ceilings.memory.iter().position(fits).unwrap_or(ceilings.memory.len().saturating_sub(1));
    ceilings.least_seconds(step.multiply_adds, integer, step.bytes, level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_algorithms_are_bound_by_the_integer_peak() {
        let ceilings = ThreadCeilings {
            threads: 1,
            multiply_adds_f32: 1e9,
            multiply_adds_i8: Some(4e9),
            memory: vec![LevelCeilings {
                level: "L1".into(),
                bytes: usize::MAX,
                read: 1e12,
                copy: 1e12,
            }],
        };
        let seconds = |algorithm: &str| {
            let step = StepInfo {
                name: "conv".into(),
                algorithm: algorithm.into(),
                multiply_adds: 4_000_000_000,
                bytes: 1,
            };
            least_seconds(&step, &ceilings)
        };
        for info in registry::algorithms() {
            let expected = if info.is_integer() { 1.0 } else { 4.0 };
            assert!((seconds(info.name()) - expected).abs() < 1e-9, "{}", info.name());
        }
        assert!((seconds("gemm_low_bit_i8") - 1.0).abs() < 1e-9);
        // Records of earlier versions have the former name.
        assert!((seconds("gemm_low_bit_i8") - 1.0).abs() < 1e-9);
    }
}
