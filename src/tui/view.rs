//! What the user has chosen to look at, and the keys that change it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::run::Command;
use super::state::State;
use super::theme::Theme;
use crate::report::units::METRICS;
use crate::study::front::FrontPoint;

/// The screens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// Scatter plot.
    #[default]
    Front,
    /// Table.
    Archive,
    /// Budget, failures, hypervolume.
    Progress,
}

impl Tab {
    /// All, in order.
    pub const ALL: [Self; 3] = [Self::Front, Self::Archive, Self::Progress];

    /// As written on the tab.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Front => "Front",
            Self::Archive => "Archive",
            Self::Progress => "Progress",
        }
    }
}

/// The user's choices; independent of what the search does.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Screen.
    pub tab: Tab,
    /// Horizontal metric: index into [`METRICS`].
    pub x: usize,
    /// Vertical metric.
    pub y: usize,
    /// Column by which the archive is sorted.
    pub sort: usize,
    /// Worst first.
    pub reverse: bool,
    /// Point that the cursor is on, by id; none: the best one.
    pub selected: Option<String>,
    /// Whether the help overlay is open.
    pub help: bool,
    /// Whether the user has paused the search.
    pub paused: bool,
    /// Whether the user has asked the search to end.
    pub stopping: bool,
    /// The search is gone without a word of farewell.
    pub lost: bool,
    /// Seconds since this session began, by the clock on the wall.
    pub clock: f64,
    /// Styles.
    pub theme: Theme,
}

impl Default for View {
    fn default() -> Self {
        Self {
            tab: Tab::Front,
            x: 1,
            y: 0,
            sort: 0,
            reverse: false,
            selected: None,
            help: false,
            paused: false,
            stopping: false,
            lost: false,
            clock: 0.0,
            theme: Theme { color: true },
        }
    }
}

/// What a key asks for beyond a change of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Tell the search.
    Send(Command),
    /// Leave the terminal UI now.
    Leave,
}

impl View {
    /// Takes a key.
    pub(crate) fn key(&mut self, key: KeyEvent, state: &State) -> Option<Action> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if key.code == KeyCode::Char('q') || (control && key.code == KeyCode::Char('c')) {
            return Some(self.quit(state));
        }
        if self.help {
            // Any key closes the overlay; that is what people try.
            self.help = false;
            return None;
        }
        match key.code {
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = true,
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(Tab::ALL.len() - 1),
            KeyCode::Char('1') => self.tab = Tab::Front,
            KeyCode::Char('2') => self.tab = Tab::Archive,
            KeyCode::Char('3') => self.tab = Tab::Progress,
            KeyCode::Char('p') if state.ending.is_none() && !self.stopping => {
                self.paused = !self.paused;
                return Some(Action::Send(if self.paused { Command::Pause } else { Command::Resume }));
            }
            KeyCode::Char('x') => self.x = next_axis(self.x, self.y),
            KeyCode::Char('y') => self.y = next_axis(self.y, self.x),
            KeyCode::Char('s') => self.sort = (self.sort + 1) % METRICS.len(),
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('b') => self.selected = None,
            KeyCode::Enter => self.tab = if self.tab == Tab::Front { Tab::Archive } else { Tab::Front },
            KeyCode::Left | KeyCode::Up | KeyCode::Char('k') => self.step(-1, state),
            KeyCode::Right | KeyCode::Down | KeyCode::Char('j' | 'l') => self.step(1, state),
            KeyCode::PageUp => self.step(-10, state),
            KeyCode::PageDown => self.step(10, state),
            KeyCode::Home => self.step(isize::MIN, state),
            KeyCode::End => self.step(isize::MAX, state),
            _ => {}
        }
        None
    }

    /// The point that the cursor is on: the chosen one while it is on the front, else the best, else the first.
    #[must_use]
    pub fn selected<'a>(&self, state: &'a State) -> Option<&'a FrontPoint> {
        let chosen = self.selected.as_ref().and_then(|id| state.front.iter().find(|point| point.id == *id));
        chosen.or_else(|| state.best()).or_else(|| {
            let nearest = state.nearest_miss()?;
            state.front.iter().find(|point| point.id == nearest.id)
        })
    }

    /// The front in the order in which the cursor moves: along the horizontal axis, or down the sorted table.
    #[must_use]
    pub fn ordered<'a>(&self, state: &'a State) -> Vec<&'a FrontPoint> {
        let mut points: Vec<_> = state.front.iter().collect();
        let (metric, downwards) = match self.tab {
            Tab::Archive => (METRICS[self.sort], (METRICS[self.sort] == "accuracy") != self.reverse),
            Tab::Front | Tab::Progress => (METRICS[self.x], false),
        };
        let value = |point: &FrontPoint| point.metrics.get(metric).unwrap_or(f64::NAN);
        points.sort_by(|a, b| {
            let order = value(a).total_cmp(&value(b));
            if downwards { order.reverse() } else { order }.then_with(|| a.id.cmp(&b.id))
        });
        points
    }

    /// Seconds since the study began, by the clock on the wall while it runs.
    #[must_use]
    pub fn seconds(&self, state: &State) -> f64 {
        let resumed = state.started.as_ref().map_or(0.0, |started| started.resumed_seconds);
        if state.ending.is_some() { state.elapsed } else { state.elapsed.max(resumed + self.clock) }
    }

    fn quit(&mut self, state: &State) -> Action {
        if state.ending.is_some() || self.stopping || self.lost {
            return Action::Leave;
        }
        self.stopping = true;
        Action::Send(Command::Quit)
    }

    fn turn(&mut self, by: usize) {
        let at = Tab::ALL.iter().position(|tab| *tab == self.tab).unwrap_or(0);
        self.tab = Tab::ALL[(at + by) % Tab::ALL.len()];
    }

    fn step(&mut self, by: isize, state: &State) {
        let points = self.ordered(state);
        if points.is_empty() {
            return;
        }
        let current =
            self.selected(state).and_then(|point| points.iter().position(|other| other.id == point.id));
        let at = current.unwrap_or(0).saturating_add_signed(by).min(points.len() - 1);
        self.selected = Some(points[at].id.clone());
    }
}

/// The next metric that the other axis does not show.
fn next_axis(axis: usize, other: usize) -> usize {
    let next = (axis + 1) % METRICS.len();
    if next == other { (next + 1) % METRICS.len() } else { next }
}
