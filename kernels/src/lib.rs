//! The inference runtime of paretune: everything that a device needs to run an exported network.
//!
//! A [`plan::Plan`] says *what* to compute, step by step, and *how* each convolution is to be
//! computed ([`schedule::Schedule`]). An [`executor::Executor`] turns it into packed weights, an
//! arena of reused activation buffers and a flat list of calls, and runs it. A
//! [`bundle`] is a plan and its weights on disk.
//!
//! What this crate leaves to others: where plans come from (ONNX, compression), which schedule is
//! best (search), and what was measured (db). It knows nothing of networks' names or of spaces.

pub mod activation;
mod block;
pub mod bundle;
pub mod clock;
pub mod conv;
pub mod error;
pub mod executor;
mod halves;
pub mod hardware;
pub mod linear;
mod mapping;
pub mod memory;
pub mod offer;
pub mod opencl;
pub mod operator;
pub mod operators;
pub mod plan;
pub mod reference;
pub mod schedule;
mod simd;
pub mod team;
pub mod weights;

pub use activation::Activation;
pub use error::KernelError;
pub use executor::{Executor, ExecutorOptions};
pub use plan::{Backend, Plan, Quantization, Step, Switch, ValueId, ValueSpec};
pub use schedule::{Schedule, Tunable};
pub use weights::{WeightFormat, WeightValues, Weights};
