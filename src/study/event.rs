//! What happens in a study, as one stream: the journal stores it, the terminal UI, the plain progress
//! and `--json` are three views of it.

use paretune_spaces::Configuration;
use serde::{Deserialize, Serialize};

use super::front::{Front, FrontLimit, FrontPoint, Metrics};
use super::survey::Survey;
use super::trial::Known;
use crate::evaluate::inspect::StepCost;

/// One line of `journal.jsonl` and of `search --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A session of the study begins (again).
    Started(Box<Started>),
    /// Preparation before the first trial makes progress (decoding images, calibration, ...).
    Preparing {
        /// What is being done.
        task: String,
        /// 0 to 1.
        share: f64,
    },
    /// Layers have been timed and their sensitivities measured.
    Surveyed(Box<Survey>),
    /// A trial goes to the worker.
    TrialStarted {
        /// Counts from 1 over the whole study.
        number: u64,
        /// Configuration.
        id: String,
        /// Who proposed it: `untouched`, a recipe's name, or the strategy's.
        origin: String,
    },
    /// A stage of the current trial begins.
    Stage {
        /// Configuration.
        id: String,
        /// `build`, `timing`, `accuracy`.
        stage: String,
    },
    /// A trial has an answer.
    TrialFinished(Box<TrialFinished>),
    /// People have changed what is asked for.
    Changed(Box<Changed>),
    /// The steps of one point have been timed.
    Inspected(Box<Inspected>),
    /// Final points are measured again and scored on the report images.
    Confirming {
        /// Points done.
        done: u64,
        /// Points in all.
        total: u64,
    },
    /// The session ends; the front is what `front.json` now holds.
    Finished {
        /// `budget`, `interrupted`, `exhausted`, `device lost`.
        reason: String,
        /// The archive.
        front: Box<Front>,
    },
    /// Something a person should know that is not a failure of the study.
    Notice {
        /// One sentence.
        text: String,
    },
}

/// Contents of [`Event::Started`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// Program version.
    pub version: String,
    /// Network's name.
    pub model: String,
    /// SHA-256 of the network's file.
    pub model_sha256: String,
    /// Hardware id.
    pub hardware: String,
    /// Processor name.
    pub cpu: String,
    /// Objectives.
    pub objectives: Vec<String>,
    /// Which feasible point is the best: an objective's name or `knee`.
    #[serde(default = "accuracy")]
    pub prefer: String,
    /// Limits.
    pub limits: Vec<FrontLimit>,
    /// As given: `5m`, `500trials`.
    pub budget: String,
    /// Seconds of the budget, if it has any.
    pub budget_seconds: Option<f64>,
    /// Trials of the budget, if it has any.
    pub budget_trials: Option<u64>,
    /// Strategy's name.
    pub strategy: String,
    /// Seed.
    pub seed: u64,
    /// Parameters of the joint space.
    pub parameters: u64,
    /// Decimal logarithm of the number of configurations.
    pub log10_configurations: f64,
    /// Trials that earlier sessions of this study finished.
    pub resumed_trials: u64,
    /// Seconds that earlier sessions took.
    pub resumed_seconds: f64,
    /// Unix seconds of this session's beginning.
    #[serde(default)]
    pub begun: Option<f64>,
}

/// Contents of [`Event::TrialFinished`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialFinished {
    /// Counts from 1 over the whole study.
    pub number: u64,
    /// Configuration.
    pub id: String,
    /// The point as the search sees it (accuracy on search images); `None` where the trial failed.
    pub point: Option<FrontPoint>,
    /// Who proposed it.
    #[serde(default)]
    pub origin: String,
    /// What was tried, where `point` does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Configuration>,
    /// Why it failed.
    pub failure: Option<String>,
    /// Whether every measurement came from the store.
    pub cached: bool,
    /// What was seen of the candidate, as far as it went, even where it was dropped early.
    pub partial: Option<PartialMetrics>,
    /// Exactly what was measured, for resuming; `None` where the trial failed.
    pub known: Option<Known>,
    /// Wall seconds of this trial.
    pub seconds: f64,
    /// Seconds since the study began, all sessions.
    pub elapsed: f64,
    /// Hypervolume of the search's front after this trial.
    pub hypervolume: f64,
    /// Whether the point entered the front.
    pub entered: bool,
    /// Ids that left the front because of it.
    pub displaced: Vec<String>,
    /// Share of its timed runs that nothing disturbed; `None` where nothing was timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<f64>,
    /// Baseline metrics, as soon as they are known.
    pub baseline: Option<Metrics>,
}

fn accuracy() -> String {
    "accuracy".to_owned()
}

/// Contents of [`Event::Changed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// Limits from now on.
    pub limits: Vec<FrontLimit>,
    /// Which feasible point is the best: an objective's name or `knee`.
    pub prefer: String,
    /// As it would be given: `5m`, `500trials`.
    pub budget: String,
    /// Seconds of the budget, if it has any.
    pub budget_seconds: Option<f64>,
    /// Trials of the budget, if it has any.
    pub budget_trials: Option<u64>,
    /// Hypervolume of the search's front, judged again.
    pub hypervolume: f64,
    /// The search's front, judged again.
    pub front: Vec<FrontPoint>,
}

/// Contents of [`Event::Inspected`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspected {
    /// Configuration.
    pub id: String,
    /// Threads that it ran on.
    pub threads: usize,
    /// Every step, in execution order.
    pub steps: Vec<StepCost>,
}

/// Metrics of a trial that was dropped before all of them were known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartialMetrics {
    /// Top-1 so far.
    pub accuracy: Option<f64>,
    /// Seconds so far.
    pub latency: Option<f64>,
    /// Bytes.
    pub size: Option<f64>,
    /// Bytes.
    pub memory: Option<f64>,
}
