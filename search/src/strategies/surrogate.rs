//! Model-based search: predict every objective, limit and failure from what was measured, and measure next where
//! the expected gain is largest.
//!
//! The gain is expected improvement for one objective and expected hypervolume improvement for several, times the
//! probability that limits are met and that the configuration works at all (Gardner et al., 2014). While nothing
//! feasible is known, those probabilities alone decide. What has failed in all but name (see [`cliff`]) counts as not
//! working.

use std::collections::{HashSet, VecDeque};

use paretune_spaces::{CompiledSpace, INACTIVE, Point};
use rand::{Rng, RngExt};

use crate::acquisition::{Improvement, log_cdf, log_expected_improvement, normal_draws};
use crate::history::{History, Trial};
use crate::model::cliff::cliff;
use crate::model::forest::Forest;
use crate::model::gaussian::{Gaussian, Kernel, Weights};
use crate::model::warp::Warp;
use crate::model::{Ensemble, Model, Prediction, Shape, normal_cdf};
use crate::problem::{Normalization, Outcome, Relation};
use crate::strategy::{Strategy, Suggestion};

/// Which model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// A Gaussian process: few data, few parameters.
    Gaussian,
    /// Randomized trees: many parameters.
    Forest,
}

/// Trials that a model looks at, at most.
const CAPACITY: usize = 300;
/// Trials from which weights of a Gaussian process are learnt, at most.
const LESSONS: usize = 160;
/// Draws from the posterior of the weights that are asked besides the most likely ones, as long as no more trials than
/// this are known.
const OTHERS: usize = 3;
const DOUBTFUL: usize = 150;
/// Spaces up to this size are looked at as a whole.
const SMALL: u128 = 1_000;
/// Candidates from which the climb goes on, and its steps.
const CLIMBERS: usize = 4;
const CLIMB: usize = 6;
/// From so many trials on with several objectives, every so many-th goes next to a point of the front.
const BESIDE_FROM: usize = 40;
const BESIDE_EVERY: usize = 3;
/// Random vectors for the expected hypervolume improvement.
const DRAWS: usize = 24;

/// Model-based search.
pub struct Surrogate {
    kind: ModelKind,
    name: &'static str,
    kernel: Option<Kernel>,
    shape: Option<Shape>,
    /// Per target the weights learnt last: the most likely ones, then draws.
    weights: Vec<Vec<Weights>>,
    learnt_at: usize,
    queue: VecDeque<Point>,
}

/// Everything that was fitted for one decision.
struct Fitted {
    objectives: Vec<(Box<dyn Model>, Warp)>,
    limits: Vec<(Box<dyn Model>, Relation, f64)>,
    works: Option<Box<dyn Model>>,
    /// Canonical values are brought to 0..1 by this.
    normalization: Option<Normalization>,
    improvement: Option<Improvement>,
    /// The best feasible value of a single objective, warped.
    best: Option<f64>,
    draws: Vec<Vec<f64>>,
}

impl Surrogate {
    /// With a model of one kind.
    #[must_use]
    pub fn new(kind: ModelKind) -> Surrogate {
        let name = match kind {
            ModelKind::Gaussian => "gaussian",
            ModelKind::Forest => "forest",
        };
        Surrogate {
            kind,
            name,
            kernel: None,
            shape: None,
            weights: Vec::new(),
            learnt_at: 0,
            queue: VecDeque::new(),
        }
    }

    /// How many points are spread over the space before a model is worth asking.
    fn opening(shape: &Shape) -> usize {
        (4 + shape.relevant.len() / 2).clamp(5, 16)
    }

    /// A point far from all that are known.
    fn spread(&self, history: &History, shape: &Shape, rng: &mut dyn Rng) -> Option<Point> {
        let known = || history.trials().iter().map(|t| &t.point).chain(history.pending());
        let mut best: Option<(f64, Point)> = None;
        for _ in 0..24 {
            let point = history.unknown(rng)?;
            let nearest = known().map(|k| distance(shape, k, &point)).fold(f64::INFINITY, f64::min);
            if best.as_ref().is_none_or(|(d, _)| nearest > *d) {
                best = Some((nearest, point));
            }
        }
        best.map(|(_, point)| point)
    }

    /// A model of `values` at `points`; `target` numbers what is modelled, so that learnt weights are found again.
    fn model(
        &mut self,
        target: usize,
        points: &[&Point],
        values: &[f64],
        learn: bool,
        rng: &mut dyn Rng,
    ) -> Option<Box<dyn Model>> {
        match (self.kind, &self.kernel, &self.shape) {
            (ModelKind::Gaussian, Some(kernel), _) => {
                while self.weights.len() <= target {
                    self.weights.push(vec![kernel.prior()]);
                }
                if learn {
                    let some = thin(points.len(), LESSONS);
                    let lesson: Vec<&Point> = some.iter().map(|i| points[*i]).collect();
                    let answers: Vec<f64> = some.iter().map(|i| values[*i]).collect();
                    let looks = if points.len() < 40 { 30 } else { 15 };
                    let start = &self.weights[target][0];
                    let likely = Gaussian::learn(kernel, start, &lesson, &answers, looks);
                    // Much data leaves no doubt about the weights, and makes each process slow.
                    let others = if points.len() > DOUBTFUL { 0 } else { OTHERS };
                    let others = Gaussian::sample(kernel, &likely, &lesson, &answers, others, rng);
                    self.weights[target] = std::iter::once(likely).chain(others).collect();
                }
                let fit = |weights: &Weights| Gaussian::fit(kernel, weights, points, values);
                let fitted: Vec<Gaussian> = self.weights[target].iter().filter_map(fit).collect();
                if fitted.is_empty() { None } else { Some(Box::new(Ensemble(fitted))) }
            }
            (_, _, Some(shape)) => Some(Box::new(Forest::fit(shape, points, values, rng)?)),
            _ => None,
        }
    }

    fn fit(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Fitted> {
        let trials = chosen(history);
        let learn =
            self.learnt_at == 0 || history.trials().len() as f64 >= 1.12 * self.learnt_at as f64 + 1.0;
        if learn {
            self.learnt_at = history.trials().len();
        }
        let problem = history.problem();
        let mut target = 0;
        let mut objectives = Vec::new();
        let collapsed = collapsed(&trials, problem.objectives().len());
        for number in 0..problem.objectives().len() {
            let sound = trials.iter().zip(&collapsed).filter(|(_, collapsed)| !**collapsed);
            let known = sound.filter_map(|(t, _)| Some((&t.point, t.judgement.objectives[number]?)));
            let (points, values): (Vec<&Point>, Vec<f64>) = known.unzip();
            let warp = Warp::fit(&values);
            let values: Vec<f64> = values.into_iter().map(|v| warp.apply(v)).collect();
            objectives.push((self.model_with_pending(history, target, points, values, learn, rng)?, warp));
            target += 1;
        }
        let mut limits = Vec::new();
        for (number, limit) in problem.limits().iter().enumerate() {
            let metric = problem.metric_of_limit(number);
            let known = trials.iter().filter_map(|t| Some((&t.point, metric_of(t, metric, limit.relation)?)));
            let (points, values): (Vec<&Point>, Vec<f64>) = known.unzip();
            // Ratios model sizes and times better than differences do.
            let positive = limit.value > 0.0 && values.iter().all(|v| *v > 0.0);
            let scale = |v: f64| if positive { v.ln() } else { v };
            let values: Vec<f64> = values.into_iter().map(scale).collect();
            let model = self.model_with_pending(history, target, points, values, learn, rng)?;
            limits.push((model, limit.relation, scale(limit.value)));
            target += 1;
        }
        let failed = |t: &Trial| matches!(t.outcome, Outcome::Failed { .. });
        let works: Vec<f64> = trials
            .iter()
            .zip(&collapsed)
            .map(|(trial, collapsed)| if failed(trial) || *collapsed { 0.0 } else { 1.0 })
            .collect();
        let works = if works.contains(&0.0) {
            let points: Vec<&Point> = trials.iter().map(|t| &t.point).collect();
            // Trees follow borders where smooth models see slopes.
            let forest = Forest::fit(self.shape.as_ref()?, &points, &works, rng);
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
            // Pending points count as found where they are expected.
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
            works,
            normalization: archive.normalization().cloned(),
            improvement,
            best,
            draws: normal_draws(DRAWS, count),
        })
    }

    /// Pending points are believed to come out as expected, which keeps a batch apart.
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

    /// A neighbor of a point of the front that probably works, whatever the models of the objectives say of it: what
    /// distinguishes neighbors late in a search is finer than they can tell.
    fn beside(history: &History, works: Option<&dyn Model>, rng: &mut dyn Rng) -> Option<Point> {
        let front = history.archive().front();
        if front.is_empty() {
            return None;
        }
        let leader = &front[rng.random_range(0..front.len())].point;
        let mut near = some_neighbors(history.space(), leader, 40, rng);
        near.retain(|point| {
            !history.is_known(point) && works.is_none_or(|works| works.predict(point).mean > 0.5)
        });
        if near.is_empty() { None } else { Some(near.swap_remove(rng.random_range(0..near.len()))) }
    }

    fn decide(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Point> {
        let fitted = self.fit(history, rng)?;
        let trials = history.trials().len();
        if fitted.improvement.is_some()
            && trials >= BESIDE_FROM
            && trials.is_multiple_of(BESIDE_EVERY)
            && let Some(point) = Self::beside(history, fitted.works.as_deref(), rng)
        {
            return Some(point);
        }
        let space = history.space();
        let mut seen: HashSet<Point> = HashSet::new();
        let mut scored: Vec<(f64, Point)> = Vec::new();
        let consider = |point: Point, seen: &mut HashSet<Point>, scored: &mut Vec<(f64, Point)>| {
            if !history.is_known(&point) && seen.insert(point.clone()) {
                scored.push((fitted.score(&point), point));
            }
        };
        match space.len() {
            // Few enough to look at all of them.
            Some(len) if len <= SMALL => {
                (0..len).filter_map(|i| space.at(i)).for_each(|p| consider(p, &mut seen, &mut scored));
            }
            _ => explore(history, rng, &mut |p| consider(p, &mut seen, &mut scored)),
        }
        // Climb from the most promising ones.
        let mut frontier: Vec<Point> = top(&mut scored, CLIMBERS);
        for _ in 0..CLIMB {
            let before = scored.len();
            for point in &frontier {
                for near in some_neighbors(space, point, 40, rng) {
                    consider(near, &mut seen, &mut scored);
                }
            }
            let next = top(&mut scored, CLIMBERS);
            if next == frontier || scored.len() == before {
                break;
            }
            frontier = next;
        }
        // Later decisions matter less one by one: several are taken at once, to keep the cost of a trial bounded.
        let batch = (history.trials().len() / 150).clamp(1, 128);
        let mut chosen = top(&mut scored, batch);
        if chosen.is_empty() {
            return None;
        }
        let first = chosen.remove(0);
        self.queue.extend(chosen);
        Some(first)
    }
}

/// Candidates from everywhere, and around what is good already.
fn explore(history: &History, rng: &mut dyn Rng, consider: &mut dyn FnMut(Point)) {
    let space = history.space();
    let leaders = leaders(history, 10);
    for _ in 0..240 {
        consider(space.sample(rng));
    }
    for _ in 0..120 {
        consider(space.sample_by_choice(rng));
    }
    for leader in &leaders {
        some_neighbors(space, leader, 30, rng).into_iter().for_each(&mut *consider);
        for _ in 0..6 {
            let other = &leaders[rng.random_range(0..leaders.len())];
            consider(space.crossover(leader, other, rng));
            consider(space.mutate(leader, rng, 0.2));
        }
    }
}

/// The best `count`, best first.
fn top(scored: &mut [(f64, Point)], count: usize) -> Vec<Point> {
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.iter().take(count).map(|(_, p)| p.clone()).collect()
}

/// Where the archive stands: the front, or what comes nearest to being feasible.
pub(crate) fn leaders(history: &History, count: usize) -> Vec<Point> {
    let mut order: Vec<(&Trial, f64, f64)> = Vec::new();
    let single = history.problem().objectives().len() == 1;
    let front = history.archive().front();
    if !single && !front.is_empty() {
        let step = (front.len() as f64 / count as f64).max(1.0);
        return (0..front.len().min(count))
            .map(|i| front[(i as f64 * step) as usize].point.clone())
            .collect();
    }
    for trial in history.trials() {
        if let Some(s) = &trial.standing {
            order.push((trial, s.violation, s.objectives[0]));
        }
    }
    order.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.2.total_cmp(&b.2)));
    order.into_iter().take(count.div_ceil(2)).map(|(t, ..)| t.point.clone()).collect()
}

/// At most about `count` neighbors; all of them where there are few.
pub(crate) fn some_neighbors(
    space: &CompiledSpace,
    point: &Point,
    count: usize,
    rng: &mut dyn Rng,
) -> Vec<Point> {
    let steps: Vec<(usize, u16)> = space
        .parameters()
        .iter()
        .enumerate()
        .filter(|(p, _)| point[*p] != INACTIVE)
        .flat_map(|(p, parameter)| (0..parameter.domain.values().len() as u16).map(move |v| (p, v)))
        .filter(|(p, v)| point[*p] != *v)
        .collect();
    if steps.len() <= count {
        return steps.into_iter().filter_map(|(p, v)| space.with(point, p, v)).collect();
    }
    (0..count)
        .filter_map(|_| {
            let (p, v) = steps[rng.random_range(0..steps.len())];
            space.with_random(point, p, v, rng)
        })
        .collect()
}

/// Counts the relevant parameters that differ, sizes by how far they are apart on their scale.
pub(crate) fn distance(shape: &Shape, a: &Point, b: &Point) -> f64 {
    let differ = |p: &usize| {
        let (x, y) = (a[*p], b[*p]);
        if x == y {
            0.0
        } else if shape.has_distances(*p) && x != INACTIVE && y != INACTIVE {
            let positions = &shape.positions[*p];
            0.3 + 0.7 * (positions[usize::from(x)] - positions[usize::from(y)]).abs()
        } else {
            1.0
        }
    };
    shape.relevant.iter().map(differ).sum()
}

/// `count` of `n` indices, evenly spaced.
fn thin(n: usize, count: usize) -> Vec<usize> {
    if n <= count { (0..n).collect() } else { (0..count).map(|i| i * n / count).collect() }
}

/// Which of `trials` are beyond a [`cliff`] of one of several objectives. With a single one, the cliff is where the worst
/// are, and nobody goes there anyway.
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

/// The trials to learn from: the best third of the room, the latest third, and an even choice of the rest.
fn chosen(history: &History) -> Vec<&Trial> {
    let trials = history.trials();
    if trials.len() <= CAPACITY {
        return trials.iter().collect();
    }
    let mut keep: Vec<usize> =
        history.archive().front().iter().rev().take(CAPACITY / 3).map(|e| e.trial).collect();
    keep.extend(trials.len() - CAPACITY / 3..trials.len());
    keep.extend(thin(trials.len(), CAPACITY / 3));
    keep.sort_unstable();
    keep.dedup();
    keep.into_iter().map(|i| &trials[i]).collect()
}

/// What a limit is judged by: the bad end of the metric.
fn metric_of(trial: &Trial, metric: usize, relation: Relation) -> Option<f64> {
    match &trial.outcome {
        Outcome::Measured { low, high, .. } => Some(relation.bad_end(low[metric], high[metric])),
        Outcome::Dropped { values } => values[metric],
        Outcome::Failed { .. } => None,
    }
}

impl Fitted {
    /// Logarithm of what measuring the point is worth.
    fn score(&self, point: &Point) -> f64 {
        let mut score = 0.0;
        if let Some(works) = &self.works {
            let Prediction { mean, deviation } = works.predict(point);
            score += normal_cdf((mean - 0.5) / (deviation * deviation + 0.04).sqrt()).max(1e-6).ln();
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
            (Some(best), ..) => score + log_expected_improvement(self.objectives[0].0.predict(point), *best),
            (None, Some(improvement), Some(normalization)) => {
                let predictions: Vec<Prediction> =
                    self.objectives.iter().map(|(m, _)| m.predict(point)).collect();
                score + self.volume(&predictions, improvement, normalization)
            }
            _ => score,
        }
    }

    fn volume(&self, predictions: &[Prediction], improvement: &Improvement, n: &Normalization) -> f64 {
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
        let mean = self.draws.iter().map(|d| gain(&|i| d[i])).sum::<f64>() / self.draws.len() as f64;
        // Where no draw improves, optimism decides: first some, then much.
        (mean + 1e-2 * gain(&|_| -3.0) + 1e-8 * gain(&|_| -6.0) + 1e-12).ln()
    }
}

impl Strategy for Surrogate {
    fn name(&self) -> &str {
        self.name
    }

    fn ask(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Suggestion> {
        let shape = self.shape.get_or_insert_with(|| Shape::of(history.space())).clone();
        if self.kind == ModelKind::Gaussian && self.kernel.is_none() {
            self.kernel = Some(Kernel::new(shape.clone()));
        }
        let origin = self.name().to_owned();
        let measured = history.trials().iter().filter(|t| t.standing.is_some()).take(3).count();
        if history.known() < Self::opening(&shape) || measured < 3 {
            return Some(Suggestion { point: self.spread(history, &shape, rng)?, origin });
        }
        while let Some(point) = self.queue.pop_front() {
            if !history.is_known(&point) {
                return Some(Suggestion { point, origin });
            }
        }
        let point = self.decide(history, rng)?;
        Some(Suggestion { point, origin })
    }

    fn tell(&mut self, _: &History, _: &Trial) {}
}
