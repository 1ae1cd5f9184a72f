//! The front as a table.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, StatefulWidget, Table, TableState, Widget};

use super::draw::nothing_yet;
use super::front::sign;
use super::state::State;
use super::view::View;
use crate::report::units::{self, METRICS};
use crate::study::front::{FrontPoint, Metrics};

/// From this width on, ratios to the untouched network are shown.
const WIDE: u16 = 130;

/// Columns of each metric, and of its ratio where there is room.
const WIDTHS: [u16; 4] = [11, 15, 8, 8];
const VERSUS: u16 = 15;

pub(super) fn draw(area: Rect, buffer: &mut Buffer, state: &State, view: &View) {
    if state.front.is_empty() {
        nothing_yet(area, buffer, state, view);
        return;
    }
    let theme = view.theme;
    let wide = area.width >= WIDE;
    let points = view.ordered(state);
    let summary = format!(
        "{} points by {} (s, r) · limits: {}",
        points.len(),
        METRICS[view.sort],
        units::limits(state.limits())
    );
    Line::styled(summary, theme.quiet()).render(Rect { height: 1, ..area }, buffer);
    let area = Rect { y: area.y + 1, height: area.height - 1, ..area };

    let mut rows: Vec<_> = points.iter().map(|point| row(point, state, view, wide)).collect();
    if let Some(baseline) = &state.baseline {
        rows.push(baseline_row(baseline, view, wide));
    }
    let chosen = view.selected(state).and_then(|point| points.iter().position(|other| other.id == point.id));
    let metric = |column: usize| Constraint::Length(WIDTHS[column] + if wide { VERSUS } else { 0 });
    let widths = [
        Constraint::Length(1),
        Constraint::Length(8),
        metric(0),
        metric(1),
        metric(2),
        metric(3),
        Constraint::Length(if wide { 16 } else { 9 }),
        Constraint::Fill(1),
    ];
    let table = Table::new(rows, widths)
        .header(heads(view, wide))
        .column_spacing(1)
        .row_highlight_style(theme.selected());
    let mut position = TableState::new().with_selected(chosen);
    StatefulWidget::render(table, area, buffer, &mut position);
}

fn heads(view: &View, wide: bool) -> Row<'static> {
    let arrow = if (METRICS[view.sort] == "accuracy") == view.reverse { '▲' } else { '▼' };
    let metrics = METRICS.iter().zip(WIDTHS).enumerate().map(|(column, (metric, width))| {
        let arrow = if column == view.sort { arrow } else { ' ' };
        figure(format!("{metric}{arrow}").trim_end(), width, None, wide)
    });
    let cells = [Cell::new(""), Cell::new("id")];
    let rest = [Cell::new("from"), Cell::new("misses")];
    Row::new(cells.into_iter().chain(metrics).chain(rest)).style(view.theme.heading())
}

fn row(point: &FrontPoint, state: &State, view: &View, wide: bool) -> Row<'static> {
    let (mark, style) = sign(point, view.theme);
    let cells = [Cell::new(mark.to_string()).style(style), Cell::new(units::short_id(&point.id).to_owned())];
    let figures = METRICS.iter().zip(WIDTHS).map(|(metric, width)| {
        let versus = state.baseline.as_ref().and_then(|base| units::versus(metric, &point.metrics, base));
        figure(&units::with_spread(point, metric), width, versus.as_deref(), wide)
    });
    let baseline = state.baseline.unwrap_or(point.metrics);
    let misses = units::misses_short(point, state.limits(), &baseline);
    let rest = [Cell::new(point.origin.clone()), Cell::new(misses).style(view.theme.infeasible())];
    Row::new(cells.into_iter().chain(figures).chain(rest))
}

fn baseline_row(baseline: &Metrics, view: &View, wide: bool) -> Row<'static> {
    let figures = METRICS.iter().zip(WIDTHS).map(|(metric, width)| {
        let text = baseline.get(metric).map_or_else(String::new, |value| units::value(metric, value));
        figure(&text, width, None, wide)
    });
    let cells = [Cell::new("B").style(view.theme.baseline()), Cell::new("baseline")];
    Row::new(cells.into_iter().chain(figures))
}

/// A figure to the right of its column, its ratio behind it.
fn figure(text: &str, width: u16, versus: Option<&str>, wide: bool) -> Cell<'static> {
    let width = usize::from(width);
    let versus =
        if wide { format!("{:>1$}", versus.unwrap_or_default(), usize::from(VERSUS)) } else { String::new() };
    Cell::new(format!("{text:>width$}{versus}"))
}
