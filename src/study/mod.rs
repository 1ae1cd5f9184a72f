//! A study: the space of a network, the search loop over it, its journal, store and archive.

pub mod event;
pub mod front;
