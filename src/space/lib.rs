//! The joint space of a network on a machine: its parameters are built ([`builder`]),
//! configurations of it are decoded ([`decode`]), and every search begins with a few of them
//! ([`seeds`]).

pub mod builder;
pub mod decode;
pub mod layer;
pub mod seeds;

pub use paretune_names as names;
