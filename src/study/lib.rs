//! A study: the space of a network, the search loop over it, its journal, store and archive.
//!
//! [`session::run`] drives it and reports its progress as a stream of
//! [`paretune_record::event::Event`]s. The module [`paretune_evaluate`] measures configurations;
//! the crate `paretune_search` chooses them.

pub mod additive;
pub mod baseline;
pub mod bounds;
pub mod characterize;
pub mod confirm;
pub mod error;
pub mod prepare;
pub mod replay;
pub mod session;
pub mod survey;
pub mod trial;
