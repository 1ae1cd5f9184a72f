//! What the events so far add up to. Pure: the same events give the same state.

use std::collections::{BTreeMap, VecDeque};

use paretune_spaces::Configuration;

use crate::report::{self, Technique};
use crate::study::archive::preferred;
use crate::study::event::{Changed, Event, Inspected, Started, TrialFinished};
use crate::study::front::{Front, FrontLimit, FrontPoint, Metrics};

/// Trials off the front that are kept for the picture; the oldest go first.
const MAX_EXPLORED: usize = 2000;
/// Hypervolume samples kept; every second one goes when there are more.
const MAX_CURVE: usize = 1024;
/// Points that were looked into and are kept.
const MAX_INSPECTED: usize = 64;
/// Trials whose noise is remembered.
const MAX_NOISE: usize = 20;
/// Notices and failure reasons kept.
const MAX_LINES: usize = 200;

/// The study as the user sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Study, network, hardware, budget.
    pub started: Option<Started>,
    /// Task and share of the preparation that is going on.
    pub preparing: Option<(String, f64)>,
    /// Trial that the worker has.
    pub current: Option<Current>,
    /// What is not dominated, in the order in which it was found; after the end as in `front.json`.
    pub front: Vec<FrontPoint>,
    /// Trials that are not on the front, without their configurations.
    pub explored: VecDeque<FrontPoint>,
    /// Trials in which one technique alone was applied.
    pub techniques: Vec<Technique>,
    /// What each proposer has earned.
    pub credit: BTreeMap<String, Credit>,
    /// Shares of undisturbed runs of the newest trials that were timed.
    pub quiet: VecDeque<f64>,
    /// What the steps of some points cost, by id.
    pub inspected: BTreeMap<String, Inspected>,
    /// Layers in execution order, as soon as they are known.
    pub order: Vec<String>,
    /// The untouched network.
    pub baseline: Option<Metrics>,
    /// Trials with an answer, all sessions.
    pub trials: u64,
    /// Of this session's trials, how many the store answered.
    pub cached: u64,
    /// Of this session's trials, how many failed.
    pub failed: u64,
    /// How often each reason of failure was met.
    pub failures: BTreeMap<String, u64>,
    /// Hypervolume over seconds since the study began.
    pub curve: Vec<(f64, f64)>,
    /// Seconds since the study began, at the last trial.
    pub elapsed: f64,
    /// Number and time of the last trial that changed the front.
    pub improved: Option<(u64, f64)>,
    /// Final points measured again, of how many.
    pub confirming: Option<(u64, u64)>,
    /// How the session ended.
    pub ending: Option<Ending>,
    /// What a person should know, newest last.
    pub notices: VecDeque<String>,
}

/// The trial that is going on.
#[derive(Clone, Debug, PartialEq)]
pub struct Current {
    /// Counts from 1 over the whole study.
    pub number: u64,
    /// Configuration.
    pub id: String,
    /// Who proposed it.
    pub origin: String,
    /// `build`, `timing`, `accuracy`; empty before the first.
    pub stage: String,
}

/// What a proposer has earned.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Credit {
    /// Trials.
    pub trials: u64,
    /// Those that entered the front.
    pub entered: u64,
    /// Hypervolume that they added.
    pub gained: f64,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// `budget`, `interrupted`, `exhausted`.
    pub reason: String,
    /// The archive as it was written.
    pub front: Front,
}

impl State {
    /// Takes one more event into account. Total: any event may come at any time.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Started(started) => self.start(started),
            Event::Preparing { task, share } => {
                self.preparing =
                    Some((task.clone(), if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }));
            }
            Event::Surveyed(survey) => {
                self.preparing = None;
                self.order = survey.layers.iter().map(|layer| layer.name.clone()).collect();
            }
            Event::Changed(changed) => self.change(changed),
            Event::Inspected(inspected) => {
                if self.inspected.len() < MAX_INSPECTED || self.inspected.contains_key(&inspected.id) {
                    self.inspected.insert(inspected.id.clone(), (**inspected).clone());
                }
            }
            Event::TrialStarted { number, id, origin } => {
                self.preparing = None;
                let (id, origin, stage) = (id.clone(), origin.clone(), String::new());
                self.current = Some(Current { number: *number, id, origin, stage });
            }
            Event::Stage { id, stage } => {
                self.preparing = None;
                if let Some(current) = self.current.as_mut().filter(|current| current.id == *id) {
                    current.stage.clone_from(stage);
                }
            }
            Event::TrialFinished(trial) => self.finish_trial(trial),
            Event::Confirming { done, total } => {
                self.current = None;
                self.confirming = Some((*done.min(total), *total));
            }
            Event::Finished { reason, front } => self.end(reason, front),
            Event::Notice { text } => {
                self.notices.push_back(text.clone());
                self.notices.keep_newest(MAX_LINES);
            }
        }
    }

    /// What was asked for.
    #[must_use]
    pub fn limits(&self) -> &[FrontLimit] {
        match (&self.ending, &self.started) {
            (Some(ending), _) => &ending.front.limits,
            (None, Some(started)) => &started.limits,
            (None, None) => &[],
        }
    }

    /// Which feasible point is the best: an objective's name or `knee`.
    #[must_use]
    pub fn prefer(&self) -> &str {
        self.started.as_ref().map_or("accuracy", |started| started.prefer.as_str())
    }

    /// Every point of which at least the figures are known.
    pub fn points(&self) -> impl Iterator<Item = &FrontPoint> {
        self.front.iter().chain(&self.explored)
    }

    /// What relaxing each limit alone would allow.
    #[must_use]
    pub fn relaxations(&self) -> Vec<report::Relaxation> {
        let (Some(baseline), Some(started)) = (&self.baseline, &self.started) else { return Vec::new() };
        let points: Vec<&FrontPoint> = self.points().collect();
        let (limits, objectives) = (self.limits(), &started.objectives);
        report::relaxations(&points, self.best(), limits, baseline, &started.prefer, objectives)
    }

    /// The point that would be exported now.
    #[must_use]
    pub fn best(&self) -> Option<&FrontPoint> {
        self.front.iter().find(|point| point.best)
    }

    /// Where no point meets every limit: the one whose worst miss is smallest.
    #[must_use]
    pub fn nearest_miss(&self) -> Option<&FrontPoint> {
        if let Some(ending) = &self.ending {
            return ending.front.nearest_miss.as_ref();
        }
        if self.front.iter().any(|point| point.feasible) {
            return None;
        }
        let worst = |point: &FrontPoint| point.violation.values().copied().fold(0.0, f64::max);
        self.front.iter().min_by(|a, b| worst(a).total_cmp(&worst(b)))
    }

    /// Share of the budget that is used after `seconds` of the study; `None` where there is no budget.
    #[must_use]
    pub fn budget_share(&self, seconds: f64) -> Option<f64> {
        let started = self.started.as_ref()?;
        let by_time = started.budget_seconds.map(|budget| seconds / budget);
        let by_trials = started.budget_trials.map(|budget| self.trials as f64 / budget as f64);
        let share = by_time.into_iter().chain(by_trials).fold(f64::NAN, f64::max);
        share.is_finite().then_some(share.clamp(0.0, 1.0))
    }

    fn start(&mut self, started: &Started) {
        // A resumed study tells its past once more only through what comes; counters go on from there.
        *self = Self {
            trials: started.resumed_trials,
            elapsed: started.resumed_seconds,
            front: std::mem::take(&mut self.front),
            explored: std::mem::take(&mut self.explored),
            baseline: self.baseline,
            curve: std::mem::take(&mut self.curve),
            techniques: std::mem::take(&mut self.techniques),
            credit: std::mem::take(&mut self.credit),
            inspected: std::mem::take(&mut self.inspected),
            order: std::mem::take(&mut self.order),
            notices: std::mem::take(&mut self.notices),
            started: Some(started.clone()),
            ..Self::default()
        };
    }

    fn finish_trial(&mut self, trial: &TrialFinished) {
        // Older journals name the proposer at the beginning of a trial only.
        let current = self.current.as_ref().filter(|current| current.number == trial.number);
        let origin = match (trial.origin.as_str(), current) {
            ("", Some(current)) => current.origin.clone(),
            (origin, _) => origin.to_owned(),
        };
        self.preparing = None;
        self.current = self.current.take().filter(|current| current.number > trial.number);
        self.trials = self.trials.max(trial.number);
        self.cached += u64::from(trial.cached);
        self.elapsed = self.elapsed.max(trial.elapsed);
        self.baseline = trial.baseline.or(self.baseline);
        if let Some(reason) = &trial.failure {
            self.failed += 1;
            if self.failures.len() < MAX_LINES || self.failures.contains_key(reason) {
                *self.failures.entry(reason.clone()).or_default() += 1;
            }
        }
        let before = self.curve.last().map_or(0.0, |(_, hypervolume)| *hypervolume);
        self.sample(trial.elapsed, trial.hypervolume);
        let credit = self.credit.entry(proposer(&origin)).or_default();
        credit.trials += 1;
        credit.entered += u64::from(trial.entered);
        credit.gained += (trial.hypervolume - before).max(0.0);
        self.quiet.extend(trial.quiet);
        self.quiet.keep_newest(MAX_NOISE);
        if let (Some(label), Some(metrics)) = (report::label(&origin), report::metrics(trial)) {
            let (name, id) = (origin, trial.id.clone());
            self.techniques.retain(|technique| technique.id != id);
            self.techniques.push(Technique { name, label, id, metrics });
        }
        let Some(point) = &trial.point else { return };
        if trial.entered {
            self.improved = Some((trial.number, trial.elapsed));
            self.enter(point, &trial.displaced);
        } else if !self.front.iter().any(|other| other.id == point.id) {
            self.explore(point);
        }
    }

    /// Takes over what people have asked for, and the front as it is judged now.
    fn change(&mut self, changed: &Changed) {
        if let Some(started) = &mut self.started {
            started.limits.clone_from(&changed.limits);
            started.prefer.clone_from(&changed.prefer);
            started.budget.clone_from(&changed.budget);
            (started.budget_seconds, started.budget_trials) = (changed.budget_seconds, changed.budget_trials);
        }
        let stays = |point: &FrontPoint| changed.front.iter().any(|other| other.id == point.id);
        let gone: Vec<_> = self.front.drain(..).filter(|point| !stays(point)).collect();
        gone.iter().for_each(|point| self.explore(point));
        self.explored.retain(|point| !stays(point));
        let baseline = self.baseline;
        for point in &mut self.explored {
            judge(point, &changed.limits, baseline.as_ref());
        }
        self.front.clone_from(&changed.front);
        self.curve.push((self.elapsed, changed.hypervolume));
        self.mark_best();
    }

    fn mark_best(&mut self) {
        let Some(started) = &self.started else { return };
        let feasible: Vec<&FrontPoint> = self.front.iter().filter(|point| point.feasible).collect();
        let best = preferred(&feasible, &started.prefer, &started.objectives).map(|point| point.id.clone());
        self.front.iter_mut().for_each(|point| point.best = best.as_ref() == Some(&point.id));
    }

    /// Puts a point on the front in place of those that it dominates.
    fn enter(&mut self, point: &FrontPoint, displaced: &[String]) {
        let (gone, mut kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.front)
            .into_iter()
            .partition(|other| other.id == point.id || displaced.contains(&other.id));
        gone.iter().filter(|other| other.id != point.id).for_each(|other| self.explore(other));
        kept.push(point.clone());
        self.front = kept;
        self.mark_best();
    }

    fn explore(&mut self, point: &FrontPoint) {
        // Configurations are long, and only points of the front can be exported.
        self.explored.push_back(FrontPoint {
            id: point.id.clone(),
            feasible: point.feasible,
            best: false,
            metrics: point.metrics,
            spread: point.spread.clone(),
            violation: point.violation.clone(),
            origin: point.origin.clone(),
            config: Configuration::new(),
        });
        self.explored.keep_newest(MAX_EXPLORED);
    }

    fn sample(&mut self, elapsed: f64, hypervolume: f64) {
        if elapsed.is_finite() && hypervolume.is_finite() {
            self.curve.push((elapsed, hypervolume));
        }
        if self.curve.len() > MAX_CURVE {
            let last = self.curve.len() - 1;
            let mut index = 0;
            self.curve.retain(|_| {
                index += 1;
                index % 2 == 1 || index > last
            });
        }
    }

    fn end(&mut self, reason: &str, front: &Front) {
        (self.preparing, self.current, self.confirming) = (None, None, None);
        self.front.clone_from(&front.points);
        self.baseline = Some(front.baseline);
        self.trials = front.trials;
        self.elapsed = self.elapsed.max(front.seconds);
        self.ending = Some(Ending { reason: reason.to_owned(), front: front.clone() });
    }
}

/// Whom a trial is credited to: all recipes together, every strategy by itself.
fn proposer(origin: &str) -> String {
    let recipe = origin == "untouched" || origin.contains(' ') || report::label(origin).is_some();
    if recipe { "recipes".to_owned() } else { origin.to_owned() }
}

/// Says anew which limits a point misses, on the pessimistic ends of its intervals.
fn judge(point: &mut FrontPoint, limits: &[FrontLimit], baseline: Option<&Metrics>) {
    point.violation.clear();
    for limit in limits {
        let middle = match (limit.metric.as_str(), baseline) {
            ("accuracy-drop", Some(baseline)) => Some(baseline.accuracy - point.metrics.accuracy),
            (metric, _) => point.metrics.get(metric),
        };
        let upper = limit.op == "<";
        let interval = point.spread.get(&limit.metric).map(|interval| interval[usize::from(upper)]);
        let Some(value) = interval.or(middle) else { continue };
        let miss = if upper { value - limit.value } else { limit.value - value };
        if miss >= 0.0 {
            let relative = if limit.value > 0.0 { miss / limit.value } else { miss };
            let worst = point.violation.entry(limit.metric.clone()).or_insert(0.0);
            *worst = worst.max(relative);
        }
    }
    point.feasible = point.violation.is_empty();
}

trait KeepNewest {
    /// Keeps the newest `length`.
    fn keep_newest(&mut self, length: usize);
}

impl<T> KeepNewest for VecDeque<T> {
    fn keep_newest(&mut self, length: usize) {
        while self.len() > length {
            self.pop_front();
        }
    }
}
