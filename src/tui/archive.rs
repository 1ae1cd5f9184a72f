//! The archive screen: the front, or all trials, as a table.

use paretune_record::front::FrontPoint;
use paretune_record::metric::{Metric, Metrics, Quantity};
use paretune_report::units;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Position, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, StatefulWidget, Table, TableState, Widget};

use super::front::sign;
use super::state::State;
use super::view::View;
use super::widgets::nothing_yet;

/// Width in columns from which on ratios to the baseline are shown.
const WIDE: u16 = 130;

/// Returns the width of a metric's column.
fn column_width(metric: Metric) -> u16 {
    match metric.quantity() {
        Quantity::Fraction => 11,
        Quantity::Seconds => 15,
        Quantity::Bytes => 8,
    }
}

/// Width of the ratio to the baseline beside each metric on wide screens.
const VERSUS: u16 = 15;
/// Columns before the first metric: two marks, the id, and the gaps.
const BEFORE: u16 = 2 + 1 + 8 + 1;
/// Lines above the first row: the summary and the column heads.
const ABOVE: u16 = 2;

/// The element under a click.
pub(super) enum Hit {
    /// A point, given by its id.
    Point(String),
    /// The head of a metric's column.
    Column(Metric),
}

fn wide(area: Rect) -> bool {
    area.width >= WIDE
}

/// Returns the first visible row, chosen so that the selected row is about in the middle if not all
/// rows fit.
fn first_row(rows: usize, visible: usize, chosen: Option<usize>) -> usize {
    chosen.unwrap_or(0).saturating_sub(visible / 2).min(rows.saturating_sub(visible))
}

pub(super) fn hit(area: Rect, at: Position, state: &State, view: &View) -> Option<Hit> {
    let line = at.y.checked_sub(area.y)?;
    if line + 1 == ABOVE {
        let mut left = area.x + BEFORE;
        for metric in Metric::objectives() {
            let width = column_width(metric) + if wide(area) { VERSUS } else { 0 };
            if (left..left + width).contains(&at.x) {
                return Some(Hit::Column(metric));
            }
            left += width + 1;
        }
        return None;
    }
    let points = view.ordered(state);
    let visible = usize::from(area.height.saturating_sub(ABOVE));
    let first = first_row(points.len() + 1, visible, position(&points, state, view));
    let row = first + usize::from(line.checked_sub(ABOVE)?);
    points.get(row).map(|point| Hit::Point(point.id.clone()))
}

fn position(points: &[&FrontPoint], state: &State, view: &View) -> Option<usize> {
    view.selected(state).and_then(|point| points.iter().position(|other| other.id == point.id))
}

pub(super) fn draw(area: Rect, buffer: &mut Buffer, state: &State, view: &View) {
    if state.front.is_empty() {
        nothing_yet(area, buffer, state, view);
        return;
    }
    let theme = view.theme;
    let wide = wide(area);
    let points = view.ordered(state);
    let what = if view.all { "trials" } else { "points of the front" };
    let filter = if view.filter.is_empty() {
        String::new()
    } else {
        format!(" with {} (Esc: all)", view.filter)
    };
    let summary = format!(
        "{} {what}{filter} by {} · limits: {}",
        points.len(),
        view.sort,
        units::limits(state.limits())
    );
    Line::styled(summary, theme.muted()).render(Rect { height: 1, ..area }, buffer);
    let area = Rect { y: area.y + 1, height: area.height - 1, ..area };

    let mut rows: Vec<_> = points.iter().map(|point| row(point, state, view, wide)).collect();
    if let Some(baseline) = &state.baseline {
        rows.push(baseline_row(baseline, view, wide));
    }
    let chosen = position(&points, state, view);
    let metrics = Metric::objectives()
        .map(|metric| Constraint::Length(column_width(metric) + if wide { VERSUS } else { 0 }));
    let widths = [Constraint::Length(2), Constraint::Length(8)]
        .into_iter()
        .chain(metrics)
        .chain([Constraint::Length(if wide { 24 } else { 8 }), Constraint::Fill(1)]);
    let first = first_row(points.len() + 1, usize::from(area.height.saturating_sub(1)), chosen);
    let table = Table::new(rows, widths)
        .header(heads(view, wide))
        .column_spacing(1)
        .row_highlight_style(theme.selected());
    let mut position = TableState::new().with_offset(first).with_selected(chosen);
    StatefulWidget::render(table, area, buffer, &mut position);
}

fn heads(view: &View, wide: bool) -> Row<'static> {
    let arrow = if (view.sort.is_maximized()) == view.reverse { '▲' } else { '▼' };
    let metrics = Metric::objectives().map(|metric| {
        let arrow = if metric == view.sort { arrow } else { ' ' };
        figure(format!("{metric}{arrow}").trim_end(), column_width(metric), None, wide)
    });
    let cells = [Cell::new(""), Cell::new("id")];
    let rest = [Cell::new("origin"), Cell::new("misses")];
    Row::new(cells.into_iter().chain(metrics).chain(rest)).style(view.theme.heading())
}

fn row(point: &FrontPoint, state: &State, view: &View, wide: bool) -> Row<'static> {
    let (mark, style) = sign(point, view.theme);
    let kept = if view.marked.contains(&point.id) { "✓" } else { "" };
    let on_front = state.front.iter().any(|other| other.id == point.id);
    let mark = if on_front { mark } else { '·' };
    let cells = [
        Cell::new(format!("{mark}{kept}")).style(style),
        Cell::new(units::short_id(&point.id).to_owned()),
    ];
    let figures = Metric::objectives().map(|metric| {
        let width = column_width(metric);
        let versus =
            state.baseline.as_ref().and_then(|base| units::versus(metric, &point.metrics, base));
        figure(&units::with_spread(point, metric), width, versus.as_deref(), wide)
    });
    let baseline = state.baseline.unwrap_or(point.metrics);
    let misses = units::misses_short(point, state.limits(), &baseline);
    let rest = [Cell::new(point.origin.clone()), Cell::new(misses).style(view.theme.infeasible())];
    Row::new(cells.into_iter().chain(figures).chain(rest))
}

fn baseline_row(baseline: &Metrics, view: &View, wide: bool) -> Row<'static> {
    let figures = Metric::objectives().map(|metric| {
        let width = column_width(metric);
        let text =
            baseline.get(metric).map_or_else(String::new, |value| units::value(metric, value));
        figure(&text, width, None, wide)
    });
    let cells = [Cell::new("B").style(view.theme.baseline()), Cell::new("baseline")];
    Row::new(cells.into_iter().chain(figures))
}

/// Formats a right-aligned figure followed by its ratio.
fn figure(text: &str, width: u16, versus: Option<&str>, wide: bool) -> Cell<'static> {
    let width = usize::from(width);
    let versus = if wide {
        format!("{:>1$}", versus.unwrap_or_default(), usize::from(VERSUS))
    } else {
        String::new()
    };
    Cell::new(format!("{text:>width$}{versus}"))
}
