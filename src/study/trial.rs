//! One trial: known results come from the store, the worker measures the others, and every new
//! measurement is recorded before it is used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use paretune_db::{KeyParts, Outcome, Record, Store, StoreError};
use paretune_evaluate::PROTOCOL_VERSION;
use paretune_evaluate::host::{Host, HostError, blame};
use paretune_evaluate::protocol::{
    Ceilings, FastestProbes, Floors, Measured, Refusal, Reply, Request, Rival, TrialRequest,
};
use paretune_evaluate::timing::Effort;
use paretune_joint_space::decode::numerics;
use paretune_record::measurement::Known;
use paretune_record::request::SubjectSpec;
use paretune_record::score::Score;
use paretune_spaces::Configuration;

/// Result of one trial of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// All metrics of the candidate were measured.
    Whole(Known),
    /// Scoring stopped early, because an incumbent is surely better in every objective.
    Dropped(Known),
    /// A metric exceeded its upper bound before everything was measured.
    Refused(Refusal),
    /// The candidate could not be built or run.
    Failed(String),
}

/// Result of a trial and its source.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The result of the trial.
    pub answer: Answer,
    /// Whether nothing had to be measured.
    pub cached: bool,
}

/// Reason why a trial has no result at all, so that the study cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The result store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no worker, or it was interrupted.
    #[error(transparent)]
    Host(HostError),
}

/// Stop criteria: conditions under which a candidate is not measured further.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hopeless {
    /// Upper bounds beyond which it is refused.
    pub ceilings: Ceilings,
    /// Incumbents: feasible points that may surely beat it.
    pub rivals: Vec<Rival>,
    /// Lower bounds of the accuracy. Candidates close to them are scored on more images.
    pub floors: Floors,
}

/// State that all trials of a study share.
pub struct Bench<'s> {
    /// The result store that keeps the measurements.
    pub store: &'s Store,
    /// Network and images that are measured.
    pub subject: SubjectSpec,
    /// Identity of the hardware that measures.
    pub hardware: String,
    /// Fastest observed speeds of the cores.
    pub probes: FastestProbes,
    /// Number of search images of a complete score, if the limits on accuracy are decided by then.
    pub images: u64,
    /// Largest number of search images for one score.
    pub most_images: u64,
    /// Time limit of one trial.
    pub deadline: Duration,
    /// Names of the devices that may be used, as configurations write them.
    pub devices: Vec<String>,
    /// Folder that keeps the bundles of completely measured candidates, each in a folder named by
    /// its content hash.
    pub candidates: Option<PathBuf>,
    /// Fraction of the latest trial's timed runs without interference; `None` if nothing was timed.
    pub quiet: Option<f64>,
}

impl<'s> Bench<'s> {
    /// Creates the state for trials on `subject`, with the fastest probes that the store knows.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub fn new(store: &'s Store, subject: SubjectSpec, hardware: String) -> Result<Self, StoreError> {
        let mut bench = Self {
            store,
            subject,
            hardware,
            probes: FastestProbes::default(),
            images: 0,
            most_images: 0,
            deadline: Duration::from_secs(120),
            devices: Vec::new(),
            candidates: None,
            quiet: None,
        };
        bench.probes = fastest_probes(store, &bench.hardware)?;
        Ok(bench)
    }

    fn parts(&self, kind: &str) -> KeyParts {
        KeyParts::new(kind)
            .with("protocol", PROTOCOL_VERSION)
            .with("program", VERSION)
            .with("network", &self.subject.model)
    }

    fn speed_key(&self, configuration: &Configuration) -> KeyParts {
        self.keyed("speed", configuration)
    }

    /// Returns the key of a result that depends on the whole configuration and on the hardware.
    pub(super) fn keyed(&self, kind: &str, configuration: &Configuration) -> KeyParts {
        self.with_images(self.parts(kind))
            .with("hardware", &self.hardware)
            .with("configuration", configuration.id())
    }

    /// Accuracy depends neither on the hardware nor on schedules.
    fn score_key(&self, kind: &str, configuration: &Configuration) -> KeyParts {
        self.with_images(self.parts(kind)).with("numerics", numerics(configuration).id())
    }

    /// The calibration images determine the quantization grids, and the scored images determine the
    /// score.
    fn with_images(&self, parts: KeyParts) -> KeyParts {
        parts
            .with("images", &self.subject.images)
            .with("normalization", serde_json::to_string(&self.subject.normalization).unwrap_or_default())
    }

    /// Measures `configuration`. The worker `host` runs only for results that the store does not
    /// have.
    ///
    /// # Errors
    /// Fails if the study cannot continue. A failure of the candidate itself is an
    /// [`Answer::Failed`].
    pub fn trial(
        &mut self,
        host: &mut Host,
        configuration: &Configuration,
        hopeless: &Hopeless,
        see: &mut dyn FnMut(&Reply),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Answered, TrialError> {
        self.quiet = None;
        let speed = self.store.get(&self.speed_key(configuration).key())?;
        if let Some(Record { outcome: Outcome::Failed { reason }, .. }) = &speed {
            return Ok(Answered { answer: Answer::Failed(reason.clone()), cached: true });
        }
        let known_score = self.known_score("search-score", configuration)?;
        let known_speed = speed.as_ref().and_then(Speed::of);
        if let Some(speed) = known_speed {
            let known = speed.with(known_score);
            let images = [self.images, self.most_images];
            let most =
                Rival::enough_images(&hopeless.rivals, images, known.latency[1], known.size, known.memory);
            if self.images > 0 && hopeless.floors.enough(&known_score, self.images, most) {
                return Ok(Answered { answer: Answer::Whole(known), cached: true });
            }
            if known_score.total > 0 && beaten(&known, &hopeless.rivals) {
                return Ok(Answered { answer: Answer::Dropped(known), cached: true });
            }
        }
        // The size of the weights depends on no schedule, so a known size of another schedule may
        // already exceed the bound.
        if known_speed.is_none()
            && let Some(ceiling) = hopeless.ceilings.size
            && let Some(record) = self.store.get(&self.score_key(WEIGHTS, configuration).key())?
            && let Some(size) = record.value("bytes").filter(|&bytes| bytes >= ceiling)
        {
            let seen = Refusal { size, memory: None, latency: None };
            return Ok(Answered { answer: Answer::Refused(seen), cached: true });
        }
        if known_speed.is_none()
            && let Some(record) = self.store.get(&self.keyed(REFUSED, configuration).key())?
            && let Some(seen) = refusal_of(&record)
            && hopeless.ceilings.refuse(&seen)
        {
            return Ok(Answered { answer: Answer::Refused(seen), cached: true });
        }
        let images = if self.images > 0 { self.images } else { FIRST_IMAGES };
        let request = Request::Trial(Box::new(TrialRequest {
            id: configuration.id(),
            configuration: configuration.clone(),
            effort: known_speed.is_none().then_some(Effort::TRIAL),
            known_latency_low: known_speed.map_or(0.0, |speed| speed.latency[1]),
            known_score,
            images,
            keep: self.candidates.as_ref().map(|folder| folder.join(configuration.id())),
            most_images: images.max(self.most_images),
            floors: hopeless.floors,
            ceilings: hopeless.ceilings,
            rivals: hopeless.rivals.clone(),
        }));
        host.probes.clone_from(&self.probes);
        host.ready(see, interrupted).map_err(TrialError::Host)?;
        match host.ask(&request, self.deadline, see, interrupted) {
            Ok(Reply::Measured(measured)) => {
                let mut answered = self.record(configuration, known_speed, &measured)?;
                // The worker ran, but there was nothing left to measure.
                answered.cached = measured.timing.is_none() && measured.score == known_score;
                Ok(answered)
            }
            Ok(Reply::Refused { seen, weights }) => {
                self.put_weights(configuration, weights)?;
                if let Some(memory) = seen.memory {
                    let mut values =
                        BTreeMap::from([("size".to_owned(), seen.size), ("memory".to_owned(), memory)]);
                    values.extend(seen.latency.map(|latency| ("latency".to_owned(), latency)));
                    let key = self.keyed(REFUSED, configuration);
                    self.store.put(&Record::measured(key, values, &[], VERSION))?;
                }
                Ok(Answered { answer: Answer::Refused(seen), cached: false })
            }
            Ok(other) => self.failed(configuration, &format!("unexpected reply: {other:?}")),
            Err(error) => match blame(host.command(), &self.devices, error, interrupted) {
                error @ (HostError::Start(_) | HostError::Interrupted | HostError::DeviceLost { .. }) => {
                    Err(TrialError::Host(error))
                }
                error => self.failed(configuration, &error.to_string()),
            },
        }
    }

    fn record(
        &mut self,
        configuration: &Configuration,
        known_speed: Option<Speed>,
        measured: &Measured,
    ) -> Result<Answered, TrialError> {
        if measured.probes != self.probes {
            self.probes.clone_from(&measured.probes);
            remember_probes(self.store, &self.hardware, &self.probes)?;
        }
        let speed = match (&measured.timing, known_speed) {
            (Some(timing), _) => Speed {
                latency: [timing.median, timing.low, timing.high],
                size: real(measured.size),
                memory: real(measured.memory),
            },
            (None, Some(speed)) => speed,
            (None, None) => return self.failed(configuration, "the worker sent no timing"),
        };
        self.put_weights(configuration, measured.weights)?;
        if let Some(timing) = &measured.timing {
            self.quiet = Some(timing.quiet);
            let mut values = speed.values();
            values.insert("quiet".to_owned(), timing.quiet);
            self.store.put(&Record::measured(
                self.speed_key(configuration),
                values,
                &timing.samples,
                VERSION,
            ))?;
        }
        self.put_score("search-score", configuration, measured.score)?;
        let known = speed.with(measured.score);
        let answer = if measured.dropped { Answer::Dropped(known) } else { Answer::Whole(known) };
        Ok(Answered { answer, cached: false })
    }

    /// Stores the size of the weights on disk in bytes.
    fn put_weights(&self, configuration: &Configuration, bytes: u64) -> Result<(), StoreError> {
        let values = [("bytes".to_owned(), real(bytes))].into();
        self.store.put(&Record::measured(self.score_key(WEIGHTS, configuration), values, &[], VERSION))
    }

    fn failed(&self, configuration: &Configuration, reason: &str) -> Result<Answered, TrialError> {
        self.store.put(&Record::failed(self.speed_key(configuration), reason, VERSION))?;
        Ok(Answered { answer: Answer::Failed(reason.to_owned()), cached: false })
    }

    /// Returns the score of `configuration` that the store has for search or report images.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub fn known_score(&self, kind: &str, configuration: &Configuration) -> Result<Score, StoreError> {
        let record = self.store.get(&self.score_key(kind, configuration).key())?;
        Ok(record.as_ref().and_then(score_of).unwrap_or_default())
    }

    /// Stores a score.
    ///
    /// # Errors
    /// Fails if the store cannot be written.
    pub fn put_score(
        &self,
        kind: &str,
        configuration: &Configuration,
        score: Score,
    ) -> Result<(), StoreError> {
        let values = [
            ("total", score.total),
            ("correct", score.correct),
            ("lost", score.lost),
            ("gained", score.gained),
        ];
        let values = values.into_iter().map(|(name, count)| (name.to_owned(), real(count))).collect();
        self.store.put(&Record::measured(self.score_key(kind, configuration), values, &[], VERSION))
    }
}

/// Returns the fastest observed speeds of the cores of `hardware`. They do not depend on networks.
///
/// # Errors
/// Fails if the store cannot be read.
pub fn fastest_probes(store: &Store, hardware: &str) -> Result<FastestProbes, StoreError> {
    let mut probes = FastestProbes::default();
    if let Some(Record { outcome: Outcome::Measured(values), .. }) = store.get(&probe_key(hardware).key())? {
        for (threads, seconds) in &values {
            if let Ok(threads) = threads.parse() {
                probes.set(threads, *seconds);
            }
        }
    }
    Ok(probes)
}

/// Stores the speeds that [`fastest_probes`] returns.
///
/// # Errors
/// Fails if the store cannot be written.
pub fn remember_probes(store: &Store, hardware: &str, probes: &FastestProbes) -> Result<(), StoreError> {
    let values = probes.0.iter().map(|(threads, seconds)| (threads.to_string(), *seconds)).collect();
    store.put(&Record::measured(probe_key(hardware), values, &[], VERSION))
}

fn probe_key(hardware: &str) -> KeyParts {
    KeyParts::new("probe").with("protocol", PROTOCOL_VERSION).with("hardware", hardware)
}

/// Version of the program, part of every key: other kernels have other speeds.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Kind of the records of the size of weights on disk.
const WEIGHTS: &str = "weights";

/// Kind of the records of refused candidates.
const REFUSED: &str = "refused";

/// Number of search images for the baseline, before its latency is known.
const FIRST_IMAGES: u64 = 512;

fn refusal_of(record: &Record) -> Option<Refusal> {
    Some(Refusal {
        size: record.value("size")?,
        memory: Some(record.value("memory")?),
        latency: record.value("latency"),
    })
}

/// Returns whether an incumbent is surely better in every objective.
fn beaten(known: &Known, rivals: &[Rival]) -> bool {
    let best_case = known.score.interval()[1];
    rivals.iter().any(|rival| rival.surely_beats(known.latency[1], known.size, known.memory, best_case))
}

#[derive(Clone, Copy)]
struct Speed {
    latency: [f64; 3],
    size: f64,
    memory: f64,
}

impl Speed {
    fn of(record: &Record) -> Option<Self> {
        let latency = [record.value("latency")?, record.value("latency-low")?, record.value("latency-high")?];
        Some(Self { latency, size: record.value("size")?, memory: record.value("memory")? })
    }

    fn values(&self) -> BTreeMap<String, f64> {
        let [median, low, high] = self.latency;
        [
            ("latency", median),
            ("latency-low", low),
            ("latency-high", high),
            ("size", self.size),
            ("memory", self.memory),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    fn with(self, score: Score) -> Known {
        Known { score, latency: self.latency, size: self.size, memory: self.memory }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be small whole counts"
)]
fn score_of(record: &Record) -> Option<Score> {
    let count = |name| {
        let value = record.value(name)?;
        (0.0..=1e15).contains(&value).then_some(value as u64)
    };
    Some(Score {
        total: count("total")?,
        correct: count("correct")?,
        lost: count("lost")?,
        gained: count("gained")?,
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts and bytes are far below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}
