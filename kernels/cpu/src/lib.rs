//! The processor's backend: convolution algorithms and the other operators, for every instruction set.
//!
//! [`conv`] has the algorithms and their registry, [`operators`] everything else that a step may be. Both
//! compute on buffers that they are given; plans, memory and the order of steps belong to the executor.

pub mod conv;
pub mod operators;
