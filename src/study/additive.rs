//! Default strategy for networks: composes whole configurations from the results of a [`Survey`] of
//! layers and channel groups, and measures them.
//!
//! An additive model predicts latency, size, memory and loss as sums over layers. Each proposal
//! draws random weights between these sums and minimizes the weighted sum by descent over layers
//! and groups (a Lagrangian sweep; the additive model over per-layer databases is that of SPDY,
//! Frantar and Alistarh, ICML 2022). The measured errors of the sums correct the predictions of
//! similar configurations. The acquisition function selects the composition with the largest
//! expected gain for the archive.

mod choice;
mod model;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use paretune_joint_space::layer::{LayerSchedules, ScheduleChoice};
use paretune_joint_space::seeds::Seed;
use paretune_kernels::weights::{Grid, Numbers};
use paretune_names::{BACKEND, CHANNELS, THREADS, numbers};
use paretune_record::metric::{Metric, Metrics};
use paretune_record::preference::Preference;
use paretune_record::survey::{Mixed, Survey, Thinned};
use paretune_search::hypervolume::contribution;
use paretune_search::strategies::evolve::Evolve;
use paretune_search::{History, Outcome, Strategy, Suggestion, Trial};
use paretune_spaces::{Configuration, Value};
use rand::{Rng, RngExt};

use choice::{Choice, Weights};
use model::{Model, Verified};

/// Name of the strategy and origin of its proposals.
pub const ADDITIVE: &str = "additive";

/// Number of descents per proposal.
const DESCENTS: usize = 150;
/// Number of varied front points per proposal.
const VARIATIONS: usize = 150;
/// Number of ranked compositions that are tried before another strategy takes over, if all of them
/// are known already.
const LOOKED_UP: usize = 12;
/// Largest useful drop in accuracy (a fraction). A larger one is proposed only if the limits leave
/// no other choice.
const LARGEST_DROP: f64 = 0.15;

/// State that the session and the strategy share.
#[derive(Debug, Default)]
pub struct Shared {
    /// The survey, once it is complete.
    pub survey: Option<Survey>,
    /// Relative errors of the additive model in measured trials.
    pub errors: Vec<AdditivityError>,
    /// Criterion by which the user prefers points.
    pub prefer: Preference,
}

/// Prediction of the additive model for one trial, divided by the measured value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdditivityError {
    /// Predicted latency, divided by the measured one.
    pub latency: f64,
    /// Predicted size, divided by the measured one.
    pub size: f64,
}

impl Shared {
    /// Describes the error of the additive model in words, once at least five trials were compared.
    #[must_use]
    pub fn additivity(&self) -> Option<String> {
        let median = |of: fn(&AdditivityError) -> f64| {
            let mut errors: Vec<f64> =
                self.errors.iter().map(|error| (of(error) - 1.0).abs()).collect();
            errors.sort_by(f64::total_cmp);
            errors.get(errors.len() / 2).copied()
        };
        let count = self.errors.len();
        let (latency, size) = (median(|error| error.latency)?, median(|error| error.size)?);
        (count >= 5).then(|| {
            format!(
                "sums over layers missed the latency of {count} verified configurations by {:.0} \
                 % (median), \
                 their size by {:.0} %",
                100.0 * latency,
                100.0 * size
            )
        })
    }
}

/// Strategy that composes configurations from the survey.
pub struct Additive {
    shared: Arc<Mutex<Shared>>,
    /// Recipes that have not been tried yet.
    seeds: VecDeque<Seed>,
    /// Fallback strategy for proposals without a model.
    other: Evolve,
    /// Whether the survey's own seeds have been added to `seeds`.
    seeded: bool,
    /// Number of the next seeds that are tried more often than other seeds.
    urgent: usize,
    verified: Vec<Verified>,
    /// Number of trials that `verified` covers.
    seen: usize,
    turn: u64,
}

impl Additive {
    /// Creates a strategy that tries `seeds` between its proposals. Until `shared` holds a survey,
    /// it proposes only seeds and those of the fallback strategy.
    #[must_use]
    pub fn new(shared: Arc<Mutex<Shared>>, seeds: Vec<Seed>) -> Self {
        Self {
            shared,
            seeds: seeds.into(),
            other: Evolve,
            seeded: false,
            urgent: 0,
            verified: Vec::new(),
            seen: 0,
            turn: 0,
        }
    }

    /// Adds the survey's own seeds, once: networks whose channels were all pruned by one threshold,
    /// at full precision and at 8 bits, and networks that are split between devices at the best cut
    /// points.
    fn propose_seeds(&mut self, survey: &Survey, history: &History) {
        if std::mem::replace(&mut self.seeded, true) {
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
        // These seeds use measurements, so they come before the uniform recipes.
        for seed in thinned.into_iter().rev() {
            self.seeds.push_front(seed);
        }
    }

    /// Returns the next seed that is not known yet. Seeds that need reconstructed layers wait until
    /// the survey has built them.
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

    /// Compares the trials since the last call with the predictions of the additive model.
    fn learn(&mut self, survey: &Survey, history: &History, errors: &mut Vec<AdditivityError>) {
        for trial in &history.trials()[self.seen..] {
            let Outcome::Measured { values, .. } = &trial.outcome else { continue };
            let seen: Metrics = Metric::ALL.into_iter().zip(values.iter().copied()).collect();
            let Some(choice) = Choice::read(survey, &history.space().decode(&trial.point)) else {
                continue;
            };
            let parts = choice.parts(survey);
            let verified = Verified::new(trial.point.clone(), choice, parts, &seen);
            if trial.origin == ADDITIVE {
                let by = |metric: Metric| seen.get(metric).unwrap_or(f64::NAN);
                errors.push(AdditivityError {
                    latency: parts.seconds / by(Metric::Latency),
                    size: parts.bytes / by(Metric::Size),
                });
            }
            self.verified.push(verified);
        }
        self.seen = history.trials().len();
    }

    fn compose(
        &mut self,
        survey: &Survey,
        prefer: Preference,
        history: &History,
        rng: &mut dyn Rng,
    ) -> Option<Suggestion> {
        let baseline = self.verified.first()?.clone();
        let model = Model { survey, verified: &self.verified, accuracy: baseline.accuracy };
        let threads: Vec<i64> = thread_counts(history);
        let front: Vec<&Choice> = self
            .verified
            .iter()
            .filter(|verified| {
                history.archive().front().iter().any(|entry| entry.point == verified.point)
            })
            .map(|verified| &verified.choice)
            .collect();
        let mut candidates: Vec<Choice> = Vec::new();
        for _ in 0..DESCENTS {
            let mut choice = baseline.choice.clone();
            choice.threads = if rng.random_bool(0.9) {
                survey.threads
            } else {
                threads[rng.random_range(0..threads.len())]
            };
            let mut weight = || 10.0_f64.powf(rng.random_range(-3.0..1.0));
            let weights = Weights { seconds: weight(), bytes: weight() };
            choice.descend(survey, &baseline.parts, &weights);
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
        // Proposals alternate between the preferred end of the front and the whole front.
        let push = self.turn.is_multiple_of(2) && !history.problem().limits().is_empty();
        let wanted = match prefer {
            Preference::Metric(metric) if push => Some(metric),
            _ => None,
        };
        let judged = Judge::new(history, wanted);
        let mut ranked: Vec<(f64, usize)> = candidates
            .iter()
            .enumerate()
            .map(|(index, choice)| (judged.acquisition(&model.predict(choice)), index))
            .collect();
        ranked.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
        ranked.truncate(LOOKED_UP);
        for (_, index) in ranked {
            let point = history.space().closest(&candidates[index].write(survey));
            if !history.is_known(&point) {
                return Some(Suggestion { point, origin: ADDITIVE.to_owned() });
            }
        }
        None
    }
}

impl Strategy for Additive {
    fn name(&self) -> &str {
        ADDITIVE
    }

    fn ask(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Suggestion> {
        self.turn += 1;
        let shared = Arc::clone(&self.shared);
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = shared.survey.as_ref().is_some_and(Survey::has_reconstructed);
        if let Some(survey) = &shared.survey {
            self.propose_seeds(survey, history);
        }
        // Channel-pruned networks at 8 bits are worth measuring early.
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
            let composed = self.compose(survey, *prefer, history, rng);
            tracing::debug!(
                "composed from {} layers in {:?}",
                survey.layers.len(),
                begun.elapsed()
            );
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

/// Position of the accuracy drop among the search's metrics.
const DROP: usize = Metric::AccuracyDrop.index();

/// Converts a metric so that more is better, on the scale of the metric.
fn gain(metric: Metric, value: f64) -> f64 {
    -metric.scaled_cost(value)
}

/// Acquisition function: the expected gain of a predicted composition.
struct Judge<'h> {
    history: &'h History,
    front: Vec<Vec<f64>>,
    /// A metric and its best feasible value. If set, only an improvement of this metric counts.
    pushed: Option<(Metric, f64)>,
    /// Typical distance from the drop in accuracy to the upper end of its interval, taken from
    /// earlier trials.
    reach: f64,
}

impl<'h> Judge<'h> {
    /// Builds the acquisition function from `history`. With `wanted`, only an improvement of that
    /// metric counts.
    fn new(history: &'h History, wanted: Option<Metric>) -> Self {
        let front = history.archive().normalized();
        let feasible = history.archive().front();
        let pushed = wanted.and_then(|metric| {
            let values = feasible.iter().map(|entry| gain(metric, entry.values[metric.index()]));
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

    /// Returns the expected gain of a composition. More is better; a negative value means no gain.
    fn acquisition(&self, predicted: &Metrics) -> f64 {
        let values = Metric::ALL.map(|metric| predicted.get(metric).unwrap_or(f64::NAN)).to_vec();
        let problem = self.history.problem();
        let mut high = values.clone();
        high[DROP] += self.reach;
        let outcome = Outcome::Measured { low: values.clone(), values, high };
        let Ok(judgement) = problem.judge(&outcome) else { return f64::NEG_INFINITY };
        let Some(objectives) = judgement.objectives.into_iter().collect::<Option<Vec<f64>>>()
        else {
            return f64::NEG_INFINITY;
        };
        let violation: f64 = judgement.violations.into_iter().flatten().sum();
        if violation > 0.0 {
            return -1.0 - violation;
        }
        if let Some((metric, best)) = self.pushed {
            let value = predicted.get(metric).unwrap_or(f64::NAN);
            return gain(metric, value) - best;
        }
        if predicted.get(Metric::AccuracyDrop).is_some_and(|drop| drop > LARGEST_DROP) {
            return -1.0;
        }
        let Some(normalization) = self.history.archive().normalization() else {
            return predicted.get(Metric::Accuracy).unwrap_or_default();
        };
        contribution(&self.front, &normalization.apply(&objectives), &vec![1.0; objectives.len()])
    }
}
