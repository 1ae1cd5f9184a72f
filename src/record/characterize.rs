//! Experiments of the study of techniques, and what was measured in them.

use paretune_kernels::weights::Numbers;
use paretune_names::numbers::named;
use serde::{Deserialize, Serialize};

use super::measurement::Measurement;

/// Kernels that an experiment runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernels {
    /// The fastest known schedule of each layer and format.
    Tuned,
    /// Plain loops without any tuning.
    Naive,
}

/// One technique at one level, applied to the whole network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// Name of the technique: `original`, `channel pruning`, ...
    pub technique: String,
    /// Strength of the technique, for example `75 % kept`. Empty for techniques without a level.
    pub level: String,
    /// Kernels that it runs with.
    pub kernels: Kernels,
    /// Number type of the weights.
    #[serde(rename = "bits", with = "named")]
    pub numbers: Numbers,
    /// Fraction of the weights that is zero.
    pub sparsity: f64,
    /// Fraction of the channels that is kept.
    pub channels: f64,
    /// Algorithm of all layers that offer it. Without one, every layer runs its fastest known
    /// algorithm.
    pub algorithm: Option<String>,
}

/// Name of the baseline experiment: the network without any technique.
pub const ORIGINAL: &str = "original";

/// Weight pruning with compressed sparse rows (CSR), the format of the study that this command
/// reproduces.
pub const CSR: &str = "weight pruning (CSR)";

/// Weight pruning with kernels that keep sums in registers.
pub const SPARSE: &str = "weight pruning (NCHW kernels)";

/// Name of the channel pruning experiments.
pub const CHANNEL: &str = "channel pruning";

/// Result of one experiment in one setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the network, from its file.
    pub network: String,
    /// The technique and its level.
    #[serde(flatten)]
    pub experiment: Experiment,
    /// Name of the setting: the device, and on OpenCL its kind of kernels.
    pub backend: String,
    /// Number of CPU threads that run it.
    pub threads: i64,
    /// Content hash of the configuration.
    pub id: String,
    /// The measured metrics; `None` if the measurement failed.
    pub known: Option<Measurement>,
    /// Message of the failure, if it failed.
    pub failure: Option<String>,
}
