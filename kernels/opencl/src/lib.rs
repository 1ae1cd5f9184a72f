//! The OpenCL backend: devices, kernels with tunable tiles, and an executor that keeps a whole
//! network on the device.
//!
//! Kernels are `.cl` files in `kernels/`. Sizes and tunables are macros, so that compilers see
//! constants. Module [`conv`] lists the convolution algorithms, whose names start with `opencl_`.
//! The device of a plan is stated by [`paretune_base::plan::Backend`].
//!
//! The search chooses schedules, and `executor/` runs the steps of the host.

/// Hash of the sources of this crate, OpenCL C included. Times of kernels are recorded with it, and
/// a record of other sources is never reused.
pub const SOURCE_HASH: &str = env!("PARETUNE_SOURCE_HASH");

mod api;
mod boundary;
mod build;
pub mod conv;
mod device;
mod executor;
#[cfg(any(test, feature = "fault-injection"))]
#[doc(hidden)]
pub mod fault;
mod launch;
mod layout;
pub mod limits;
mod operators;
mod program;
mod source;

pub use boundary::{DeviceBoundary, Pages};
pub use device::{Device, check, driver_variable, has_accelerator, names, open, unusable};
pub use executor::DeviceExecutor;
pub use limits::Limits;
