//! Distillation: a compressed network learns from the baseline's predictions on unlabelled images
//! (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015). Its zeros and its grids
//! are kept.
//!
//! Weights on a grid have a shadow in single precision that learns, and are rounded from it for
//! every step (the straight-through estimator). The error is the divergence of softened predictions
//! plus the distance of inner features in the channels that both networks have (Romero et al.,
//! "FitNets: Hints for Thin Deep Nets", ICLR 2015): on images that the baseline was trained on, its
//! predictions alone say little. Images are flipped, shifted, mixed and pasted into each other at
//! random, and the baseline predicts those very images, so that a thousand of them teach for long
//! (Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", CVPR 2022).

use std::time::{Duration, Instant};

use paretune_kernels::Plan;
use paretune_kernels::operator::Operator;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;

use super::augmentation::augmented;
use super::options::{Distillation, DistillationProgress};
use super::parameters::{Parameters, trainable};
use super::pointwise::softened;
use super::student::Student;
use super::tape::Tape;
use super::teacher::Teacher;
use crate::error::CompressError;
use crate::mask::ChannelMask;

/// Fractions of the way from the untrained to the trained student at which networks are validated.
const INTERPOLATIONS: [f32; 4] = [0.25, 0.5, 0.75, 1.0];
/// Steps over which the learning rate rises.
const WARM_UP: u64 = 20;
/// Steps between two reports of progress.
const REPORT: u64 = 8;

/// Trains `student` to predict what `teacher` predicts on normalized `images`, one after another.
///
/// Returns the network of the least divergence from the teacher on `validation` images: the
/// untrained student, the trained one or an interpolation between them. `keep` tells which of the
/// teacher's channels the student has (see [`channel_mask`](crate::channel_mask)). `progress` ends
/// the training early by returning false.
///
/// # Errors
///
/// Fails if a network has a step without a derivative or cannot be run, if the values of the
/// student are not those of the teacher under `keep`, or if there are no images.
pub fn distill(
    teacher: &Plan,
    student: &Plan,
    keep: &ChannelMask,
    images: &[f32],
    validation: &[f32],
    options: &Distillation,
    progress: &mut dyn FnMut(DistillationProgress) -> bool,
) -> Result<Plan, CompressError> {
    trainable(student)?;
    let dims = &student.values[student.input].dims;
    let len: usize = dims.iter().product::<usize>().max(1);
    let [count, validation_count] = [images.len() / len, validation.len() / len];
    if count == 0 || validation_count == 0 || teacher.values[teacher.input].dims != *dims {
        return Err(CompressError::Calibration(
            "there are no training images that fit both networks".into(),
        ));
    }
    if !keep.fits(teacher, student) {
        let problem = "the student is not the teacher without the removed channels";
        return Err(CompressError::Calibration(problem.into()));
    }
    let begun = Instant::now();
    let (teacher, student_logits) = (logits(teacher), logits(student));
    let worker_count = rayon::current_num_threads().clamp(1, options.batch.max(1));
    let worker_batch = options.batch.max(1).div_ceil(worker_count);
    let mut weights = Student::new(&student_logits);
    let mut workers: Vec<Worker> = (0..worker_count)
        .map(|_| {
            let teacher = Teacher::new(&teacher, worker_batch)?;
            Ok(Worker { teacher, gradients: weights.effective.zeros() })
        })
        .collect::<Result<_, CompressError>>()?;
    let validate = |workers: &mut Vec<Worker>, parameters: &Parameters| {
        divergence(
            workers,
            &student_logits,
            parameters,
            &validation[..validation_count * len],
            len,
            worker_batch,
        )
    };
    let before = validate(&mut workers, &weights.effective)?;
    let validating = INTERPOLATIONS.len() as u32 * begun.elapsed();
    let end = options
        .duration
        .saturating_sub(validating)
        .max(options.duration / 2)
        .max(Duration::from_millis(1));
    let mut random = Xoshiro256PlusPlus::seed_from_u64(options.seed);
    let (mut steps, mut recent) = (0u64, 0.0);
    loop {
        let done = begun.elapsed().as_secs_f64() / end.as_secs_f64();
        if done >= 1.0 {
            break;
        }
        let seeds: Vec<u64> = workers.iter().map(|_| random.random()).collect();
        let losses: Vec<Result<f64, CompressError>> = workers
            .par_iter_mut()
            .zip(&seeds)
            .map(|(worker, &seed)| {
                let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
                let input = augmented(images, dims, worker_batch, options, &mut random);
                worker.step(&student_logits, &weights.effective, keep, &input, options)
            })
            .collect();
        let mut loss = 0.0;
        for part in losses {
            loss += part? / worker_count as f64;
        }
        let (first, rest) = workers.split_at_mut(1);
        rest.iter().for_each(|worker| first[0].gradients.add(&worker.gradients));
        let warm = ((steps + 1) as f64 / WARM_UP as f64).min(1.0);
        let rate = options.learning_rate * warm * 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        weights.learn(&first[0].gradients, 1.0 / (worker_batch * worker_count) as f32, rate as f32);
        steps += 1;
        recent = if steps == 1 { loss } else { 0.95 * recent + 0.05 * loss };
        if steps % REPORT == 0
            && !progress(DistillationProgress { fraction: done, steps, loss: recent })
        {
            break;
        }
    }
    progress(DistillationProgress { fraction: 1.0, steps, loss: recent });
    // The straight line between two networks that training connects often passes a better one than
    // either (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022): few images
    // teach much that is true of them alone.
    let begin = Student::new(&student_logits);
    let mut best = (before, None);
    for fraction in INTERPOLATIONS {
        let between = weights.interpolated(&begin, fraction);
        let found = validate(&mut workers, &between.effective)?;
        tracing::debug!(
            "{steps} steps, {fraction:.2} of the way: divergence {before:.4} to {found:.4}"
        );
        // This is also false if training has diverged to NaN.
        if found < best.0 {
            best = (found, Some(between));
        }
    }
    best.1.map_or_else(|| Ok(student.clone()), |between| between.written_to(student))
}

/// Returns the network without a final softmax.
fn logits(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    if let Some(last) = plan.steps.last()
        && matches!(last.operator, Operator::Softmax { .. })
        && last.output == plan.output
    {
        plan.output = last.inputs[0];
        plan.steps.pop();
    }
    plan
}

/// State of one training thread.
struct Worker {
    teacher: Teacher,
    gradients: Parameters,
}

impl Worker {
    /// Computes the gradients of the summed error on `input`, a whole batch. Returns the mean
    /// divergence.
    fn step(
        &mut self,
        student: &Plan,
        parameters: &Parameters,
        keep: &ChannelMask,
        input: &[f32],
        options: &Distillation,
    ) -> Result<f64, CompressError> {
        let numbers = self.gradients.weights.iter_mut().chain(&mut self.gradients.biases);
        numbers.for_each(|numbers| numbers.fill(0.0));
        self.teacher.run(input)?;
        let tape = Tape::forward(student, parameters, input, true);
        let predicted = tape.output();
        let classes = student.values[student.output].len().max(1);
        let temperature = options.temperature;
        let mut gradients = Vec::with_capacity(predicted.len());
        let mut loss = 0.0;
        for (wanted, predicted) in
            self.teacher.predictions().chunks(classes).zip(predicted.chunks(classes))
        {
            let (p, q) = (softened(wanted, temperature), softened(predicted, temperature));
            let nats = p
                .iter()
                .zip(&q)
                .map(|(p, q)| if *p > 0.0 { p * (p / q.max(1e-30)).ln() } else { 0.0 });
            loss += f64::from(nats.sum::<f32>());
            // The squared temperature compensates for the gradients, which shrink with it.
            gradients.extend(p.iter().zip(&q).map(|(p, q)| (q - p) * temperature));
        }
        let images = predicted.len() / classes;
        let mut feature_gradients = Vec::new();
        if options.feature_weight > 0.0 {
            let weight = 2.0 * options.feature_weight * images as f32
                / self.teacher.feature_count().max(1) as f32;
            feature_gradients.extend(self.teacher.features(keep).map(|(value, wanted)| {
                let predicted = tape.value(value);
                let power: f32 = wanted.iter().map(|x| x * x).sum();
                let scale = weight / power.max(f32::MIN_POSITIVE);
                (
                    value,
                    predicted
                        .iter()
                        .zip(&wanted)
                        .map(|(predicted, wanted)| scale * (predicted - wanted))
                        .collect(),
                )
            }));
        }
        tape.backward(
            parameters,
            &gradients,
            feature_gradients,
            Some(&mut self.gradients),
            &mut |_| {},
        );
        Ok(loss / images.max(1) as f64)
    }
}

/// Computes the mean divergence of the student's predictions from the teacher's.
fn divergence(
    workers: &mut [Worker],
    student: &Plan,
    parameters: &Parameters,
    images: &[f32],
    len: usize,
    batch: usize,
) -> Result<f64, CompressError> {
    let worker_count = workers.len();
    let batches: Vec<&[f32]> = images.chunks(batch * len).collect();
    let sums: Vec<Result<f64, CompressError>> = workers
        .par_iter_mut()
        .enumerate()
        .map(|(index, worker)| {
            let mut sum = 0.0;
            for input in batches.iter().skip(index).step_by(worker_count) {
                let mut whole = input.to_vec();
                whole.resize(batch * len, 0.0);
                worker.teacher.run(&whole)?;
                let predicted = Tape::forward(student, parameters, input, true).output();
                let classes = student.values[student.output].len().max(1);
                for (wanted, predicted) in
                    worker.teacher.predictions().chunks(classes).zip(predicted.chunks(classes))
                {
                    let (p, q) = (softened(wanted, 1.0), softened(predicted, 1.0));
                    sum +=
                        p.iter()
                            .zip(&q)
                            .map(|(p, q)| {
                                if *p > 0.0 { f64::from(p * (p / q.max(1e-30)).ln()) } else { 0.0 }
                            })
                            .sum::<f64>();
                }
            }
            Ok(sum)
        })
        .collect();
    let mut total = 0.0;
    for sum in sums {
        total += sum?;
    }
    Ok(total * len as f64 / images.len().max(1) as f64)
}
