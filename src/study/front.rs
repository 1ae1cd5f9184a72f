//! The archive of a study as users and scripts see it: `front.json` (format `paretune-front/1`).

use std::collections::BTreeMap;

use paretune_spaces::Configuration;
use serde::{Deserialize, Serialize};

/// `front.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Front {
    /// Always `paretune-front/1`.
    pub format: String,
    /// The network.
    pub model: ModelName,
    /// Where it was measured.
    pub hardware: HardwareName,
    /// Of `accuracy`, `latency`, `size`, `memory`.
    pub objectives: Vec<String>,
    /// What was asked for.
    pub limits: Vec<FrontLimit>,
    /// Metrics of the untouched network under its default schedule.
    pub baseline: Metrics,
    /// Trials told to the search, answered from the store or measured.
    pub trials: u64,
    /// Of those, how many the store answered.
    pub cached: u64,
    /// Wall time spent, all sessions of the study.
    pub seconds: f64,
    /// The seed.
    pub seed: u64,
    /// The strategy.
    pub strategy: String,
    /// Exact hypervolume of the feasible points; see [`super::archive::hypervolume`] for the corners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervolume: Option<f64>,
    /// What is not dominated, best first.
    pub points: Vec<FrontPoint>,
    /// Where no point meets every limit: the one that misses by least.
    pub nearest_miss: Option<FrontPoint>,
}

/// The network of a front.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelName {
    /// File name without extension.
    pub name: String,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// The machine of a front.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HardwareName {
    /// Hash of what determines speed.
    pub id: String,
    /// Processor name.
    pub cpu: String,
    /// OpenCL devices.
    pub devices: Vec<String>,
}

/// A limit in SI units.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontLimit {
    /// `accuracy`, `latency`, `size`, `memory` or `accuracy-drop`.
    pub metric: String,
    /// `<` or `>`.
    pub op: String,
    /// Seconds, bytes, fraction.
    pub value: f64,
    /// `s`, `B` or empty.
    pub unit: String,
}

/// Seconds, bytes, fractions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Top-1, or agreement with the original network where images have no labels.
    pub accuracy: f64,
    /// Median seconds of one inference at batch 1.
    pub latency: f64,
    /// Bytes of the exported bundle.
    pub size: f64,
    /// Peak bytes of weights, activations and workspaces resident during a run.
    pub memory: f64,
}

/// One point of the archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontPoint {
    /// Content hash of the configuration.
    pub id: String,
    /// Meets every limit, judged on intervals.
    pub feasible: bool,
    /// The one that `export` takes.
    pub best: bool,
    /// Final figures; accuracy on the report images.
    pub metrics: Metrics,
    /// Intervals of what is uncertain: `accuracy` and `latency`.
    pub spread: BTreeMap<String, [f64; 2]>,
    /// By how much each limit is missed, relative to it; empty where feasible.
    pub violation: BTreeMap<String, f64>,
    /// Where it came from: `untouched`, a recipe's name, or the strategy's.
    #[serde(default)]
    pub origin: String,
    /// The whole configuration, nothing inactive in it.
    pub config: Configuration,
}

impl Metrics {
    /// The metric called `name`.
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
