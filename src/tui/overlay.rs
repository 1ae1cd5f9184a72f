//! Draws the overlay on a screen: the help, a text prompt, the export dialog.

use paretune_report::units;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::command::ExportFormat;
use super::dialog::{ExportDialog, FORMATS, Overlay, PromptKind};
use super::help;
use super::state::State;
use super::theme::Theme;
use super::view::View;
use super::widgets::window;

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
            Self::Filter => {
                "such as: feasible, latency<1ms, size<500kB, 8 bits, marked; Esc clears"
            }
        }
    }
}

impl Overlay {
    pub(super) fn draw(&self, area: Rect, buffer: &mut Buffer, state: &State, view: &View) {
        let theme = view.theme;
        match self {
            Self::None => {}
            Self::Help => help::draw(area, buffer, view),
            Self::Prompt(prompt) => {
                let below = match &prompt.problem {
                    Some(problem) => Line::styled(problem.clone(), theme.warning()),
                    None => Line::styled(prompt.kind.hint(), theme.muted()),
                };
                let lines = vec![
                    with_cursor(&prompt.text),
                    below,
                    Line::styled("Enter: apply   Esc: cancel", theme.muted()),
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
    fn lines(&self, view: &View, state: &State) -> Vec<Line<'static>> {
        let theme = view.theme;
        let what = match view.points_to_export(state)[..] {
            [] => "no point of the front is under the cursor".to_owned(),
            [point] => {
                let which = if point.best { ", the best" } else { "" };
                format!("{}{which}  (mark several with m)", units::short_id(&point.id))
            }
            ref points => format!("{} marked points", points.len()),
        };
        let mut formats = vec![muted("as    ", theme)];
        for (index, (_, name, _)) in FORMATS.iter().enumerate() {
            let style = if index == self.format { theme.selected() } else { Style::new() };
            formats.push(Span::styled(format!(" {name} "), style));
            formats.push(Span::raw(" "));
        }
        formats.push(muted(" left, right", theme));
        let mut path = with_cursor(&self.path);
        path.spans.insert(0, muted("to    ", theme));
        let about = match FORMATS[self.format].0 {
            ExportFormat::Bundle => {
                "a folder that `paretune run` and `paretune bench` run by itself"
            }
            ExportFormat::Onnx => {
                "pruned shapes, 8-bit layers between QuantizeLinear and DequantizeLinear"
            }
            ExportFormat::Json => "the configuration and its figures",
        };
        vec![
            Line::from(vec![muted("what  ", theme), Span::raw(what)]),
            Line::from(formats),
            path,
            Line::styled(about, theme.muted()),
            Line::default(),
            Line::styled("Enter: write   Esc: cancel", theme.muted()),
            Line::styled(
                "later, from a shell: paretune export --to bundle --pick ID",
                theme.muted(),
            ),
        ]
    }
}

fn muted(text: &str, theme: Theme) -> Span<'static> {
    Span::styled(text.to_owned(), theme.muted())
}

/// Formats the typed text with a cursor at its end.
fn with_cursor(text: &str) -> Line<'static> {
    Line::from(vec![Span::raw(text.to_owned()), Span::styled(" ", Style::new().reversed())])
}
