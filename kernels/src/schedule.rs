//! How one convolution or dense step is to be computed: an algorithm and the values of its tunables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The choice for one step. An empty algorithm name means "the default of this machine", and tunables
/// that are not named take the algorithm's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Schedule {
    /// Name in the registry ([`crate::conv::algorithms`]), or empty.
    pub algorithm: String,
    /// Values of the algorithm's tunables, by name.
    pub tunables: BTreeMap<String, i64>,
}

impl Schedule {
    /// The default schedule of `algorithm`.
    pub fn of(algorithm: impl Into<String>) -> Self {
        Self { algorithm: algorithm.into(), tunables: BTreeMap::new() }
    }
}

/// A number that an algorithm leaves to the search: its name, the values it can take (ascending) and
/// the one that is used when nobody chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunable {
    /// Name, unique within the algorithm, `snake_case`.
    pub name: &'static str,
    /// What turning it does; shown by `paretune space`.
    pub about: &'static str,
    /// Possible values on this machine for this problem, ascending, never empty.
    pub values: Vec<i64>,
    /// One of `values`.
    pub default: i64,
}
