//! Events of a study as one stream. The journal stores it; the terminal UI, the plain progress and
//! `--json` are views of it.

use paretune_spaces::Configuration;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, FailureKind};
use crate::front::{Front, FrontPoint, origin};
use crate::limit::Limit;
use crate::measurement::Measurement;
use crate::metric::{Metric, Metrics};
use crate::preference::Preference;
use crate::request::StudyFile;
use crate::step::StepCost;
use crate::stop::StopReason;
use crate::survey::Survey;

/// One line of `journal.jsonl` and of `search --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A session of the study begins or resumes.
    Started(Box<Started>),
    /// Preparation before the first trial makes progress (decoding images, calibration, ...).
    Preparing {
        /// Description of the current task.
        task: String,
        /// Progress from 0 to 1.
        #[serde(alias = "share")]
        fraction: f64,
    },
    /// The survey is complete: layers are timed and their sensitivities measured.
    Surveyed(Box<Survey>),
    /// A trial goes to the worker process.
    TrialStarted {
        /// Number of the trial, counted from 1 over the whole study.
        number: u64,
        /// Content hash of the configuration.
        id: String,
        /// Origin of the proposal: `baseline`, a recipe's name, or the
        /// strategy's.
        #[serde(deserialize_with = "origin")]
        origin: String,
    },
    /// A stage of the current trial begins.
    Stage {
        /// Content hash of the configuration.
        id: String,
        /// Name of the stage: `build`, `timing` or `accuracy`.
        stage: String,
    },
    /// A trial is finished or has failed.
    TrialFinished(Box<TrialFinished>),
    /// The user has changed limits, preference or budget.
    Changed(Box<Changed>),
    /// The steps of one point have been timed.
    Inspected(Box<Inspected>),
    /// The finalists are measured again and scored on the report images.
    Confirming {
        /// Number of steps that are done.
        done: u64,
        /// Number of steps in all.
        total: u64,
    },
    /// The session ends. `front.json` now holds this front.
    Finished {
        /// Reason why the search ended.
        reason: StopReason,
        /// The archive of the study.
        front: Box<Front>,
        /// Points that were measured again and are not on the front.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        dominated: Vec<FrontPoint>,
    },
    /// A message to the user that is not a failure of the study.
    Notice {
        /// The message in one sentence.
        text: String,
    },
}

/// Contents of the event [`Event::Started`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// Version of the program that writes it.
    pub version: String,
    /// Name of the network, from its file.
    pub model: String,
    /// SHA-256 of the network's file.
    pub model_sha256: String,
    /// Hash that identifies the hardware.
    pub hardware: String,
    /// Name of the processor, as it reports itself.
    pub cpu: String,
    /// Objectives that the search trades off.
    pub objectives: Vec<Metric>,
    /// Criterion of the best feasible point.
    #[serde(default)]
    pub prefer: Preference,
    /// Limits that the user asked for.
    pub limits: Vec<Limit>,
    /// Budget as it was given: `5m`, `500trials`.
    pub budget: String,
    /// Time limit in seconds, if the budget has one.
    pub budget_seconds: Option<f64>,
    /// Limit on the number of trials, if the budget has one.
    pub budget_trials: Option<u64>,
    /// Name of the search strategy in use.
    pub strategy: String,
    /// Seed of the random generator.
    pub seed: u64,
    /// Number of parameters of the joint space.
    pub parameters: u64,
    /// Decimal logarithm of the number of configurations.
    pub log10_configurations: f64,
    /// Number of trials that earlier sessions of this study finished.
    pub resumed_trials: u64,
    /// Seconds that earlier sessions took.
    pub resumed_seconds: f64,
    /// Start of this session in Unix seconds.
    #[serde(default)]
    pub begun: Option<f64>,
    /// Names of the OpenCL devices of the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Contents of `study.toml` as the command line asked for it, from which a damaged file is made
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study: Option<Box<StudyFile>>,
}

/// Contents of the event [`Event::TrialFinished`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialFinished {
    /// Number of the trial, counted from 1 over the whole study.
    pub number: u64,
    /// Content hash of the configuration.
    pub id: String,
    /// The point with its accuracy on the search images; `None` if the trial failed.
    pub point: Option<FrontPoint>,
    /// Name of the recipe or strategy that proposed it.
    #[serde(default, deserialize_with = "origin")]
    pub origin: String,
    /// The configuration, if `point` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Configuration>,
    /// Message of the failure, if it failed.
    pub failure: Option<String>,
    /// Kind of the failure; older journals have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_kind: Option<FailureKind>,
    /// Whether every measurement came from the store.
    pub cached: bool,
    /// Metrics of the candidate measured before it was dropped early.
    pub partial: Option<Metrics>,
    /// All measured values, needed to resume the study; `None` if the trial failed.
    pub known: Option<Measurement>,
    /// Wall-clock seconds of this trial.
    pub seconds: f64,
    /// Seconds since the study began, over all sessions.
    pub elapsed: f64,
    /// Hypervolume of the search's front after this trial.
    pub hypervolume: f64,
    /// Whether the point entered the front.
    pub entered: bool,
    /// Ids of the points that it removed from the front.
    pub displaced: Vec<String>,
    /// Fraction of its timed runs without interference; `None` if nothing was timed.
    #[serde(default, alias = "quiet", skip_serializing_if = "Option::is_none")]
    pub undisturbed: Option<f64>,
    /// Metrics of the baseline, once they are known.
    pub baseline: Option<Metrics>,
}

impl TrialFinished {
    /// Returns the configuration of the trial; older journals have none of failed trials.
    #[must_use]
    pub fn configuration(&self) -> Option<&Configuration> {
        self.point.as_ref().map(|point| &point.config).or(self.config.as_ref())
    }

    /// Returns the failure of the trial with its kind, which older journals tell by the wording.
    #[must_use]
    pub fn failed(&self) -> Option<Failure> {
        let message = self.failure.as_deref()?;
        let kind = self.failure_kind.unwrap_or_else(|| FailureKind::of_message(message));
        Some(Failure::new(kind, message))
    }
}

/// Contents of the event [`Event::Changed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// Limits that hold from now on.
    pub limits: Vec<Limit>,
    /// Criterion of the best feasible point: an objective's name or `knee`.
    pub prefer: Preference,
    /// Budget as `--budget` takes it: `5m`, `500trials`.
    pub budget: String,
    /// Time limit in seconds, if the budget has one.
    pub budget_seconds: Option<f64>,
    /// Limit on the number of trials, if the budget has one.
    pub budget_trials: Option<u64>,
    /// Hypervolume of the search's front under the new limits.
    pub hypervolume: f64,
    /// The search's front under the new limits.
    pub front: Vec<FrontPoint>,
}

/// Contents of the event [`Event::Inspected`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspected {
    /// Content hash of the configuration.
    pub id: String,
    /// Number of threads that it ran on.
    pub threads: usize,
    /// Cost of every step in execution order.
    pub steps: Vec<StepCost>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_of_earlier_versions_is_read() {
        let line = r#"{"event":"preparing","task":"calibration","share":0.5}"#;
        let read: Event = serde_json::from_str(line).expect("an event");
        let Event::Preparing { task, fraction } = &read else { panic!("{read:?}") };
        assert_eq!((task.as_str(), *fraction), ("calibration", 0.5));
        let written = serde_json::to_string(&read).expect("an event");
        assert_eq!(written, line.replace("share", "fraction"));
    }
}
