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

/// Internal parts that the tests of this crate look into; they are no part of its interface.
#[doc(hidden)]
pub mod testing {
    pub use crate::conv::support::indirection::IndirectionBuffer;
    pub use crate::conv::support::taps::{by_tap, useful};
    pub use crate::conv::support::tiles::{
        Extent, MAX_ROWS, MAX_VECTORS, Tile, balanced, most_vectors, offered, tile_tunable,
    };
    pub use crate::operators::binary::{Axis, broadcast_strides, merge};
}
