//! The front screen: a scatter plot of two metrics, and details of the selected point.

use paretune_record::front::FrontPoint;
use paretune_record::metric::{Metric, Metrics};
use paretune_report::axis::Axis;
use paretune_report::units;
use paretune_report::{setting, why_of};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Widget, Wrap};

use super::plot::{LimitLine, Mark, Plot, inner};
use super::state::State;
use super::theme::Theme;
use super::view::View;
use super::widgets::nothing_yet;

const BEST: char = '★';
const FEASIBLE: char = '●';
const INFEASIBLE: char = '○';
const TRIED: char = '·';
const MISSED: char = '×';
const BASELINE: char = 'B';
const TECHNIQUE: char = '◆';

/// Width in columns from which on details are beside the plot.
const WIDE: u16 = 120;

/// Splits the screen into plot and details. Also returns whether they are side by side.
fn areas(area: Rect, state: &State) -> (Rect, Rect, bool) {
    let wide = area.width >= WIDE;
    let [plot, details] = if wide {
        Layout::horizontal([Constraint::Min(0), Constraint::Length(50)]).areas(area)
    } else {
        let limits = state.limits().len().min(2) as u16;
        let lines = if area.height >= 18 { 5 + limits } else { 4 };
        Layout::vertical([Constraint::Min(0), Constraint::Length(lines)]).areas(area)
    };
    (plot, details, wide)
}

pub(super) fn draw(area: Rect, buffer: &mut Buffer, state: &State, view: &View) {
    let (plot, details, wide) = areas(area, state);
    if state.front.is_empty() && state.explored.is_empty() {
        nothing_yet(area, buffer, state, view);
        return;
    }
    let scene = Scene::new(state, view);
    scene.plot(view.theme).render(plot, buffer);
    legend(plot, buffer, scene.y.title().chars().count() as u16, view.theme);
    selected(details, buffer, state, view, wide);
}

/// Returns the id of the front's point that is drawn nearest to a cell, if it is close.
pub(super) fn point_at(area: Rect, at: Position, state: &State, view: &View) -> Option<String> {
    let (plot, ..) = areas(area, state);
    let inner = inner(plot)?;
    let scene = Scene::new(state, view);
    let plot = scene.plot(view.theme);
    let distance = |point: &FrontPoint| {
        let cell = plot.cell(inner, point.metrics.get(view.x)?, point.metrics.get(view.y)?)?;
        // Cells are about twice as high as wide.
        let far = u32::from(cell.x.abs_diff(at.x)).max(2 * u32::from(cell.y.abs_diff(at.y)));
        (far <= 3).then_some(far)
    };
    let near =
        state.front.iter().filter_map(|point| Some((distance(point)?, !point.best, &point.id)));
    near.min().map(|(.., id)| id.clone())
}

/// Returns the character and style that represent a point of the front.
pub(super) fn sign(point: &FrontPoint, theme: Theme) -> (char, Style) {
    match (point.best, point.feasible) {
        (true, _) => (BEST, theme.best()),
        (false, true) => (FEASIBLE, theme.feasible()),
        (false, false) => (INFEASIBLE, theme.infeasible()),
    }
}

/// Axes, points and limits of the plot.
struct Scene<'a> {
    x: Axis,
    y: Axis,
    marks: Vec<Mark<'a>>,
    limit_lines: Vec<LimitLine>,
}

impl<'a> Scene<'a> {
    fn new(state: &'a State, view: &View) -> Self {
        let theme = view.theme;
        let (x, y) = (view.x, view.y);
        let place = |metrics: &Metrics| Some((metrics.get(x)?, metrics.get(y)?));
        let mut marks: Vec<Mark<'a>> =
            Vec::with_capacity(state.explored.len() + state.front.len() + 1);
        let mut add = |metrics: &Metrics, sign: char, style: Style, rank: u8, label: &'a str| {
            if let Some((x, y)) = place(metrics) {
                marks.push(Mark { x, y, symbol: sign, style, rank, label });
            }
        };
        for point in &state.explored {
            add(&point.metrics, if point.feasible { TRIED } else { MISSED }, theme.muted(), 0, "");
        }
        if let Some(baseline) = &state.baseline {
            add(baseline, BASELINE, theme.baseline(), 4, "baseline");
        }
        for technique in &state.techniques {
            add(&technique.metrics, TECHNIQUE, theme.technique(), 3, &technique.label);
        }
        let chosen = view.selected(state).map(|point| point.id.as_str());
        for point in &state.front {
            let (sign, style) = sign(point, theme);
            let label = if point.best { "best" } else { "" };
            if chosen == Some(point.id.as_str()) {
                add(&point.metrics, sign, style.patch(theme.selected()), 6, label);
            } else {
                add(
                    &point.metrics,
                    sign,
                    style,
                    if point.best { 5 } else { 1 + u8::from(point.feasible) },
                    label,
                );
            }
        }
        let limit_lines = limit_lines(state, x, y);
        let limits = |on_x| {
            limit_lines
                .iter()
                .filter(move |border: &&LimitLine| border.on_x == on_x)
                .map(|border| border.value)
        };
        let x = Axis::with_limits(x, range(&marks, |mark| mark.x), limits(true));
        let y = Axis::with_limits(y, range(&marks, |mark| mark.y), limits(false));
        Self { x, y, marks, limit_lines }
    }

    fn plot(&self, theme: Theme) -> Plot<'_> {
        Plot {
            x: &self.x,
            y: &self.y,
            marks: &self.marks,
            limit_lines: &self.limit_lines,
            frame: theme.muted(),
            limit_line: theme.limit(),
        }
    }
}

/// Lists the values that determine the range of an axis: all of the front and the baseline, but not
/// the most extreme trials, which would compress the interesting part into a corner.
fn range(marks: &[Mark<'_>], value: impl Fn(&Mark<'_>) -> f64) -> Vec<f64> {
    let mut tried: Vec<f64> = marks.iter().filter(|mark| mark.rank == 0).map(&value).collect();
    tried.sort_by(f64::total_cmp);
    let cut = tried.len() / 20;
    let kept = tried.get(cut..tried.len() - cut).unwrap_or_default();
    marks.iter().filter(|mark| mark.rank > 0).map(&value).chain(kept.iter().copied()).collect()
}

fn limit_lines(state: &State, x: Metric, y: Metric) -> Vec<LimitLine> {
    let mut limit_lines = Vec::new();
    for limit in state.limits() {
        let drawn = limit.drawn(state.baseline.as_ref());
        let (metric, value, above) = (drawn.metric, drawn.value, drawn.is_upper());
        for (on_x, axis) in [(true, x), (false, y)] {
            if axis == metric {
                limit_lines.push(LimitLine { on_x, value, above });
            }
        }
    }
    limit_lines
}

fn legend(area: Rect, buffer: &mut Buffer, title: u16, theme: Theme) {
    let entries = [
        (BEST, theme.best(), "best"),
        (FEASIBLE, theme.feasible(), "meets limits"),
        (INFEASIBLE, theme.infeasible(), "misses"),
        (BASELINE, theme.baseline(), "baseline"),
        (TECHNIQUE, theme.technique(), "technique"),
        (TRIED, theme.muted(), ""),
        (MISSED, theme.muted(), "dominated"),
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
    let block = Block::new().borders(borders).border_style(theme.muted());
    let inner = block.inner(area);
    block.render(area, buffer);
    let Some(point) = view.selected(state) else {
        Paragraph::new("no point is on the front yet").style(theme.muted()).render(inner, buffer);
        return;
    };
    let mut lines = vec![head(point, state, view)];
    let figures: Vec<_> =
        Metric::objectives().map(|metric| figure(point, metric, state, theme)).collect();
    if wide {
        lines.push(Line::raw(reason(point, state)));
        lines.push(Line::default());
        lines.extend(figures.into_iter().map(Line::from));
        lines.push(Line::default());
    } else {
        lines.extend(figures.chunks(2).map(|pair| Line::from(pair.concat())));
        if point.best {
            lines.push(Line::raw(format!("{}; e exports it", reason(point, state))));
        }
    }
    lines.extend(
        misses(point, state).into_iter().map(|text| Line::styled(text, theme.infeasible())),
    );
    if !point.best && point.feasible && !wide {
        lines.push(Line::raw(reason(point, state)));
    }
    let beyond = state.relaxations();
    if wide && !beyond.is_empty() {
        lines.push(Line::styled("What if a limit were relaxed?", theme.heading()));
    }
    let what_if = |text: String| if wide { text } else { format!("what if? {text}") };
    lines.extend(
        beyond
            .into_iter()
            .map(|relaxation| Line::styled(what_if(relaxation.text), theme.warning())),
    );
    if wide {
        lines.push(Line::default());
        lines.push(Line::styled("e exports it, Enter shows its layers", theme.muted()));
        lines.push(Line::default());
        lines.extend(
            point
                .config
                .0
                .iter()
                .map(|(name, value)| Line::raw(format!("{name} = {}", setting(value)))),
        );
        Paragraph::new(lines).wrap(Wrap { trim: false }).render(inner, buffer);
    } else {
        Paragraph::new(lines).render(inner, buffer);
    }
}

fn head(point: &FrontPoint, state: &State, view: &View) -> Line<'static> {
    let theme = view.theme;
    let order = view.ordered(state);
    let at = order.iter().position(|other| other.id == point.id).map_or(0, |at| at + 1);
    let (sign, style) = sign(point, theme);
    let mut spans = vec![
        Span::styled(format!("{sign} "), style),
        Span::styled(units::short_id(&point.id).to_owned(), theme.heading()),
    ];
    if point.best {
        spans.push(Span::styled(" best", theme.best()));
    }
    if view.marked.contains(&point.id) {
        spans.push(Span::styled(" marked", theme.accent()));
    }
    spans.push(Span::raw(format!("  {at} of {}", order.len())));
    if !point.origin.is_empty() {
        spans.push(Span::raw(format!("  by {}", point.origin)));
    }
    Line::from(spans)
}

/// Explains why this point is the best, or why it is not.
fn reason(point: &FrontPoint, state: &State) -> String {
    let feasible = state.front.iter().filter(|point| point.feasible).count();
    let prefer = state.prefer();
    if point.best {
        return why_of(prefer, feasible, !state.limits().is_empty());
    }
    if !point.feasible {
        return "misses a limit".to_owned();
    }
    let Some(best) = state.best() else { return "meets every limit".to_owned() };
    let metric = prefer.metric();
    match units::versus(metric, &point.metrics, &best.metrics) {
        Some(versus) => format!("meets every limit; {metric} against the best: {versus}"),
        None => "meets every limit".to_owned(),
    }
}

/// Formats a metric, padded to a column: `latency   0.710 ms ±2.0%  4.4x faster`.
fn figure(point: &FrontPoint, metric: Metric, state: &State, theme: Theme) -> Vec<Span<'static>> {
    let versus = state
        .baseline
        .as_ref()
        .and_then(|baseline| units::versus(metric, &point.metrics, baseline));
    vec![
        Span::styled(format!("{metric:<9}"), theme.muted()),
        Span::raw(format!("{:<16}", units::with_spread(point, metric))),
        Span::raw(format!("{:<15}", versus.unwrap_or_default())),
    ]
}

fn misses(point: &FrontPoint, state: &State) -> Vec<String> {
    units::misses(point, state.limits(), &state.baseline.unwrap_or(point.metrics))
}
