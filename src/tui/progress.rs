//! The progress screen: budget, current trial, failures, hypervolume over time.

use paretune_report::units;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Borders, Chart, Dataset, Gauge, GraphType, Paragraph, Widget};

use super::state::State;
use super::view::View;
use super::widgets::nothing_yet;

/// Number of origins whose contributions are listed.
const MAX_ORIGINS: usize = 4;

/// Width in columns from which on figures and curve are side by side.
const WIDE: u16 = 120;

pub(super) fn draw(area: Rect, buffer: &mut Buffer, state: &State, view: &View) {
    if state.started.is_none() {
        nothing_yet(area, buffer, state, view);
        return;
    }
    let [top, rest] = Layout::vertical([Constraint::Length(2), Constraint::Min(0)]).areas(area);
    budget(top, buffer, state, view);
    let figures = figures(state, view);
    let (left, right) = if area.width >= WIDE {
        let [left, right] =
            Layout::horizontal([Constraint::Length(70), Constraint::Min(0)]).areas(rest);
        (left, right)
    } else {
        let lines = (figures.len() as u16).min(rest.height.saturating_sub(8)) + 1;
        let [left, right] =
            Layout::vertical([Constraint::Length(lines), Constraint::Min(0)]).areas(rest);
        (left, right)
    };
    if area.width >= WIDE {
        let messages =
            messages(state, view, usize::from(left.height).saturating_sub(figures.len() + 1));
        let lines: Vec<_> = figures.into_iter().chain([Line::default()]).chain(messages).collect();
        Paragraph::new(lines).render(left, buffer);
        curve(right, buffer, state, view);
    } else {
        Paragraph::new(figures).render(left, buffer);
        let messages = messages(state, view, usize::from(right.height / 3).max(2));
        let lines = messages.len() as u16;
        let [chart, below] =
            Layout::vertical([Constraint::Min(0), Constraint::Length(lines)]).areas(right);
        curve(chart, buffer, state, view);
        Paragraph::new(messages).render(below, buffer);
    }
}

fn budget(area: Rect, buffer: &mut Buffer, state: &State, view: &View) {
    let seconds = view.seconds(state);
    let fraction = if state.ending.is_some() { Some(1.0) } else { state.budget_fraction(seconds) };
    let budget = state.started.as_ref().map_or("", |started| started.budget.as_str());
    let label = match (&state.ending, fraction) {
        (Some(_), _) => format!("done after {}", units::duration(seconds)),
        (None, Some(fraction)) => {
            format!("{:.0} % of {budget}{}", fraction * 100.0, time_left(state, seconds))
        }
        (None, None) => format!("{} so far, no budget", units::duration(seconds)),
    };
    Gauge::default()
        .ratio(fraction.unwrap_or(0.0))
        .label(label)
        .use_unicode(true)
        .gauge_style(view.theme.accent())
        .render(Rect { height: 1, ..area }, buffer);
}

/// Describes the time left of a time budget, or an estimate for a budget of trials.
fn time_left(state: &State, seconds: f64) -> String {
    let Some(started) = &state.started else { return String::new() };
    let by_time = started.budget_seconds.map(|budget| budget - seconds);
    let session = state.trials.saturating_sub(started.resumed_trials);
    let by_trials = started.budget_trials.filter(|_| session > 0).map(|budget| {
        let pace = (state.elapsed - started.resumed_seconds).max(0.0) / session as f64;
        budget.saturating_sub(state.trials) as f64 * pace
    });
    let left = by_time.into_iter().chain(by_trials).fold(f64::INFINITY, f64::min);
    let about = if started.budget_seconds == Some(left + seconds) { "" } else { "about " };
    if left.is_finite() {
        format!(", {about}{} left", units::duration(left.max(0.0)))
    } else {
        String::new()
    }
}

fn figures(state: &State, view: &View) -> Vec<Line<'static>> {
    let theme = view.theme;
    let line = |name: &str, text: String| {
        Line::from(vec![Span::styled(format!("{name:<11}"), theme.muted()), Span::raw(text)])
    };
    let mut lines = Vec::new();
    if let Some(started) = &state.started {
        let resumed = match started.resumed_trials {
            0 => String::new(),
            trials => format!(", resumed after {trials} trials"),
        };
        lines.push(line(
            "strategy",
            format!("{}, seed {}{resumed}", started.strategy, started.seed),
        ));
        lines.push(line(
            "space",
            format!(
                "{} parameters, 10^{:.0} configurations",
                started.parameters, started.log10_configurations
            ),
        ));
        lines.push(line(
            "limits",
            format!("{}; best by {}", units::limits(&started.limits), started.prefer),
        ));
    }
    let counts = format!(
        "{}, of them {} from the store, {} failed",
        state.trials, state.cached, state.failed
    );
    lines.push(line("trials", counts));
    let feasible = state.front.iter().filter(|point| point.feasible).count();
    let improved = match state.improved {
        Some((trial, _)) => format!(", last improved at trial {trial}"),
        None => String::new(),
    };
    lines.push(line(
        "front",
        format!("{} points, {feasible} meet every limit{improved}", state.front.len()),
    ));
    let now = match (&state.current, &state.confirming, &state.preparing) {
        (Some(current), ..) => {
            let stage = if current.stage.is_empty() {
                String::new()
            } else {
                format!(": {}", current.stage)
            };
            format!(
                "trial {} by {} ({}){stage}",
                current.number,
                current.origin,
                units::short_id(&current.id)
            )
        }
        (None, Some((done, total)), _) => {
            format!("measuring final points again, {done} of {total}")
        }
        (None, None, Some((task, fraction))) => format!("{task}, {:.0} %", fraction * 100.0),
        (None, None, None) => "-".to_owned(),
    };
    lines.push(line("now", now));
    if !state.undisturbed.is_empty() {
        let mean = state.undisturbed.iter().sum::<f64>() / state.undisturbed.len() as f64;
        let text = format!(
            "{:.0} % of timed runs undisturbed in the last {} trials",
            100.0 * mean,
            state.undisturbed.len()
        );
        lines.push(line("noise", text));
    }
    let mut ranked: Vec<_> = state.origins.iter().collect();
    ranked.sort_by(|a, b| {
        b.1.hypervolume_gain.total_cmp(&a.1.hypervolume_gain).then_with(|| a.0.cmp(b.0))
    });
    for (place, (name, origins)) in ranked.into_iter().take(MAX_ORIGINS).enumerate() {
        let text = format!(
            "{name}: {} of {} trials entered the front, hypervolume +{}",
            origins.entered,
            origins.trials,
            units::digits(origins.hypervolume_gain)
        );
        lines.push(line(if place == 0 { "origins" } else { "" }, text));
    }
    lines
}

/// Lists failures by message, most frequent first, then the newest notices.
fn messages(state: &State, view: &View, room: usize) -> Vec<Line<'static>> {
    let mut failures: Vec<_> = state.failures.iter().collect();
    failures.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), reason.as_str()));
    let mut lines: Vec<_> = failures
        .into_iter()
        .map(|(reason, count)| {
            Line::from(vec![
                Span::styled(format!("{count}x failed "), view.theme.warning()),
                Span::raw(reason.clone()),
            ])
        })
        .collect();
    let notices = state.notices.len().min(2);
    lines.truncate(room.saturating_sub(notices).max(1));
    let newest = state.notices.iter().rev().take(room.saturating_sub(lines.len()));
    lines.extend(newest.map(|text| Line::styled(text.clone(), view.theme.muted())));
    lines
}

fn curve(area: Rect, buffer: &mut Buffer, state: &State, view: &View) {
    let theme = view.theme;
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(theme.muted())
        .title(" hypervolume over time ");
    if state.curve.len() < 2 || area.height < 5 {
        block.render(area, buffer);
        return;
    }
    let end = state.curve.iter().map(|point| point.0).fold(1e-9, f64::max);
    let (low, high) =
        state.curve.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), point| {
            (low.min(point.1), high.max(point.1))
        });
    let high = if high > low { high } else { low + low.abs().max(1e-9) };
    // The curve has steps, because the hypervolume changes only at trials.
    let steps: Vec<(f64, f64)> = state
        .curve
        .windows(2)
        .flat_map(|pair| [pair[0], (pair[1].0, pair[0].1)])
        .chain(state.curve.last().copied())
        .collect();
    let data = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Line)
        .style(theme.accent())
        .data(&steps);
    let x = Axis::default().style(theme.muted()).bounds([0.0, end]).labels([
        "0 s".to_owned(),
        units::duration(end / 2.0),
        units::duration(end),
    ]);
    let y = Axis::default().style(theme.muted()).bounds([low, high]).labels([
        units::digits(low),
        units::digits((low + high) / 2.0),
        units::digits(high),
    ]);
    Chart::new(vec![data])
        .block(block)
        .x_axis(x)
        .y_axis(y)
        .legend_position(None)
        .render(area, buffer);
}
