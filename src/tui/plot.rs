//! A scatter plot in character cells.
//!
//! The chart widget of ratatui distinguishes data sets by colour only. Here every kind of point has
//! its own character, and the most important point of a cell is shown.

use paretune_report::axis::Axis;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Modifier, Style};

/// One point: position, character, style, and rank (the highest of a cell is drawn).
#[derive(Clone, Debug)]
pub(crate) struct Mark<'a> {
    pub x: f64,
    pub y: f64,
    pub symbol: char,
    pub style: Style,
    pub rank: u8,
    /// Text beside the point, drawn if there is space.
    pub label: &'a str,
}

/// A limit on one axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LimitLine {
    /// Whether the limit is on the horizontal axis.
    pub on_x: bool,
    pub value: f64,
    /// Whether values above the limit are forbidden.
    pub above: bool,
}

pub(crate) struct Plot<'a> {
    pub x: &'a Axis,
    pub y: &'a Axis,
    pub marks: &'a [Mark<'a>],
    pub limit_lines: &'a [LimitLine],
    pub frame: Style,
    pub limit_line: Style,
}

/// Columns left of the frame for tick labels.
const LEFT: u16 = 7;
/// Number of hatched cells on the forbidden side: enough to show the side, few enough to keep
/// points readable.
const HATCH: (u16, u16) = (4, 1);

impl Plot<'_> {
    pub(crate) fn render(&self, area: Rect, buffer: &mut Buffer) {
        let Some(inner) = inner(area) else { return };
        buffer.set_string(area.x, area.y, self.y.title(), self.frame);
        self.frame(area, inner, buffer);
        for limit_line in self.limit_lines {
            self.limit_line(*limit_line, inner, buffer);
        }
        let mut marks: Vec<&Mark<'_>> = self.marks.iter().collect();
        marks.sort_by_key(|mark| mark.rank);
        for mark in &marks {
            if let Some(position) = self.cell(inner, mark.x, mark.y)
                && let Some(cell) = buffer.cell_mut(position)
            {
                // The style of the cell below must not show through, for example a dim one.
                cell.reset();
                cell.set_char(mark.symbol).set_style(mark.style);
            }
        }
        for mark in marks.iter().filter(|mark| !mark.label.is_empty()) {
            if let Some(position) = self.cell(inner, mark.x, mark.y) {
                label(inner, position, mark, buffer);
            }
        }
    }

    fn frame(&self, area: Rect, inner: Rect, buffer: &mut Buffer) {
        let (left, bottom) = (inner.x - 1, inner.bottom());
        for y in inner.y..inner.bottom() {
            buffer.set_string(left, y, "│", self.frame);
        }
        for x in inner.x..inner.right() {
            buffer.set_string(x, bottom, "─", self.frame);
        }
        buffer.set_string(left, bottom, "└", self.frame);
        for (place, text) in self.y.ticks(usize::from(inner.height / 3).min(8)) {
            let y = inner.bottom() - 1 - cell(place, inner.height);
            buffer.set_string(left, y, "┤", self.frame);
            let text: String = text.chars().take(usize::from(LEFT) - 2).collect();
            let width = text.chars().count() as u16;
            buffer.set_string(left - 1 - width, y, text, self.frame);
        }
        let title = self.x.title();
        let title_at = area.right().saturating_sub(title.chars().count() as u16 + 1);
        let below = bottom + 1;
        let mut free = area.x;
        for (place, text) in self.x.ticks(usize::from(inner.width / 10).min(10)) {
            let x = inner.x + cell(place, inner.width);
            let width = text.chars().count() as u16;
            let start = x.saturating_sub(width / 2);
            buffer.set_string(x, bottom, "┬", self.frame);
            if start >= free && start + width < title_at {
                buffer.set_string(start, below, text, self.frame);
                free = start + width + 1;
            }
        }
        buffer.set_string(title_at, below, title, self.frame);
    }

    /// Draws the line of a limit and hatches its forbidden side.
    fn limit_line(&self, limit_line: LimitLine, inner: Rect, buffer: &mut Buffer) {
        let axis = if limit_line.on_x { self.x } else { self.y };
        let Some(place) =
            axis.position(limit_line.value).filter(|place| (0.0..=1.0).contains(place))
        else {
            return;
        };
        let (length, rim) =
            if limit_line.on_x { (inner.width, HATCH.0) } else { (inner.height, HATCH.1) };
        let at = cell(place, length);
        let line = if limit_line.on_x { "┆" } else { "┄" };
        for row in 0..inner.height {
            for column in 0..inner.width {
                let along = if limit_line.on_x { column } else { inner.height - 1 - row };
                let beyond =
                    if limit_line.above { along.checked_sub(at) } else { at.checked_sub(along) };
                let position = Position::new(inner.x + column, inner.y + row);
                let (Some(beyond), Some(target)) = (beyond, buffer.cell_mut(position)) else {
                    continue;
                };
                if beyond == 0 {
                    let crossed = matches!(target.symbol(), "┆" | "┄");
                    target.set_symbol(if crossed { "┼" } else { line }).set_style(self.limit_line);
                } else if beyond <= rim && (row + column) % 2 == 0 && target.symbol() == " " {
                    target.set_symbol("╱").set_style(self.frame);
                }
            }
        }
    }

    /// Returns the cell of a point, if it lies inside of the plot.
    pub(crate) fn cell(&self, inner: Rect, x: f64, y: f64) -> Option<Position> {
        let (x, y) = (self.x.position(x)?, self.y.position(y)?);
        let inside = (0.0..=1.0).contains(&x) && (0.0..=1.0).contains(&y);
        inside.then(|| {
            Position::new(
                inner.x + cell(x, inner.width),
                inner.bottom() - 1 - cell(y, inner.height),
            )
        })
    }
}

/// Returns the part of `area` that contains the points: below a title line, above the tick labels
/// and a title. `None` if there is too little space.
pub(crate) fn inner(area: Rect) -> Option<Rect> {
    (area.width >= LEFT + 8 && area.height >= 6).then(|| Rect {
        x: area.x + LEFT,
        y: area.y + 1,
        width: area.width - LEFT - 1,
        height: area.height - 3,
    })
}

/// Draws a mark's label beside it, over empty cells and limits only.
fn label(inner: Rect, at: Position, mark: &Mark<'_>, buffer: &mut Buffer) {
    let width = mark.label.chars().count() as u16;
    let (right, left) = (at.x + 1, at.x.checked_sub(width));
    let middle = at.x.saturating_sub(width / 2).max(inner.x);
    let last = inner.right().checked_sub(width);
    let places = [
        (Some(right), Some(at.y)),
        (left, Some(at.y)),
        (last.map(|last| middle.min(last)), Some(at.y + 1)),
        (last.map(|last| middle.min(last)), at.y.checked_sub(1)),
    ];
    let free = |(x, y): &(u16, u16)| {
        *x >= inner.x
            && x + width <= inner.right()
            && (inner.y..inner.bottom()).contains(y)
            && (*x..x + width).all(|x| {
                let cell = buffer.cell(Position::new(x, *y));
                cell.is_some_and(|cell| matches!(cell.symbol(), " " | "╱" | "┄"))
            })
    };
    let places = places.into_iter().filter_map(|(x, y)| Some((x?, y?)));
    if let Some((x, y)) = places.into_iter().find(free) {
        // The selection highlights the mark, not its label.
        buffer.set_string(x, y, mark.label, mark.style.remove_modifier(Modifier::REVERSED));
    }
}

/// Returns the cell of a position between 0 and 1.
fn cell(place: f64, cells: u16) -> u16 {
    ((place * f64::from(cells)) as u16).min(cells.saturating_sub(1))
}
