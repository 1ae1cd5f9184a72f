//! Scores a plan on images, and derives intervals from counts of correct predictions.

use paretune_kernels::hardware::Isa;
use paretune_kernels::operator::Operator;
use paretune_kernels::registry::{self, BackendKind, Numerics};
use paretune_kernels::schedule::changes_numerics;
use paretune_kernels::{Backend, Executor, ExecutorOptions, KernelError, Plan, Schedule};
use paretune_model::images::{Images, normalize_into};
use paretune_record::request::Normalization;
use rayon::prelude::*;

use super::decision::Decision;

/// Returns the plan's prediction for each image, by the [`Decision`] that its outputs call for.
///
/// # Errors
/// Fails if the plan cannot be loaded or does not fit the images.
pub fn answers(
    plan: &Plan,
    images: &Images,
    normalization: &Normalization,
    isa: Isa,
) -> Result<Vec<u32>, KernelError> {
    let decision = Decision::of(plan);
    outputs(plan, images, normalization, isa, |outputs| decision.class(outputs))
}

/// Returns the [`answers`] of any network that `load` can load, by the rule `decision`.
///
/// # Errors
/// Fails if the network cannot be loaded or does not fit the images.
pub fn answers_of(
    load: &Load<'_>,
    decision: Decision,
    images: &Images,
    normalization: &Normalization,
    isa: Isa,
) -> Result<Vec<u32>, KernelError> {
    outputs_of(load, images, normalization, isa, |outputs| decision.class(outputs))
}

/// Function that loads another instance of a network.
pub type Load<'a> = dyn Fn(&ExecutorOptions) -> Result<Executor, KernelError> + Sync + 'a;

/// Applies `look` to the plan's outputs for each image at batch 1. The images are distributed over
/// the cores and every run uses one thread, because the results do not depend on the number of
/// threads.
///
/// # Errors
/// Fails if the plan cannot be loaded or does not fit the images.
pub fn outputs<T: Send>(
    plan: &Plan,
    images: &Images,
    normalization: &Normalization,
    isa: Isa,
    look: impl Fn(&[f32]) -> T + Sync,
) -> Result<Vec<T>, KernelError> {
    outputs_of(&|options| Executor::new(plan, options), images, normalization, isa, look)
}

fn outputs_of<T: Send>(
    load: &Load<'_>,
    images: &Images,
    normalization: &Normalization,
    isa: Isa,
    look: impl Fn(&[f32]) -> T + Sync,
) -> Result<Vec<T>, KernelError> {
    let workers = rayon::current_num_threads().max(1);
    let per_worker = images.len().div_ceil(workers).max(1);
    let parts: Vec<Result<Vec<T>, KernelError>> = (0..images.len())
        .step_by(per_worker)
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|start| {
            let mut executor = load(&ExecutorOptions { batch: 1, threads: 1, isa })?;
            let mut input = vec![0.0; images.dims.iter().product()];
            let mut output = vec![0.0; executor.lengths().1];
            (start..(start + per_worker).min(images.len()))
                .map(|index| {
                    normalize_into(
                        images.image(index),
                        &normalization.mean,
                        &normalization.std,
                        images.dims,
                        &mut input,
                    );
                    executor.run(&input, &mut output)?;
                    Ok(look(&output))
                })
                .collect()
        })
        .collect();
    let mut all = Vec::with_capacity(images.len());
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}

/// Returns the mean Kullback-Leibler divergence of `found` from `original` in nats per image. The
/// outputs may be logits or probabilities. The divergence shows changes of the output distribution
/// that do not yet change predictions.
#[must_use]
pub fn divergence(original: &[Vec<f32>], found: &[Vec<f32>]) -> f64 {
    let total: f64 = original
        .iter()
        .zip(found)
        .map(|(original, found)| {
            let (p, q) = (log_softmax(original), log_softmax(found));
            p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
        })
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "counts of images are far below 2^53")]
    let mean = total / original.len().max(1) as f64;
    // Outputs that are not finite count as the largest loss.
    if mean.is_finite() { mean.max(0.0) } else { f64::MAX }
}

fn log_softmax(outputs: &[f32]) -> Vec<f64> {
    let top = outputs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = outputs.iter().map(|&x| f64::from(x - top).exp()).sum();
    outputs.iter().map(|&x| f64::from(x - top) - sum.ln()).collect()
}

/// Returns `plan` for scoring: with default schedules and dense kernels, on the processor. The
/// results are equal except for the order of summation, and the candidate's own schedules may be
/// slow. Winograd rounds differently, so its layers keep it. A device whose kernels compute in
/// reduced precision is kept as well.
#[must_use]
pub fn for_scoring(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    let reduced =
        |schedule: &Schedule| registry::numerics(&schedule.algorithm) == Numerics::Reduced;
    let schedules = plan.steps.iter().filter_map(|step| match &step.operator {
        Operator::Conv(conv) => Some(&conv.schedule),
        _ => None,
    });
    if schedules.into_iter().any(reduced) {
        return plan;
    }
    plan.run_on(Backend::Cpu);
    for step in &mut plan.steps {
        let Operator::Conv(conv) = &mut step.operator else { continue };
        let info = registry::info(&conv.schedule.algorithm);
        if info.is_none_or(|info| info.numerics() != Numerics::RoundsDifferently) {
            conv.schedule = Schedule::default();
        } else if info.is_some_and(|info| info.backend() == BackendKind::OpenCl) {
            // Winograd of the processor rounds alike if its tiles are as large.
            let device = std::mem::replace(&mut conv.schedule, Schedule::of("winograd"));
            let kept = device.tunables.into_iter().filter(|(name, _)| changes_numerics(name));
            conv.schedule.tunables.extend(kept);
        }
    }
    plan
}

/// Returns the index of the largest value, the first one among equals. NaN is never the largest.
#[must_use]
pub fn largest(numbers: &[f32]) -> u32 {
    let mut best = 0;
    let mut value = f32::NEG_INFINITY;
    for (index, &number) in numbers.iter().enumerate() {
        if number > value {
            (best, value) = (index, number);
        }
    }
    u32::try_from(best).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_zero_for_equals_and_matches_a_computed_example() {
        let certain = vec![vec![0.0_f32, 0.0]];
        assert!(divergence(&certain, &certain).abs() < 1e-15);
        // p = (1/2, 1/2), q = (1/4, 3/4): ln 2 / 2 + ln(2/3) / 2 = ln(4/3) / 2.
        let skewed = vec![vec![0.0_f32, 3.0_f32.ln()]];
        assert!((divergence(&certain, &skewed) - (4.0_f64 / 3.0).ln() / 2.0).abs() < 1e-7);
        assert_eq!(divergence(&certain, &[vec![f32::NAN, 0.0]]), f64::MAX);
    }

    #[test]
    fn largest_ignores_nan() {
        assert_eq!(largest(&[f32::NAN, -1.0, 3.0, 3.0]), 2);
    }
}
