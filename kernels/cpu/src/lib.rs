//! The processor's backend: convolution algorithms and the other operators, for every instruction
//! set.
//!
//! [`conv`] has the algorithms and their registry, [`operators`] everything else that a step may
//! be. Both compute on buffers that they are given; plans, memory and the order of steps belong to
//! the executor.

/// Hash of the sources of this crate, its vectors and its threads. Times of kernels are recorded
/// with it, and a record of other sources is never reused.
pub const SOURCE_HASH: &str = env!("PARETUNE_SOURCE_HASH");

pub mod conv;
pub mod operators;
