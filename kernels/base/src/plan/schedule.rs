//! Schedules: the algorithm of one convolution or dense step and the values of its tunables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::tunable::{TILE, Tunable, TunableDomain, TunableValue, changes_numerics};

/// Schedule of one step. An empty algorithm name selects the default of the machine, and missing
/// tunables take the algorithm's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Schedule {
    /// Name in the registry of algorithms, or empty.
    pub algorithm: String,
    /// Values of the algorithm's tunables, by name.
    pub tunables: BTreeMap<String, TunableValue>,
}

impl Schedule {
    /// Returns the default schedule of `algorithm`.
    pub fn of(algorithm: impl Into<String>) -> Self {
        Self { algorithm: algorithm.into(), tunables: BTreeMap::new() }
    }
}
