//! Tests of the convolution algorithms and the parts that they share.

pub(crate) mod cases;
pub(crate) mod memory;
mod offers;
mod oracle_f32;
mod oracle_i8;
pub(crate) mod packed;
mod reference;
mod support;
