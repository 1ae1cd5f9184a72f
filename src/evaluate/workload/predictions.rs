//! Predictions of the baseline, which every score compares with.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use paretune_record::artefact;

use super::WorkloadError;

/// Predictions of the baseline for the first images of a part, as many as were requested.
pub(super) struct Predictions {
    path: PathBuf,
    known: Mutex<Vec<u32>>,
}

impl Predictions {
    /// Opens the artefact at `path`, or starts without predictions.
    pub(super) fn open(path: PathBuf) -> Self {
        let known = artefact::read(&path).unwrap_or_default();
        Self { path, known: Mutex::new(known) }
    }

    /// Returns the first `count` predictions. `more` computes those from the given index to
    /// `count`.
    pub(super) fn up_to(
        &self,
        count: usize,
        more: impl FnOnce(usize) -> Result<Vec<u32>, WorkloadError>,
    ) -> Result<Vec<u32>, WorkloadError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < count {
            let missing = more(known.len())?;
            known.extend(missing);
            artefact::write(&self.path, &*known)?;
        }
        Ok(known[..count.min(known.len())].to_vec())
    }
}
