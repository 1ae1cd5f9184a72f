//! Models of all objectives, limits and failures, and the worth of a configuration by them.

use paretune_spaces::{CompiledSpace, Point};
use rand::Rng;

use super::ModelKind;
use crate::acquisition::{Improvement, log_cdf, log_expected_improvement, normal_draws};
use crate::history::{History, Trial};
use crate::limit::Relation;
use crate::model::cliff::cliff;
use crate::model::forest::Forest;
use crate::model::gaussian::{Gaussian, Hyperparameters, Kernel};
use crate::model::warp::Warp;
use crate::model::{Ensemble, Features, Model, Prediction, normal_cdf};
use crate::problem::{Normalization, Outcome};

/// Number of trials that a model is fitted to at most.
const MAX_MODEL_TRIALS: usize = 300;
/// Number of trials from which hyperparameters are learned at most.
const MAX_LEARNING_TRIALS: usize = 160;
/// Number of draws from the posterior of the hyperparameters that join their most likely values.
const POSTERIOR_DRAWS: usize = 3;
/// Number of trials up to which posterior draws are used. More data leave little doubt about the
/// hyperparameters, and make each process slow.
const MAX_TRIALS_WITH_DRAWS: usize = 150;
/// Number of random vectors for the expected hypervolume improvement.
const HYPERVOLUME_DRAWS: usize = 24;

/// Fits models to a history, and keeps what it has learned from one decision to the next.
pub(super) struct Fitter {
    kind: ModelKind,
    pub(super) features: Features,
    kernel: Kernel,
    /// Per target, the hyperparameters learned last: the most likely ones, then draws.
    hyperparameters: Vec<Vec<Hyperparameters>>,
    /// Number of trials when hyperparameters were learned last.
    learned_at: usize,
}

/// Models that were fitted for one decision.
pub(super) struct Fitted {
    objectives: Vec<(Box<dyn Model>, Warp)>,
    limits: Vec<(Box<dyn Model>, Relation, f64)>,
    /// Probability that a configuration can be measured; `None` while everything could.
    pub(super) validity: Option<Box<dyn Model>>,
    /// Scale of the hypervolume, once something feasible is known.
    normalization: Option<Normalization>,
    pub(super) improvement: Option<Improvement>,
    /// Best feasible value of a single objective, on the scale of its model.
    best: Option<f64>,
    draws: Vec<Vec<f64>>,
}

impl Fitter {
    /// Creates a fitter for a space.
    pub(super) fn new(kind: ModelKind, space: &CompiledSpace) -> Fitter {
        let features = Features::of(space);
        let kernel = Kernel::new(features.clone());
        Fitter { kind, features, kernel, hyperparameters: Vec::new(), learned_at: 0 }
    }

    /// Fits models of all objectives, limits and failures.
    pub(super) fn fit(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Fitted> {
        let trials = training_trials(history);
        let learn = self.learned_at == 0
            || history.trials().len() as f64 >= 1.12 * self.learned_at as f64 + 1.0;
        if learn {
            self.learned_at = history.trials().len();
        }
        let problem = history.problem();
        let mut target = 0;
        let mut objectives = Vec::new();
        let collapsed = collapsed(&trials, problem.objectives().len());
        for number in 0..problem.objectives().len() {
            let sound = trials.iter().zip(&collapsed).filter(|(_, collapsed)| !**collapsed);
            let known =
                sound.filter_map(|(t, _)| Some((&t.point, t.judgement.objectives[number]?)));
            let (points, values): (Vec<&Point>, Vec<f64>) = known.unzip();
            let warp = Warp::fit(&values);
            let values: Vec<f64> = values.into_iter().map(|v| warp.apply(v)).collect();
            objectives.push((
                self.model_with_pending(history, target, points, values, learn, rng)?,
                warp,
            ));
            target += 1;
        }
        let mut limits = Vec::new();
        for (number, limit) in problem.limits().iter().enumerate() {
            let metric = problem.metric_of_limit(number);
            let known = trials
                .iter()
                .filter_map(|t| Some((&t.point, metric_of(t, metric, limit.relation)?)));
            let (points, values): (Vec<&Point>, Vec<f64>) = known.unzip();
            // Sizes and times are modeled better by ratio than by difference.
            let positive = limit.value > 0.0 && values.iter().all(|v| *v > 0.0);
            let scale = |v: f64| if positive { v.ln() } else { v };
            let values: Vec<f64> = values.into_iter().map(scale).collect();
            let model = self.model_with_pending(history, target, points, values, learn, rng)?;
            limits.push((model, limit.relation, scale(limit.value)));
            target += 1;
        }
        let failed = |t: &Trial| matches!(t.outcome, Outcome::Failed { .. });
        let succeeded: Vec<f64> = trials
            .iter()
            .zip(&collapsed)
            .map(|(trial, collapsed)| if failed(trial) || *collapsed { 0.0 } else { 1.0 })
            .collect();
        let validity = if succeeded.contains(&0.0) {
            let points: Vec<&Point> = trials.iter().map(|t| &t.point).collect();
            // Trees follow sharp borders, which smooth models blur.
            let forest = Forest::fit(&self.features, &points, &succeeded, rng);
            forest.map(|forest| Box::new(forest) as Box<dyn Model>)
        } else {
            None
        };
        let archive = history.archive();
        let count = objectives.len();
        let best = match (archive.best_by(0), count) {
            (Some(best), 1) => Some(objectives[0].1.apply(best.standing.objectives[0])),
            _ => None,
        };
        let improvement = (count > 1 && !archive.front().is_empty()).then(|| {
            let mut front = archive.normalized();
            // Pending points count as found with their expected values.
            if let Some(n) = archive.normalization() {
                front.extend(history.pending().iter().rev().take(16).map(|p| {
                    let expected: Vec<f64> =
                        objectives.iter().map(|(m, w)| w.invert(m.predict(p).mean)).collect();
                    n.apply(&expected)
                }));
            }
            Improvement::new(&front, count)
        });
        Some(Fitted {
            objectives,
            limits,
            validity,
            normalization: archive.normalization().cloned(),
            improvement,
            best,
            draws: normal_draws(HYPERVOLUME_DRAWS, count),
        })
    }

    /// Fits a model of `values` at `points`. The number `target` identifies the modeled metric, so
    /// that its hyperparameters are found again.
    fn model(
        &mut self,
        target: usize,
        points: &[&Point],
        values: &[f64],
        learn: bool,
        rng: &mut dyn Rng,
    ) -> Option<Box<dyn Model>> {
        if self.kind == ModelKind::Forest {
            return Some(Box::new(Forest::fit(&self.features, points, values, rng)?));
        }
        let kernel = &self.kernel;
        while self.hyperparameters.len() <= target {
            self.hyperparameters.push(vec![kernel.prior()]);
        }
        if learn {
            let some = evenly_spaced(points.len(), MAX_LEARNING_TRIALS);
            let some_points: Vec<&Point> = some.iter().map(|i| points[*i]).collect();
            let some_values: Vec<f64> = some.iter().map(|i| values[*i]).collect();
            let evaluations = if points.len() < 40 { 30 } else { 15 };
            let start = &self.hyperparameters[target][0];
            let likely = Gaussian::learn(kernel, start, &some_points, &some_values, evaluations);
            let draws = if points.len() > MAX_TRIALS_WITH_DRAWS { 0 } else { POSTERIOR_DRAWS };
            let draws = Gaussian::sample(kernel, &likely, &some_points, &some_values, draws, rng);
            self.hyperparameters[target] = std::iter::once(likely).chain(draws).collect();
        }
        let fit = |hyperparameters: &Hyperparameters| {
            Gaussian::fit(kernel, hyperparameters, points, values)
        };
        let fitted: Vec<Gaussian> = self.hyperparameters[target].iter().filter_map(fit).collect();
        if fitted.is_empty() { None } else { Some(Box::new(Ensemble(fitted))) }
    }

    /// Fits a model that believes pending points to have their expected values, which keeps the
    /// points of a batch apart.
    fn model_with_pending<'a>(
        &mut self,
        history: &'a History,
        target: usize,
        mut points: Vec<&'a Point>,
        mut values: Vec<f64>,
        learn: bool,
        rng: &mut dyn Rng,
    ) -> Option<Box<dyn Model>> {
        let model = self.model(target, &points, &values, learn, rng)?;
        if history.pending().is_empty() {
            return Some(model);
        }
        for pending in history.pending().iter().rev().take(32) {
            values.push(model.predict(pending).mean);
            points.push(pending);
        }
        self.model(target, &points, &values, false, rng)
    }
}

impl Fitted {
    /// Returns the logarithm of the worth of measuring a point.
    pub(super) fn score(&self, point: &Point) -> f64 {
        let mut score = 0.0;
        if let Some(validity) = &self.validity {
            let Prediction { mean, deviation } = validity.predict(point);
            score +=
                normal_cdf((mean - 0.5) / (deviation * deviation + 0.04).sqrt()).max(1e-6).ln();
        }
        for (model, relation, value) in &self.limits {
            let Prediction { mean, deviation } = model.predict(point);
            let z = (value - mean) / deviation;
            score += log_cdf(match relation {
                Relation::Less => z,
                Relation::Greater => -z,
            });
        }
        match (&self.best, &self.improvement, &self.normalization) {
            (Some(best), ..) => {
                score + log_expected_improvement(self.objectives[0].0.predict(point), *best)
            }
            (None, Some(improvement), Some(normalization)) => {
                let predictions: Vec<Prediction> =
                    self.objectives.iter().map(|(m, _)| m.predict(point)).collect();
                score + self.volume(&predictions, improvement, normalization)
            }
            _ => score,
        }
    }

    fn volume(
        &self,
        predictions: &[Prediction],
        improvement: &Improvement,
        n: &Normalization,
    ) -> f64 {
        let gain = |shift: &dyn Fn(usize) -> f64| {
            let sample: Vec<f64> = predictions
                .iter()
                .zip(&self.objectives)
                .enumerate()
                .map(|(i, (p, (_, warp)))| {
                    let value = warp.invert(p.mean + p.deviation * shift(i));
                    (value - n.ideal[i]) / (n.reference[i] - n.ideal[i])
                })
                .collect();
            improvement.of(&sample)
        };
        let mean =
            self.draws.iter().map(|d| gain(&|i| d[i])).sum::<f64>() / self.draws.len() as f64;
        // If no draw improves, optimism decides: first by three deviations, then by six.
        (mean + 1e-2 * gain(&|_| -3.0) + 1e-8 * gain(&|_| -6.0) + 1e-12).ln()
    }
}

/// Returns `count` of `n` indices, evenly spaced.
fn evenly_spaced(n: usize, count: usize) -> Vec<usize> {
    if n <= count { (0..n).collect() } else { (0..count).map(|i| i * n / count).collect() }
}

/// Returns, for each trial, whether it is beyond a [`cliff`] of one of several objectives. With a
/// single objective, the cliff is where the worst values are, and the search avoids it anyway.
fn collapsed(trials: &[&Trial], objectives: usize) -> Vec<bool> {
    let mut collapsed = vec![false; trials.len()];
    if objectives == 1 {
        return collapsed;
    }
    for number in 0..objectives {
        let value = |t: &Trial| t.judgement.objectives[number];
        let cliff = cliff(&trials.iter().filter_map(|t| value(t)).collect::<Vec<f64>>());
        for (trial, collapsed) in trials.iter().zip(&mut collapsed) {
            *collapsed |= value(trial).is_some_and(|value| value >= cliff);
        }
    }
    collapsed
}

/// Returns the trials to learn from: a third of the capacity for the front, a third for the latest,
/// and the rest evenly spaced over all.
fn training_trials(history: &History) -> Vec<&Trial> {
    let trials = history.trials();
    if trials.len() <= MAX_MODEL_TRIALS {
        return trials.iter().collect();
    }
    let mut keep: Vec<usize> = history
        .archive()
        .front()
        .iter()
        .rev()
        .take(MAX_MODEL_TRIALS / 3)
        .map(|e| e.trial)
        .collect();
    keep.extend(trials.len() - MAX_MODEL_TRIALS / 3..trials.len());
    keep.extend(evenly_spaced(trials.len(), MAX_MODEL_TRIALS / 3));
    keep.sort_unstable();
    keep.dedup();
    keep.into_iter().map(|i| &trials[i]).collect()
}

/// Returns the end of a metric that is worse for a limit.
fn metric_of(trial: &Trial, metric: usize, relation: Relation) -> Option<f64> {
    match &trial.outcome {
        Outcome::Measured { low, high, .. } => Some(relation.bad_end(low[metric], high[metric])),
        Outcome::Dropped { values } => values[metric],
        Outcome::Failed { .. } => None,
    }
}
