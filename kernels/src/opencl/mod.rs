//! The OpenCL backend: devices, kernels with tunable tiles, and an executor that keeps a whole
//! network on the device.
//!
//! Kernels are `.cl` files in `kernels/`. Sizes and tunables are macros, so that compilers see
//! constants. Module [`conv`] lists the convolution algorithms, whose names start with `opencl_`.
//! The device of a plan is stated by [`crate::plan::Backend`].
//!
//! The search chooses schedules, and `executor/` runs the steps of the host.

mod api;
mod border;
pub mod conv;
mod device;
mod executor;
#[cfg(any(test, feature = "fault-injection"))]
mod fault;
mod launch;
mod layout;
mod operators;
mod program;
mod resolve;
mod source;
#[cfg(test)]
mod tests;
mod verify;

pub(crate) use border::{Border, Pages};
pub use device::{Device, Limits, check, driver_variable, has_accelerator, names, open, unusable};
pub(crate) use executor::DeviceExecutor;
pub use resolve::{Resolved, resolve};
pub use verify::{alone, verify};
