//! One answer: its key's parts, its outcome, its raw samples.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Key, KeyParts, StoreError};

/// The most samples that a record keeps.
pub const MAX_SAMPLES: usize = 256;

/// What a measurement gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Values by name, SI units.
    Measured(BTreeMap<String, f64>),
    /// There is no value, and trying again would give none.
    Failed {
        /// Why: one sentence.
        reason: String,
    },
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What was measured, of what, where, how.
    pub key_parts: KeyParts,
    /// What came of it.
    pub outcome: Outcome,
    /// Raw samples in the order they were taken, at most [`MAX_SAMPLES`] (see [`thin`]).
    #[serde(default)]
    pub samples: Vec<f64>,
    /// Unix seconds.
    pub created: u64,
    /// Version of the program that measured.
    pub program: String,
}

impl Record {
    /// A measurement made now; samples are thinned.
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

    /// A measurement that failed now.
    #[must_use]
    pub fn failed(key_parts: KeyParts, reason: impl Into<String>, program: impl Into<String>) -> Self {
        Self {
            key_parts,
            outcome: Outcome::Failed { reason: reason.into() },
            samples: Vec::new(),
            created: now(),
            program: program.into(),
        }
    }

    /// What it is filed under.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key_parts.key()
    }

    /// The value called `name`, if this was measured.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        match &self.outcome {
            Outcome::Measured(values) => values.get(name).copied(),
            Outcome::Failed { .. } => None,
        }
    }

    /// Refuses what is not a plausible record, whoever made it.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let refuse = |reason: String| Err(StoreError::Refused { kind: self.key_parts.kind.clone(), reason });
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

/// At most [`MAX_SAMPLES`] of the samples, evenly spread over time, the first and the last among them.
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
