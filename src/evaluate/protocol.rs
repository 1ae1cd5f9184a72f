//! Messages between the search and a worker process: one JSON object a line, requests on the
//! worker's standard input, replies on its standard output.
//!
//! A trial is self-contained: a configuration and content hashes go in, metrics and raw samples
//! come out. The two processes need not run on the same machine; the worker only has to find the
//! artefacts that the hashes name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use paretune_record::request::SubjectSpec;
use paretune_record::score::Score;
use paretune_record::step::StepCost;
use paretune_spaces::Configuration;
use serde::{Deserialize, Serialize};

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
        subject: SubjectSpec,
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
    /// Lower bounds of the accuracy.
    pub floors: Floors,
    /// Upper bounds of the other metrics.
    pub ceilings: Ceilings,
    /// Folder for its bundle, written if it is measured completely.
    pub keep: Option<PathBuf>,
    /// Incumbents. The candidate is dropped if one of them is at least as good in every other
    /// objective and surely more accurate.
    pub rivals: Vec<Rival>,
}

/// Upper bounds of metrics. A candidate at or beyond one is refused as early as possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Bound of the latency in seconds.
    pub latency: Option<f64>,
    /// Bound of the bundle's size in bytes.
    pub size: Option<f64>,
    /// Bound of the peak memory of a run in bytes.
    pub memory: Option<f64>,
}

impl Ceilings {
    /// Factor on the latency bound at which the fastest of a few runs ends the timing. Interference
    /// never slows the fastest of a few runs by that much.
    const HOPELESSLY_SLOW: f64 = 2.0;

    /// Returns whether the metrics seen so far are enough to refuse a candidate.
    #[must_use]
    pub fn refuse(&self, seen: &Refusal) -> bool {
        let beyond = |value: Option<f64>, ceiling: Option<f64>| {
            value.zip(ceiling).is_some_and(|(value, ceiling)| value >= ceiling)
        };
        beyond(Some(seen.size), self.size)
            || beyond(seen.memory, self.memory)
            || beyond(seen.latency, self.latency.map(|ceiling| Self::HOPELESSLY_SLOW * ceiling))
    }
}

/// Bounds of the accuracy, judged on the pessimistic end of an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Floors {
    /// Accuracy that must be exceeded.
    pub accuracy: Option<f64>,
    /// Upper bound of the loss of accuracy against the baseline.
    pub drop: Option<f64>,
}

impl Floors {
    /// Returns whether `score` leaves it undecided whether a limit is kept.
    #[must_use]
    pub fn undecided(&self, score: &Score) -> bool {
        let [low, high] = score.interval();
        let (_, [least, most]) = score.drop();
        !self.missed(score)
            && (self.accuracy.is_some_and(|floor| low <= floor && floor < high)
                || self.drop.is_some_and(|ceiling| least < ceiling && ceiling <= most))
    }

    /// Returns whether a limit is surely missed.
    #[must_use]
    pub fn missed(&self, score: &Score) -> bool {
        let (_, [least, _]) = score.drop();
        self.accuracy.is_some_and(|floor| score.interval()[1] <= floor)
            || self.drop.is_some_and(|ceiling| least >= ceiling)
    }

    /// Returns whether `score` is complete: over at least `images` images with every limit decided,
    /// or over `most` images.
    #[must_use]
    pub fn enough(&self, score: &Score, images: u64, most: u64) -> bool {
        score.total >= images && (score.total >= most || !self.undecided(score))
    }
}

/// Metrics of a refused candidate, as far as they are known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// Bytes of the bundle, or of its weights alone if these exceed the bound.
    pub size: f64,
    /// Peak bytes of a run.
    pub memory: Option<f64>,
    /// Seconds of the fastest of a few runs.
    pub latency: Option<f64>,
}

/// An incumbent, which a candidate has to beat in at least one objective.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rival {
    /// Lower end of its accuracy's interval.
    pub accuracy: f64,
    /// Upper end of its latency's interval in seconds. This and the following metrics are 0 if they
    /// are no objective, so that they cannot save the candidate.
    pub latency: f64,
    /// Size of its bundle in bytes.
    pub size: f64,
    /// Peak memory of a run in bytes.
    pub memory: f64,
}

impl Rival {
    /// Returns whether a candidate with these bounds cannot be better in any objective.
    #[must_use]
    pub fn surely_beats(&self, latency_low: f64, size: f64, memory: f64, accuracy_high: f64) -> bool {
        self.surely_costs_less(latency_low, size, memory) && self.accuracy > accuracy_high
    }

    /// Returns how many images are enough for a candidate with these bounds: the first number if an
    /// incumbent can be beaten in accuracy only, else the second.
    #[must_use]
    pub fn enough_images(
        rivals: &[Self],
        [few, most]: [u64; 2],
        latency_low: f64,
        size: f64,
        memory: f64,
    ) -> u64 {
        if rivals.iter().any(|rival| rival.surely_costs_less(latency_low, size, memory)) { few } else { most }
    }

    /// Returns whether a candidate with these bounds can be better in accuracy only.
    fn surely_costs_less(&self, latency_low: f64, size: f64, memory: f64) -> bool {
        self.latency <= latency_low && self.size <= size && self.memory <= memory
    }
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
        share: f64,
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
    Refused {
        /// Metrics of the candidate that are known.
        seen: Refusal,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_surely_beyond_a_ceiling_is_refused() {
        let ceilings = Ceilings { latency: Some(1e-3), size: Some(1e6), memory: None };
        let seen = |size, latency| Refusal { size, memory: Some(1e12), latency };
        assert!(!ceilings.refuse(&seen(9.9e5, None)));
        assert!(ceilings.refuse(&seen(1e6, None)));
        // A few runs cannot reject a candidate that is only slightly too slow.
        assert!(!ceilings.refuse(&seen(1e5, Some(1.5e-3))));
        assert!(ceilings.refuse(&seen(1e5, Some(2.1e-3))));
        assert!(!Ceilings::default().refuse(&seen(1e12, Some(1e3))));
    }
}
