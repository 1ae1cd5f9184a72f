//! All integration tests in one program: each program more would link the whole library again.

mod commands;
mod common;
mod faults;
mod model_hostile;
mod model_networks;
mod model_onnx;
