//! The user's choices about the screens, and the keys and clicks that change them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use paretune_record::change::Change;
use paretune_record::front::FrontPoint;
use paretune_record::limits;
use paretune_report::units::{self, METRICS};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::{Position, Rect};

use super::overlay::{Overlay, Prompt, PromptKind};
use super::run::{Command, ExportFormat};
use super::state::State;
use super::theme::Theme;
use super::{archive, draw, front};

/// The screens of the terminal UI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// Scatter plot of two metrics.
    #[default]
    Front,
    /// Table of the front or all trials.
    Archive,
    /// The layers of the selected point.
    Network,
    /// Budget, failures and hypervolume over time.
    Progress,
}

impl Tab {
    /// All tabs in their order.
    pub const ALL: [Self; 4] = [Self::Front, Self::Archive, Self::Network, Self::Progress];

    /// Returns the text on the tab.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Front => "Front",
            Self::Archive => "Archive",
            Self::Network => "Network",
            Self::Progress => "Progress",
        }
    }
}

/// Criteria of the best point, in the order in which the key cycles through them.
const PREFERENCES: [&str; 5] = ["accuracy", "latency", "size", "memory", "knee"];

/// The user's choices, which do not depend on the search.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The screen that is shown.
    pub tab: Tab,
    /// Metric of the horizontal axis, as an index into [`METRICS`].
    pub x: usize,
    /// Metric of the vertical axis, as an index into [`METRICS`].
    pub y: usize,
    /// Metric by which the archive is sorted, as an index into [`METRICS`].
    pub sort: usize,
    /// Whether the archive is sorted with the worst point first.
    pub reverse: bool,
    /// Whether the archive also lists trials that are not on the front.
    pub all: bool,
    /// Filter of the archive, as typed.
    pub filter: String,
    /// Ids of the points that the user wants to keep.
    pub marked: BTreeSet<String>,
    /// Id of the selected point; `None` for the best one.
    pub selected: Option<String>,
    /// Index of the first layer that the network screen shows.
    pub scroll: usize,
    /// The overlay on the screen.
    pub overlay: Overlay,
    /// Ids of the points whose layers the search was asked to time.
    pub asked: BTreeSet<String>,
    /// Latest message in reply to a key, shown until the next key.
    pub message: Option<String>,
    /// Number of exports that are running.
    pub exporting: usize,
    /// Whether the user has paused the search.
    pub paused: bool,
    /// Whether the user has asked the search to end.
    pub stopping: bool,
    /// Whether the search thread disconnected without a `Finished` event.
    pub lost: bool,
    /// Wall-clock seconds since this session began, without pauses.
    pub clock: f64,
    /// Area of the terminal in the last frame, needed to locate clicks.
    pub area: Rect,
    /// Styles of all drawn elements.
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
            all: false,
            filter: String::new(),
            marked: BTreeSet::new(),
            selected: None,
            scroll: 0,
            overlay: Overlay::None,
            asked: BTreeSet::new(),
            message: None,
            exporting: 0,
            paused: false,
            stopping: false,
            lost: false,
            clock: 0.0,
            area: Rect::new(0, 0, 80, 24),
            theme: Theme { color: true },
        }
    }
}

/// Effect of a key beyond a change of the view.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Send a command to the search.
    Send(Command),
    /// Export points to files or folders.
    Export(Vec<(FrontPoint, ExportFormat, PathBuf)>),
    /// Suspend the whole process, as Ctrl-Z does.
    Suspend,
    /// Leave the terminal UI at once.
    Leave,
}

impl View {
    /// Processes a key that the user pressed.
    pub(crate) fn key(&mut self, key: KeyEvent, state: &State) -> Vec<Action> {
        self.message = None;
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control {
            return match key.code {
                KeyCode::Char('c') => vec![self.quit(state)],
                KeyCode::Char('z') => vec![Action::Suspend],
                _ => Vec::new(),
            };
        }
        let mut actions = match std::mem::take(&mut self.overlay) {
            Overlay::None => self.plain_key(key.code, state).into_iter().collect(),
            // Any key closes the help, because users try any key.
            Overlay::Help if key.code == KeyCode::Char('q') => vec![self.quit(state)],
            Overlay::Help => Vec::new(),
            Overlay::Prompt(prompt) => self.prompt_key(prompt, key.code, state),
            Overlay::Export(dialog) => dialog.key(key.code, self, state),
        };
        actions.extend(self.look_into(state));
        actions
    }

    fn plain_key(&mut self, code: KeyCode, state: &State) -> Option<Action> {
        let running = state.ending.is_none() && !self.stopping && !self.lost;
        match code {
            KeyCode::Char('q') => return Some(self.quit(state)),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.overlay = Overlay::Help,
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(Tab::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='4') => self.tab = Tab::ALL[digit as usize - '1' as usize],
            KeyCode::Char('p') if running => {
                self.paused = !self.paused;
                return Some(Action::Send(if self.paused { Command::Pause } else { Command::Resume }));
            }
            KeyCode::Char('o') if running && state.started.is_some() => {
                let at = PREFERENCES.iter().position(|name| *name == state.prefer()).unwrap_or(0);
                let next = PREFERENCES[(at + 1) % PREFERENCES.len()];
                self.message = Some(format!("from the next trial on, the best is the best by {next}"));
                return Some(Action::Send(Command::Change(Change::Prefer(next.to_owned()))));
            }
            KeyCode::Char('l') if running => self.ask(PromptKind::Limits, limit_text(state)),
            KeyCode::Char('+') if running => self.ask(PromptKind::Budget, "+5m".to_owned()),
            KeyCode::Char('p' | 'o' | 'l' | '+') => {
                self.message = Some("the search has ended: start it again to go on".to_owned());
            }
            KeyCode::Char('/') => {
                self.tab = Tab::Archive;
                let filter = self.filter.clone();
                self.ask(PromptKind::Filter, filter);
            }
            KeyCode::Char('e') => self.overlay = Overlay::export(self, state),
            KeyCode::Char('m' | ' ') => {
                let id = self.selected(state)?.id.clone();
                if !self.marked.remove(&id) {
                    self.marked.insert(id);
                }
                return running.then(|| Action::Send(Command::Change(Change::Keep(self.marked.clone()))));
            }
            KeyCode::Char('a') => self.all = !self.all,
            KeyCode::Char('x') => self.x = next_axis(self.x, self.y),
            KeyCode::Char('y') => self.y = next_axis(self.y, self.x),
            KeyCode::Char('s') => self.sort = (self.sort + 1) % METRICS.len(),
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('b') => self.selected = None,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Enter => self.tab = if self.tab == Tab::Network { Tab::Front } else { Tab::Network },
            KeyCode::Up | KeyCode::Char('k') if self.tab == Tab::Network => self.roll(-1),
            KeyCode::Down | KeyCode::Char('j') if self.tab == Tab::Network => self.roll(1),
            KeyCode::PageUp if self.tab == Tab::Network => self.roll(-10),
            KeyCode::PageDown if self.tab == Tab::Network => self.roll(10),
            KeyCode::Left | KeyCode::Up | KeyCode::Char('k') => self.step(-1, state),
            KeyCode::Right | KeyCode::Down | KeyCode::Char('j') => self.step(1, state),
            KeyCode::PageUp => self.step(-10, state),
            KeyCode::PageDown => self.step(10, state),
            KeyCode::Home => self.step(isize::MIN, state),
            KeyCode::End => self.step(isize::MAX, state),
            _ => {}
        }
        None
    }

    fn ask(&mut self, kind: PromptKind, text: String) {
        self.overlay = Overlay::Prompt(Prompt { kind, text, problem: None });
    }

    fn prompt_key(&mut self, mut prompt: Prompt, code: KeyCode, state: &State) -> Vec<Action> {
        match code {
            KeyCode::Esc => return Vec::new(),
            KeyCode::Enter => match prompt.kind {
                PromptKind::Filter => {
                    self.filter = prompt.text.trim().to_owned();
                    return Vec::new();
                }
                kind => match kind.change(&prompt.text, state) {
                    Ok(change) => {
                        self.message = Some("taken over after this trial".to_owned());
                        return vec![Action::Send(Command::Change(change))];
                    }
                    Err(problem) => prompt.problem = Some(problem),
                },
            },
            KeyCode::Backspace => {
                prompt.text.pop();
                prompt.problem = None;
            }
            KeyCode::Char(letter) if prompt.text.chars().count() < 200 => {
                prompt.text.push(letter);
                prompt.problem = None;
            }
            _ => {}
        }
        self.overlay = Overlay::Prompt(prompt);
        Vec::new()
    }

    /// Processes a click or a turn of the wheel.
    pub(crate) fn mouse(&mut self, mouse: MouseEvent, state: &State) -> Vec<Action> {
        let at = Position::new(mouse.column, mouse.row);
        match (mouse.kind, &self.overlay) {
            (MouseEventKind::Down(MouseButton::Left), Overlay::Help) => self.overlay = Overlay::None,
            (_, Overlay::Help | Overlay::Prompt(_) | Overlay::Export(_)) => {}
            (MouseEventKind::Down(MouseButton::Left), Overlay::None) => self.click(at, state),
            (MouseEventKind::ScrollUp, Overlay::None) if self.tab == Tab::Network => self.roll(-3),
            (MouseEventKind::ScrollDown, Overlay::None) if self.tab == Tab::Network => self.roll(3),
            (MouseEventKind::ScrollUp, Overlay::None) => self.step(-1, state),
            (MouseEventKind::ScrollDown, Overlay::None) => self.step(1, state),
            _ => return Vec::new(),
        }
        self.look_into(state).into_iter().collect()
    }

    fn click(&mut self, at: Position, state: &State) {
        let [top, body, _] = draw::areas(self.area);
        if top.contains(at) {
            if let Some(tab) = draw::tab_at(at.x.saturating_sub(top.x)) {
                self.tab = tab;
            }
            return;
        }
        if !body.contains(at) {
            return;
        }
        match self.tab {
            Tab::Front => {
                if let Some(id) = front::point_at(body, at, state, self) {
                    self.selected = Some(id);
                }
            }
            Tab::Archive => match archive::hit(body, at, state, self) {
                Some(archive::Hit::Point(id)) => self.selected = Some(id),
                Some(archive::Hit::Column(column)) if column == self.sort => self.reverse = !self.reverse,
                Some(archive::Hit::Column(column)) => self.sort = column,
                None => {}
            },
            Tab::Network | Tab::Progress => {}
        }
    }

    /// Asks the search once to time the layers of the point on the network screen.
    fn look_into(&mut self, state: &State) -> Option<Action> {
        let running = state.ending.is_none() && !self.stopping && !self.lost;
        let id = self.selected(state).filter(|_| running && self.tab == Tab::Network)?.id.clone();
        let news = !state.inspected.contains_key(&id) && self.asked.insert(id.clone());
        news.then_some(Action::Send(Command::Change(Change::Inspect(id))))
    }

    /// Returns the selected point: the chosen one while it is known, else the best one, else the
    /// nearest miss.
    #[must_use]
    pub fn selected<'a>(&self, state: &'a State) -> Option<&'a FrontPoint> {
        let chosen = self.selected.as_ref().and_then(|id| state.points().find(|point| point.id == *id));
        chosen.or_else(|| state.best()).or_else(|| {
            let nearest = state.nearest_miss()?;
            state.front.iter().find(|point| point.id == nearest.id)
        })
    }

    /// Returns the points in the order of the selection: the front along the horizontal axis, or
    /// the sorted table.
    #[must_use]
    pub fn ordered<'a>(&self, state: &'a State) -> Vec<&'a FrontPoint> {
        let table = self.tab == Tab::Archive;
        let mut points: Vec<_> = if table && self.all {
            state.points().filter(|point| self.shows(point, state)).collect()
        } else {
            state.front.iter().filter(|point| !table || self.shows(point, state)).collect()
        };
        let (metric, downwards) = if table {
            (METRICS[self.sort], (METRICS[self.sort] == "accuracy") != self.reverse)
        } else {
            (METRICS[self.x], false)
        };
        let value = |point: &FrontPoint| point.metrics.get(metric).unwrap_or(f64::NAN);
        points.sort_by(|a, b| {
            let order = value(a).total_cmp(&value(b));
            if downwards { order.reverse() } else { order }.then_with(|| a.id.cmp(&b.id))
        });
        points
    }

    /// Returns whether the filter accepts a point. All comma-separated parts must hold. A part is a
    /// comparison as in limits, `feasible`, `marked`, or a text that the id, the origin or a
    /// parameter contains.
    fn shows(&self, point: &FrontPoint, state: &State) -> bool {
        self.filter.split(',').map(str::trim).filter(|part| !part.is_empty()).all(|part| {
            if let Ok(bounds) = limits::parse(part) {
                return bounds.iter().all(|bound| {
                    let value = match (bound.metric.as_str(), &state.baseline) {
                        ("accuracy-drop", Some(baseline)) => Some(baseline.accuracy - point.metrics.accuracy),
                        (metric, _) => point.metrics.get(metric),
                    };
                    value.is_some_and(
                        |value| if bound.op == "<" { value < bound.value } else { value > bound.value },
                    )
                });
            }
            match part {
                "feasible" => point.feasible,
                "marked" => self.marked.contains(&point.id),
                text => {
                    let parameter = || {
                        point.config.iter().any(|(name, value)| {
                            format!("{name}={}", paretune_report::setting(value)).contains(text)
                        })
                    };
                    point.id.contains(text) || point.origin.contains(text) || parameter()
                }
            }
        })
    }

    /// Returns the wall-clock seconds since the study began; after its end, its duration.
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

    fn roll(&mut self, by: isize) {
        self.scroll = self.scroll.saturating_add_signed(by);
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
        self.scroll = 0;
    }
}

/// Formats the limits as the user would type them.
fn limit_text(state: &State) -> String {
    let texts: Vec<String> = state
        .limits()
        .iter()
        .map(|limit| format!("{}{}", limit.metric, units::bound(limit).replace(' ', "")))
        .collect();
    texts.join(", ")
}

/// Returns the next metric that the other axis does not show.
fn next_axis(axis: usize, other: usize) -> usize {
    let next = (axis + 1) % METRICS.len();
    if next == other { (next + 1) % METRICS.len() } else { next }
}
