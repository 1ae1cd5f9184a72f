//! Networks and images: ONNX import, shape inference, graph passes, datasets.
//!
//! The graph of a network is the runtime's own [`paretune_kernels::Plan`] with default schedules and
//! single-precision weights: one representation from import to execution.

use paretune_kernels::Plan;

pub mod images;
pub mod onnx;
pub mod passes;

/// A trained network as it came from its file, after the passes that do not change its function.
#[derive(Clone, Debug)]
pub struct Network {
    /// The file's name without extension, or `builtin`.
    pub name: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// What it computes; batch normalization folded, activations and residual additions fused.
    pub plan: Plan,
}
