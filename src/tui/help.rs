//! The help overlay: a list of all keys and marks.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::overlay::window;
use super::view::View;

const KEYS: [(&str, &str); 18] = [
    ("Tab, 1 2 3 4", "front, archive, network, progress; or click them"),
    ("arrows, j k", "move along the front; click a point, turn the wheel"),
    ("PgUp PgDn", "ten points; Home and End: the ends"),
    ("b", "back to the best point"),
    ("Enter", "the layers of this point, and back"),
    ("x, y", "next metric on this axis of the plot"),
    ("s, r, a", "table: sort by the next metric, reverse, all trials"),
    ("/", "table: narrow it down"),
    ("m, Space", "mark a point to keep; marked ones are confirmed, too"),
    ("e", "export the marked points, or this one"),
    ("l", "change the limits; everything is judged again"),
    ("o", "change what the best is best at"),
    ("+", "more budget"),
    ("p", "pause the search, go on"),
    ("q, Ctrl-C", "end the search and keep everything; again: now"),
    ("★ ● ○", "best, meets every limit, misses one"),
    ("B ◆", "the untouched network, one technique alone"),
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
    lines.push(Line::raw("The hatched side of a limit misses it. Any key closes this."));
    let height = lines.len() as u16 + 2;
    window(area, buffer, " Keys ", lines, height);
}
