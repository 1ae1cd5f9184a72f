//! Scores a plan on images, and derives intervals from counts of correct predictions.

use paretune_kernels::hardware::Isa;
use paretune_kernels::opencl;
use paretune_kernels::operator::Operator;
use paretune_kernels::{Backend, Executor, ExecutorOptions, KernelError, Plan, Schedule};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::model::images::{Images, normalize_into};

/// Standard normal quantile of a two-sided 95 % interval.
const Z: f64 = 1.959_963_984_540_054;

/// Name of the tunable that determines how Winograd's algorithm rounds, equal on every backend.
const OUTPUT_TILE: &str = "output_tile";

/// Mean and deviation that turn images into network inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// Mean of each channel on the 0-255 scale.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel on the 0-255 scale, positive.
    pub std: Vec<f32>,
}

/// Counts of correct predictions on a number of images, compared with those of the baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Number of images that were scored.
    pub total: u64,
    /// Number of correct predictions among them.
    pub correct: u64,
    /// Number of images that the baseline classifies correctly and this network does not.
    pub lost: u64,
    /// Number of images that this network classifies correctly and the baseline does not.
    pub gained: u64,
}

impl Score {
    /// Compares the predictions `answers` and `baseline` with the labels.
    #[must_use]
    pub fn count(answers: &[u32], baseline: &[u32], labels: &[u32]) -> Self {
        let mut score = Self::default();
        for ((answer, before), label) in answers.iter().zip(baseline).zip(labels) {
            score.total += 1;
            score.correct += u64::from(answer == label);
            score.lost += u64::from(before == label && answer != label);
            score.gained += u64::from(before != label && answer == label);
        }
        score
    }

    /// Adds the counts of two disjoint sets of images.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            correct: self.correct + other.correct,
            lost: self.lost + other.lost,
            gained: self.gained + other.gained,
        }
    }

    /// Returns the fraction of correct predictions; 0 without images.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        if self.total == 0 { 0.0 } else { real(self.correct) / real(self.total) }
    }

    /// Returns the 95 % interval of the accuracy (Wilson, "Probable inference", 1927).
    #[must_use]
    pub fn interval(&self) -> [f64; 2] {
        if self.total == 0 {
            return [0.0, 1.0];
        }
        let (n, share) = (real(self.total), self.accuracy());
        let center = share + Z * Z / (2.0 * n);
        let reach = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        [((center - reach) / scale).max(0.0), ((center + reach) / scale).min(1.0)]
    }

    /// Returns the loss of accuracy against the baseline with its 95 % interval. Both networks saw
    /// the same images, so only the changed predictions contribute to the variance (paired
    /// differences).
    #[must_use]
    pub fn drop(&self) -> (f64, [f64; 2]) {
        if self.total == 0 {
            return (0.0, [-1.0, 1.0]);
        }
        let n = real(self.total);
        let (lost, gained) = (real(self.lost), real(self.gained));
        let drop = (lost - gained) / n;
        let variance = (lost + gained - (lost - gained) * (lost - gained) / n) / (n * n);
        let reach = Z * variance.max(0.0).sqrt();
        (drop, [drop - reach, drop + reach])
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of images are far below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}

/// Returns the plan's prediction for each image: the index of the largest output, the first one
/// among equals.
///
/// # Errors
/// Fails if the plan cannot be loaded or does not fit the images.
pub fn answers(
    plan: &Plan,
    images: &Images,
    normalization: &Normalization,
    isa: Isa,
) -> Result<Vec<u32>, KernelError> {
    outputs(plan, images, normalization, isa, largest)
}

/// Returns the [`answers`] of any network that `load` can load.
///
/// # Errors
/// Fails if the network cannot be loaded or does not fit the images.
pub fn answers_of(
    load: &Load<'_>,
    images: &Images,
    normalization: &Normalization,
    isa: Isa,
) -> Result<Vec<u32>, KernelError> {
    outputs_of(load, images, normalization, isa, largest)
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
    let reduced = |schedule: &Schedule| {
        opencl::conv::algorithm(&schedule.algorithm).is_some_and(opencl::conv::Algorithm::reduced)
    };
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
        if !conv.schedule.algorithm.contains("winograd") {
            conv.schedule = Schedule::default();
        } else if conv.schedule.algorithm.starts_with("opencl") {
            let tile = conv.schedule.tunables.get(OUTPUT_TILE).copied();
            conv.schedule = Schedule::of("winograd");
            conv.schedule.tunables.extend(tile.map(|tile| (OUTPUT_TILE.to_owned(), tile)));
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
    fn wilson_interval_matches_a_published_example() {
        // 15 of 20: [0.531, 0.888], Newcombe 1998, table I's method 3.
        let [low, high] = Score { total: 20, correct: 15, lost: 0, gained: 0 }.interval();
        assert!((low - 0.5313).abs() < 5e-4 && (high - 0.8881).abs() < 5e-4, "{low} {high}");
    }

    #[test]
    fn equal_answers_leave_no_doubt_about_the_drop() {
        let score = Score::count(&[1, 2, 3], &[1, 2, 3], &[1, 2, 0]);
        assert_eq!((score.total, score.correct), (3, 2));
        assert_eq!(score.drop(), (0.0, [0.0, 0.0]));
    }

    #[test]
    fn lost_and_gained_are_told_apart() {
        let score = Score::count(&[1, 0, 0], &[1, 2, 3], &[1, 2, 0]);
        assert_eq!((score.lost, score.gained), (1, 1));
        assert!(score.drop().1[1] > 0.0);
    }

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
