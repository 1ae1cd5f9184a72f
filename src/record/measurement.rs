//! The measurement of one configuration.

use serde::{Deserialize, Serialize};

use super::score::Score;

/// Metrics of a completely measured configuration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Score over the search images.
    pub score: Score,
    /// Median latency and the ends of its 95 % interval, in seconds.
    pub latency: [f64; 3],
    /// Size of the bundle in bytes.
    pub size: f64,
    /// Peak memory of a run in bytes.
    pub memory: f64,
}
