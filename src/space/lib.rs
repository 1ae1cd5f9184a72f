//! The joint space of a network on a machine: its parameters are built ([`builder`], [`tunables`]),
//! configurations of it are decoded ([`decode`]), and every search begins with a few of them
//! ([`seeds`]).

pub mod builder;
pub mod decode;
pub mod layer;
mod partitions;
pub mod seeds;
pub mod tunables;

pub use paretune_names as names;
