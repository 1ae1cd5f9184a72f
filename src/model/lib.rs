//! Networks and images: ONNX import, shape inference, graph passes, datasets.
//!
//! The graph of a network is the runtime's own [`paretune_kernels::Plan`] with default schedules
//! and single-precision weights: one representation from import to execution.

#![forbid(unsafe_code)]

pub mod builtin;
mod describe;
mod error;
pub mod images;
mod load;
mod network;
pub mod onnx;
pub mod passes;

pub use describe::{Totals, describe, step_multiply_adds, totals};
pub use error::ModelError;
pub use network::{Network, NetworkOutput};
pub use onnx::{ImportOptions, Outputs};
