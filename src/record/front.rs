//! The archive of a study as users and scripts see it: `front.json` (format `paretune-front/1`).

use std::collections::BTreeMap;

use paretune_spaces::Configuration;
use serde::{Deserialize, Deserializer, Serialize};

use super::limit::Limit;
use super::metric::{Metric, Metrics};

/// Contents of `front.json`, in the format that scripts rely on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Front {
    /// Name of the format: always `paretune-front/1`.
    pub format: String,
    /// Name and hash of the network.
    pub model: ModelName,
    /// The machine that measured it.
    pub hardware: HardwareName,
    /// Objectives of the search.
    pub objectives: Vec<Metric>,
    /// Limits that the user asked for.
    pub limits: Vec<Limit>,
    /// Metrics of the baseline: the unmodified network under its default schedule.
    pub baseline: Metrics,
    /// Number of trials, measured or answered from the store.
    pub trials: u64,
    /// Number of trials that the store answered.
    pub cached: u64,
    /// Wall-clock seconds over all sessions of the study.
    pub seconds: f64,
    /// Seed of the random generator.
    pub seed: u64,
    /// Name of the search strategy.
    pub strategy: String,
    /// Exact hypervolume of the feasible points; see [`super::archive::hypervolume`] for the
    /// corners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervolume: Option<f64>,
    /// Points that are not dominated, best first.
    pub points: Vec<FrontPoint>,
    /// The point that misses the limits by least, if no point meets all of them.
    pub nearest_miss: Option<FrontPoint>,
}

/// The network of a front.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelName {
    /// Name of the file without extension.
    pub name: String,
    /// SHA-256 of the network's file.
    pub sha256: String,
}

/// The machine of a front.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HardwareName {
    /// Hash of the properties that determine speed.
    pub id: String,
    /// Name of the processor, as it reports itself.
    pub cpu: String,
    /// Names of the OpenCL devices.
    pub devices: Vec<String>,
}

/// Origin of the unmodified network under its default schedule.
pub const BASELINE: &str = "baseline";

/// Reads an origin. Earlier versions called the baseline `untouched`.
pub(crate) fn origin<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let origin = String::deserialize(deserializer)?;
    Ok(if origin == "untouched" { BASELINE.to_owned() } else { origin })
}

/// One point of the archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontPoint {
    /// Content hash of the configuration.
    pub id: String,
    /// Whether it meets every limit, judged on intervals.
    pub feasible: bool,
    /// Whether it is the point that `export` takes.
    pub best: bool,
    /// Final figures, with the accuracy on the report images.
    pub metrics: Metrics,
    /// Intervals of the uncertain metrics.
    pub spread: BTreeMap<Metric, [f64; 2]>,
    /// Relative excess over each limit that is missed; empty if the point is feasible.
    pub violation: BTreeMap<Metric, f64>,
    /// Origin of the proposal: `baseline` for the baseline, a recipe's name, or the strategy's.
    #[serde(default, deserialize_with = "origin")]
    pub origin: String,
    /// The whole configuration without inactive parameters.
    pub config: Configuration,
}
