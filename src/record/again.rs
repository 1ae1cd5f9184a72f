//! The front of a study from the files in its folder: of a study that has ended, that runs, or that
//! was killed; under its own limits and preference, or asked again under others.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::archive;
use crate::event::Started;
use crate::front::{FRONT, Front, FrontPoint, HardwareName, ModelName, State};
use crate::journal::{Journal, Past};
use crate::limit::Limit;
use crate::metric::Metrics;
use crate::preference::Preference;
use crate::request::{RequestError, StudyFile};
use crate::selection::{Candidate, Rules, select};

/// Name of the file that a running search holds a lock on.
pub const LOCK: &str = "lock";

/// Limits and preference that a study is asked with; those that are absent are the study's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Question {
    /// Limits in place of the study's own.
    pub limits: Option<Vec<Limit>>,
    /// Criterion of the best point in place of the study's own.
    pub prefer: Option<Preference>,
}

impl Question {
    /// Returns whether the study is asked as it is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.limits.is_none() && self.prefer.is_none()
    }
}

/// Everything that the folder of a study says.
#[derive(Debug)]
pub struct StudyRecord {
    /// The request, with the changes that were made on the screen.
    pub file: StudyFile,
    /// Contents of the study's journal.
    pub past: Past,
    /// The front of the latest session that ended.
    pub front: Option<Front>,
    /// State of a study that has not ended; `None` if it has.
    pub state: Option<State>,
}

impl StudyRecord {
    /// Reads the study in `folder`. A damaged front is made again from the journal, in memory and,
    /// where possible, on disk.
    ///
    /// # Errors
    /// Fails if neither `study.toml` nor the journal says what was asked.
    pub fn read(folder: &Path) -> Result<Self, RequestError> {
        let file = StudyFile::read(folder)?;
        let past = Journal::read(folder).unwrap_or_default();
        let path = folder.join(FRONT);
        let bytes = std::fs::read(&path).ok();
        let stored = bytes.as_ref().and_then(|bytes| Front::from_file(bytes, past.sealed));
        let running = is_locked(folder);
        let lost = stored.is_none() && past.ended && !running;
        let journaled = past.front.as_ref().filter(|_| lost).map(Front::to_file);
        if let Some(Ok(bytes)) = journaled {
            tracing::info!("{} is made again from the journal", path.display());
            if let Err(error) = crate::artefact::write_whole(&path, &bytes) {
                tracing::info!("{}: {error}", path.display());
            }
        }
        // The front is written just before the journal says so. It is the end of the latest session
        // if it has every trial, even if the journal's last line is damaged or was never written.
        let is_last = |front: &Front| {
            front.trials >= past.trials.len() as u64
                && front.seconds >= past.seconds
                && front.limits == file.request.limits
        };
        let ended = past.ended || stored.as_ref().is_some_and(is_last);
        let front = stored.or_else(|| past.front.clone());
        let state = match (running, ended) {
            (true, _) => Some(State::Running),
            (false, true) => None,
            (false, false) => Some(State::Stopped),
        };
        Ok(Self { file, past, front, state })
    }

    /// Returns the criterion of the best point under `question`.
    #[must_use]
    pub fn prefer(&self, question: &Question) -> Preference {
        question.prefer.unwrap_or(self.file.request.prefer)
    }

    /// Returns the answer to `question`. A study that has ended and is asked as it is has its
    /// stored front. Otherwise its confirmed points are judged again, together with the points of
    /// the search that were not confirmed.
    #[must_use]
    pub fn front(&self, question: &Question) -> Front {
        if let (None, true, Some(front)) = (self.state, question.is_empty(), &self.front) {
            return front.clone();
        }
        let request = &self.file.request;
        let limits = question.limits.as_ref().unwrap_or(&request.limits);
        let search = self.search_front(limits);
        let measured = |id: &str| -> Option<FrontPoint> {
            let trial = self.past.trials.iter().rev().find(|trial| trial.id == id)?;
            let (point, known) = (trial.point.as_ref()?, trial.known.as_ref()?);
            Some(archive::point(&point.config, &trial.origin, known, limits))
        };
        let final_points = self.front.iter().flat_map(|front| {
            front.points.iter().chain(&front.nearest_miss).chain(&self.past.dominated)
        });
        let mut candidates: Vec<Candidate> = Vec::new();
        for point in final_points.filter(|point| point.confirmed) {
            if candidates.iter().all(|other| other.point.id != point.id) {
                let point = archive::judge(point, limits);
                let search = measured(&point.id).unwrap_or_else(|| point.clone());
                candidates.push(Candidate { point, search });
            }
        }
        for point in search {
            if candidates.iter().all(|other| other.point.id != point.id) {
                candidates.push(Candidate::unconfirmed(point));
            }
        }
        let baseline = self.baseline();
        let selected = select(
            &candidates,
            &Rules {
                objectives: &request.objectives,
                prefer: self.prefer(question),
                baseline,
                confirmed_first: false,
            },
        );
        let started = self.past.sessions.last().map(|(_, started)| started);
        let trials = &self.past.trials;
        Front {
            format: "paretune-front/1".to_owned(),
            model: ModelName {
                name: self.file.name.clone(),
                sha256: self.file.model_sha256.clone(),
            },
            hardware: self.hardware(started),
            objectives: request.objectives.clone(),
            limits: limits.clone(),
            baseline,
            trials: trials.len() as u64,
            cached: trials.iter().filter(|trial| trial.cached).count() as u64,
            seconds: self.past.seconds,
            seed: request.seed,
            strategy: request.strategy.clone(),
            hypervolume: Some(selected.hypervolume),
            points: selected.points,
            nearest_miss: selected.nearest_miss,
            state: self.state,
        }
    }

    /// Returns the front of the search, by the figures of its trials, judged under `limits`.
    fn search_front(&self, limits: &[Limit]) -> Vec<FrontPoint> {
        let mut front = Vec::new();
        for trial in &self.past.trials {
            if let (Some(point), Some(known)) = (&trial.point, &trial.known) {
                let point = archive::point(&point.config, &trial.origin, known, limits);
                archive::enter(&mut front, point, &self.file.request.objectives);
            }
        }
        front
    }

    /// Returns the metrics of the baseline: its final ones, or else those of the search.
    fn baseline(&self) -> Metrics {
        let seen = || self.past.trials.iter().rev().find_map(|trial| trial.baseline);
        self.front.as_ref().map(|front| front.baseline).or_else(seen).unwrap_or_default()
    }

    fn hardware(&self, started: Option<&Started>) -> HardwareName {
        match (started, &self.front) {
            (Some(started), _) => HardwareName {
                id: started.hardware.clone(),
                cpu: started.cpu.clone(),
                devices: started.devices.clone(),
            },
            (None, Some(front)) => front.hardware.clone(),
            (None, None) => {
                HardwareName { id: String::new(), cpu: String::new(), devices: Vec::new() }
            }
        }
    }
}

/// Returns whether a running search holds the lock of `folder`.
fn is_locked(folder: &Path) -> bool {
    File::open(folder.join(LOCK))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}
