//! Overlays on a screen that receive the keys: the help, a text prompt, the export dialog.

use std::path::PathBuf;

use paretune_record::budget::Budget;
use paretune_record::change::Change;
use paretune_record::front::FrontPoint;
use paretune_record::limits;
use paretune_report::units;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Padding, Paragraph, Widget, Wrap};

use super::run::ExportFormat;
use super::state::State;
use super::view::{Action, View};
use super::{help, theme};

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
const FORMATS: [(ExportFormat, &str, &str); 3] = [
    (ExportFormat::Bundle, "bundle", "-bundle"),
    (ExportFormat::Onnx, "onnx", ".onnx"),
    (ExportFormat::Json, "json", ".json"),
];

impl PromptKind {
    fn title(self) -> &'static str {
        match self {
            Self::Limits => " Limits ",
            Self::Budget => " Budget ",
            Self::Filter => " Filter ",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Limits => "such as: <20ms, size<5MB, accuracy-drop<1%; empty for none",
            Self::Budget => "such as: +5m for five minutes more, 20m or 500trials in all",
            Self::Filter => "such as: feasible, latency<1ms, size<500kB, 8 bits, marked; Esc clears",
        }
    }

    /// Parses the text into a change of the search.
    pub(super) fn change(self, text: &str, state: &State) -> Result<Change, String> {
        let text = text.trim();
        match self {
            Self::Limits if text.is_empty() => Ok(Change::Limits(Vec::new())),
            Self::Limits => limits::parse(text).map(Change::Limits).map_err(|error| error.to_string()),
            Self::Budget => {
                let (more, text) = text.strip_prefix('+').map_or((false, text), |text| (true, text));
                let asked: Budget = text.parse().map_err(|error| format!("{error}"))?;
                let (seconds, trials) = state
                    .started
                    .as_ref()
                    .map_or((None, None), |started| (started.budget_seconds, started.budget_trials));
                let budget = if more {
                    Budget {
                        seconds: seconds.map(|seconds| seconds + asked.seconds.unwrap_or(0.0)),
                        trials: trials.map(|trials| trials + asked.trials.unwrap_or(0)),
                    }
                } else {
                    asked
                };
                if more && budget == (Budget { seconds, trials }) {
                    return Err("the budget counts otherwise: give it whole".to_owned());
                }
                Ok(Change::Budget(budget))
            }
            Self::Filter => Err("a filter asks nothing of the search".to_owned()),
        }
    }
}

impl Overlay {
    /// Opens the export dialog for the marked points, or for the selected one.
    pub(super) fn export(view: &View, state: &State) -> Self {
        let dialog = ExportDialog { format: 0, path: String::new(), typed: false };
        Self::Export(ExportDialog { path: dialog.usual_path(view, state), ..dialog })
    }

    pub(super) fn draw(&self, area: Rect, buffer: &mut Buffer, state: &State, view: &View) {
        let theme = view.theme;
        match self {
            Self::None => {}
            Self::Help => help::draw(area, buffer, view),
            Self::Prompt(prompt) => {
                let below = match &prompt.problem {
                    Some(problem) => Line::styled(problem.clone(), theme.warning()),
                    None => Line::styled(prompt.kind.hint(), theme.quiet()),
                };
                let lines = vec![
                    typed(&prompt.text),
                    below,
                    Line::styled("Enter: take over   Esc: leave", theme.quiet()),
                ];
                window(area, buffer, prompt.kind.title(), lines, 6);
            }
            Self::Export(dialog) => {
                window(area, buffer, " Export ", dialog.lines(view, state), 11);
            }
        }
    }
}

impl ExportDialog {
    /// Returns the points that would be exported.
    fn points<'a>(view: &View, state: &'a State) -> Vec<&'a FrontPoint> {
        let marked: Vec<_> = state.front.iter().filter(|point| view.marked.contains(&point.id)).collect();
        if marked.is_empty() {
            let id = view.selected(state).map(|point| &point.id);
            return state.front.iter().filter(|point| Some(&point.id) == id).collect();
        }
        marked
    }

    fn usual_path(&self, view: &View, state: &State) -> String {
        let model = state.started.as_ref().map_or("network", |started| started.model.as_str());
        let end = FORMATS[self.format].2;
        match Self::points(view, state)[..] {
            [point] => format!("{model}-{}{end}", units::short_id(&point.id)),
            _ => format!("{model}{end}"),
        }
    }

    pub(super) fn key(mut self, code: KeyCode, view: &mut View, state: &State) -> Vec<Action> {
        match code {
            KeyCode::Esc => return Vec::new(),
            KeyCode::Left | KeyCode::Right | KeyCode::Tab => {
                let by = if code == KeyCode::Left { FORMATS.len() - 1 } else { 1 };
                self.format = (self.format + by) % FORMATS.len();
                if !self.typed {
                    self.path = self.usual_path(view, state);
                }
            }
            KeyCode::Backspace => {
                self.path.pop();
                self.typed = true;
            }
            KeyCode::Char(letter) if self.path.chars().count() < 300 => {
                self.path.push(letter);
                self.typed = true;
            }
            KeyCode::Enter if !self.path.trim().is_empty() => {
                let points = Self::points(view, state);
                let (format, _, end) = FORMATS[self.format];
                let path = |point: &FrontPoint| {
                    if points.len() == 1 {
                        return PathBuf::from(self.path.trim());
                    }
                    let stem = self.path.trim().strip_suffix(end).unwrap_or(self.path.trim());
                    PathBuf::from(format!("{stem}-{}{end}", units::short_id(&point.id)))
                };
                if points.is_empty() {
                    view.message = Some("only points of the front can be exported".to_owned());
                    return Vec::new();
                }
                let wishes = points.iter().map(|point| ((*point).clone(), format, path(point))).collect();
                return vec![Action::Export(wishes)];
            }
            _ => {}
        }
        view.overlay = Overlay::Export(self);
        Vec::new()
    }

    fn lines(&self, view: &View, state: &State) -> Vec<Line<'static>> {
        let theme = view.theme;
        let what = match Self::points(view, state)[..] {
            [] => "no point of the front is under the cursor".to_owned(),
            [point] => {
                let which = if point.best { ", the best" } else { "" };
                format!("{}{which}  (mark several with m)", units::short_id(&point.id))
            }
            ref points => format!("{} marked points", points.len()),
        };
        let mut formats = vec![quiet("as    ", theme)];
        for (index, (_, name, _)) in FORMATS.iter().enumerate() {
            let style = if index == self.format { theme.selected() } else { Style::new() };
            formats.push(Span::styled(format!(" {name} "), style));
            formats.push(Span::raw(" "));
        }
        formats.push(quiet(" left, right", theme));
        let mut path = typed(&self.path);
        path.spans.insert(0, quiet("to    ", theme));
        let about = match FORMATS[self.format].0 {
            ExportFormat::Bundle => "a folder that `paretune run` and `paretune bench` run by itself",
            ExportFormat::Onnx => "pruned shapes, 8-bit layers between QuantizeLinear and DequantizeLinear",
            ExportFormat::Json => "the configuration and its figures",
        };
        vec![
            Line::from(vec![quiet("what  ", theme), Span::raw(what)]),
            Line::from(formats),
            path,
            Line::styled(about, theme.quiet()),
            Line::default(),
            Line::styled("Enter: write   Esc: leave", theme.quiet()),
            Line::styled("later, from a shell: paretune export --to bundle --pick ID", theme.quiet()),
        ]
    }
}

fn quiet(text: &str, theme: theme::Theme) -> Span<'static> {
    Span::styled(text.to_owned(), theme.quiet())
}

/// Formats the typed text with a cursor at its end.
fn typed(text: &str) -> Line<'static> {
    Line::from(vec![Span::raw(text.to_owned()), Span::styled(" ", Style::new().reversed())])
}

/// Draws a framed window in the middle of the screen.
pub(super) fn window(area: Rect, buffer: &mut Buffer, title: &str, lines: Vec<Line<'_>>, height: u16) {
    let (width, height) = (74.min(area.width), height.min(area.height));
    let window =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(window, buffer);
    let block = Block::bordered().title(title.to_owned()).padding(Padding::horizontal(1));
    Paragraph::new(lines).wrap(Wrap { trim: false }).block(block).render(window, buffer);
}
