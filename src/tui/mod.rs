//! The terminal UI: one view of a study's event stream, owning no truth of its own.
//!
//! [`State`] is what the events so far add up to; [`View`] is what the user has chosen to look at; [`draw`] makes a
//! picture of the two and nothing else. [`run`] connects them with a terminal. The search hears of the user only
//! through [`Command`]s and is never waited for.

mod archive;
#[doc(hidden)]
pub mod demo;
mod draw;
mod front;
mod help;
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

pub use draw::draw;
pub use picture::picture;
pub use run::{Command, ExportFormat, Exporter, TuiError, run};
pub use state::{Credit, Current, Ending, State};
pub use theme::Theme;
pub use view::{Tab, View};

#[cfg(test)]
mod tests;
