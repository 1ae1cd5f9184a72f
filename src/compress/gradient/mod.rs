//! Backpropagation through a plan: gradients of an error at a network's output with respect to its
//! weights and its inner values.
//!
//! A [`Tape`] computes a batch of images forwards and records the values that the backward pass
//! needs. Values have the layout `[channel][image][position]` (the first axis of a value, then
//! images, then its other axes). Everything is single precision and runs on the calling thread;
//! callers distribute images over threads. `fisher` and `distill` use the gradients.

mod augmentation;
mod conv;
mod distill;
mod fisher;
mod movement;
mod options;
mod parameters;
mod pointwise;
mod student;
mod tape;
mod teacher;
#[cfg(test)]
mod tests;

pub use distill::distill;
pub(super) use fisher::channel_information;
pub use options::{Distillation, DistillationProgress};
pub use parameters::trainable;
