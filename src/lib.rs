//! Finds how a trained CNN should be deployed: on this hardware, with these images, under these
//! limits.
//!
//! The library behind the `paretune` program. Data flows one way: a network ([`model`]) and images
//! span a space ([`study`]); a configuration of it says how the network is compressed
//! ([`compress`]) and scheduled; a worker process builds it, times it and scores it ([`evaluate`]);
//! the archive of what was found is drawn ([`tui`], [`report`]) and exported ([`export`]).

#![forbid(unsafe_code)]

pub mod cli;

pub use paretune_compress as compress;
pub use paretune_evaluate as evaluate;
pub use paretune_export as export;
pub use paretune_joint_space as space;
pub use paretune_model as model;
pub use paretune_record as record;
pub use paretune_report as report;
pub use paretune_study as study;
pub use paretune_tui as tui;
pub use paretune_tune as tune;
