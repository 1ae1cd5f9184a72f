//! Measures the metrics of one configuration.
//!
//! A configuration is decoded ([`paretune_joint_space::decode`]), built as a compressed and
//! scheduled plan ([`plan`]), timed ([`timing`]) and scored ([`accuracy`]) in a worker process
//! ([`worker`]). The search sends messages to it ([`protocol`]), with rules that end a measurement
//! early ([`stop`]), and may kill it at any time ([`host`]). Final results are timed in several
//! processes ([`repeat`]). The study decides which configurations are measured.

pub mod accuracy;
pub mod decision;
pub mod host;
pub mod inspect;
pub mod plan;
pub mod protocol;
pub mod rebuild;
pub mod repeat;
pub mod stop;
pub mod timing;
pub mod worker;
pub mod workload;

/// Version of everything that gives a recorded number its meaning: how candidates are built, timed
/// and scored. Records of another version are never reused.
pub const PROTOCOL_VERSION: u32 = 5;
