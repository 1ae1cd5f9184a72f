//! The terminal UI: a view of a study's event stream without any state of its own about the search.
//!
//! [`State`] accumulates the events, [`View`] holds the user's choices, and [`draw`] renders both
//! without side effects. [`run`] connects them with a terminal. User requests reach the search only
//! as [`Command`]s, and the UI never waits for the search.

#![forbid(unsafe_code)]

mod archive;
mod command;
mod dialog;
mod draw;
mod front;
mod help;
mod input;
mod network;
mod overlay;
mod picture;
mod plot;
mod progress;
mod run;
mod state;
mod terminal;
mod theme;
mod view;
mod widgets;

pub use command::{Command, ExportFormat, Exporter};
pub use draw::draw;
pub use picture::picture;
pub use run::{TuiError, run};
pub use state::{Current, Ending, OriginStats, State};
pub use terminal::is_there;
pub use theme::Theme;
pub use view::{Tab, View};

#[cfg(test)]
mod tests;
