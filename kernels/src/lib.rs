//! The inference runtime of paretune: everything that a device needs to run an exported network.
//!
//! A [`plan::Plan`] lists the steps of a network, and the [`schedule::Schedule`] of each
//! convolution. An [`executor::Executor`] turns a plan into packed weights, an arena of reused
//! activation buffers and a flat list of kernel calls, and runs it. A [`bundle`] is a plan with its
//! weights on disk.
//!
//! Other crates import and compress networks, search for schedules, and store measurements. This
//! crate knows neither networks by name nor search spaces.

pub mod bundle;
pub mod executor;
pub mod offer;
pub mod reference;

pub use paretune_base::plan::{activation, operator, schedule, weights};
pub use paretune_base::threads as team;
pub use paretune_base::{clock, error, memory, plan};

/// Convolution algorithms of the processor.
pub mod conv {
    pub use paretune_base::plan::layout::{Element, Layout};
    pub use paretune_cpu::conv::*;
}

/// The machine: instruction sets, cores, OpenCL devices, and measured ceilings.
pub mod hardware {
    pub use paretune_base::hardware::*;
    pub use paretune_base::roofline::*;
    pub use paretune_simd::Isa;

    /// Describes this machine, with its OpenCL devices where the backend is built in.
    #[must_use]
    pub fn detect() -> Hardware {
        #[cfg(feature = "opencl")]
        let devices = paretune_opencl::names();
        #[cfg(not(feature = "opencl"))]
        let devices = Vec::new();
        Hardware::detect(devices)
    }
}

/// Rules of the operators.
pub mod operators {
    pub use paretune_base::plan::shape;
}

/// The OpenCL backend, and the check of its results against the processor.
#[cfg(feature = "opencl")]
pub mod opencl {
    pub use crate::executor::verify::{alone, verify};
    pub use paretune_opencl::*;
}

pub use activation::Activation;
pub use error::KernelError;
pub use executor::{Executor, ExecutorOptions};
pub use plan::{Backend, Plan, Quantization, Step, Switch, ValueId, ValueSpec};
pub use schedule::{Schedule, Tunable};
pub use weights::{WeightFormat, WeightValues, Weights};
