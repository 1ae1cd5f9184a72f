//! The plain data of a study, which everybody may read: what is asked for, what happens, what was
//! found.
//!
//! Nothing here knows how anything is measured or searched. Screens, reports and exports import
//! this crate and the names of parameters alone.

pub mod again;
pub mod archive;
pub mod artefact;
pub mod budget;
pub mod change;
pub mod characterize;
pub mod event;
pub mod failure;
pub mod front;
pub mod journal;
pub mod limit;
pub mod measurement;
pub mod metric;
pub mod preference;
pub mod request;
pub mod score;
pub mod seal;
pub mod selection;
pub mod step;
pub mod stop;
pub mod survey;
