//! The frame of every screen: tabs above, status and keys below.

use paretune_record::metric::Metric;
use paretune_record::stop::StopReason;
use paretune_report::units;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};

use super::state::State;
use super::view::{Tab, View};
use super::widgets::right;
use super::{archive, front, network, progress};
/// Smallest terminal, in columns and rows, in which the screens are useful.
const SMALLEST: (u16, u16) = (40, 12);

/// Draws the state as the view selects it. The result depends on nothing else, so that screens can
/// be tested.
pub fn draw(frame: &mut Frame, state: &State, view: &View) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("the terminal is too small: {}x{} at least", SMALLEST.0, SMALLEST.1);
        Paragraph::new(text).render(area, buffer);
        return;
    }
    let [top, body, bottom] = areas(area);
    header(top, buffer, state, view);
    match view.tab {
        Tab::Front => front::draw(body, buffer, state, view),
        Tab::Archive => archive::draw(body, buffer, state, view),
        Tab::Network => network::draw(body, buffer, state, view),
        Tab::Progress => progress::draw(body, buffer, state, view),
    }
    footer(bottom, buffer, state, view);
    view.overlay.draw(area, buffer, state, view);
}

/// Splits the terminal into tabs, screen and status line.
pub(super) fn areas(area: Rect) -> [Rect; 3] {
    Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]).areas(area)
}

fn tab_text(number: usize, tab: Tab) -> String {
    format!(" {} {} ", number + 1, tab.title())
}

/// Returns the tab at a column of the first line.
pub(super) fn tab_at(column: u16) -> Option<Tab> {
    let mut left = 0;
    Tab::ALL.into_iter().enumerate().find_map(|(number, tab)| {
        let width = tab_text(number, tab).chars().count() as u16;
        let hit = (left..left + width).contains(&column);
        left += width + 1;
        hit.then_some(tab)
    })
}

fn header(area: Rect, buffer: &mut Buffer, state: &State, view: &View) {
    let mut spans = Vec::new();
    for (number, tab) in Tab::ALL.into_iter().enumerate() {
        let style = if tab == view.tab { view.theme.selected() } else { Style::new() };
        spans.push(Span::styled(tab_text(number, tab), style));
        spans.push(Span::raw(" "));
    }
    let tabs = Line::from(spans);
    let width = tabs.width() as u16;
    tabs.render(area, buffer);
    if let Some(started) = &state.started {
        let text = format!("{} on {}", started.model, started.cpu);
        right(area, buffer, &text, width + 1, view.theme.heading());
    }
}

fn footer(area: Rect, buffer: &mut Buffer, state: &State, view: &View) {
    let (status, style) = status(state, view);
    let status = format!(" {status}");
    buffer.set_stringn(area.x, area.y, &status, usize::from(area.width), style);
    let used = status.chars().count() as u16;
    let all = [
        "e export  l limits  o prefer  p pause  ? help  q quit ",
        "e export  ? help  q quit ",
        "? help ",
    ];
    if let Some(keys) = all.into_iter().find(|keys| used + keys.len() as u16 + 2 <= area.width) {
        right(area, buffer, keys, used, view.theme.muted());
    }
}

/// Describes the current activity in a few words.
fn status(state: &State, view: &View) -> (String, Style) {
    let theme = view.theme;
    let progress = || {
        let mut text = format!("trial {}", state.trials);
        if let Some(started) = &state.started {
            let seconds = view.seconds(state);
            text += &match started.budget_seconds {
                Some(budget) => {
                    format!(
                        " · {} of {}",
                        units::duration(seconds.min(budget)),
                        units::duration(budget)
                    )
                }
                None => format!(" · {}", units::duration(seconds)),
            };
        }
        if let Some(best) = state.best() {
            let metrics = &best.metrics;
            text += &format!(
                " · best {}, {}",
                units::shown(Metric::Accuracy, metrics),
                units::shown(Metric::Latency, metrics)
            );
        }
        text
    };
    if let Some(message) = &view.message {
        return (message.clone(), theme.accent());
    }
    if let Some(ending) = &state.ending {
        let why = match ending.reason {
            StopReason::Budget => "the budget is used up",
            StopReason::Interrupted => "interrupted",
            StopReason::Exhausted => "every configuration was tried",
            StopReason::DeviceLost => "the device is lost",
        };
        return (
            format!("done: {why}; {} trials. e: export, q: quit", state.trials),
            theme.heading(),
        );
    }
    if view.disconnected {
        return (
            "the search has ended without a result; press q to quit".to_owned(),
            theme.warning(),
        );
    }
    if view.stopping {
        let text = match state.confirming {
            Some((done, total)) => {
                format!("stopping: measuring final points again, {done} of {total}")
            }
            None => "stopping after this trial; all results are kept".to_owned(),
        };
        return (format!("{text} (q again quits at once)"), theme.warning());
    }
    if view.paused {
        return (format!("paused (p continues) · {}", progress()), theme.warning());
    }
    if let Some((done, total)) = state.confirming {
        return (format!("measuring final points again: {done} of {total}"), Style::new());
    }
    if let Some((task, fraction)) = &state.preparing {
        return (format!("preparing: {task} {:.0} %", fraction * 100.0), Style::new());
    }
    if state.started.is_none() {
        return ("starting".to_owned(), Style::new());
    }
    (progress(), Style::new())
}
