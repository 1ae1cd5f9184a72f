//! Record of one measurement: the parts of its key, its outcome and its raw samples.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Key, KeyParts, StoreError};

/// Number of samples that a record keeps at most.
pub const MAX_SAMPLES: usize = 256;

/// Result of a measurement: values or a failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Measured values by name, in SI units.
    Measured(BTreeMap<String, f64>),
    /// The measurement failed, and repeating it would fail again.
    Failed {
        /// Reason for the failure, in one sentence.
        reason: String,
    },
}

/// One measurement as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Everything that the answer depends on.
    pub key_parts: KeyParts,
    /// Values that were measured, or the failure.
    pub outcome: Outcome,
    /// Raw samples in the order of measurement, at most [`MAX_SAMPLES`] (see [`thin`]).
    #[serde(default)]
    pub samples: Vec<f64>,
    /// Time of creation in Unix seconds.
    pub created: u64,
    /// Version of the program that measured.
    pub program: String,
}

impl Record {
    /// Creates the record of a measurement that was made now. Surplus samples are thinned.
    #[must_use]
    pub fn measured(
        key_parts: KeyParts,
        values: BTreeMap<String, f64>,
        samples: &[f64],
        program: impl Into<String>,
    ) -> Self {
        Self {
            key_parts,
            outcome: Outcome::Measured(values),
            samples: thin(samples),
            created: now(),
            program: program.into(),
        }
    }

    /// Creates the record of a measurement that failed now.
    #[must_use]
    pub fn failed(
        key_parts: KeyParts,
        reason: impl Into<String>,
        program: impl Into<String>,
    ) -> Self {
        Self {
            key_parts,
            outcome: Outcome::Failed { reason: reason.into() },
            samples: Vec::new(),
            created: now(),
            program: program.into(),
        }
    }

    /// Returns the key under which the record is filed.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key_parts.key()
    }

    /// Returns the measured value called `name`; `None` if there is none or the measurement failed.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        match &self.outcome {
            Outcome::Measured(values) => values.get(name).copied(),
            Outcome::Failed { .. } => None,
        }
    }

    /// Checks that the record is plausible, whoever made it.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let refuse =
            |reason: String| Err(StoreError::Refused { kind: self.key_parts.kind.clone(), reason });
        if self.key_parts.kind.is_empty() {
            return refuse("it has no kind".to_owned());
        }
        if self.samples.len() > MAX_SAMPLES {
            return refuse(format!("{} samples, more than {MAX_SAMPLES}", self.samples.len()));
        }
        if let Outcome::Measured(values) = &self.outcome
            && let Some((name, value)) = values.iter().find(|(_, value)| !value.is_finite())
        {
            return refuse(format!("{name} is {value}"));
        }
        if self.samples.iter().any(|sample| !sample.is_finite()) {
            return refuse("a sample is not finite".to_owned());
        }
        Ok(())
    }
}

/// Returns at most [`MAX_SAMPLES`] of the samples, evenly spread over time, including the first and
/// the last.
#[must_use]
pub fn thin(samples: &[f64]) -> Vec<f64> {
    if samples.len() <= MAX_SAMPLES {
        return samples.to_vec();
    }
    let last = samples.len() - 1;
    (0..MAX_SAMPLES).map(|i| samples[i * last / (MAX_SAMPLES - 1)]).collect()
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
