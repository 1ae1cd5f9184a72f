//! Messages between the search and a worker process: one JSON object a line, requests on the
//! worker's standard input, replies on its standard output.
//!
//! A trial is self-contained: a configuration and content hashes go in, metrics and raw samples
//! come out. The two processes need not run on the same machine; the worker only has to find the
//! artefacts that the hashes name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use paretune_record::failure::FailureKind;
use paretune_record::metric::Metrics;
use paretune_record::request::WorkloadSpec;
use paretune_record::score::Score;
use paretune_record::step::StepCost;
use paretune_spaces::Configuration;
use serde::{Deserialize, Serialize};

use super::stop::StopCriteria;
use super::timing::{Effort, Timing};

/// Seconds of the fastest observed speed probe by number of threads. They are pairs, because JSON
/// has no numeric keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FastestProbes(pub Vec<(usize, f64)>);

impl FastestProbes {
    /// Returns the seconds of the fastest probe on `threads`; 0 if there was none.
    #[must_use]
    pub fn get(&self, threads: usize) -> f64 {
        self.0.iter().find(|(count, _)| *count == threads).map_or(0.0, |(_, seconds)| *seconds)
    }

    /// Records the fastest probe on `threads`.
    pub fn set(&mut self, threads: usize, seconds: f64) {
        match self.0.iter_mut().find(|(count, _)| *count == threads) {
            Some((_, known)) => *known = seconds,
            None => self.0.push((threads, seconds)),
        }
    }
}

/// Messages from the search to the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Loads and prepares the workload; the first request.
    Open {
        /// Description of the workload to load.
        workload: WorkloadSpec,
        /// Limit on the worker's memory in bytes.
        memory_limit: Option<u64>,
        /// Fastest observed speeds of the cores.
        probes: FastestProbes,
    },
    /// Builds, times and scores one configuration.
    Trial(Box<TrialRequest>),
    /// Times several bundles in turns; needs no workload.
    Time(TimeRequest),
    /// Times every step of one configuration with round-to-nearest weights.
    Profile {
        /// The configuration that is to be timed.
        configuration: Configuration,
        /// Duration of the timing in seconds.
        seconds: f64,
    },
    /// Times every step of one configuration and reports its other costs.
    Inspect {
        /// The configuration that is to be inspected.
        configuration: Configuration,
        /// Duration of the timing in seconds.
        seconds: f64,
    },
    /// Compares the outputs of one configuration with those of the baseline.
    Loss {
        /// The configuration to compare; its schedules are ignored.
        configuration: Configuration,
        /// Number of search images to compare on.
        images: u64,
    },
    /// Prunes all channels by one threshold that leaves a given fraction of the multiply-adds, and
    /// returns the kept fraction of each group.
    Thin {
        /// Fraction of the multiply-adds to keep.
        work: f64,
    },
    /// Returns the importance of channels.
    Rank,
    /// Checks whether a device answers; needs no workload.
    Device {
        /// Name of the device, as configurations write it.
        backend: String,
    },
    /// Scores a bundle on images of the report part.
    Report {
        /// Folder that holds the bundle.
        bundle: PathBuf,
        /// Index of the first image.
        from: u64,
        /// Index after the last image.
        to: u64,
    },
    /// Writes one configuration as a bundle.
    Export {
        /// The configuration that is to be written.
        configuration: Configuration,
        /// Content hash of the configuration.
        id: String,
        /// Folder of the new bundle.
        folder: PathBuf,
    },
}

/// A request to time bundles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimeRequest {
    /// Folders that hold the bundles.
    pub bundles: Vec<PathBuf>,
    /// Number of threads for all bundles; `None` for each bundle's own number.
    pub threads: Option<usize>,
    /// Number of images per run.
    pub batch: usize,
    /// Precision and time limit for each bundle.
    pub effort: Effort,
    /// Fastest observed speeds of the cores.
    pub probes: FastestProbes,
}

/// A request for one trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialRequest {
    /// Content hash of the configuration.
    pub id: String,
    /// The configuration that is to be measured.
    pub configuration: Configuration,
    /// Precision and time limit of the timing; `None` if the latency is known.
    pub effort: Option<Effort>,
    /// Lower end of the latency's interval in seconds, if the latency is known; else 0.
    pub known_latency_low: f64,
    /// Score over the search images that are already scored.
    pub known_score: Score,
    /// Number of search images of a complete score, if the limits on accuracy are decided by then.
    pub images: u64,
    /// Largest number of search images.
    pub most_images: u64,
    /// Folder for its bundle, written if it is measured completely.
    pub keep: Option<PathBuf>,
    /// Rules that end the measurement early.
    pub stop: StopCriteria,
}

/// Messages from the worker to the search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Progress of a preparation that takes long.
    Preparing {
        /// Description of the current task.
        task: String,
        /// Progress from 0 to 1.
        fraction: f64,
    },
    /// The workload is ready for requests.
    Opened,
    /// A stage of a trial begins: `build`, `timing`, `accuracy`.
    Stage {
        /// Name of the stage that begins.
        stage: String,
    },
    /// Reply to a complete or dropped trial.
    Measured(Box<Measured>),
    /// Reply to a trial that exceeds an upper bound.
    Rejected {
        /// Metrics of the candidate that are known.
        seen: Metrics,
        /// Bytes of its weights on disk.
        weights: u64,
    },
    /// Reply to [`Request::Time`], in the order of the request.
    Timed {
        /// Timings, one for each bundle.
        timings: Vec<Timing>,
    },
    /// Reply to [`Request::Profile`] with times.
    Profiled {
        /// Name and seconds of each step, in execution order.
        steps: Vec<(String, f64)>,
    },
    /// Reply to [`Request::Inspect`] with costs.
    Inspected {
        /// Number of threads that it ran on.
        threads: usize,
        /// Cost of every step in execution order.
        steps: Vec<StepCost>,
    },
    /// Reply to [`Request::Loss`] with the loss.
    Lost {
        /// Loss in nats per image.
        loss: f64,
    },
    /// Reply to [`Request::Thin`] with fractions.
    Thinned {
        /// Kept fraction of the channels for every group that loses some.
        shares: BTreeMap<String, f64>,
    },
    /// Reply to [`Request::Rank`] with costs.
    Ranked {
        /// Importance of the removed channels by group and kept fraction, ascending; see
        /// [`paretune_compress::channel_costs`].
        costs: BTreeMap<String, Vec<(f64, f64)>>,
    },
    /// Reply to [`Request::Report`] with a score.
    Reported {
        /// Score over the requested images.
        score: Score,
    },
    /// The bundle has been written.
    Exported {
        /// Size of the bundle in bytes.
        bytes: u64,
    },
    /// The device exists and answers.
    Present,
    /// The request failed, and a device no longer answers in this process.
    Unwell {
        /// Message of the failure for the user.
        reason: String,
    },
    /// The request failed. The worker continues.
    Failed {
        /// Kind of the failure.
        kind: FailureKind,
        /// Message of the failure for the user.
        reason: String,
    },
}

/// Metrics that one trial has measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Exact size of the bundle in bytes.
    pub size: u64,
    /// Bytes of `weights.bin` within that size.
    pub weights: u64,
    /// Peak bytes allocated for it during a run.
    pub memory: u64,
    /// The timing, if it was requested.
    pub timing: Option<Timing>,
    /// Seconds of the fastest probes that this worker knows.
    pub probes: FastestProbes,
    /// Score over all images scored so far, including earlier trials.
    pub score: Score,
    /// Whether scoring ended early because an incumbent is surely better.
    pub dropped: bool,
}
