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
}
