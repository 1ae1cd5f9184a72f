//! The state that the events so far result in. It is a pure function of the events.

use std::collections::{BTreeMap, VecDeque};

use paretune_record::archive::preferred;
use paretune_record::event::{Changed, Event, Inspected, Started, TrialFinished};
use paretune_record::front::{BASELINE, Front, FrontPoint};
use paretune_record::limit::Limit;
use paretune_record::metric::Metrics;
use paretune_record::preference::Preference;
use paretune_record::stop::StopReason;
use paretune_report as report;
use paretune_report::Technique;
use paretune_spaces::Configuration;

/// Largest number of trials off the front that are kept for the plot; the oldest are dropped first.
const MAX_EXPLORED: usize = 2000;
/// Largest number of hypervolume samples; every second one is dropped beyond it.
const MAX_CURVE: usize = 1024;
/// Largest number of inspected points that are kept.
const MAX_INSPECTED: usize = 64;
/// Number of trials over which interference is averaged.
const INTERFERENCE_TRIALS: usize = 20;
/// Largest number of notices and of failure messages that are kept.
const MAX_LINES: usize = 200;

/// The study as the user sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Network, hardware, limits and budget of the study.
    pub started: Option<Started>,
    /// Task and progress (0 to 1) of the current preparation.
    pub preparing: Option<(String, f64)>,
    /// The trial that the worker is measuring.
    pub current: Option<Current>,
    /// Points that are not dominated, in the order of their discovery; after the end, in the order
    /// of `front.json`.
    pub front: Vec<FrontPoint>,
    /// Trials that are not on the front, without their configurations.
    pub explored: VecDeque<FrontPoint>,
    /// Trials that apply one technique alone.
    pub techniques: Vec<Technique>,
    /// Contributions of each origin of proposals.
    pub origins: BTreeMap<String, OriginStats>,
    /// Undisturbed fractions of the runs of the latest timed trials.
    pub undisturbed: VecDeque<f64>,
    /// Costs of the steps of inspected points, by id.
    pub inspected: BTreeMap<String, Inspected>,
    /// Names of the layers in execution order, once they are known.
    pub order: Vec<String>,
    /// Metrics of the unmodified network (the baseline).
    pub baseline: Option<Metrics>,
    /// Number of finished trials over all sessions.
    pub trials: u64,
    /// Number of this session's trials that the store answered.
    pub cached: u64,
    /// Number of this session's trials that failed.
    pub failed: u64,
    /// Number of failures by message.
    pub failures: BTreeMap<String, u64>,
    /// Hypervolume over seconds since the study began.
    pub curve: Vec<(f64, f64)>,
    /// Seconds from the start of the study to the latest trial.
    pub elapsed: f64,
    /// Number and time of the last trial that changed the front.
    pub improved: Option<(u64, f64)>,
    /// Number of final measurements that are done, and in all.
    pub confirming: Option<(u64, u64)>,
    /// The end of the session, once it has ended.
    pub ending: Option<Ending>,
    /// Messages to the user, newest last.
    pub notices: VecDeque<String>,
}

/// The trial that is currently measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Current {
    /// Number of the trial, counted from 1 over the whole study.
    pub number: u64,
    /// Content hash of the configuration.
    pub id: String,
    /// Name of the recipe or strategy that proposed it.
    pub origin: String,
    /// Name of the stage: `build`, `timing`, `accuracy`; empty before the first.
    pub stage: String,
}

/// Contribution of one origin of proposals.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OriginStats {
    /// Number of trials of this origin.
    pub trials: u64,
    /// Number of its trials that entered the front.
    pub entered: u64,
    /// Sum of the hypervolume that its trials added.
    pub hypervolume_gain: f64,
}

/// The end of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// Reason of the end: `budget`, `interrupted`, `exhausted` or `device lost`.
    pub reason: StopReason,
    /// The archive as it was written.
    pub front: Front,
}

impl State {
    /// Updates the state by one event. Any event may come at any time.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Started(started) => self.start(started),
            Event::Preparing { task, fraction } => {
                self.preparing = Some((
                    task.clone(),
                    if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 },
                ));
            }
            Event::Surveyed(survey) => {
                self.preparing = None;
                self.order = survey.layers.iter().map(|layer| layer.name.clone()).collect();
            }
            Event::Changed(changed) => self.change(changed),
            Event::Inspected(inspected) => {
                if self.inspected.len() < MAX_INSPECTED
                    || self.inspected.contains_key(&inspected.id)
                {
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
            Event::Finished { reason, front, .. } => self.end(*reason, front),
            Event::Notice { text } => {
                self.notices.push_back(text.clone());
                self.notices.keep_newest(MAX_LINES);
            }
        }
    }

    /// Returns the current limits of the study.
    #[must_use]
    pub fn limits(&self) -> &[Limit] {
        match (&self.ending, &self.started) {
            (Some(ending), _) => &ending.front.limits,
            (None, Some(started)) => &started.limits,
            (None, None) => &[],
        }
    }

    /// Returns the criterion of the best feasible point.
    #[must_use]
    pub fn prefer(&self) -> Preference {
        self.started.as_ref().map(|started| started.prefer).unwrap_or_default()
    }

    /// Iterates over all points with known metrics.
    pub fn points(&self) -> impl Iterator<Item = &FrontPoint> {
        self.front.iter().chain(&self.explored)
    }

    /// Returns the effect of relaxing each limit alone.
    #[must_use]
    pub fn relaxations(&self) -> Vec<report::Relaxation> {
        let (Some(baseline), Some(started)) = (&self.baseline, &self.started) else {
            return Vec::new();
        };
        let points: Vec<&FrontPoint> = self.points().collect();
        let (limits, objectives) = (self.limits(), &started.objectives);
        report::relaxations(&points, self.best(), limits, baseline, started.prefer, objectives)
    }

    /// Returns the point that would be exported now.
    #[must_use]
    pub fn best(&self) -> Option<&FrontPoint> {
        self.front.iter().find(|point| point.best)
    }

    /// Returns the point whose largest violation is smallest, if no point meets every limit.
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

    /// Returns the used fraction of the budget after `seconds` of the study; `None` without a
    /// budget.
    #[must_use]
    pub fn budget_fraction(&self, seconds: f64) -> Option<f64> {
        let started = self.started.as_ref()?;
        let by_time = started.budget_seconds.map(|budget| seconds / budget);
        let by_trials = started.budget_trials.map(|budget| self.trials as f64 / budget as f64);
        let fraction = by_time.into_iter().chain(by_trials).fold(f64::NAN, f64::max);
        fraction.is_finite().then_some(fraction.clamp(0.0, 1.0))
    }

    fn start(&mut self, started: &Started) {
        // A resumed session does not repeat earlier events, so the results so far are kept and the
        // counters continue.
        *self = Self {
            trials: started.resumed_trials,
            elapsed: started.resumed_seconds,
            front: std::mem::take(&mut self.front),
            explored: std::mem::take(&mut self.explored),
            baseline: self.baseline,
            curve: std::mem::take(&mut self.curve),
            techniques: std::mem::take(&mut self.techniques),
            origins: std::mem::take(&mut self.origins),
            inspected: std::mem::take(&mut self.inspected),
            order: std::mem::take(&mut self.order),
            notices: std::mem::take(&mut self.notices),
            started: Some(started.clone()),
            ..Self::default()
        };
    }

    fn finish_trial(&mut self, trial: &TrialFinished) {
        // Older journals record the origin only when a trial starts.
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
        let origins = self.origins.entry(origin_group(&origin)).or_default();
        origins.trials += 1;
        origins.entered += u64::from(trial.entered);
        origins.hypervolume_gain += (trial.hypervolume - before).max(0.0);
        self.undisturbed.extend(trial.undisturbed);
        self.undisturbed.keep_newest(INTERFERENCE_TRIALS);
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

    /// Applies changed limits, preference and budget, and the front under them.
    fn change(&mut self, changed: &Changed) {
        if let Some(started) = &mut self.started {
            started.limits.clone_from(&changed.limits);
            started.prefer = changed.prefer;
            started.budget.clone_from(&changed.budget);
            (started.budget_seconds, started.budget_trials) =
                (changed.budget_seconds, changed.budget_trials);
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
        let best =
            preferred(&feasible, started.prefer, &started.objectives).map(|point| point.id.clone());
        self.front.iter_mut().for_each(|point| point.best = best.as_ref() == Some(&point.id));
    }

    /// Adds a point to the front and removes the points that it dominates.
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
            confirmed: point.confirmed,
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

    fn end(&mut self, reason: StopReason, front: &Front) {
        (self.preparing, self.current, self.confirming) = (None, None, None);
        self.front.clone_from(&front.points);
        for technique in &mut self.techniques {
            let seen = technique.metrics;
            technique.metrics =
                report::on_terms_of(front, &technique.id, &seen, self.baseline.as_ref());
        }
        self.baseline = Some(front.baseline);
        self.trials = front.trials;
        self.elapsed = self.elapsed.max(front.seconds);
        self.ending = Some(Ending { reason, front: front.clone() });
    }
}

/// Returns the origin that is credited with a trial: all recipes together, every strategy
/// separately.
fn origin_group(origin: &str) -> String {
    let recipe = origin == BASELINE || origin.contains(' ') || report::label(origin).is_some();
    if recipe { "recipes".to_owned() } else { origin.to_owned() }
}

/// Determines again which limits a point misses, on the pessimistic ends of its intervals.
fn judge(point: &mut FrontPoint, limits: &[Limit], baseline: Option<&Metrics>) {
    point.violation.clear();
    for limit in limits {
        let middle = point.metrics.against(limit.metric, baseline);
        let upper = limit.is_upper();
        let interval = point.spread.get(&limit.metric).map(|interval| interval[usize::from(upper)]);
        let Some(value) = interval.or(middle) else { continue };
        let miss = limit.excess(value);
        if miss >= 0.0 {
            let relative = if limit.value > 0.0 { miss / limit.value } else { miss };
            let worst = point.violation.entry(limit.metric).or_insert(0.0);
            *worst = worst.max(relative);
        }
    }
    point.feasible = point.violation.is_empty();
}

trait KeepNewest {
    /// Drops the oldest elements beyond `length`.
    fn keep_newest(&mut self, length: usize);
}

impl<T> KeepNewest for VecDeque<T> {
    fn keep_newest(&mut self, length: usize) {
        while self.len() > length {
            self.pop_front();
        }
    }
}
