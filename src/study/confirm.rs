//! Final measurements: the finalists are built once more as bundles, timed again, interleaved and
//! in several fresh processes, and scored on images that the search has never seen.

mod score;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::SessionError;
use crate::trial::{TrialRunner, latency_of, latency_values};
use paretune_db::{KeyParts, Record};
use paretune_evaluate::host::{Host, HostError, blame};
use paretune_evaluate::protocol::{Reply, Request};
use paretune_evaluate::repeat;
use paretune_evaluate::timing::{Effort, Timing};
use paretune_joint_space::seeds::BASELINE;
use paretune_kernels::hardware::Hardware;
use paretune_model::Network;
use paretune_record::event::Event;
use paretune_record::front::{Front, FrontPoint, HardwareName, ModelName};
use paretune_record::limit::Limit;
use paretune_record::measurement::Measurement;
use paretune_record::metric::{Metric, Metrics};
use paretune_record::request::StudyRequest;
use paretune_record::score::Score;
use paretune_record::selection::{Candidate, Rules, select};
use paretune_record::{archive, artefact};
use score::Job;

/// Returns the seconds of a time budget that are reserved for the final measurements.
#[must_use]
pub fn reserve(budget: f64) -> f64 {
    (0.2 * budget).clamp(2.0, 90.0).min(0.5 * budget)
}

/// Returns the seconds for the final measurements of a budget that counts only `trials`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a number of trials")]
pub fn without_clock(trials: Option<u64>) -> f64 {
    trials.map_or(10.0, |trials| (0.3 * trials as f64).clamp(2.0, 10.0))
}

/// Number of candidates that are loaded and timed together. More would not fit small memories.
const TOGETHER: usize = 6;

/// Number of finalists that are measured regardless of the time left.
const LEAST: usize = 4;

/// Fraction of the time after which no further finalist is built.
const BUILDING: f64 = 0.35;

/// Fraction of the time left after building that goes into timing. The rest goes into scoring.
const TIMING: f64 = 0.4;

/// Context of the final measurements.
pub struct Confirmation<'c, 's> {
    /// The result store and its keys.
    pub runner: &'c TrialRunner<'s>,
    /// The worker process that builds and scores.
    pub host: &'c mut Host,
    /// The request that the study answers.
    pub request: &'c StudyRequest,
    /// Limit on the time in seconds.
    pub seconds: f64,
    /// Whether to measure values that the store does not have.
    pub measure: bool,
}

impl Confirmation<'_, '_> {
    /// Measures `finalists` again and returns them with their final figures beside those of the
    /// search. The most important ones come first, because time may end before the last are built.
    /// Points for which there is no time, that fail now, or that an interrupt leaves unmeasured
    /// keep the figures of the search and are marked as not confirmed.
    ///
    /// # Errors
    /// Fails if the store or the worker cannot be used at all, or if a device is lost.
    pub fn confirm(
        &mut self,
        finalists: &[FrontPoint],
        see: &mut dyn FnMut(Event),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<Candidate>, SessionError> {
        let begun = Instant::now();
        let steps = 2 * finalists.len() as u64;
        let mut done = 0;
        let mut step = |count: usize, see: &mut dyn FnMut(Event)| {
            done += count as u64;
            see(Event::Confirming { done, total: steps });
        };
        let mut latencies: Vec<Option<[f64; 3]>> = Vec::with_capacity(finalists.len());
        for point in finalists {
            let record = self.runner.store.get(&self.runner.final_key(&point.config).key())?;
            latencies.push(record.as_ref().and_then(latency_of));
        }
        let mut failed: Vec<usize> = Vec::new();
        let mut missing: Vec<usize> = Vec::new();
        let mut bundles: Vec<PathBuf> = Vec::with_capacity(finalists.len());
        for (index, point) in finalists.iter().enumerate() {
            bundles.push(self.folder().join(&point.id));
            if !self.measure {
                continue;
            }
            let late = begun.elapsed().as_secs_f64() > BUILDING * self.seconds;
            if self.request.budget.seconds.is_some() && index >= LEAST && late {
                failed.push(index);
                continue;
            }
            // Points without a latency to measure are built when they are scored.
            if latencies[index].is_some() {
                continue;
            }
            match self.build(point, &bundles[index], interrupted) {
                Ok(()) => missing.push(index),
                Err(error) => {
                    if let Some(error) = self.failure(error, interrupted)? {
                        see(Event::Notice {
                            text: format!("point {} could not be built again: {error}", point.id),
                        });
                        failed.push(index);
                    }
                }
            }
        }
        step(finalists.len() - missing.len(), see);
        #[expect(clippy::cast_precision_loss, reason = "a dozen points")]
        let each = TIMING * self.left(begun) / missing.len().max(1) as f64;
        let effort = Effort { seconds: each.clamp(0.2, 3.0), ..Effort::FINAL };
        let mut groups: Vec<&[usize]> = missing.chunks(TOGETHER).rev().collect();
        while let Some(group) = groups.pop().filter(|_| self.measure) {
            let folders = group.iter().map(|&index| bundles[index].clone()).collect();
            match self.compare(folders, effort, interrupted) {
                Ok(timings) => {
                    for (&index, timing) in group.iter().zip(&timings) {
                        latencies[index] = Some([timing.median, timing.low, timing.high]);
                        self.record(&finalists[index], timing)?;
                    }
                    step(group.len(), see);
                }
                Err(error) => {
                    let Some(error) = self.failure(error, interrupted)? else { break };
                    // One of them may be the cause: halves of the group are timed apart.
                    if group.len() > 1 {
                        let (left, right) = group.split_at(group.len() / 2);
                        groups.extend([right, left]);
                        continue;
                    }
                    let ids = group.iter().map(|&index| finalists[index].id.as_str());
                    let ids = ids.collect::<Vec<_>>().join(", ");
                    see(Event::Notice {
                        text: format!("point {ids} could not be timed again: {error}"),
                    });
                    failed.extend(group);
                    step(group.len(), see);
                }
            }
        }
        let timed = finalists.iter().enumerate().filter(|(index, _)| !failed.contains(index));
        let mut jobs: Vec<Job<'_>> = timed
            .filter_map(|(index, point)| Some(Job::new(point, &bundles[index], latencies[index]?)))
            .collect();
        let until = begun + Duration::from_secs_f64(self.seconds.max(0.0));
        let mut step = || {
            done += 1;
            Event::Confirming { done, total: steps }
        };
        self.score(&mut jobs, until, see, &mut step, interrupted)?;
        let limits = &self.request.limits;
        let finished = jobs.iter().filter_map(|job| {
            Some((job.point.id.as_str(), finished(job.point, job.latency, job.score?, limits)))
        });
        let finished: BTreeMap<&str, FrontPoint> = finished.collect();
        let points = finalists.iter().map(|search| match finished.get(search.id.as_str()) {
            Some(point) => Candidate { point: point.clone(), search: search.clone() },
            None => Candidate::unconfirmed(search.clone()),
        });
        let points: Vec<Candidate> = points.collect();
        // Nobody needs the remaining bundles; another session builds its own.
        for folder in [Some(self.folder()), self.runner.candidates.clone()].into_iter().flatten() {
            artefact::discard(&folder);
        }
        Ok(points)
    }

    /// Returns the seconds left, counted from `begun`.
    fn left(&self, begun: Instant) -> f64 {
        (self.seconds - begun.elapsed().as_secs_f64()).max(0.0)
    }

    /// Returns the folder that holds the finalists' bundles during the measurements.
    fn folder(&self) -> PathBuf {
        self.runner.workload.artefacts.join("finalists")
    }

    fn build(
        &mut self,
        point: &FrontPoint,
        bundle: &Path,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(), HostError> {
        let built = self.runner.candidates.as_ref().map(|folder| folder.join(&point.id));
        if let Some(built) = built.filter(|built| built.exists())
            && std::fs::create_dir_all(self.folder())
                .and_then(|()| std::fs::rename(&built, bundle))
                .is_ok()
        {
            return Ok(());
        }
        let request = Request::Export {
            configuration: point.config.clone(),
            id: point.id.clone(),
            folder: bundle.to_owned(),
        };
        let (deadline, devices) = (self.runner.deadline, &self.runner.devices);
        match self.host.ask_twice(&request, deadline, devices, &mut |_| {}, interrupted)? {
            Reply::Exported { .. } => Ok(()),
            other => Err(HostError::Nonsense(format!("{other:?}"))),
        }
    }

    /// Returns the failure of a point, or `None` after an interrupt, which ends all measurements.
    ///
    /// # Errors
    /// Fails if the failure is not the point's: there is no worker, or a device is lost.
    fn failure(
        &mut self,
        error: HostError,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<HostError>, SessionError> {
        match blame(self.host.command(), &self.runner.devices, error, interrupted) {
            HostError::Interrupted => {
                self.measure = false;
                Ok(None)
            }
            error @ (HostError::Start(_) | HostError::DeviceLost { .. }) => {
                Err(SessionError::Worker(error))
            }
            error => Ok(Some(error)),
        }
    }

    fn compare(
        &self,
        bundles: Vec<PathBuf>,
        effort: Effort,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<Timing>, HostError> {
        let deadline =
            self.runner.deadline + Duration::from_secs_f64(effort.seconds * 3.0 * TOGETHER as f64);
        let request = repeat::as_made(bundles, effort, self.runner.probes.clone());
        repeat::time_afresh(self.host.command(), &request, deadline, interrupted)
    }

    fn record(&self, point: &FrontPoint, timing: &Timing) -> Result<(), SessionError> {
        let values = latency_values([timing.median, timing.low, timing.high]);
        let key = self.runner.final_key(&point.config);
        let record = Record::measured(key, values, &timing.samples, env!("CARGO_PKG_VERSION"));
        Ok(self.runner.store.put(&record)?)
    }
}

fn finished(point: &FrontPoint, latency: [f64; 3], score: Score, limits: &[Limit]) -> FrontPoint {
    let value = |metric: Metric| point.metrics.get(metric).unwrap_or_default();
    let [size, memory] = [Metric::Size, Metric::Memory].map(value);
    let known = Measurement { score, latency, size, memory };
    archive::point(&point.config, &point.origin, &known, limits)
}

impl TrialRunner<'_> {
    /// Returns the store key of a final timing.
    fn final_key(&self, configuration: &paretune_spaces::Configuration) -> KeyParts {
        self.keyed("final-speed", configuration)
    }
}

pub(crate) fn accuracy_of(point: &FrontPoint) -> f64 {
    point.metrics.get(Metric::Accuracy).unwrap_or_default()
}

/// Facts about a study that its front records beside the points.
pub struct Frame<'f> {
    /// Name and hash of the network.
    pub network: &'f Network,
    /// The machine that measured it.
    pub hardware: &'f Hardware,
    /// The request that the study answers.
    pub request: &'f StudyRequest,
    /// Metrics of the baseline on the search images.
    pub baseline: Metrics,
    /// Number of trials over all sessions.
    pub trials: u64,
    /// Number of trials that the store answered.
    pub cached: u64,
    /// Seconds spent over all sessions of the study.
    pub seconds: f64,
}

/// Builds the front of the measured `points`: those that are not dominated, with the preferred
/// feasible one marked, or the nearest miss. The figures of the report images are shown and decide
/// whether limits are kept. The best point is chosen by the search images, so that no choice used
/// the accuracy that is shown for it. Returns the front with the confirmed points that are not on
/// it.
#[must_use]
pub fn front_of(points: &[Candidate], frame: &Frame<'_>) -> (Front, Vec<FrontPoint>) {
    let request = frame.request;
    let baseline = points
        .iter()
        .map(|candidate| &candidate.point)
        .find(|point| point.origin == BASELINE)
        .map_or(frame.baseline, |baseline| baseline.metrics);
    let selected = select(
        points,
        &Rules {
            objectives: &request.objectives,
            prefer: request.prefer,
            baseline,
            confirmed_first: true,
        },
    );
    let front = Front {
        format: "paretune-front/1".to_owned(),
        model: ModelName { name: frame.network.name.clone(), sha256: frame.network.sha256.clone() },
        hardware: HardwareName {
            id: frame.hardware.id.clone(),
            cpu: frame.hardware.cpu.clone(),
            devices: frame.hardware.devices.clone(),
        },
        objectives: request.objectives.clone(),
        limits: request.limits.clone(),
        baseline,
        trials: frame.trials,
        cached: frame.cached,
        seconds: frame.seconds,
        seed: request.seed,
        strategy: request.strategy.clone(),
        hypervolume: Some(selected.hypervolume),
        points: selected.points,
        nearest_miss: selected.nearest_miss,
        state: None,
    };
    (front, selected.dominated)
}
