//! Trained network with its name and hash.

use paretune_kernels::Plan;
use serde::{Deserialize, Serialize};

/// Trained network as imported from its file, after the passes that do not change its function.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Network {
    /// Name of the file without extension, or `builtin`.
    pub name: String,
    /// SHA-256 in hexadecimal of the file, followed by the external data that it refers to, if any.
    pub sha256: String,
    /// Plan of the network, with batch normalization folded, and activations and residual additions
    /// fused.
    pub plan: Plan,
    /// Outputs of the file that the plan computes, in the order of the file. If there are several,
    /// the plan's output holds the numbers of all of them, one behind the other.
    #[serde(default)]
    pub outputs: Vec<NetworkOutput>,
    /// Whether the file takes images as `[height, width, channels]`. The plan takes
    /// `[channels, height, width]` all the same.
    #[serde(default)]
    pub channels_last: bool,
}

/// Output of a network as its file names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOutput {
    /// Name of the tensor in the file.
    pub name: String,
    /// Row-major shape of one image's numbers, without the batch.
    pub dims: Vec<usize>,
}
