//! The help overlay: a list of all keys and marks.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::view::View;
use super::widgets::window;

const KEYS: [(&str, &str); 18] = [
    ("Tab, 1 2 3 4", "front, archive, network, progress; or click them"),
    ("arrows, j k", "move along the front; click a point, turn the wheel"),
    ("PgUp PgDn", "ten points; Home and End: the ends"),
    ("b", "back to the best point"),
    ("Enter", "the layers of this point, and back"),
    ("x, y", "next metric on this axis of the plot"),
    ("s, r, a", "table: sort by the next metric, reverse, all trials"),
    ("/", "table: filter the rows"),
    ("m, Space", "mark a point; marked points are measured again at the end"),
    ("e", "export the marked points, or this one"),
    ("l", "change the limits; all points are judged again"),
    ("o", "choose the criterion of the best point"),
    ("+", "increase the budget"),
    ("p", "pause or continue the search"),
    ("q, Ctrl-C", "end the search and keep its results; again: at once"),
    ("★ ● ○", "best, meets every limit, misses one"),
    ("B ◆", "the baseline, a single technique"),
    ("· ×", "dominated by the front; × misses a limit as well"),
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
