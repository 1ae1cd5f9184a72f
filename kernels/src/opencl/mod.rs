//! The OpenCL backend: devices, kernels whose tiles the search can turn, and an executor that keeps a
//! whole network on the device.
//!
//! Kernels are `.cl` files in `kernels/`; sizes and tunables are macros, so that a compiler sees
//! constants. [`conv`] lists the convolution algorithms, whose names start with `opencl_`. Which device
//! runs a plan is said by [`crate::plan::Backend`].
//!
//! What is left to others: which schedules are good (search), and what runs on the host.

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
