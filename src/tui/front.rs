//! The front as a scatter plot of two metrics, and the point under the cursor.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Widget, Wrap};

use super::draw::nothing_yet;
use super::plot::{Border, Mark, Plot};
use super::state::State;
use super::theme::Theme;
use super::view::View;
use crate::report::axis::Axis;
use crate::report::setting;
use crate::report::units::{self, METRICS};
use crate::study::front::{FrontPoint, Metrics};

const BEST: char = '★';
const FEASIBLE: char = '●';
const INFEASIBLE: char = '○';
const TRIED: char = '·';
const MISSED: char = '×';
const BASELINE: char = 'B';

/// From this width on, details stand beside the plot.
const WIDE: u16 = 120;

pub(super) fn draw(area: Rect, buffer: &mut Buffer, state: &State, view: &View) {
    let wide = area.width >= WIDE;
    let [plot, details] = if wide {
        Layout::horizontal([Constraint::Min(0), Constraint::Length(46)]).areas(area)
    } else {
        let lines = if area.height >= 20 { 7 } else { 4 };
        Layout::vertical([Constraint::Min(0), Constraint::Length(lines)]).areas(area)
    };
    if state.front.is_empty() && state.explored.is_empty() {
        nothing_yet(area, buffer, state, view);
        return;
    }
    scatter(plot, buffer, state, view);
    selected(details, buffer, state, view, wide);
}

/// The character and style that stand for a point of the front.
pub(super) fn sign(point: &FrontPoint, theme: Theme) -> (char, Style) {
    match (point.best, point.feasible) {
        (true, _) => (BEST, theme.best()),
        (false, true) => (FEASIBLE, theme.feasible()),
        (false, false) => (INFEASIBLE, theme.infeasible()),
    }
}

fn scatter(area: Rect, buffer: &mut Buffer, state: &State, view: &View) {
    let theme = view.theme;
    let (x, y) = (METRICS[view.x], METRICS[view.y]);
    let place = |metrics: &Metrics| Some((metrics.get(x)?, metrics.get(y)?));
    let mut marks = Vec::with_capacity(state.explored.len() + state.front.len() + 1);
    let mut add = |metrics: &Metrics, sign: char, style: Style, rank: u8| {
        if let Some((x, y)) = place(metrics) {
            marks.push(Mark { x, y, sign, style, rank });
        }
    };
    for dot in &state.explored {
        add(&dot.metrics, if dot.feasible { TRIED } else { MISSED }, theme.quiet(), 0);
    }
    if let Some(baseline) = &state.baseline {
        add(baseline, BASELINE, theme.baseline(), 3);
    }
    let chosen = view.selected(state).map(|point| point.id.as_str());
    for point in &state.front {
        let (sign, style) = sign(point, theme);
        if chosen == Some(point.id.as_str()) {
            add(&point.metrics, sign, style.patch(theme.selected()), 5);
        } else {
            add(&point.metrics, sign, style, if point.best { 4 } else { 1 + u8::from(point.feasible) });
        }
    }
    let borders = borders(state, x, y);
    let limits =
        |on_x| borders.iter().filter(move |border: &&Border| border.on_x == on_x).map(|border| border.value);
    let x_axis = Axis::with_limits(x, range(&marks, |mark| mark.x), limits(true));
    let y_axis = Axis::with_limits(y, range(&marks, |mark| mark.y), limits(false));
    let plot = Plot {
        x: &x_axis,
        y: &y_axis,
        marks: &marks,
        borders: &borders,
        frame: theme.quiet(),
        border: theme.limit(),
    };
    plot.render(area, buffer);
    legend(area, buffer, y_axis.title().chars().count() as u16, theme);
}

/// Values that set the scale: the front and the baseline always; of what was tried, all but the worst, which would
/// squeeze everything of interest into a corner.
fn range(marks: &[Mark], value: impl Fn(&Mark) -> f64) -> Vec<f64> {
    let mut tried: Vec<f64> = marks.iter().filter(|mark| mark.rank == 0).map(&value).collect();
    tried.sort_by(f64::total_cmp);
    let cut = tried.len() / 20;
    let kept = tried.get(cut..tried.len() - cut).unwrap_or_default();
    marks.iter().filter(|mark| mark.rank > 0).map(&value).chain(kept.iter().copied()).collect()
}

fn borders(state: &State, x: &str, y: &str) -> Vec<Border> {
    let mut borders = Vec::new();
    for limit in state.limits() {
        let (metric, value) = match (limit.metric.as_str(), &state.baseline) {
            ("accuracy-drop", Some(baseline)) => ("accuracy", baseline.accuracy - limit.value),
            (metric, _) => (metric, limit.value),
        };
        let above = limit.op.starts_with('<') && limit.metric != "accuracy-drop";
        for (on_x, axis) in [(true, x), (false, y)] {
            if axis == metric {
                borders.push(Border { on_x, value, above });
            }
        }
    }
    borders
}

fn legend(area: Rect, buffer: &mut Buffer, title: u16, theme: Theme) {
    let entries = [
        (BEST, theme.best(), "best"),
        (FEASIBLE, theme.feasible(), "meets limits"),
        (INFEASIBLE, theme.infeasible(), "misses"),
        (BASELINE, theme.baseline(), "untouched"),
        (TRIED, theme.quiet(), ""),
        (MISSED, theme.quiet(), "dominated"),
    ];
    let mut spans = Vec::new();
    for (sign, style, text) in entries {
        spans.push(Span::styled(sign.to_string(), style));
        spans.push(Span::raw(if text.is_empty() { " ".to_owned() } else { format!(" {text} ") }));
    }
    let line = Line::from(spans);
    let room = area.width.saturating_sub(title + 1);
    let width = (line.width() as u16).min(room);
    line.render(Rect { x: area.right() - width, width, height: 1, ..area }, buffer);
}

fn selected(area: Rect, buffer: &mut Buffer, state: &State, view: &View, wide: bool) {
    let theme = view.theme;
    let borders = if wide { Borders::LEFT } else { Borders::TOP };
    let block = Block::new().borders(borders).border_style(theme.quiet());
    let inner = block.inner(area);
    block.render(area, buffer);
    let Some(point) = view.selected(state) else {
        Paragraph::new("no point is on the front yet").style(theme.quiet()).render(inner, buffer);
        return;
    };
    let order = view.ordered(state);
    let at = order.iter().position(|other| other.id == point.id).map_or(0, |at| at + 1);
    let (sign, style) = sign(point, theme);
    let mut head = vec![
        Span::styled(format!("{sign} "), style),
        Span::styled(units::short_id(&point.id).to_owned(), theme.heading()),
    ];
    if point.best {
        head.push(Span::styled(" best", theme.best()));
    }
    head.push(Span::raw(format!("  {at} of {}", order.len())));
    if !point.origin.is_empty() {
        head.push(Span::raw(format!("  by {}", point.origin)));
    }
    let mut lines = vec![Line::from(head)];
    let figures: Vec<_> = METRICS.iter().map(|metric| figure(point, metric, state, theme)).collect();
    if wide {
        lines.push(Line::default());
        lines.extend(figures.into_iter().map(Line::from));
        lines.push(Line::default());
    } else {
        lines.extend(figures.chunks(2).map(|pair| Line::from(pair.concat())));
    }
    lines.extend(misses(point, state).into_iter().map(|text| Line::styled(text, theme.infeasible())));
    if wide {
        lines.push(Line::default());
        lines.extend(
            point.config.0.iter().map(|(name, value)| Line::raw(format!("{name} = {}", setting(value)))),
        );
        Paragraph::new(lines).wrap(Wrap { trim: false }).render(inner, buffer);
    } else {
        let settings: Vec<_> =
            point.config.0.iter().map(|(name, value)| format!("{name}={}", setting(value))).collect();
        lines.push(Line::styled(settings.join(" "), theme.quiet()));
        Paragraph::new(lines).wrap(Wrap { trim: true }).render(inner, buffer);
    }
}

/// `latency   0.710 ms ±2.0%  4.4x faster`, padded to a column.
fn figure(point: &FrontPoint, metric: &str, state: &State, theme: Theme) -> Vec<Span<'static>> {
    let versus = state.baseline.as_ref().and_then(|baseline| units::versus(metric, &point.metrics, baseline));
    vec![
        Span::styled(format!("{metric:<9}"), theme.quiet()),
        Span::raw(format!("{:<16}", units::with_spread(point, metric))),
        Span::raw(format!("{:<15}", versus.unwrap_or_default())),
    ]
}

fn misses(point: &FrontPoint, state: &State) -> Vec<String> {
    units::misses(point, state.limits(), &state.baseline.unwrap_or(point.metrics))
}
