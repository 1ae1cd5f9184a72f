//! The inference runtime of paretune: everything that a device needs to run an exported network.
//!
//! A [`plan::Plan`] lists the steps of a network, and the [`schedule::Schedule`] of each
//! convolution. An [`executor::Executor`] turns a plan into packed weights, an arena of reused
//! activation buffers and a flat list of kernel calls, and runs it. A [`bundle`] is a plan with its
//! weights on disk.
//!
//! Other crates import and compress networks, search for schedules, and store measurements. This
//! crate knows neither networks by name nor search spaces.

pub mod activation;
mod block;
pub mod bundle;
pub mod clock;
pub mod conv;
pub mod error;
pub mod executor;
mod halves;
pub mod hardware;
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
