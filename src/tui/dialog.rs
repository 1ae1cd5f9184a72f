//! Overlays on a screen that receive the keys: the help, a text prompt, the export dialog.

use paretune_record::budget::Budget;
use paretune_record::change::Change;
use paretune_record::limit;

use super::command::ExportFormat;
use super::state::State;

/// The overlay on the current screen.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Overlay {
    /// No overlay; keys go to the screen.
    #[default]
    None,
    /// The list of keys and marks.
    Help,
    /// A prompt for a line of text.
    Prompt(Prompt),
    /// The dialog for exporting points.
    Export(ExportDialog),
}

/// A prompt for a line of text.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Purpose that the text is typed for.
    pub kind: PromptKind,
    /// Text that is typed so far.
    pub text: String,
    /// Message about a mistake in the text.
    pub problem: Option<String>,
}

/// Purpose that a prompt's text is typed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptKind {
    /// Change the limits of the search.
    Limits,
    /// Change the budget of the search.
    Budget,
    /// Filter the table of the archive.
    Filter,
}

/// State of the dialog for exporting points.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportDialog {
    /// Index into [`FORMATS`], the selected format.
    pub format: usize,
    /// Path to write to. With several points, each adds its id.
    pub path: String,
    /// Whether the user has edited the path.
    pub typed: bool,
}

/// Export formats with their names and the suffixes of their files.
pub(super) const FORMATS: [(ExportFormat, &str, &str); 3] = [
    (ExportFormat::Bundle, "bundle", "-bundle"),
    (ExportFormat::Onnx, "onnx", ".onnx"),
    (ExportFormat::Json, "json", ".json"),
];

impl PromptKind {
    /// Parses the text into a change of the search.
    pub(super) fn change(self, text: &str, state: &State) -> Result<Change, String> {
        let text = text.trim();
        match self {
            Self::Limits if text.is_empty() => Ok(Change::Limits(Vec::new())),
            Self::Limits => {
                limit::parse(text).map(Change::Limits).map_err(|error| error.to_string())
            }
            Self::Budget => {
                let (more, text) =
                    text.strip_prefix('+').map_or((false, text), |text| (true, text));
                let asked: Budget = text.parse().map_err(|error| format!("{error}"))?;
                let (seconds, trials) = state.started.as_ref().map_or((None, None), |started| {
                    (started.budget_seconds, started.budget_trials)
                });
                let budget = if more {
                    Budget {
                        seconds: seconds.map(|seconds| seconds + asked.seconds.unwrap_or(0.0)),
                        trials: trials.map(|trials| trials + asked.trials.unwrap_or(0)),
                    }
                } else {
                    asked
                };
                if more && budget == (Budget { seconds, trials }) {
                    return Err("the budget has no such limit: type the whole budget".to_owned());
                }
                Ok(Change::Budget(budget))
            }
            Self::Filter => Err("a filter does not change the search".to_owned()),
        }
    }
}
