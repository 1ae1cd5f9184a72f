//! The archive of a study as users and scripts see it: `front.json` (format `paretune-front/1`).

use std::collections::BTreeMap;

use paretune_spaces::Configuration;
use serde::{Deserialize, Serialize};

/// Contents of `front.json`, in the format that scripts rely on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Front {
    /// Name of the format: always `paretune-front/1`.
    pub format: String,
    /// Name and hash of the network.
    pub model: ModelName,
    /// The machine that measured it.
    pub hardware: HardwareName,
    /// Names of the objectives: `accuracy`, `latency`, `size`, `memory`.
    pub objectives: Vec<String>,
    /// Limits that the user asked for.
    pub limits: Vec<FrontLimit>,
    /// Metrics of the unmodified network under its default schedule.
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

/// A limit in SI units.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontLimit {
    /// Name of the metric: `accuracy`, `latency`, `size`, `memory` or `accuracy-drop`.
    pub metric: String,
    /// Direction of the limit: `<` or `>`.
    pub op: String,
    /// Value in seconds, bytes or as a fraction.
    pub value: f64,
    /// Unit of the value: `s`, `B`, or empty for fractions.
    pub unit: String,
}

/// Metrics of one configuration in SI units: seconds, bytes, fractions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Top-1 accuracy, or agreement with the baseline if the images have no labels.
    pub accuracy: f64,
    /// Median latency of one inference at batch 1, in seconds.
    pub latency: f64,
    /// Size of the exported bundle in bytes.
    pub size: f64,
    /// Peak bytes of weights, activations and workspaces resident during a run.
    pub memory: f64,
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
    /// Intervals of the uncertain metrics: `accuracy` and `latency`.
    pub spread: BTreeMap<String, [f64; 2]>,
    /// Relative excess over each limit that is missed; empty if the point is feasible.
    pub violation: BTreeMap<String, f64>,
    /// Origin of the proposal: `untouched` for the baseline, a recipe's name, or the strategy's.
    #[serde(default)]
    pub origin: String,
    /// The whole configuration without inactive parameters.
    pub config: Configuration,
}

impl Metrics {
    /// Returns the metric called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        match name {
            "accuracy" => Some(self.accuracy),
            "latency" => Some(self.latency),
            "size" => Some(self.size),
            "memory" => Some(self.memory),
            _ => None,
        }
    }
}
