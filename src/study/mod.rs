//! A study: the space of a network, the search loop over it, its journal, store and archive.
//!
//! [`session::run`] ties it together and tells what happens as a stream of [`event::Event`]s. How a
//! configuration is measured is [`crate::evaluate`]'s business, how the next one is chosen
//! `paretune_search`'s.

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
