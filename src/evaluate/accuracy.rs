//! Scoring a plan on images, and what can be said from a count of correct answers.

use paretune_kernels::hardware::Isa;
use paretune_kernels::opencl;
use paretune_kernels::operator::Operator;
use paretune_kernels::{Backend, Executor, ExecutorOptions, KernelError, Plan, Schedule};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::model::images::{Images, normalize_into};

/// The standard normal quantile of a two-sided 95 % interval.
const Z: f64 = 1.959_963_984_540_054;

/// What decides how Winograd's algorithm rounds, by the same name on every backend.
const OUTPUT_TILE: &str = "output_tile";

/// How images become the input of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// One per channel, on the 0-255 scale.
    pub mean: Vec<f32>,
    /// One per channel, on the 0-255 scale, positive.
    pub std: Vec<f32>,
}

/// Answers of a network on a number of images, next to those of the untouched network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Images looked at.
    pub total: u64,
    /// Right answers.
    pub correct: u64,
    /// Images that the untouched network gets right and this one wrong.
    pub lost: u64,
    /// Images that the untouched network gets wrong and this one right.
    pub gained: u64,
}

impl Score {
    /// Counts answers against labels.
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

    /// Both counts together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            correct: self.correct + other.correct,
            lost: self.lost + other.lost,
            gained: self.gained + other.gained,
        }
    }

    /// Share of right answers; 0 without images.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        if self.total == 0 { 0.0 } else { real(self.correct) / real(self.total) }
    }

    /// 95 % interval of the accuracy (Wilson, "Probable inference", 1927).
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

    /// Accuracy lost against the untouched network, with its 95 % interval. Both networks saw the same
    /// images, so only the answers that changed make it uncertain (paired differences).
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

/// The plan's answer (index of the largest output; the first of equals) for each of `images`.
///
/// # Errors
/// Where the plan cannot be loaded or does not fit the images.
pub fn answers(
    plan: &Plan,
    images: &Images,
    normalization: &Normalization,
    isa: Isa,
) -> Result<Vec<u32>, KernelError> {
    outputs(plan, images, normalization, isa, largest)
}

/// [`answers`] of whatever `load` loads.
///
/// # Errors
/// Where it cannot be loaded or does not fit the images.
pub fn answers_of(
    load: &Load<'_>,
    images: &Images,
    normalization: &Normalization,
    isa: Isa,
) -> Result<Vec<u32>, KernelError> {
    outputs_of(load, images, normalization, isa, largest)
}

/// Loads a network once more.
pub type Load<'a> = dyn Fn(&ExecutorOptions) -> Result<Executor, KernelError> + Sync + 'a;

/// What `look` makes of the plan's outputs for each of `images`, batch 1, images spread over the cores, each run
/// on one thread: kernels give the same numbers for any number of threads.
///
/// # Errors
/// Where the plan cannot be loaded or does not fit the images.
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

/// Mean Kullback-Leibler divergence of `found` from `original`, both outputs before or after a softmax, nats per
/// image: how much of the network's opinion is lost, on a scale that sees what single answers do not show yet.
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
    // Outputs that are no numbers have lost everything.
    if mean.is_finite() { mean.max(0.0) } else { f64::MAX }
}

fn log_softmax(outputs: &[f32]) -> Vec<f64> {
    let top = outputs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = outputs.iter().map(|&x| f64::from(x - top).exp()).sum();
    outputs.iter().map(|&x| f64::from(x - top) - sum.ln()).collect()
}

/// `plan` with default schedules and zeros in dense kernels, on the processor: the same numbers but for the order of
/// sums, however slow a candidate's own schedules are. Winograd, which rounds otherwise, stays. Where a device computes with
/// fewer bits than it is given, the device stays as well.
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

/// Index of the largest number; the first of equals; NaN is never the largest.
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
