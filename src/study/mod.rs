//! A study: the space of a network, the search loop over it, its journal, store and archive.
//!
//! [`session::run`] drives it and reports its progress as a stream of [`event::Event`]s. The module
//! [`crate::evaluate`] measures configurations; the crate `paretune_search` chooses them.

pub mod archive;
pub mod budget;
pub mod characterize;
pub mod compose;
pub mod confirm;
pub mod event;
pub mod front;
pub mod journal;
pub mod limits;
pub mod prepare;
pub mod recipes;
pub mod replay;
pub mod request;
pub mod session;
pub mod space;
pub mod survey;
pub mod trial;
pub mod tune;
