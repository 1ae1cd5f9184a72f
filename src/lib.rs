//! Finds how a trained CNN should be deployed: on this hardware, with these images, under these limits.
//!
//! The library behind the `paretune` program. Data flows one way: a network ([`model`]) and images
//! span a space ([`study`]); a configuration of it says how the network is compressed ([`compress`])
//! and scheduled; a worker process builds it, times it and scores it ([`evaluate`]); the archive of
//! what was found is drawn ([`tui`], [`report`]) and exported ([`export`]).

pub mod artefact;
pub mod cli;
pub mod compress;
pub mod evaluate;
pub mod export;
pub mod model;
pub mod report;
pub mod study;
pub mod tui;
