//! The inference runtime of paretune: everything that a device needs to run an exported network.
//!
//! A [`plan::Plan`] lists the steps of a network, and the [`schedule::Schedule`] of each
//! convolution. An [`executor::Executor`] turns a plan into packed weights, an arena of reused
//! activation buffers and a flat list of kernel calls, and runs it. A [`bundle`] is a plan with its
//! weights on disk.
//!
//! # Examples
//! A bundle that `paretune export` wrote is opened, loaded for this processor, and run on one
//! image. `examples/run_bundle.rs` is a complete program.
//!
//! ```
//! use std::path::Path;
//!
//! use paretune_kernels::bundle::Stored;
//! use paretune_kernels::hardware::Isa;
//! use paretune_kernels::{ExecutorOptions, KernelError};
//!
//! /// Returns the outputs of the bundle in `folder` for one normalized image.
//! fn outputs(folder: &Path, image: &[f32]) -> Result<Vec<f32>, KernelError> {
//!     let stored = Stored::open(folder)?;
//!     let threads = stored.description().plan.threads.max(1);
//!     let options = ExecutorOptions { batch: 1, threads, isa: Isa::detect() };
//!     let mut executor = stored.load(&options)?.executor;
//!     let (_, output_len) = executor.lengths();
//!     let mut output = vec![0.0; output_len];
//!     executor.run(image, &mut output)?;
//!     Ok(output)
//! }
//!
//! // A bundle of a network without steps: its output is its input.
//! # use paretune_kernels::bundle::{Bundle, Preprocessing};
//! # use paretune_kernels::{Plan, ValueSpec};
//! # let image = ValueSpec { dims: vec![3], quantization: None };
//! # let bundle = Bundle {
//! #     plan: Plan { values: vec![image], threads: 1, ..Plan::default() },
//! #     preprocessing: Preprocessing::default(),
//! #     configuration: String::new(),
//! # };
//! # let parent = tempfile::tempdir()?;
//! # let folder = parent.path().join("bundle");
//! bundle.write(&folder)?;
//! assert_eq!(outputs(&folder, &[1.0, 2.0, 3.0])?, [1.0, 2.0, 3.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Other crates import and compress networks, search for schedules, and store measurements. This
//! crate knows neither networks by name nor search spaces.

pub mod bundle;
pub mod executor;
pub mod image;
pub mod reference;
pub mod registry;

pub use paretune_base::plan::{activation, operator, schedule, weights};
pub use paretune_base::{clock, error, file, memory, plan, threads};
pub use paretune_cpu::conv;

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
