//! Keys and clicks: changes of the view, and requests to the search.

use std::path::PathBuf;

use paretune_record::change::Change;
use paretune_record::front::FrontPoint;
use paretune_record::metric::Metric;
use paretune_record::preference::Preference;
use paretune_report::units;
use ratatui::crossterm::event::{
    KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::Position;

use super::command::{Command, ExportFormat};
use super::dialog::{ExportDialog, FORMATS, Overlay, Prompt, PromptKind};
use super::state::State;
use super::view::{Tab, View};
use super::{archive, draw, front};

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
        actions.extend(self.request_inspection(state));
        actions
    }

    fn plain_key(&mut self, code: KeyCode, state: &State) -> Option<Action> {
        let running = state.ending.is_none() && !self.stopping && !self.disconnected;
        match code {
            KeyCode::Char('q') => return Some(self.quit(state)),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.overlay = Overlay::Help,
            KeyCode::Tab => self.switch_tab(1),
            KeyCode::BackTab => self.switch_tab(Tab::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='4') => self.tab = Tab::ALL[digit as usize - '1' as usize],
            KeyCode::Char('p') if running => {
                self.paused = !self.paused;
                return Some(Action::Send(if self.paused {
                    Command::Pause
                } else {
                    Command::Resume
                }));
            }
            KeyCode::Char('o') if running && state.started.is_some() => {
                let later = Preference::all().skip_while(|prefer| *prefer != state.prefer()).nth(1);
                let next = later.unwrap_or_default();
                self.message =
                    Some(format!("from the next trial on, the best point is chosen by {next}"));
                return Some(Action::Send(Command::Change(Change::Prefer(next))));
            }
            KeyCode::Char('l') if running => {
                self.open_prompt(PromptKind::Limits, limit_text(state))
            }
            KeyCode::Char('+') if running => self.open_prompt(PromptKind::Budget, "+5m".to_owned()),
            KeyCode::Char('p' | 'o' | 'l' | '+') => {
                self.message = Some("the search has ended; start it again to continue".to_owned());
            }
            KeyCode::Char('/') => {
                self.tab = Tab::Archive;
                let filter = self.filter.clone();
                self.open_prompt(PromptKind::Filter, filter);
            }
            KeyCode::Char('e') => self.overlay = Overlay::export(self, state),
            KeyCode::Char('m' | ' ') => {
                let id = self.selected(state)?.id.clone();
                if !self.marked.remove(&id) {
                    self.marked.insert(id);
                }
                return running
                    .then(|| Action::Send(Command::Change(Change::Keep(self.marked.clone()))));
            }
            KeyCode::Char('a') => self.all = !self.all,
            KeyCode::Char('x') => self.x = next_axis(self.x, self.y),
            KeyCode::Char('y') => self.y = next_axis(self.y, self.x),
            KeyCode::Char('s') => self.sort = next_objective(self.sort),
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('b') => self.selected = None,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Enter => {
                self.tab = if self.tab == Tab::Network { Tab::Front } else { Tab::Network }
            }
            KeyCode::Up | KeyCode::Char('k') if self.tab == Tab::Network => self.scroll_layers(-1),
            KeyCode::Down | KeyCode::Char('j') if self.tab == Tab::Network => self.scroll_layers(1),
            KeyCode::PageUp if self.tab == Tab::Network => self.scroll_layers(-10),
            KeyCode::PageDown if self.tab == Tab::Network => self.scroll_layers(10),
            KeyCode::Left | KeyCode::Up | KeyCode::Char('k') => self.move_selection(-1, state),
            KeyCode::Right | KeyCode::Down | KeyCode::Char('j') => self.move_selection(1, state),
            KeyCode::PageUp => self.move_selection(-10, state),
            KeyCode::PageDown => self.move_selection(10, state),
            KeyCode::Home => self.move_selection(isize::MIN, state),
            KeyCode::End => self.move_selection(isize::MAX, state),
            _ => {}
        }
        None
    }

    fn open_prompt(&mut self, kind: PromptKind, text: String) {
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
                        self.message = Some("takes effect after this trial".to_owned());
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
            (MouseEventKind::Down(MouseButton::Left), Overlay::Help) => {
                self.overlay = Overlay::None
            }
            (_, Overlay::Help | Overlay::Prompt(_) | Overlay::Export(_)) => {}
            (MouseEventKind::Down(MouseButton::Left), Overlay::None) => self.click(at, state),
            (MouseEventKind::ScrollUp, Overlay::None) if self.tab == Tab::Network => {
                self.scroll_layers(-3)
            }
            (MouseEventKind::ScrollDown, Overlay::None) if self.tab == Tab::Network => {
                self.scroll_layers(3)
            }
            (MouseEventKind::ScrollUp, Overlay::None) => self.move_selection(-1, state),
            (MouseEventKind::ScrollDown, Overlay::None) => self.move_selection(1, state),
            _ => return Vec::new(),
        }
        self.request_inspection(state).into_iter().collect()
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
                Some(archive::Hit::Column(column)) if column == self.sort => {
                    self.reverse = !self.reverse
                }
                Some(archive::Hit::Column(column)) => self.sort = column,
                None => {}
            },
            Tab::Network | Tab::Progress => {}
        }
    }

    /// Asks the search once to time the layers of the point on the network screen.
    fn request_inspection(&mut self, state: &State) -> Option<Action> {
        let running = state.ending.is_none() && !self.stopping && !self.disconnected;
        let id = self.selected(state).filter(|_| running && self.tab == Tab::Network)?.id.clone();
        let news =
            !state.inspected.contains_key(&id) && self.inspection_requests.insert(id.clone());
        news.then_some(Action::Send(Command::Change(Change::Inspect(id))))
    }

    fn quit(&mut self, state: &State) -> Action {
        if state.ending.is_some() || self.stopping || self.disconnected {
            return Action::Leave;
        }
        self.stopping = true;
        Action::Send(Command::Quit)
    }

    fn switch_tab(&mut self, by: usize) {
        let at = Tab::ALL.iter().position(|tab| *tab == self.tab).unwrap_or(0);
        self.tab = Tab::ALL[(at + by) % Tab::ALL.len()];
    }

    fn scroll_layers(&mut self, by: isize) {
        self.scroll = self.scroll.saturating_add_signed(by);
    }

    fn move_selection(&mut self, by: isize, state: &State) {
        let points = self.ordered(state);
        if points.is_empty() {
            return;
        }
        let current = self
            .selected(state)
            .and_then(|point| points.iter().position(|other| other.id == point.id));
        let at = current.unwrap_or(0).saturating_add_signed(by).min(points.len() - 1);
        self.selected = Some(points[at].id.clone());
        self.scroll = 0;
    }
}

impl Overlay {
    /// Opens the export dialog for the marked points, or for the selected one.
    pub(super) fn export(view: &View, state: &State) -> Self {
        let dialog = ExportDialog { format: 0, path: String::new(), typed: false };
        Self::Export(ExportDialog { path: dialog.default_path(view, state), ..dialog })
    }
}

impl ExportDialog {
    fn default_path(&self, view: &View, state: &State) -> String {
        let model = state.started.as_ref().map_or("network", |started| started.model.as_str());
        let end = FORMATS[self.format].2;
        match view.points_to_export(state)[..] {
            [point] => format!("{model}-{}{end}", units::short_id(&point.id)),
            _ => format!("{model}{end}"),
        }
    }

    pub(super) fn key(mut self, code: KeyCode, view: &mut View, state: &State) -> Vec<Action> {
        match code {
            KeyCode::Esc => return Vec::new(),
            KeyCode::Left | KeyCode::Right | KeyCode::Tab => {
                let by = if code == KeyCode::Left { FORMATS.len() - 1 } else { 1 };
                self.format = (self.format + by) % FORMATS.len();
                if !self.typed {
                    self.path = self.default_path(view, state);
                }
            }
            KeyCode::Backspace => {
                self.path.pop();
                self.typed = true;
            }
            KeyCode::Char(letter) if self.path.chars().count() < 300 => {
                self.path.push(letter);
                self.typed = true;
            }
            KeyCode::Enter if !self.path.trim().is_empty() => {
                let points = view.points_to_export(state);
                let (format, _, end) = FORMATS[self.format];
                let path = |point: &FrontPoint| {
                    if points.len() == 1 {
                        return PathBuf::from(self.path.trim());
                    }
                    let stem = self.path.trim().strip_suffix(end).unwrap_or(self.path.trim());
                    PathBuf::from(format!("{stem}-{}{end}", units::short_id(&point.id)))
                };
                if points.is_empty() {
                    view.message = Some("only points of the front can be exported".to_owned());
                    return Vec::new();
                }
                let exports =
                    points.iter().map(|point| ((*point).clone(), format, path(point))).collect();
                return vec![Action::Export(exports)];
            }
            _ => {}
        }
        view.overlay = Overlay::Export(self);
        Vec::new()
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
fn next_axis(axis: Metric, other: Metric) -> Metric {
    let next = next_objective(axis);
    if next == other { next_objective(next) } else { next }
}

/// Returns the objective that follows in the order in which they are shown.
fn next_objective(metric: Metric) -> Metric {
    Metric::objectives().cycle().skip_while(|other| *other != metric).nth(1).unwrap_or(metric)
}
