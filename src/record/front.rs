//! The archive of a study as users and scripts see it: `front.json` (format `paretune-front/1`).

use std::collections::BTreeMap;

use paretune_spaces::Configuration;
use serde::{Deserialize, Deserializer, Serialize};

use super::limit::Limit;
use super::metric::{Metric, Metrics};
use super::seal::{Condition, Sealed};

/// Contents of `front.json`, in the format that scripts rely on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Front {
    /// Name of the format: always `paretune-front/1`.
    pub format: String,
    /// Name and hash of the network.
    pub model: ModelName,
    /// The machine that measured it.
    pub hardware: HardwareName,
    /// Objectives that the search trades off.
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
    /// State of a study that has not ended; its points have the figures of the search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
}

/// State of a study whose latest session has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// A program searches at the moment.
    Running,
    /// The latest session was killed, or it failed.
    Stopped,
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
    /// Whether its figures are final. Those of a point that could not be measured again are of the
    /// search: its accuracy is that on the search images.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub confirmed: bool,
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

/// Returns the default of [`FrontPoint::confirmed`].
const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
const fn is_true(value: &bool) -> bool {
    *value
}

/// Name of the file of the front in the folder of a study.
pub const FRONT: &str = "front.json";

impl Front {
    /// Returns the contents of `front.json`: JSON whose last field is a checksum.
    ///
    /// # Errors
    /// Fails if a figure cannot be written as JSON.
    pub fn to_file(&self) -> Result<Vec<u8>, serde_json::Error> {
        Ok(Sealed::Json.seal(serde_json::to_vec_pretty(self)?))
    }

    /// Reads the contents of `front.json`. Without `sealed`, a file of an earlier version, which
    /// has no checksum, is read as well.
    #[must_use]
    pub fn from_file(bytes: &[u8], sealed: bool) -> Option<Self> {
        match Sealed::Json.verify(bytes) {
            Condition::Whole => {}
            Condition::Unsealed if !sealed => {}
            Condition::Unsealed | Condition::Damaged => return None,
        }
        serde_json::from_slice(bytes).ok()
    }
}
