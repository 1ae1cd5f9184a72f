//! One trial: known results come from the store, the worker measures the others, and every new
//! measurement is recorded before it is used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use paretune_db::{KeyParts, Outcome, Record, Store, StoreError};
use paretune_evaluate::PROTOCOL_VERSION;
use paretune_evaluate::host::{Host, HostError, blame};
use paretune_evaluate::protocol::{FastestProbes, Measured, Reply, Request, TrialRequest};
use paretune_evaluate::stop::StopCriteria;
use paretune_evaluate::timing::Effort;
use paretune_joint_space::decode::numerics;
use paretune_kernels::registry;
use paretune_record::event::TrialFinished;
use paretune_record::failure::{Failure, FailureKind};
use paretune_record::measurement::Measurement;
use paretune_record::metric::{Metric, Metrics};
use paretune_record::request::WorkloadSpec;
use paretune_record::score::Score;
use paretune_spaces::Configuration;

/// Result of one trial of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum TrialOutcome {
    /// All metrics of the candidate were measured.
    Measured(Measurement),
    /// Scoring stopped early, because an incumbent is surely better in every objective.
    Dropped(Measurement),
    /// A metric exceeded its upper bound before everything was measured.
    Rejected(Metrics),
    /// The candidate could not be built or run.
    Failed(Failure),
}

impl TrialOutcome {
    /// Reads the outcome of a trial that the journal records.
    #[must_use]
    pub fn of(trial: &TrialFinished) -> Self {
        match (trial.failed(), trial.known, &trial.point) {
            (Some(failure), ..) => Self::Failed(failure),
            (None, Some(known), Some(_)) => Self::Measured(known),
            (None, Some(known), None) => Self::Dropped(known),
            (None, None, _) => Self::Rejected(trial.partial.unwrap_or_default()),
        }
    }

    /// Returns the measurement, if every metric was measured.
    #[must_use]
    pub fn measurement(&self) -> Option<&Measurement> {
        match self {
            Self::Measured(measurement) | Self::Dropped(measurement) => Some(measurement),
            Self::Rejected(_) | Self::Failed(_) => None,
        }
    }

    /// Returns the metrics of a candidate that was dropped or rejected.
    #[must_use]
    pub fn partial(&self) -> Option<Metrics> {
        match self {
            Self::Dropped(measurement) => Some(measurement.metrics()),
            Self::Rejected(seen) => Some(*seen),
            Self::Measured(_) | Self::Failed(_) => None,
        }
    }

    /// Returns the failure, if the candidate failed.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            _ => None,
        }
    }
}

/// Result of a trial and its source.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialResult {
    /// The result of the trial.
    pub outcome: TrialOutcome,
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

/// State that all trials of a study share.
pub struct TrialRunner<'s> {
    /// The result store that keeps the measurements.
    pub store: &'s Store,
    /// Network and images that are measured.
    pub workload: WorkloadSpec,
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
    /// Content hash of the baseline's configuration. A failure of it says something about the
    /// machine alone and is never recorded.
    pub baseline: Option<String>,
    /// Fraction of the latest trial's timed runs without interference; `None` if nothing was timed.
    pub undisturbed: Option<f64>,
}

impl<'s> TrialRunner<'s> {
    /// Creates the state for trials on `workload`, with the fastest probes that the store knows.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub fn new(
        store: &'s Store,
        workload: WorkloadSpec,
        hardware: String,
    ) -> Result<Self, StoreError> {
        let mut runner = Self {
            store,
            workload,
            hardware,
            probes: FastestProbes::default(),
            images: 0,
            most_images: 0,
            deadline: Duration::from_secs(120),
            devices: Vec::new(),
            candidates: None,
            baseline: None,
            undisturbed: None,
        };
        runner.probes = fastest_probes(store, &runner.hardware)?;
        Ok(runner)
    }

    fn parts(&self, kind: &str) -> KeyParts {
        KeyParts::new(kind)
            .with("protocol", PROTOCOL_VERSION)
            .with("program", VERSION)
            .with("network", &self.workload.model)
    }

    fn speed_key(&self, configuration: &Configuration) -> KeyParts {
        self.keyed("speed", configuration)
    }

    /// Returns the key of a result that depends on the whole configuration and on the hardware.
    pub(super) fn keyed(&self, kind: &str, configuration: &Configuration) -> KeyParts {
        self.with_images(self.parts(kind))
            .with("hardware", &self.hardware)
            .with("kernels", registry::source_hash())
            .with("configuration", configuration.id())
    }

    /// Accuracy depends neither on the hardware nor on schedules.
    fn score_key(&self, kind: &str, configuration: &Configuration) -> KeyParts {
        self.with_images(self.parts(kind)).with("numerics", numerics(configuration).id())
    }

    /// The calibration images determine the quantization grids, and the scored images determine the
    /// score.
    fn with_images(&self, parts: KeyParts) -> KeyParts {
        parts.with("images", &self.workload.images).with(
            "normalization",
            serde_json::to_string(&self.workload.normalization).unwrap_or_default(),
        )
    }

    /// Measures `configuration`. The worker `host` runs only for results that the store does not
    /// have.
    ///
    /// # Errors
    /// Fails if the study cannot continue. A failure of the candidate itself is an
    /// [`TrialOutcome::Failed`].
    pub fn trial(
        &mut self,
        host: &mut Host,
        configuration: &Configuration,
        criteria: &StopCriteria,
        see: &mut dyn FnMut(&Reply),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<TrialResult, TrialError> {
        self.undisturbed = None;
        let mut speed = self.store.get(&self.speed_key(configuration).key())?;
        if self.is_baseline(configuration) {
            speed = speed.filter(|record| !matches!(record.outcome, Outcome::Failed { .. }));
        }
        if let Some(Record { outcome: Outcome::Failed { reason }, .. }) = &speed {
            let failure = Failure::from_text(reason);
            return Ok(TrialResult { outcome: TrialOutcome::Failed(failure), cached: true });
        }
        let known_score = self.known_score("search-score", configuration)?;
        let known_speed = speed.as_ref().and_then(Speed::of);
        if let Some(speed) = known_speed {
            let known = speed.with(known_score);
            let images = [self.images, self.most_images];
            let costs = speed.lower_ends();
            let most = criteria.enough_images(images, &costs);
            if self.images > 0 && criteria.accuracy.enough(&known_score, self.images, most) {
                return Ok(TrialResult { outcome: TrialOutcome::Measured(known), cached: true });
            }
            if known_score.total > 0 && criteria.is_beaten(&costs, known_score.interval()[1]) {
                return Ok(TrialResult { outcome: TrialOutcome::Dropped(known), cached: true });
            }
        }
        // The size of the weights depends on no schedule, so a known size of another schedule may
        // already exceed the bound.
        if known_speed.is_none()
            && let Some(bound) = criteria.upper.0.get(Metric::Size)
            && let Some(record) = self.store.get(&self.score_key(WEIGHTS, configuration).key())?
            && let Some(size) = record.value("bytes").filter(|&bytes| bytes >= bound)
        {
            let seen = Metrics::from([(Metric::Size, size)]);
            return Ok(TrialResult { outcome: TrialOutcome::Rejected(seen), cached: true });
        }
        if known_speed.is_none()
            && let Some(record) = self.store.get(&self.keyed(REFUSED, configuration).key())?
            && let seen = metrics_of(&record)
            && criteria.upper.reject(&seen)
        {
            return Ok(TrialResult { outcome: TrialOutcome::Rejected(seen), cached: true });
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
            stop: criteria.clone(),
        }));
        host.probes.clone_from(&self.probes);
        host.ready(see, interrupted).map_err(TrialError::Host)?;
        match host.ask_twice(&request, self.deadline, &self.devices, see, interrupted) {
            Ok(Reply::Measured(measured)) => {
                let mut answered = self.record(configuration, known_speed, &measured)?;
                // The worker ran, but there was nothing left to measure.
                answered.cached = measured.timing.is_none() && measured.score == known_score;
                Ok(answered)
            }
            Ok(Reply::Rejected { seen, weights }) => {
                self.put_weights(configuration, weights)?;
                if seen.get(Metric::Memory).is_some() {
                    let values =
                        seen.iter().map(|(metric, value)| (metric.name().to_owned(), value));
                    let key = self.keyed(REFUSED, configuration);
                    self.store.put(&Record::measured(key, values.collect(), &[], VERSION))?;
                }
                Ok(TrialResult { outcome: TrialOutcome::Rejected(seen), cached: false })
            }
            Ok(other) => {
                let message = format!("unexpected reply: {other:?}");
                self.failed(configuration, Failure::new(FailureKind::Crash, message))
            }
            Err(error) => match blame(host.command(), &self.devices, error, interrupted) {
                error @ (HostError::Start(_)
                | HostError::Interrupted
                | HostError::DeviceLost { .. }) => Err(TrialError::Host(error)),
                // Two workers were ended from outside. Another study may try this candidate again.
                error @ HostError::Killed(_) => Ok(TrialResult {
                    outcome: TrialOutcome::Failed(error.failure()),
                    cached: false,
                }),
                error => self.failed(configuration, error.failure()),
            },
        }
    }

    fn record(
        &mut self,
        configuration: &Configuration,
        known_speed: Option<Speed>,
        measured: &Measured,
    ) -> Result<TrialResult, TrialError> {
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
            (None, None) => {
                let failure = Failure::new(FailureKind::Crash, "the worker sent no timing");
                return self.failed(configuration, failure);
            }
        };
        self.put_weights(configuration, measured.weights)?;
        if let Some(timing) = &measured.timing {
            self.undisturbed = Some(timing.undisturbed);
            let mut values = speed.values();
            values.insert("undisturbed".to_owned(), timing.undisturbed);
            self.store.put(&Record::measured(
                self.speed_key(configuration),
                values,
                &timing.samples,
                VERSION,
            ))?;
        }
        self.put_score("search-score", configuration, measured.score)?;
        let known = speed.with(measured.score);
        let outcome = if measured.dropped {
            TrialOutcome::Dropped(known)
        } else {
            TrialOutcome::Measured(known)
        };
        Ok(TrialResult { outcome, cached: false })
    }

    /// Stores the size of the weights on disk in bytes.
    fn put_weights(&self, configuration: &Configuration, bytes: u64) -> Result<(), StoreError> {
        let values = [("bytes".to_owned(), real(bytes))].into();
        self.store.put(&Record::measured(
            self.score_key(WEIGHTS, configuration),
            values,
            &[],
            VERSION,
        ))
    }

    fn is_baseline(&self, configuration: &Configuration) -> bool {
        self.baseline.as_ref().is_some_and(|baseline| *baseline == configuration.id())
    }

    fn failed(
        &self,
        configuration: &Configuration,
        failure: Failure,
    ) -> Result<TrialResult, TrialError> {
        if !self.is_baseline(configuration) {
            let key = self.speed_key(configuration);
            self.store.put(&Record::failed(key, failure.to_text(), VERSION))?;
        }
        Ok(TrialResult { outcome: TrialOutcome::Failed(failure), cached: false })
    }

    /// Returns the score of `configuration` that the store has for search or report images.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub fn known_score(
        &self,
        kind: &str,
        configuration: &Configuration,
    ) -> Result<Score, StoreError> {
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
        let values =
            values.into_iter().map(|(name, count)| (name.to_owned(), real(count))).collect();
        self.store.put(&Record::measured(self.score_key(kind, configuration), values, &[], VERSION))
    }
}

/// Returns the fastest observed speeds of the cores of `hardware`. They do not depend on networks.
///
/// # Errors
/// Fails if the store cannot be read.
pub fn fastest_probes(store: &Store, hardware: &str) -> Result<FastestProbes, StoreError> {
    let mut probes = FastestProbes::default();
    if let Some(Record { outcome: Outcome::Measured(values), .. }) =
        store.get(&probe_key(hardware).key())?
    {
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
pub fn remember_probes(
    store: &Store,
    hardware: &str,
    probes: &FastestProbes,
) -> Result<(), StoreError> {
    let values =
        probes.0.iter().map(|(threads, seconds)| (threads.to_string(), *seconds)).collect();
    store.put(&Record::measured(probe_key(hardware), values, &[], VERSION))
}

fn probe_key(hardware: &str) -> KeyParts {
    KeyParts::new("probe").with("protocol", PROTOCOL_VERSION).with("hardware", hardware)
}

/// Version of the program, part of every key.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Kind of the records of the size of weights on disk.
const WEIGHTS: &str = "weights";

/// Kind of the records of refused candidates.
const REFUSED: &str = "refused";

/// Number of search images for the baseline, before its latency is known.
const FIRST_IMAGES: u64 = 512;

/// Returns the metrics that a record has under their own names.
fn metrics_of(record: &Record) -> Metrics {
    Metric::ALL
        .into_iter()
        .filter_map(|metric| Some((metric, record.value(metric.name())?)))
        .collect()
}

/// Name under which the store keeps one end of the latency's interval.
fn latency_end(end: &str) -> String {
    format!("{}-{end}", Metric::Latency)
}

/// Returns the values of a record that hold a median latency and the ends of its interval.
pub(super) fn latency_values([median, low, high]: [f64; 3]) -> BTreeMap<String, f64> {
    let name = Metric::Latency.name().to_owned();
    [(name, median), (latency_end("low"), low), (latency_end("high"), high)].into()
}

/// Reads the values of [`latency_values`].
pub(super) fn latency_of(record: &Record) -> Option<[f64; 3]> {
    let end = |end: &str| record.value(&latency_end(end));
    Some([record.value(Metric::Latency.name())?, end("low")?, end("high")?])
}

#[derive(Clone, Copy)]
struct Speed {
    latency: [f64; 3],
    size: f64,
    memory: f64,
}

impl Speed {
    fn of(record: &Record) -> Option<Self> {
        let latency = latency_of(record)?;
        let value = |metric: Metric| record.value(metric.name());
        Some(Self { latency, size: value(Metric::Size)?, memory: value(Metric::Memory)? })
    }

    fn values(&self) -> BTreeMap<String, f64> {
        let mut values = latency_values(self.latency);
        values.insert(Metric::Size.name().to_owned(), self.size);
        values.insert(Metric::Memory.name().to_owned(), self.memory);
        values
    }

    /// Returns the lower ends of the costs.
    fn lower_ends(&self) -> Metrics {
        [
            (Metric::Latency, self.latency[1]),
            (Metric::Size, self.size),
            (Metric::Memory, self.memory),
        ]
        .into()
    }

    fn with(self, score: Score) -> Measurement {
        Measurement { score, latency: self.latency, size: self.size, memory: self.memory }
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
