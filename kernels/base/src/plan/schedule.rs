//! Schedules: the algorithm of one convolution or dense step and the values of its tunables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Schedule of one step. An empty algorithm name selects the default of the machine, and missing
/// tunables take the algorithm's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Schedule {
    /// Name in the registry of algorithms, or empty.
    pub algorithm: String,
    /// Values of the algorithm's tunables, by name.
    pub tunables: BTreeMap<String, i64>,
}

impl Schedule {
    /// Returns the default schedule of `algorithm`.
    pub fn of(algorithm: impl Into<String>) -> Self {
        Self { algorithm: algorithm.into(), tunables: BTreeMap::new() }
    }
}

/// A parameter of an algorithm that the search can choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunable {
    /// Name in `snake_case`, unique within the algorithm.
    pub name: &'static str,
    /// Description of the tunable's effect, shown by `paretune space`.
    pub about: &'static str,
    /// Possible values on this machine for this problem, ascending, never empty.
    pub values: Vec<i64>,
    /// Value without a choice, one of `values`.
    pub default: i64,
}
