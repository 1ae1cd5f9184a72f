//! The default strategy for networks: whole configurations composed from what a [`Survey`] found out about
//! layers and groups of channels, then verified.
//!
//! Time, size, memory and loss are predicted as sums over layers. Weights between them are drawn at random, and
//! the choice that is best under these weights is found by descent over layers and groups (a Lagrangian sweep;
//! the additive model over per-layer databases is SPDY's, Frantar and Alistarh, ICML 2022). What verified
//! configurations turned out to be, compared to the sum, corrects the predictions of those like them. Of many
//! compositions the one is tried that promises the archive most.

mod choice;
mod model;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use paretune_kernels::weights::{Grid, Numbers};
use paretune_search::hypervolume::contribution;
use paretune_search::strategies::evolve::Evolve;
use paretune_search::{History, Outcome, Strategy, Suggestion, Trial};
use paretune_spaces::{Configuration, Value};
use rand::{Rng, RngExt};

use super::archive::METRICS;
use super::recipes::Seed;
use super::survey::{Mixed, Survey, Thinned};
use crate::evaluate::candidate::{BACKEND, CHANNELS, THREADS};
use crate::evaluate::numbers;
use choice::{Choice, Weights};
use model::{Model, Verified};

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

/// What the session shares with the strategy.
#[derive(Debug, Default)]
pub struct Shared {
    /// As soon as there is one.
    pub survey: Option<Survey>,
    /// How verified trials compared to plain sums.
    pub errors: Vec<AdditivityError>,
    /// The metric whose end of the front is wanted most, or something else where none is.
    pub prefer: String,
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
    /// How many of the next seeds should not have to wait long.
    urgent: usize,
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
            urgent: 0,
            verified: Vec::new(),
            seen: 0,
            turn: 0,
        }
    }

    /// Puts networks whose channels were all held to one threshold among the seeds, once: at full precision, and
    /// on integers; and those that change sides where that looks best.
    fn sow(&mut self, survey: &Survey, history: &History) {
        if std::mem::replace(&mut self.sown, true) {
            return;
        }
        let mut thinned: Vec<Seed> = Vec::new();
        for numbers in [Numbers::Integer(Grid::Bits8), Numbers::F32] {
            for Thinned { work, shares } in &survey.thinned {
                let mut wanted = Configuration::new();
                for (group, share) in shares {
                    wanted.insert(format!("{CHANNELS}{group}"), Value::Real(*share));
                }
                for layer in &survey.layers {
                    if let Some(&fastest) = layer.fastest(numbers, 0.0, 1).first() {
                        layer.schedules[fastest].schedule.write(&layer.name, &mut wanted);
                    }
                    numbers::choose(numbers, &layer.name, &mut wanted);
                }
                let precision = if numbers.is_integer() { ", 8 bits" } else { "" };
                let origin = format!("{:.0} % of the work by channels{precision}", 100.0 * work);
                let point = history.space().closest(&wanted);
                thinned.push(Seed { origin, point, reconstructs: false });
            }
        }
        self.urgent = survey.thinned.len() + survey.mixed.len();
        for Mixed { backend, schedules } in &survey.mixed {
            let mut wanted = Configuration::new();
            wanted.insert(BACKEND, Value::Text(backend.clone()));
            wanted.insert(THREADS, Value::Int(survey.threads));
            for (layer, schedule) in survey.layers.iter().zip(schedules) {
                schedule.write(&layer.name, &mut wanted);
            }
            let point = history.space().closest(&wanted);
            thinned.push(Seed { origin: backend.clone(), point, reconstructs: false });
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

    fn compose(
        &mut self,
        survey: &Survey,
        prefer: &str,
        history: &History,
        rng: &mut dyn Rng,
    ) -> Option<Suggestion> {
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
        // In turns the preferred end of the front is pushed, and all of it.
        let push = self.turn.is_multiple_of(2) && !history.problem().limits().is_empty();
        let wanted = METRICS.iter().position(|metric| push && *metric == prefer);
        let judged = Judge::new(history, wanted);
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
        if let Some(survey) = &shared.survey {
            self.sow(survey, history);
        }
        // Thinned networks on integers are worth knowing early.
        let every = if self.urgent > 0 { 2 } else { 4 };
        if self.turn % every == 1
            && let Some(seed) = self.seed(history, prepared)
        {
            self.urgent = self.urgent.saturating_sub(1);
            return Some(seed);
        }
        let Shared { survey, errors, prefer } = &mut *shared;
        if let Some(survey) = survey
            && self.turn % 8 != 7
        {
            let begun = Instant::now();
            self.learn(survey, history, errors);
            let composed = self.compose(survey, prefer, history, rng);
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

/// Index of the drop in accuracy among [`METRICS`].
const DROP: usize = 4;

/// A metric such that more is better: accuracy, else the logarithm of how little.
fn gain(metric: usize, value: f64) -> f64 {
    if metric == 0 { value } else { -value.max(f64::MIN_POSITIVE).ln() }
}

/// What a composition promises.
struct Judge<'h> {
    history: &'h History,
    front: Vec<Vec<f64>>,
    /// A metric and the best feasible value of it; only what is better counts, if set.
    pushed: Option<(usize, f64)>,
    /// How much further than predicted an interval of the drop in accuracy reaches, as seen.
    reach: f64,
}

impl<'h> Judge<'h> {
    /// With `wanted`, an index into [`METRICS`], that end of the front is pushed.
    fn new(history: &'h History, wanted: Option<usize>) -> Self {
        let front = history.archive().normalized();
        let feasible = history.archive().front();
        let pushed = wanted.and_then(|metric| {
            let values = feasible.iter().map(|entry| gain(metric, entry.values[metric]));
            Some((metric, values.reduce(f64::max)?))
        });
        let reaches = history.trials().iter().filter_map(|trial| match &trial.outcome {
            Outcome::Measured { values, high, .. } => Some(high[DROP] - values[DROP]),
            _ => None,
        });
        let mut reaches: Vec<f64> = reaches.filter(|reach| *reach > 0.0).collect();
        reaches.sort_by(f64::total_cmp);
        let reach = reaches.get(reaches.len() / 4).copied().unwrap_or(0.0);
        Self { history, front, pushed, reach }
    }

    /// More is better; below 0 where nothing is promised.
    fn promise(&self, predicted: &[f64; 5]) -> f64 {
        let problem = self.history.problem();
        let mut high = predicted.to_vec();
        high[DROP] += self.reach;
        let outcome = Outcome::Measured { values: predicted.to_vec(), low: predicted.to_vec(), high };
        let Ok(judgement) = problem.judge(&outcome) else { return f64::NEG_INFINITY };
        let Some(objectives) = judgement.objectives.into_iter().collect::<Option<Vec<f64>>>() else {
            return f64::NEG_INFINITY;
        };
        let violation: f64 = judgement.violations.into_iter().flatten().sum();
        if violation > 0.0 {
            return -1.0 - violation;
        }
        if let Some((metric, best)) = self.pushed {
            return gain(metric, predicted[metric]) - best;
        }
        if predicted[4] > HOPELESS {
            return -1.0;
        }
        let Some(normalization) = self.history.archive().normalization() else { return predicted[0] };
        contribution(&self.front, &normalization.apply(&objectives), &vec![1.0; objectives.len()])
    }
}
