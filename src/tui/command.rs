//! Requests of the user: commands to the search, and exports.

use std::path::Path;
use std::sync::Arc;

use paretune_record::change::Change;
use paretune_record::front::FrontPoint;

/// A request of the user to the search.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Finish the current trial, write the archive, and end with the event
    /// [`Finished`](paretune_record::event::Event::Finished).
    Quit,
    /// Start no further trial until [`Command::Resume`].
    Pause,
    /// Continue after [`Command::Pause`] with the next trial.
    Resume,
    /// Change limits, preference or budget, mark points, or inspect one.
    Change(Change),
}

/// Format in which a point can be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// A folder that `paretune run` can run.
    Bundle,
    /// A file in the ONNX format.
    Onnx,
    /// The configuration and its metrics as JSON.
    Json,
}

/// Function that writes a point to a path, called on a thread of its own. Its result is shown as a
/// message.
pub type Exporter =
    Arc<dyn Fn(&FrontPoint, ExportFormat, &Path) -> Result<String, String> + Send + Sync>;
