//! The default strategy for networks: whole configurations composed from what a [`Survey`] found out about
//! layers and groups of channels, then verified.
//!
//! Time, size, memory and loss are predicted as sums over layers. Weights between them are drawn at random, and
//! the choice that is best under these weights is found by descent over layers and groups (a Lagrangian sweep;
//! the additive model over per-layer databases is SPDY's, Frantar and Alistarh, ICML 2022). What verified
//! configurations turned out to be, compared to the sum, corrects the predictions of those like them. Of many
//! compositions the one is tried that promises the archive most.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use paretune_kernels::weights::Numbers;
use paretune_search::hypervolume::contribution;
use paretune_search::strategies::evolve::Evolve;
use paretune_search::{History, Outcome, Strategy, Suggestion, Trial};
use paretune_spaces::{Configuration, Point, Value};
use rand::{Rng, RngExt};

use super::recipes::Seed;
use super::space::bits_value;
use super::survey::{GroupSurvey, LayerSchedule, LayerSurvey, ScheduleTime, Survey, Thinned, schedule_bits};
use crate::evaluate::candidate::{BACKEND, CHANNELS, THREADS, layer_parameter};

/// Name of the strategy and origin of its proposals.
pub const COMPOSE: &str = "compose";

/// Descents per proposal.
const DESCENTS: usize = 150;
/// Variations of points of the front per proposal.
const VARIATIONS: usize = 150;
/// Compositions that are looked up in the space before chance takes over.
const LOOKED_UP: usize = 12;
/// Points of accuracy, as a fraction, beyond which nobody wants a network, unless limits leave no other.
const HOPELESS: f64 = 0.15;
/// Seconds per number that is brought from one precision to another between layers.
const CONVERSION: f64 = 0.3e-9;

/// What the session shares with the strategy.
#[derive(Debug, Default)]
pub struct Shared {
    /// As soon as there is one.
    pub survey: Option<Survey>,
    /// How verified trials compared to plain sums.
    pub errors: Vec<AdditivityError>,
}

/// What the sums said of one trial, divided by what was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdditivityError {
    /// Of latency.
    pub latency: f64,
    /// Of size.
    pub size: f64,
}

impl Shared {
    /// In words, as soon as enough was verified.
    #[must_use]
    pub fn additivity(&self) -> Option<String> {
        let median = |of: fn(&AdditivityError) -> f64| {
            let mut errors: Vec<f64> = self.errors.iter().map(|error| (of(error) - 1.0).abs()).collect();
            errors.sort_by(f64::total_cmp);
            errors.get(errors.len() / 2).copied()
        };
        let count = self.errors.len();
        let (latency, size) = (median(|error| error.latency)?, median(|error| error.size)?);
        (count >= 5).then(|| {
            format!(
                "sums over layers missed the latency of {count} verified configurations by {:.0} % (median), \
                 their size by {:.0} %",
                100.0 * latency,
                100.0 * size
            )
        })
    }
}

/// The strategy.
pub struct Compose {
    shared: Arc<Mutex<Shared>>,
    /// Recipes that have not been tried yet.
    seeds: VecDeque<Seed>,
    /// Whoever proposes what no model speaks of.
    other: Evolve,
    /// Whether the survey's own recipes are among the seeds.
    sown: bool,
    verified: Vec<Verified>,
    /// Trials that `verified` has seen.
    seen: usize,
    turn: u64,
}

impl Compose {
    /// Tries `seeds` in between. Until `shared` has a survey, seeds and small steps are all that it has to offer.
    #[must_use]
    pub fn new(shared: Arc<Mutex<Shared>>, seeds: Vec<Seed>) -> Self {
        Self {
            shared,
            seeds: seeds.into(),
            other: Evolve,
            sown: false,
            verified: Vec::new(),
            seen: 0,
            turn: 0,
        }
    }

    /// Puts networks whose channels were all held to one threshold among the seeds, once: at full precision, and
    /// on integers.
    fn sow(&mut self, survey: &Survey, history: &History) {
        if std::mem::replace(&mut self.sown, true) {
            return;
        }
        let mut thinned: Vec<Seed> = Vec::new();
        for Thinned { work, shares } in &survey.thinned {
            for bits in [8, 32] {
                let mut wanted = Configuration::new();
                for (group, share) in shares {
                    wanted.insert(format!("{CHANNELS}{group}"), Value::Real(*share));
                }
                for layer in &survey.layers {
                    wanted.insert(layer_parameter(&layer.name, "bits"), Value::Int(bits));
                }
                let precision = if bits == 8 { ", 8 bits" } else { "" };
                let origin = format!("{:.0} % of the work by channels{precision}", 100.0 * work);
                let point = history.space().closest(&wanted);
                thinned.push(Seed { origin, point, reconstructs: false });
            }
        }
        // They know more than uniform recipes do.
        for seed in thinned.into_iter().rev() {
            self.seeds.push_front(seed);
        }
    }

    /// The next recipe; those that need reconstructed layers wait until the survey has made such.
    fn seed(&mut self, history: &History, prepared: bool) -> Option<Suggestion> {
        let ready = |seed: &Seed| prepared || !seed.reconstructs;
        while let Some(next) = self.seeds.iter().position(ready)
            && let Some(Seed { origin, point, .. }) = self.seeds.remove(next)
        {
            if !history.is_known(&point) {
                return Some(Suggestion { point, origin });
            }
        }
        None
    }

    /// Compares what was measured since the last call with what the sums say.
    fn learn(&mut self, survey: &Survey, history: &History, errors: &mut Vec<AdditivityError>) {
        for trial in &history.trials()[self.seen..] {
            let Outcome::Measured { values, .. } = &trial.outcome else { continue };
            let Some(choice) = Choice::read(survey, &history.space().decode(&trial.point)) else { continue };
            let parts = choice.parts(survey);
            let verified = Verified::new(trial.point.clone(), choice, parts, values);
            if trial.origin == COMPOSE {
                errors.push(AdditivityError {
                    latency: parts.seconds / values[1],
                    size: parts.bytes / values[2],
                });
            }
            self.verified.push(verified);
        }
        self.seen = history.trials().len();
    }

    fn compose(&mut self, survey: &Survey, history: &History, rng: &mut dyn Rng) -> Option<Suggestion> {
        let untouched = self.verified.first()?.clone();
        let model = Model { survey, verified: &self.verified, accuracy: untouched.accuracy };
        let threads: Vec<i64> = thread_counts(history);
        let front: Vec<&Choice> = self
            .verified
            .iter()
            .filter(|verified| history.archive().front().iter().any(|entry| entry.point == verified.point))
            .map(|verified| &verified.choice)
            .collect();
        let mut candidates: Vec<Choice> = Vec::new();
        for _ in 0..DESCENTS {
            let mut choice = untouched.choice.clone();
            choice.threads = if rng.random_bool(0.9) {
                survey.threads
            } else {
                threads[rng.random_range(0..threads.len())]
            };
            let mut weight = || 10.0_f64.powf(rng.random_range(-3.0..1.0));
            let weights = Weights { seconds: weight(), bytes: weight() };
            choice.descend(survey, &untouched.parts, &weights);
            candidates.push(choice);
        }
        for _ in 0..VARIATIONS {
            let parent = if front.is_empty() {
                &candidates[rng.random_range(0..DESCENTS)]
            } else {
                front[rng.random_range(0..front.len())]
            };
            let mut choice = parent.clone();
            for _ in 0..1 + rng.random_range(0..3) {
                choice.vary(survey, rng);
            }
            candidates.push(choice);
        }
        // Now and then the preferred end of the front is pushed, else all of it.
        let accuracy_only = self.turn.is_multiple_of(4) && !history.problem().limits().is_empty();
        let judged = Judge::new(history, accuracy_only);
        let mut ranked: Vec<(f64, usize)> = candidates
            .iter()
            .enumerate()
            .map(|(index, choice)| (judged.promise(&model.predict(choice)), index))
            .collect();
        ranked.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
        ranked.truncate(LOOKED_UP);
        for (_, index) in ranked {
            let point = history.space().closest(&candidates[index].write(survey));
            if !history.is_known(&point) {
                return Some(Suggestion { point, origin: COMPOSE.to_owned() });
            }
        }
        None
    }
}

impl Strategy for Compose {
    fn name(&self) -> &str {
        COMPOSE
    }

    fn ask(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Suggestion> {
        self.turn += 1;
        let shared = Arc::clone(&self.shared);
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = shared.survey.as_ref().is_some_and(Survey::has_reconstructed);
        if self.turn % 4 == 1
            && let Some(seed) = self.seed(history, prepared)
        {
            return Some(seed);
        }
        let Shared { survey, errors } = &mut *shared;
        if let Some(survey) = survey
            && self.turn % 8 != 7
        {
            let begun = Instant::now();
            self.sow(survey, history);
            self.learn(survey, history, errors);
            let composed = self.compose(survey, history, rng);
            tracing::debug!("composed from {} layers in {:?}", survey.layers.len(), begun.elapsed());
            if composed.is_some() {
                return composed;
            }
        }
        drop(shared);
        self.seed(history, prepared).or_else(|| self.other.ask(history, rng))
    }

    fn tell(&mut self, _: &History, _: &Trial) {}
}

fn thread_counts(history: &History) -> Vec<i64> {
    let parameters = history.space().parameters();
    let threads = parameters.iter().find(|parameter| parameter.name == THREADS);
    let counts: Vec<i64> = threads
        .map(|parameter| parameter.domain.values().iter().filter_map(Value::as_i64).collect())
        .unwrap_or_default();
    if counts.is_empty() { vec![1] } else { counts }
}

/// What a composition promises.
struct Judge<'h> {
    history: &'h History,
    front: Vec<Vec<f64>>,
    /// Best feasible accuracy; only more of it counts, if set.
    accuracy: Option<f64>,
}

impl<'h> Judge<'h> {
    fn new(history: &'h History, accuracy_only: bool) -> Self {
        let front = history.archive().normalized();
        let feasible = history.archive().front();
        let best = feasible.iter().map(|entry| entry.values[0]).reduce(f64::max);
        Self { history, front, accuracy: best.filter(|_| accuracy_only) }
    }

    /// More is better; below 0 where nothing is promised.
    fn promise(&self, predicted: &[f64; 5]) -> f64 {
        let problem = self.history.problem();
        let Ok(judgement) = problem.judge(&Outcome::exact(predicted.to_vec())) else {
            return f64::NEG_INFINITY;
        };
        let Some(objectives) = judgement.objectives.into_iter().collect::<Option<Vec<f64>>>() else {
            return f64::NEG_INFINITY;
        };
        let violation: f64 = judgement.violations.into_iter().flatten().sum();
        if violation > 0.0 {
            return -1.0 - violation;
        }
        if let Some(best) = self.accuracy {
            return predicted[0] - best;
        }
        if predicted[4] > HOPELESS {
            return -1.0;
        }
        let Some(normalization) = self.history.archive().normalization() else { return predicted[0] };
        contribution(&self.front, &normalization.apply(&objectives), &vec![1.0; objectives.len()])
    }
}

/// What is chosen for a network.
#[derive(Clone, Debug, PartialEq)]
struct Choice {
    threads: i64,
    /// Per group, the share that is kept.
    shares: Vec<f64>,
    layers: Vec<LayerChoice>,
}

/// What is chosen for a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
struct LayerChoice {
    /// Of the weights.
    bits: f64,
    sparsity: f64,
    /// Index into the layer's surveyed schedules.
    schedule: usize,
}

/// Sums over layers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Parts {
    loss: f64,
    seconds: f64,
    bytes: f64,
}

/// Nats that one unit of relative time or size is worth.
struct Weights {
    seconds: f64,
    bytes: f64,
}

impl Choice {
    /// Of a configuration, if all of its schedules were surveyed.
    fn read(survey: &Survey, configuration: &Configuration) -> Option<Self> {
        let shares = survey
            .groups
            .iter()
            .map(|group| configuration.get(&format!("{CHANNELS}{}", group.name)).and_then(Value::as_f64))
            .map(|share| share.unwrap_or(1.0))
            .collect();
        let mut layers = Vec::with_capacity(survey.layers.len());
        for layer in &survey.layers {
            let wanted = LayerSchedule::read(configuration, &layer.name)?;
            let same = |time: &ScheduleTime| time.schedule == wanted;
            // A tile that nobody timed is taken for the algorithm's usual one.
            let alike = |time: &ScheduleTime| {
                time.schedule.bits == wanted.bits
                    && time.schedule.sparsity == wanted.sparsity
                    && time.schedule.algorithm == wanted.algorithm
            };
            let schedules = &layer.schedules;
            let schedule = schedules.iter().position(same).or_else(|| schedules.iter().position(alike))?;
            let sparsity = configuration.get(&layer_parameter(&layer.name, "sparsity"));
            let sparsity = sparsity.and_then(Value::as_f64).unwrap_or(0.0);
            let bits = configuration.get(&layer_parameter(&layer.name, "bits")).and_then(Value::as_f64);
            layers.push(LayerChoice { bits: bits.unwrap_or(32.0), sparsity, schedule });
        }
        let threads = configuration.get(THREADS).and_then(Value::as_i64).unwrap_or(1);
        Some(Self { threads, shares, layers })
    }

    /// As parameters.
    fn write(&self, survey: &Survey) -> Configuration {
        let mut wanted = Configuration::new();
        wanted.insert(THREADS, Value::Int(self.threads));
        wanted.insert(BACKEND, Value::Text(survey.backend.clone()));
        for (group, share) in survey.groups.iter().zip(&self.shares) {
            wanted.insert(format!("{CHANNELS}{}", group.name), Value::Real(*share));
        }
        for (layer, choice) in survey.layers.iter().zip(&self.layers) {
            wanted.insert(layer_parameter(&layer.name, "sparsity"), Value::Real(choice.sparsity));
            if let Some(time) = layer.schedules.get(choice.schedule) {
                time.schedule.write(&layer.name, &mut wanted);
            }
            let numbers = Numbers::of_bits(choice.bits).unwrap_or_default();
            wanted.insert(layer_parameter(&layer.name, "bits"), bits_value(numbers));
        }
        wanted
    }

    fn parts(&self, survey: &Survey) -> Parts {
        let mut parts = Parts { seconds: survey.other_seconds, ..Parts::default() };
        for (group, share) in survey.groups.iter().zip(&self.shares) {
            parts.loss += group_loss(group, *share);
        }
        let mut bits_before = None;
        for (layer, choice) in survey.layers.iter().zip(&self.layers) {
            let part = self.layer(survey, layer, choice);
            parts.loss += part.loss;
            parts.seconds += part.seconds;
            parts.bytes += part.bytes;
            let bits = schedule_bits(choice.bits);
            if bits_before.is_some_and(|before| before != bits) {
                parts.seconds += CONVERSION * real(layer.inputs);
            }
            bits_before = Some(bits);
        }
        parts
    }

    /// A layer under `choice`, at the widths of this network.
    fn layer(&self, survey: &Survey, layer: &LayerSurvey, choice: &LayerChoice) -> Parts {
        let share = |group: Option<usize>| group.map_or(1.0, |group| self.shares[group]);
        let (reads, writes) = (share(layer.reads), share(layer.writes));
        // Kernels compute whole vectors of output channels.
        let width = layer.writes.map_or(layer.outputs, |group| survey.groups[group].width);
        let vectors = |channels: f64| (channels / 8.0).ceil();
        let written = vectors(writes * real(width)) / vectors(real(width)).max(1.0);
        let (work, kept) =
            if layer.depthwise { (written, writes) } else { (reads * written, reads * writes) };
        let loss = layer
            .losses
            .iter()
            .find(|loss| loss.bits == choice.bits && loss.sparsity == choice.sparsity)
            .map_or(f64::MAX / 1e6, |loss| loss.loss);
        let weights = real(layer.weights) * kept;
        let outputs = real(layer.outputs) * writes;
        // Where zeros are has to be said, then what the others are.
        let zero = choice.sparsity;
        let places =
            if zero > 0.0 { -(zero * zero.log2() + (1.0 - zero) * (1.0 - zero).log2()) } else { 0.0 };
        let scales = if choice.bits < 32.0 { 8.0 } else { 4.0 };
        let bytes = weights * (places + (1.0 - zero) * choice.bits) / 8.0 + scales * outputs;
        let seconds = layer.schedules.get(choice.schedule).map_or(0.0, |schedule| schedule.seconds) * work;
        Parts { loss, seconds, bytes }
    }

    /// Moves layer by layer and group by group to what is best under `weights`, until nothing changes.
    fn descend(&mut self, survey: &Survey, untouched: &Parts, weights: &Weights) {
        let cost = |parts: &Parts| {
            parts.loss
                + weights.seconds * parts.seconds / untouched.seconds
                + weights.bytes * parts.bytes / untouched.bytes
        };
        for _ in 0..4 {
            let before = self.clone();
            for (index, layer) in survey.layers.iter().enumerate() {
                let best = options(layer).min_by(|left, right| {
                    cost(&self.layer(survey, layer, left)).total_cmp(&cost(&self.layer(survey, layer, right)))
                });
                if let Some(best) = best {
                    self.layers[index] = best;
                }
            }
            for (index, group) in survey.groups.iter().enumerate() {
                let mut best = (f64::INFINITY, self.shares[index]);
                for (share, _) in &group.shares {
                    self.shares[index] = *share;
                    let cost = cost(&self.parts(survey));
                    if cost < best.0 {
                        best = (cost, *share);
                    }
                }
                self.shares[index] = best.1;
            }
            if *self == before {
                break;
            }
        }
    }

    /// Changes one thing.
    fn vary(&mut self, survey: &Survey, rng: &mut dyn Rng) {
        let groups = survey.groups.len();
        if groups > 0 && rng.random_bool(0.4) {
            let index = rng.random_range(0..groups);
            let shares = &survey.groups[index].shares;
            if let Some(now) = shares.iter().position(|(share, _)| *share == self.shares[index]) {
                let next = if rng.random_bool(0.5) { now + 1 } else { now.saturating_sub(1) };
                self.shares[index] = shares[next.min(shares.len() - 1)].0;
            }
            return;
        }
        let index = rng.random_range(0..survey.layers.len().max(1));
        let (Some(layer), Some(choice)) = (survey.layers.get(index), self.layers.get_mut(index)) else {
            return;
        };
        if rng.random_bool(0.5) {
            let all: Vec<LayerChoice> = options(layer).collect();
            if !all.is_empty() {
                *choice = all[rng.random_range(0..all.len())];
            }
        } else {
            let fast = fastest(layer, choice.bits, choice.sparsity, 4);
            if !fast.is_empty() {
                choice.schedule = fast[rng.random_range(0..fast.len())];
            }
        }
    }
}

/// What a layer can be, each with its fastest schedule.
fn options(layer: &LayerSurvey) -> impl Iterator<Item = LayerChoice> + '_ {
    layer.losses.iter().filter_map(|loss| {
        let schedule = *fastest(layer, loss.bits, loss.sparsity, 1).first()?;
        Some(LayerChoice { bits: loss.bits, sparsity: loss.sparsity, schedule })
    })
}

/// Up to `count` schedules for such weights, fastest first.
fn fastest(layer: &LayerSurvey, bits: f64, sparsity: f64, count: usize) -> Vec<usize> {
    let schedules = &layer.schedules;
    let mut of_bits: Vec<usize> =
        (0..schedules.len()).filter(|index| schedules[*index].schedule.serves(bits, sparsity)).collect();
    of_bits.sort_by(|a, b| schedules[*a].seconds.total_cmp(&schedules[*b].seconds));
    of_bits.truncate(count);
    of_bits
}

fn group_loss(group: &GroupSurvey, share: f64) -> f64 {
    if share >= 1.0 {
        return 0.0;
    }
    group.shares.iter().find(|(known, _)| *known == share).map_or(f64::MAX / 1e6, |(_, loss)| *loss)
}

#[expect(clippy::cast_precision_loss, reason = "sizes of layers are far below 2^53")]
fn real(count: usize) -> f64 {
    count as f64
}

/// A trial, compared to the sums.
#[derive(Clone, Debug)]
struct Verified {
    point: Point,
    choice: Choice,
    parts: Parts,
    accuracy: f64,
    drop: f64,
    /// Logarithms of measured by summed: seconds, bytes; and memory by bytes.
    ratios: [f64; 3],
}

/// Losses and drops below these are noise.
const LEAST_LOSS: f64 = 1e-4;
const LEAST_DROP: f64 = 1e-3;
/// How a drop in accuracy grows with the loss, as a power.
const DROP_GROWTH: f64 = 0.8;

impl Verified {
    fn new(point: Point, choice: Choice, parts: Parts, values: &[f64]) -> Self {
        let ratio = |measured: f64, summed: f64| (measured / summed.max(f64::MIN_POSITIVE)).ln();
        let ratios =
            [ratio(values[1], parts.seconds), ratio(values[2], parts.bytes), ratio(values[3], parts.bytes)];
        Self { point, choice, parts, accuracy: values[0], drop: values[4], ratios }
    }
}

/// Sums, corrected by what was verified.
struct Model<'m> {
    survey: &'m Survey,
    verified: &'m [Verified],
    /// The untouched network's.
    accuracy: f64,
}

impl Model<'_> {
    /// Accuracy, latency, size, memory and drop in accuracy.
    fn predict(&self, choice: &Choice) -> [f64; 5] {
        let parts = choice.parts(self.survey);
        let loss = parts.loss.max(LEAST_LOSS).ln();
        let mut sums = [0.0; 3];
        let mut total = 0.0;
        let (mut drop, mut drop_total) = (0.0, 0.0);
        for verified in self.verified {
            let weight = (-distance(choice, &verified.choice) / 0.15).exp() + 1e-4;
            total += weight;
            for (sum, ratio) in sums.iter_mut().zip(&verified.ratios) {
                *sum += weight * ratio;
            }
            let seen = verified.parts.loss.max(LEAST_LOSS).ln();
            let weight = weight.sqrt() * (-(loss - seen).abs()).exp();
            drop += weight * (verified.drop.max(LEAST_DROP).ln() + DROP_GROWTH * (loss - seen));
            drop_total += weight;
        }
        let [seconds, bytes, memory] = sums.map(|sum| (sum / total.max(f64::MIN_POSITIVE)).exp());
        let drop = (drop / drop_total.max(f64::MIN_POSITIVE)).exp().min(1.0);
        [
            (self.accuracy - drop).max(0.0),
            parts.seconds * seconds,
            parts.bytes * bytes,
            parts.bytes * memory,
            drop,
        ]
    }
}

/// How unlike two choices are: 0 where they are the same.
fn distance(left: &Choice, right: &Choice) -> f64 {
    let layers = real(left.layers.len().max(1));
    let groups = real(left.shares.len().max(1));
    let mut unlike = if left.threads == right.threads { 0.0 } else { 1.0 };
    for (left, right) in left.layers.iter().zip(&right.layers) {
        let differs = |differs: bool, by: f64| if differs { by } else { 0.0 };
        unlike += (differs(left.bits != right.bits, 1.0)
            + differs(left.sparsity != right.sparsity, 0.5)
            + differs(left.schedule != right.schedule, 0.3))
            / layers;
    }
    for (left, right) in left.shares.iter().zip(&right.shares) {
        unlike += 2.0 * (left - right).abs() / groups;
    }
    unlike
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::study::survey::LayerLoss;

    /// Two layers; the first writes a group of 16 channels that the second reads. Eight bits are twice as fast and
    /// lose a little, half of the channels lose much.
    fn survey() -> Survey {
        let time = |bits: i64, algorithm: &str, tile: i64, seconds: f64| ScheduleTime {
            schedule: LayerSchedule {
                bits,
                sparsity: 0.0,
                algorithm: algorithm.to_owned(),
                tunables: BTreeMap::from([("tile".to_owned(), tile)]),
            },
            seconds,
        };
        let layer = |name: &str, reads: Option<usize>, writes: Option<usize>| LayerSurvey {
            name: name.to_owned(),
            weights: 1000,
            outputs: 16,
            inputs: 1000,
            reads,
            writes,
            schedules: vec![time(32, "a", 1, 3e-3), time(32, "a", 2, 2e-3), time(8, "b", 1, 1e-3)],
            losses: vec![
                LayerLoss { bits: 32.0, sparsity: 0.0, loss: 0.0 },
                LayerLoss { bits: 8.0, sparsity: 0.0, loss: 0.01 },
            ],
            ..LayerSurvey::default()
        };
        Survey {
            threads: 2,
            backend: "cpu".to_owned(),
            other_seconds: 1e-3,
            layers: vec![layer("first", None, Some(0)), layer("second", Some(0), None)],
            groups: vec![GroupSurvey {
                name: "first".into(),
                width: 16,
                shares: vec![(0.5, 1.0), (1.0, 0.0)],
            }],
            thinned: Vec::new(),
        }
    }

    fn untouched() -> Choice {
        let plain = LayerChoice { bits: 32.0, sparsity: 0.0, schedule: 0 };
        Choice { threads: 2, shares: vec![1.0], layers: vec![plain, plain] }
    }

    #[test]
    fn sums_follow_widths_bits_and_schedules() {
        let survey = survey();
        let parts = untouched().parts(&survey);
        assert_eq!((parts.loss, parts.bytes), (0.0, 2.0 * (4000.0 + 64.0)));
        assert!((parts.seconds - 7e-3).abs() < 1e-12);
        let mut half = untouched();
        half.shares[0] = 0.5;
        let parts = half.parts(&survey);
        assert_eq!(parts.loss, 1.0);
        assert!((parts.seconds - 4e-3).abs() < 1e-12);
        assert_eq!(parts.bytes, 2000.0 + 32.0 + 2000.0 + 64.0);
    }

    #[test]
    fn descent_pays_as_much_as_it_is_told_to() {
        let survey = survey();
        let base = untouched().parts(&survey);
        let descended = |seconds: f64| {
            let mut choice = untouched();
            choice.descend(&survey, &base, &Weights { seconds, bytes: 0.0 });
            choice
        };
        // Zeros count where there are as many, and only there.
        let mut sparse = survey.clone();
        let mut zeros = sparse.layers[0].schedules[0].clone();
        (zeros.schedule.sparsity, zeros.seconds) = (0.8, 5e-4);
        sparse.layers[0].schedules.push(zeros);
        assert_eq!(fastest(&sparse.layers[0], 32.0, 0.8, 1), [3]);
        assert_eq!(fastest(&sparse.layers[0], 32.0, 0.7, 1), [1]);
        // A faster tile costs nothing.
        let free = descended(1e-6);
        assert_eq!(free.layers, [LayerChoice { bits: 32.0, sparsity: 0.0, schedule: 1 }; 2]);
        assert_eq!(free.shares, [1.0]);
        let eager = descended(0.2);
        assert_eq!(eager.layers, [LayerChoice { bits: 8.0, sparsity: 0.0, schedule: 2 }; 2]);
        assert_eq!(eager.shares, [1.0]);
        assert_eq!(descended(100.0).shares, [0.5]);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let survey = survey();
        let mut choice = untouched();
        choice.shares[0] = 0.5;
        choice.layers[1] = LayerChoice { bits: 8.0, sparsity: 0.0, schedule: 2 };
        assert_eq!(Choice::read(&survey, &choice.write(&survey)), Some(choice));
    }

    #[test]
    fn verified_choices_correct_those_like_them() {
        let survey = survey();
        let point = Point::new(vec![0]);
        let trial = |choice: &Choice, values: [f64; 5]| {
            Verified::new(point.clone(), choice.clone(), choice.parts(&survey), &values)
        };
        let plain = untouched();
        let mut eight = untouched();
        eight.layers = vec![LayerChoice { bits: 8.0, sparsity: 0.0, schedule: 2 }; 2];
        // The plain one is as fast as the sum says, the other one twice as slow, and loses 2 points.
        let verified = [
            trial(&plain, [0.9, 7e-3, 8128.0, 9000.0, 0.0]),
            trial(&eight, [0.88, 6e-3, 2300.0, 3000.0, 0.02]),
        ];
        let model = Model { survey: &survey, verified: &verified, accuracy: 0.9 };
        let near = |predicted: f64, measured: f64| (predicted / measured - 1.0).abs() < 0.05;
        let [accuracy, seconds, bytes, memory, _] = model.predict(&eight);
        assert!(near(accuracy, 0.88) && near(seconds, 6e-3), "{accuracy} {seconds}");
        assert!(near(bytes, 2300.0) && near(memory, 3000.0), "{bytes} {memory}");
        assert!(near(model.predict(&plain)[1], 7e-3));
    }
}
