//! Convolution algorithms of the processor.
//!
//! To add one: write its file in `algorithms/` with a type that implements [`Algorithm`], and add a
//! line to [`algorithms`]. The tests run every algorithm on every instruction set of the machine
//! against a double-precision reference.

pub mod algorithm;
pub mod reference;
pub mod registry;
pub mod support;

mod algorithms;
mod compressed;
mod gemm_f32;
mod gemm_i8;

pub use algorithm::{Algorithm, Call, Kernel, Request};
pub use registry::{Processor, algorithm, algorithms, baselines, candidates};
pub use support::packing::Packing;
