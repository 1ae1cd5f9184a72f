//! Elements that several screens draw: texts at the right, waiting notes, windows.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Padding, Paragraph, Widget, Wrap};

use super::state::State;
use super::view::View;

/// Draws a text at the right end of a line, cut so that `reserved` columns stay free at the left.
pub(super) fn right(area: Rect, buffer: &mut Buffer, text: &str, reserved: u16, style: Style) {
    let room = area.width.saturating_sub(reserved);
    let line = Line::from(text);
    let width = (line.width() as u16).min(room);
    buffer.set_stringn(area.right() - width, area.y, text, usize::from(width), style);
}

/// Draws what the search is waiting for, in the middle of a screen that has no point to show yet.
pub(super) fn nothing_yet(area: Rect, buffer: &mut Buffer, state: &State, view: &View) {
    let text = match (&state.preparing, &state.started) {
        (Some((task, fraction)), _) => format!("{task}: {:.0} %", fraction * 100.0),
        (None, Some(_)) => "waiting for the first trial".to_owned(),
        (None, None) => "waiting for the search".to_owned(),
    };
    let middle = Rect { y: area.y + area.height / 2, height: 1.min(area.height), ..area };
    Line::styled(text, view.theme.muted()).centered().render(middle, buffer);
}

/// Draws a framed window in the middle of the screen.
pub(super) fn window(
    area: Rect,
    buffer: &mut Buffer,
    title: &str,
    lines: Vec<Line<'_>>,
    height: u16,
) {
    let (width, height) = (74.min(area.width), height.min(area.height));
    let window = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(window, buffer);
    let block = Block::bordered().title(title.to_owned()).padding(Padding::horizontal(1));
    Paragraph::new(lines).wrap(Wrap { trim: false }).block(block).render(window, buffer);
}
