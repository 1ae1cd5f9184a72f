//! What the events so far add up to. Pure: the same events give the same state.

use std::collections::{BTreeMap, VecDeque};

use crate::study::event::{Event, Started, TrialFinished};
use crate::study::front::{Front, FrontLimit, FrontPoint, Metrics};

/// Trials off the front that are kept for the picture; the oldest go first.
const MAX_DOTS: usize = 2000;
/// Hypervolume samples kept; every second one goes when there are more.
const MAX_CURVE: usize = 1024;
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
    /// Trials that are not on the front.
    pub explored: VecDeque<Dot>,
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

/// A trial that is not on the front.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dot {
    /// As the search saw it.
    pub metrics: Metrics,
    /// Whether it meets every limit.
    pub feasible: bool,
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
            Event::Surveyed(_) => self.preparing = None,
            Event::TrialStarted { number, id, origin } => {
                self.preparing = None;
                let (id, origin, stage) = (id.clone(), origin.clone(), String::new());
                self.current = Some(Current { number: *number, id, origin, stage });
            }
            Event::Stage { id, stage } => {
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
            notices: std::mem::take(&mut self.notices),
            started: Some(started.clone()),
            ..Self::default()
        };
    }

    fn finish_trial(&mut self, trial: &TrialFinished) {
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
        self.sample(trial.elapsed, trial.hypervolume);
        let Some(point) = &trial.point else { return };
        if trial.entered {
            self.improved = Some((trial.number, trial.elapsed));
            self.enter(point, &trial.displaced);
        } else if !self.front.iter().any(|other| other.id == point.id) {
            self.explore(point);
        }
    }

    /// Puts a point on the front in place of those that it dominates.
    fn enter(&mut self, point: &FrontPoint, displaced: &[String]) {
        let (gone, mut kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.front)
            .into_iter()
            .partition(|other| other.id == point.id || displaced.contains(&other.id));
        gone.iter().filter(|other| other.id != point.id).for_each(|other| self.explore(other));
        if point.best {
            kept.iter_mut().for_each(|other| other.best = false);
        }
        kept.push(point.clone());
        self.front = kept;
    }

    fn explore(&mut self, point: &FrontPoint) {
        self.explored.push_back(Dot { metrics: point.metrics, feasible: point.feasible });
        self.explored.keep_newest(MAX_DOTS);
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
