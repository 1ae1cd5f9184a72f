//! One configuration in, its metrics out.
//!
//! A configuration is decoded ([`candidate`]), turned into a compressed and scheduled plan
//! ([`realize`]), timed ([`timing`]) and scored ([`accuracy`]) in a worker process ([`worker`]) that the
//! search talks to by messages ([`protocol`]) and may kill at any time ([`host`]). What is claimed in the end
//! is timed in several processes ([`repeat`]). Which configurations are worth it is the study's business.

pub mod accuracy;
pub mod candidate;
pub mod host;
pub mod inspect;
pub mod numbers;
pub mod protocol;
pub mod realize;
pub mod repeat;
pub mod subject;
pub mod timing;
pub mod worker;

pub use crate::artefact;

/// Version of everything that decides what a recorded number means: how candidates are built, timed and
/// scored. Records of another version are never reused.
pub const PROTOCOL_VERSION: u32 = 5;
