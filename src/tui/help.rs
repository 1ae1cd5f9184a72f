//! The help overlay.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Padding, Paragraph, Widget};

use super::view::View;

const KEYS: [(&str, &str); 14] = [
    ("Tab, 1 2 3", "front, archive, progress"),
    ("arrows, j k", "move along the front"),
    ("PgUp PgDn", "ten points; Home and End: the ends"),
    ("b", "back to the best point"),
    ("Enter", "show this point in the table, in the plot"),
    ("x, y", "next metric on this axis of the plot"),
    ("s", "sort the table by the next metric"),
    ("r", "reverse the table"),
    ("p", "pause the search, go on"),
    ("q, Ctrl-C", "end the search and keep everything; again: now"),
    ("? h F1", "this help; any key closes it"),
    ("", ""),
    ("★ ● ○", "best, meets every limit, misses one"),
    ("· ×", "beaten by a point of the front; × misses a limit"),
];

pub(super) fn draw(area: Rect, buffer: &mut Buffer, view: &View) {
    let theme = view.theme;
    let mut lines: Vec<Line> = KEYS
        .iter()
        .map(|(keys, text)| {
            Line::from(vec![Span::styled(format!("{keys:<13}"), theme.heading()), Span::raw(*text)])
        })
        .collect();
    lines.push(Line::raw("The hatched side of a limit misses it. Ratios are to the"));
    lines.push(Line::raw("untouched network (B). Nothing here changes a result."));
    let (width, height) = (64.min(area.width), (lines.len() as u16 + 2).min(area.height));
    let window =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(window, buffer);
    let block = Block::bordered().title(" Keys ").padding(Padding::horizontal(1));
    Paragraph::new(lines).block(block).render(window, buffer);
}
