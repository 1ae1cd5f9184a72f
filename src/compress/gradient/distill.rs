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

use paretune_kernels::operator::Operator;
use paretune_kernels::weights::Pattern;
use paretune_kernels::{Plan, WeightValues};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;

use super::fisher::softened;
use super::teacher::Teacher;
use super::{Parameters, Tape, trainable};
use crate::channels::Keep;
use crate::error::CompressError;

/// Options of the training by distillation.
#[derive(Clone, Debug, PartialEq)]
pub struct Distillation {
    /// Duration of the training, validation included.
    pub duration: Duration,
    /// Number of images per step.
    pub batch: usize,
    /// Learning rate after warming up; it falls to zero along half a cosine.
    pub rate: f64,
    /// Temperature that divides outputs before they are compared.
    pub temperature: f32,
    /// Fraction of the images that are mixed with another one.
    pub mixed: f64,
    /// Fraction of the images that get a rectangle of another one.
    pub pasted: f64,
    /// Weight of feature differences at the cut points: nats for each unit of mean squared
    /// difference, in units of the teacher's mean square.
    pub inner: f32,
    /// Largest shift of an image in pixels.
    pub shift: usize,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for Distillation {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(120),
            batch: 32,
            rate: 6e-3,
            temperature: 4.0,
            mixed: 0.5,
            pasted: 0.5,
            inner: 100.0,
            shift: 4,
            seed: 0,
        }
    }
}

/// Progress of the training by distillation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DistillationProgress {
    /// Completed fraction, from 0 to 1.
    pub share: f64,
    /// Number of steps done so far.
    pub steps: u64,
    /// Mean divergence of softened predictions over the last steps, in nats per image.
    pub loss: f64,
}

/// Fractions of the way from the untrained to the trained student at which networks are validated.
const ON_THE_WAY: [f32; 4] = [0.25, 0.5, 0.75, 1.0];
/// Steps over which the learning rate rises.
const WARM_UP: u64 = 20;
/// Steps between two reports of progress.
const REPORT: u64 = 8;

/// Trains `student` to predict what `teacher` predicts on normalized `images`, one after another.
///
/// Returns the network of the least divergence from the teacher on `held_back` images: the
/// untrained student, the trained one or an interpolation between them. `keep` tells which of the
/// teacher's channels the student has (see [`kept`](crate::kept)). `progress` ends the
/// training early by returning false.
///
/// # Errors
///
/// Fails if a network has a step without a derivative or cannot be run, if the values of the
/// student are not those of the teacher under `keep`, or if there are no images.
pub fn distill(
    teacher: &Plan,
    student: &Plan,
    keep: &Keep,
    images: &[f32],
    held_back: &[f32],
    options: &Distillation,
    progress: &mut dyn FnMut(DistillationProgress) -> bool,
) -> Result<Plan, CompressError> {
    trainable(student)?;
    let dims = &student.values[student.input].dims;
    let len: usize = dims.iter().product::<usize>().max(1);
    let [count, held] = [images.len() / len, held_back.len() / len];
    if count == 0 || held == 0 || teacher.values[teacher.input].dims != *dims {
        return Err(CompressError::Calibration(
            "there are no images to learn from that fit both networks".into(),
        ));
    }
    if !keep.fits(teacher, student) {
        let what = "the network that is to learn is not the original without the channels that have gone";
        return Err(CompressError::Calibration(what.into()));
    }
    let begun = Instant::now();
    let (teacher, student_logits) = (logits(teacher), logits(student));
    let workers = rayon::current_num_threads().clamp(1, options.batch.max(1));
    let share = options.batch.max(1).div_ceil(workers);
    let mut weights = Learned::new(&student_logits);
    let mut team: Vec<Worker> = (0..workers)
        .map(|_| {
            let teacher = Teacher::new(&teacher, share)?;
            Ok(Worker { teacher, slopes: weights.effective.zeros() })
        })
        .collect::<Result<_, CompressError>>()?;
    let judge = |team: &mut Vec<Worker>, parameters: &Parameters| {
        divergence(team, &student_logits, parameters, &held_back[..held * len], len, share)
    };
    let before = judge(&mut team, &weights.effective)?;
    let judging = ON_THE_WAY.len() as u32 * begun.elapsed();
    let end =
        options.duration.saturating_sub(judging).max(options.duration / 2).max(Duration::from_millis(1));
    let mut random = Xoshiro256PlusPlus::seed_from_u64(options.seed);
    let (mut steps, mut recent) = (0u64, 0.0);
    loop {
        let done = begun.elapsed().as_secs_f64() / end.as_secs_f64();
        if done >= 1.0 {
            break;
        }
        let seeds: Vec<u64> = team.iter().map(|_| random.random()).collect();
        let losses: Vec<Result<f64, CompressError>> = team
            .par_iter_mut()
            .zip(&seeds)
            .map(|(worker, &seed)| {
                let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
                let input = augmented(images, dims, share, options, &mut random);
                worker.step(&student_logits, &weights.effective, keep, &input, options)
            })
            .collect();
        let mut loss = 0.0;
        for part in losses {
            loss += part? / workers as f64;
        }
        let (first, rest) = team.split_at_mut(1);
        rest.iter().for_each(|worker| first[0].slopes.add(&worker.slopes));
        let warm = ((steps + 1) as f64 / WARM_UP as f64).min(1.0);
        let rate = options.rate * warm * 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        weights.learn(&first[0].slopes, 1.0 / (share * workers) as f32, rate as f32);
        steps += 1;
        recent = if steps == 1 { loss } else { 0.95 * recent + 0.05 * loss };
        if steps % REPORT == 0 && !progress(DistillationProgress { share: done, steps, loss: recent }) {
            break;
        }
    }
    progress(DistillationProgress { share: 1.0, steps, loss: recent });
    // The straight line between two networks that training connects often passes a better one than
    // either (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022): few images
    // teach much that is true of them alone.
    let begin = Learned::new(&student_logits);
    let mut best = (before, None);
    for share in ON_THE_WAY {
        let between = weights.toward(&begin, share);
        let found = judge(&mut team, &between.effective)?;
        tracing::debug!("{steps} steps, {share:.2} of the way: divergence {before:.4} to {found:.4}");
        // This is also false if training has diverged to NaN.
        if found < best.0 {
            best = (found, Some(between));
        }
    }
    best.1.map_or_else(|| Ok(student.clone()), |between| between.write(student))
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
    slopes: Parameters,
}

impl Worker {
    /// Computes the gradients of the summed error on `input`, a whole batch. Returns the mean
    /// divergence.
    fn step(
        &mut self,
        student: &Plan,
        parameters: &Parameters,
        keep: &Keep,
        input: &[f32],
        options: &Distillation,
    ) -> Result<f64, CompressError> {
        let numbers = self.slopes.weights.iter_mut().chain(&mut self.slopes.biases);
        numbers.for_each(|numbers| numbers.fill(0.0));
        self.teacher.run(input)?;
        let tape = Tape::forward(student, parameters, input, true);
        let said = tape.output();
        let classes = student.values[student.output].len().max(1);
        let temperature = options.temperature;
        let mut slopes = Vec::with_capacity(said.len());
        let mut loss = 0.0;
        for (wanted, said) in self.teacher.answers().chunks(classes).zip(said.chunks(classes)) {
            let (p, q) = (softened(wanted, temperature), softened(said, temperature));
            let nats =
                p.iter().zip(&q).map(|(p, q)| if *p > 0.0 { p * (p / q.max(1e-30)).ln() } else { 0.0 });
            loss += f64::from(nats.sum::<f32>());
            // The squared temperature compensates for the gradients, which shrink with it.
            slopes.extend(p.iter().zip(&q).map(|(p, q)| (q - p) * temperature));
        }
        let images = said.len() / classes;
        let mut inner = Vec::new();
        if options.inner > 0.0 {
            let weight = 2.0 * options.inner * images as f32 / self.teacher.places().max(1) as f32;
            inner.extend(self.teacher.inner(keep).map(|(value, wanted)| {
                let said = tape.value(value);
                let power: f32 = wanted.iter().map(|x| x * x).sum();
                let scale = weight / power.max(f32::MIN_POSITIVE);
                (value, said.iter().zip(&wanted).map(|(said, wanted)| scale * (said - wanted)).collect())
            }));
        }
        tape.backward(parameters, &slopes, inner, Some(&mut self.slopes), &mut |_| {});
        Ok(loss / images.max(1) as f64)
    }
}

/// Computes the mean divergence of the student's predictions from the teacher's.
fn divergence(
    team: &mut [Worker],
    student: &Plan,
    parameters: &Parameters,
    images: &[f32],
    len: usize,
    batch: usize,
) -> Result<f64, CompressError> {
    let workers = team.len();
    let batches: Vec<&[f32]> = images.chunks(batch * len).collect();
    let sums: Vec<Result<f64, CompressError>> = team
        .par_iter_mut()
        .enumerate()
        .map(|(index, worker)| {
            let mut sum = 0.0;
            for input in batches.iter().skip(index).step_by(workers) {
                let mut whole = input.to_vec();
                whole.resize(batch * len, 0.0);
                worker.teacher.run(&whole)?;
                let said = Tape::forward(student, parameters, input, true).output();
                let classes = student.values[student.output].len().max(1);
                for (wanted, said) in worker.teacher.answers().chunks(classes).zip(said.chunks(classes)) {
                    let (p, q) = (softened(wanted, 1.0), softened(said, 1.0));
                    sum += p
                        .iter()
                        .zip(&q)
                        .map(|(p, q)| if *p > 0.0 { f64::from(p * (p / q.max(1e-30)).ln()) } else { 0.0 })
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

/// Draws a batch of random images, flipped, shifted and mixed at random.
fn augmented(
    images: &[f32],
    dims: &[usize],
    batch: usize,
    options: &Distillation,
    random: &mut Xoshiro256PlusPlus,
) -> Vec<f32> {
    let len: usize = dims.iter().product();
    let count = images.len() / len.max(1);
    let one = |random: &mut Xoshiro256PlusPlus| -> Vec<f32> {
        let image = &images[random.random_range(0..count) * len..][..len];
        let &[_, height, width] = dims else { return image.to_vec() };
        let flip = random.random_bool(0.5);
        let reach = i32::try_from(options.shift.min(height / 8).min(width / 8)).unwrap_or(0);
        let mut shift = || random.random_range(-reach..=reach) as isize;
        let (down, right) = (shift(), shift());
        let mut out = Vec::with_capacity(len);
        for plane in image.chunks(height * width) {
            for row in 0..height {
                // Edge pixels are repeated.
                let from = row.saturating_add_signed(down).min(height - 1) * width;
                for column in 0..width {
                    let column = column.saturating_add_signed(right).min(width - 1);
                    out.push(plane[from + if flip { width - 1 - column } else { column }]);
                }
            }
        }
        out
    };
    let mut all = Vec::with_capacity(batch * len);
    for _ in 0..batch {
        let mut image = one(random);
        if random.random_bool(options.mixed.clamp(0.0, 1.0)) {
            let other = one(random);
            let share: f32 = random.random();
            image.iter_mut().zip(&other).for_each(|(x, y)| *x += share * (y - *x));
        }
        if random.random_bool(options.pasted.clamp(0.0, 1.0)) {
            paste(&mut image, &one(random), dims, random);
        }
        all.extend(image);
    }
    all
}

/// Pastes a rectangle of `other` with a random fraction of the area into `image` (Yun et al.,
/// "CutMix", ICCV 2019).
fn paste(image: &mut [f32], other: &[f32], dims: &[usize], random: &mut Xoshiro256PlusPlus) {
    let &[_, height, width] = dims else { return };
    let side = random.random::<f64>().sqrt();
    let mut range = |size: usize| {
        let long = ((side * size as f64).round() as usize).clamp(1, size);
        let first = random.random_range(0..=size - long);
        first..first + long
    };
    let (rows, columns) = (range(height), range(width));
    let planes = image.chunks_mut(height * width).zip(other.chunks(height * width));
    for (plane, other) in planes {
        for row in rows.clone() {
            let row = row * width + columns.start..row * width + columns.end;
            plane[row.clone()].copy_from_slice(&other[row]);
        }
    }
}

/// State of the learned weights.
#[derive(Clone)]
struct Learned {
    /// Learned parameters in single precision.
    shadow: Parameters,
    /// Parameters that the network computes with: rounded, zeros kept.
    effective: Parameters,
    /// By weights: mask of those that may be other than zero; `None` for all.
    masks: Vec<Option<Vec<bool>>>,
    /// By weights: scales, lowest and highest value of a grid.
    grids: Vec<Option<(Vec<f32>, f32, f32)>>,
    /// First and second moments of the gradients.
    moments: [Parameters; 2],
    steps: i32,
}

impl Learned {
    fn new(plan: &Plan) -> Self {
        let effective = Parameters::of(plan);
        let masks = plan.weights.iter().zip(&effective.weights).map(|(weights, values)| {
            (weights.pattern != Pattern::Dense).then(|| values.iter().map(|&x| x != 0.0).collect())
        });
        let grids = plan.weights.iter().map(|weights| match &weights.values {
            WeightValues::F32(_) | WeightValues::Bf16(_) | WeightValues::Fp16(_) => None,
            WeightValues::Integer(integer) => {
                let (low, high) = integer.grid.levels();
                Some((integer.scales.to_vec(), f32::from(low), f32::from(high)))
            }
        });
        let (masks, grids) = (masks.collect(), grids.collect());
        let moments = [effective.zeros(), effective.zeros()];
        Self { shadow: effective.clone(), effective, masks, grids, moments, steps: 0 }
    }

    /// Takes one step of Adam (Kingma and Ba, 2015).
    fn learn(&mut self, slopes: &Parameters, scale: f32, rate: f32) {
        self.steps += 1;
        let corrections = [1.0 - 0.9f32.powi(self.steps), 1.0 - 0.99f32.powi(self.steps)];
        let [first, second] = &mut self.moments;
        let weights = self.shadow.weights.iter_mut().zip(&slopes.weights);
        let weights = weights.zip(first.weights.iter_mut().zip(&mut second.weights));
        let biases = self.shadow.biases.iter_mut().zip(&slopes.biases);
        let biases = biases.zip(first.biases.iter_mut().zip(&mut second.biases));
        let all: Vec<_> = weights.chain(biases).collect();
        all.into_par_iter().for_each(|((shadow, slopes), (first, second))| {
            let size = (shadow.iter().map(|x| x * x).sum::<f32>() / shadow.len().max(1) as f32).sqrt();
            let rate = rate * size.max(1e-4);
            let moments = first.iter_mut().zip(second.iter_mut());
            for ((x, slope), (first, second)) in shadow.iter_mut().zip(slopes).zip(moments) {
                let slope = slope * scale;
                *first = 0.9 * *first + 0.1 * slope;
                *second = 0.99 * *second + 0.01 * slope * slope;
                *x -= rate * (*first / corrections[0]) / ((*second / corrections[1]).sqrt() + 1e-8);
            }
        });
        self.round();
    }

    /// Interpolates weights and biases at the fraction `share` from `begin` to `self`, rounded to
    /// the grids.
    fn toward(&self, begin: &Self, share: f32) -> Self {
        let mut between = self.clone();
        let parts = [
            (&mut between.shadow.weights, &begin.shadow.weights),
            (&mut between.shadow.biases, &begin.shadow.biases),
        ];
        for (after, before) in parts {
            for (after, before) in after.iter_mut().flatten().zip(before.iter().flatten()) {
                *after = before + share * (*after - before);
            }
        }
        between.round();
        between
    }

    /// Updates the effective parameters from the shadow.
    fn round(&mut self) {
        let choices = self.masks.par_iter().zip(&self.grids);
        let weights = self.effective.weights.par_iter_mut().zip(&self.shadow.weights);
        weights.zip(choices).for_each(|((effective, shadow), (mask, grid))| {
            match grid {
                None => effective.copy_from_slice(shadow),
                Some((scales, low, high)) => {
                    let row = (shadow.len() / scales.len().max(1)).max(1);
                    let rows = effective.chunks_mut(row).zip(shadow.chunks(row)).zip(scales);
                    for ((effective, shadow), scale) in rows {
                        let pairs = effective.iter_mut().zip(shadow);
                        pairs.for_each(|(to, x)| *to = (x / scale).round().clamp(*low, *high) * scale);
                    }
                }
            }
            if let Some(mask) = mask {
                effective.iter_mut().zip(mask).filter(|(_, keep)| !**keep).for_each(|(x, _)| *x = 0.0);
            }
        });
        self.effective.biases.clone_from(&self.shadow.biases);
    }

    /// Writes the learned numbers into `plan`, in the formats that it has.
    fn write(&self, plan: &Plan) -> Result<Plan, CompressError> {
        let mut plan = plan.clone();
        for (index, weights) in plan.weights.iter_mut().enumerate() {
            let (effective, numbers) = (&self.effective.weights[index], weights.format().numbers);
            match &mut weights.values {
                values @ (WeightValues::F32(_) | WeightValues::Bf16(_) | WeightValues::Fp16(_)) => {
                    let learned = WeightValues::F32(effective.as_slice().into()).rounded(numbers);
                    *values = learned.map_err(|beyond| {
                        CompressError::Recipe(format!("fine-tuning has led to {beyond}"))
                    })?;
                }
                WeightValues::Integer(integer) => {
                    let row = (effective.len() / integer.scales.len().max(1)).max(1);
                    let scaled = effective.iter().enumerate();
                    integer.values =
                        scaled.map(|(at, x)| (x / integer.scales[at / row]).round() as i8).collect();
                }
            }
            let bias = &self.effective.biases[index];
            if weights.bias.is_some() || bias.iter().any(|&x| x != 0.0) {
                weights.bias = Some(bias.as_slice().into());
            }
        }
        Ok(plan)
    }
}
