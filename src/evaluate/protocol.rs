//! What the search and a worker process say to each other: one JSON object a line, requests on the
//! worker's standard input, replies on its standard output.
//!
//! A trial is self-contained: a configuration and content hashes go in, metrics and raw samples come
//! out. Nothing here assumes that both run on the same machine, only that the worker can find the
//! artefacts that the hashes name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use paretune_spaces::Configuration;
use serde::{Deserialize, Serialize};

use super::accuracy::{Normalization, Score};
use super::inspect::StepCost;
use super::timing::{Effort, Timing};

/// What all trials of a session are about, by content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubjectSpec {
    /// Folder with the artefacts that the hashes below name.
    pub artefacts: PathBuf,
    /// Folder with compressed layers, shared by studies.
    pub layers: PathBuf,
    /// For people and bundles.
    pub name: String,
    /// SHA-256 of the network's file; the artefact `SHA256.network`.
    pub model: String,
    /// Content hash of the three parts of the images; the artefact `HASH.images`.
    pub images: String,
    /// How images become inputs.
    pub normalization: Normalization,
}

/// Seconds of the fastest speed probe ever seen, by number of threads: pairs, as JSON knows no numbers as keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FastestProbes(pub Vec<(usize, f64)>);

impl FastestProbes {
    /// Seconds of the fastest probe on `threads`; 0 where there was none.
    #[must_use]
    pub fn get(&self, threads: usize) -> f64 {
        self.0.iter().find(|(count, _)| *count == threads).map_or(0.0, |(_, seconds)| *seconds)
    }

    /// Notes what was seen on `threads`.
    pub fn set(&mut self, threads: usize, seconds: f64) {
        match self.0.iter_mut().find(|(count, _)| *count == threads) {
            Some((_, known)) => *known = seconds,
            None => self.0.push((threads, seconds)),
        }
    }
}

/// From the search to the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Loads and prepares the subject; the first request.
    Open {
        /// What to load.
        subject: SubjectSpec,
        /// Bytes of address space that the worker may use.
        memory_limit: Option<u64>,
        /// How fast its cores were seen to be.
        probes: FastestProbes,
    },
    /// Builds, times and scores one configuration.
    Trial(Box<TrialRequest>),
    /// Times several bundles interleaved; needs no subject.
    Time(TimeRequest),
    /// Times every step of one configuration, with weights that nobody took pains over.
    Profile {
        /// What to time.
        configuration: Configuration,
        /// For how long.
        seconds: f64,
    },
    /// Times every step of one configuration and tells what else each costs.
    Inspect {
        /// What to look into.
        configuration: Configuration,
        /// For how long to time.
        seconds: f64,
    },
    /// Compares one configuration's outputs with the untouched network's.
    Loss {
        /// What to compare; schedules do not matter.
        configuration: Configuration,
        /// On how many search images.
        images: u64,
    },
    /// Says how many channels of each group stay when one threshold over all of them leaves a share of the
    /// multiply-adds.
    Thin {
        /// That share.
        work: f64,
    },
    /// Says what channels are worth.
    Rank,
    /// Whether a device answers. Needs no subject.
    Device {
        /// As in configurations.
        backend: String,
    },
    /// Scores a bundle on images of the report part.
    Report {
        /// What to score.
        bundle: PathBuf,
        /// The first image.
        from: u64,
        /// The one after the last.
        to: u64,
    },
    /// Writes one configuration as a bundle.
    Export {
        /// What to write.
        configuration: Configuration,
        /// Its content hash.
        id: String,
        /// The bundle's folder.
        folder: PathBuf,
    },
}

/// Bundles to time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimeRequest {
    /// Their folders.
    pub bundles: Vec<PathBuf>,
    /// Threads for all of them; `None` for those that each was made for.
    pub threads: Option<usize>,
    /// Images at a time.
    pub batch: usize,
    /// How well to time each.
    pub effort: Effort,
    /// How fast the cores were seen to be.
    pub probes: FastestProbes,
}

/// One trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialRequest {
    /// Content hash of the configuration.
    pub id: String,
    /// What to measure.
    pub configuration: Configuration,
    /// How well to time it; `None` where its latency is known already.
    pub effort: Option<Effort>,
    /// Lower end of its latency's interval where that is known already; else 0.
    pub known_latency_low: f64,
    /// What is known of its answers on the search images.
    pub known_score: Score,
    /// How many search images are enough, once it is decided whether limits on accuracy are kept.
    pub images: u64,
    /// How many are enough in any case.
    pub most_images: u64,
    /// Limits on accuracy.
    pub floors: Floors,
    /// What makes everything else pointless.
    pub ceilings: Ceilings,
    /// Where its bundle is written if it is measured whole.
    pub keep: Option<PathBuf>,
    /// Points that make more images pointless: where one of them is at least as good in everything else
    /// and surely more accurate, the candidate is dropped.
    pub rivals: Vec<Rival>,
}

/// Values at and beyond which a candidate is refused with as little work as it takes to see that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Seconds.
    pub latency: Option<f64>,
    /// Bytes of the bundle.
    pub size: Option<f64>,
    /// Peak bytes during a run.
    pub memory: Option<f64>,
}

impl Ceilings {
    /// A candidate whose fastest run takes this many times as long as it may is not timed any further: no
    /// stranger slows the fastest of a few runs by so much.
    const HOPELESSLY_SLOW: f64 = 2.0;

    /// Whether what was seen of a candidate is enough to refuse it.
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

/// Limits on accuracy, judged on the pessimistic end of an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Floors {
    /// Accuracy that has to be exceeded.
    pub accuracy: Option<f64>,
    /// What may be lost of the untouched network's accuracy, less than.
    pub drop: Option<f64>,
}

impl Floors {
    /// Whether `score` leaves it open whether a limit is kept.
    #[must_use]
    pub fn undecided(&self, score: &Score) -> bool {
        let [low, high] = score.interval();
        let (_, [least, most]) = score.drop();
        !self.missed(score)
            && (self.accuracy.is_some_and(|floor| low <= floor && floor < high)
                || self.drop.is_some_and(|ceiling| least < ceiling && ceiling <= most))
    }

    /// Whether a limit is surely not kept.
    #[must_use]
    pub fn missed(&self, score: &Score) -> bool {
        let (_, [least, _]) = score.drop();
        self.accuracy.is_some_and(|floor| score.interval()[1] <= floor)
            || self.drop.is_some_and(|ceiling| least >= ceiling)
    }

    /// Whether `score` is enough: so many images were seen and every limit is decided, or `most` were.
    #[must_use]
    pub fn enough(&self, score: &Score, images: u64, most: u64) -> bool {
        score.total >= images && (score.total >= most || !self.undecided(score))
    }
}

/// What was seen of a candidate that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// Bytes of the bundle; where those of its weights are too many, these alone.
    pub size: f64,
    /// Peak bytes during a run.
    pub memory: Option<f64>,
    /// Seconds of the fastest of a few runs.
    pub latency: Option<f64>,
}

/// What a candidate has to beat in at least one respect.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rival {
    /// Lower end of its accuracy's interval.
    pub accuracy: f64,
    /// Upper end of its latency's interval, seconds. Here and below 0 where the metric is no objective: then
    /// it cannot save the candidate.
    pub latency: f64,
    /// Bytes.
    pub size: f64,
    /// Bytes.
    pub memory: f64,
}

impl Rival {
    /// Whether a candidate of which this much is known cannot be better in any respect.
    #[must_use]
    pub fn surely_beats(&self, latency_low: f64, size: f64, memory: f64, accuracy_high: f64) -> bool {
        self.surely_costs_less(latency_low, size, memory) && self.accuracy > accuracy_high
    }

    /// How many of the images are enough for a candidate of which this much is known: the first number where one of `rivals`
    /// cannot be beaten in any respect but accuracy, else the second.
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

    /// Whether a candidate of which this much is known cannot be better in any respect but accuracy.
    fn surely_costs_less(&self, latency_low: f64, size: f64, memory: f64) -> bool {
        self.latency <= latency_low && self.size <= size && self.memory <= memory
    }
}

/// From the worker to the search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Preparation makes progress.
    Preparing {
        /// What is being done.
        task: String,
        /// 0 to 1.
        share: f64,
    },
    /// The subject is ready.
    Opened,
    /// A stage of a trial begins: `build`, `timing`, `accuracy`.
    Stage {
        /// Its name.
        stage: String,
    },
    /// The answer to a trial.
    Measured(Box<Measured>),
    /// The answer to a trial that is beyond a ceiling.
    Refused {
        /// What was seen of it.
        seen: Refusal,
        /// Bytes of its weights on disk.
        weights: u64,
    },
    /// The answer to a timing, in the order asked.
    Timed {
        /// One per bundle.
        timings: Vec<Timing>,
    },
    /// The answer to a profile.
    Profiled {
        /// Name and seconds of each step, in execution order.
        steps: Vec<(String, f64)>,
    },
    /// The answer to an inspection.
    Inspected {
        /// Threads that it ran on.
        threads: usize,
        /// Every step, in execution order.
        steps: Vec<StepCost>,
    },
    /// The answer to a loss.
    Lost {
        /// Nats per image.
        loss: f64,
    },
    /// The answer to thinning.
    Thinned {
        /// By group that loses channels: the share that is kept.
        shares: BTreeMap<String, f64>,
    },
    /// The answer to ranking.
    Ranked {
        /// By group and share that is kept, ascending: what those that go are worth, see
        /// [`crate::compress::channel_costs`].
        costs: BTreeMap<String, Vec<(f64, f64)>>,
    },
    /// The answer to a report.
    Reported {
        /// Right answers.
        score: Score,
    },
    /// The bundle is written.
    Exported {
        /// Its bytes on disk.
        bytes: u64,
    },
    /// The device is there and answers.
    Present,
    /// The request could not be answered, and a device no longer answers in this process.
    Unwell {
        /// Why.
        reason: String,
    },
    /// The request could not be answered; the worker lives on.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Metrics of one trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Bytes of the bundle, exact.
    pub size: u64,
    /// Of those, of `weights.bin`.
    pub weights: u64,
    /// Peak bytes allocated for it during a run.
    pub memory: u64,
    /// If asked for.
    pub timing: Option<Timing>,
    /// Seconds of the fastest probes that this worker knows of.
    pub probes: FastestProbes,
    /// Everything known of its answers, what was known before included.
    pub score: Score,
    /// Whether scoring ended early because a rival is surely better.
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
        // A few runs say little about what is a bit too slow.
        assert!(!ceilings.refuse(&seen(1e5, Some(1.5e-3))));
        assert!(ceilings.refuse(&seen(1e5, Some(2.1e-3))));
        assert!(!Ceilings::default().refuse(&seen(1e12, Some(1e3))));
    }
}
