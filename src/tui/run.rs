//! The loop between events, keys, the mouse and the terminal.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event as Input, KeyEventKind};

use super::draw::draw;
use super::state::State;
use super::terminal::{self, Screen};
use super::theme::Theme;
use super::view::{Action, View};
use crate::study::event::Event;
use crate::study::front::FrontPoint;
use crate::study::session::Change;

/// At most 20 pictures a second.
const FRAME: Duration = Duration::from_millis(50);
/// The clock and the time left are redrawn this often where nothing else changes.
const IDLE_FRAME: Duration = Duration::from_millis(500);
/// Events taken between two pictures: a flood must not keep keys waiting.
const EVENTS_PER_FRAME: usize = 5000;

/// What the user asks of the search.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Finish the trial, write the archive, end with [`Event::Finished`].
    Quit,
    /// Start no further trial until [`Command::Resume`].
    Pause,
    /// Go on.
    Resume,
    /// Something else than was asked for at first.
    Change(Change),
}

/// What a point can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// A folder that `paretune run` runs.
    Bundle,
    /// An ONNX file.
    Onnx,
    /// The configuration and its figures.
    Json,
}

/// Writes a point to a path; what it says, good or bad, is shown. Called on a thread of its own.
pub type Exporter = Arc<dyn Fn(&FrontPoint, ExportFormat, &Path) -> Result<String, String> + Send + Sync>;

/// Why the terminal UI could not run.
#[derive(Debug, thiserror::Error)]
pub enum TuiError {
    /// Standard input or output is no terminal.
    #[error("the terminal UI needs a terminal; run with --headless where there is none")]
    NoTerminal,
    /// The terminal failed.
    #[error("the terminal failed: {0}")]
    Io(#[from] io::Error),
}

/// Draws the study until it has ended and the user presses `q`, or the user quits.
///
/// `q` sends [`Command::Quit`] and waits for the search to end its trial and write its archive, then returns; a second
/// `q` returns at once. So does SIGTERM. Never blocks the sender of events. The terminal is restored on every way out,
/// panics included, and while the process is suspended.
///
/// # Errors
/// [`TuiError`] where there is no terminal, or it fails.
pub fn run(
    events: Receiver<Event>,
    commands: Sender<Command>,
    exporter: Option<Exporter>,
) -> Result<(), TuiError> {
    if !terminal::is_there() {
        return Err(TuiError::NoTerminal);
    }
    let mut screen = Screen::take()?;
    let mut state = State::default();
    let mut view = View { theme: Theme::from_environment(), ..View::default() };
    let (words, written) = channel();
    let mut clock = Clock::start();
    let mut drawn: Option<Instant> = None;
    let mut dirty = true;
    loop {
        let had_started = state.started.is_some();
        dirty |= take_events(&events, &mut state, &mut view);
        if !had_started && state.started.is_some() {
            clock = Clock::start();
        }
        view.clock = clock.seconds(view.paused);
        for text in written.try_iter() {
            view.exporting = view.exporting.saturating_sub(1);
            view.message = Some(text);
            dirty = true;
        }
        if view.stopping && (state.ending.is_some() || view.lost) && view.exporting == 0 {
            return Ok(());
        }
        if screen.terminated() {
            // A search that is already gone needs no telling.
            let _ = commands.send(Command::Quit);
            return Ok(());
        }
        if screen.asked_to_stop() {
            screen.suspend()?;
            drawn = None;
        }
        let age = drawn.map(|at| at.elapsed());
        if age.is_none_or(|age| (dirty && age >= FRAME) || age >= IDLE_FRAME) {
            screen.terminal.draw(|frame| {
                view.area = frame.area();
                draw(frame, &state, &view);
            })?;
            (drawn, dirty) = (Some(Instant::now()), false);
        }
        if !poll(FRAME)? {
            continue;
        }
        // Everything typed since the last picture, so that a held key does not lag behind.
        while poll(Duration::ZERO)? {
            dirty = true;
            let actions = match event::read()? {
                Input::Key(key) if key.kind != KeyEventKind::Release => view.key(key, &state),
                Input::Mouse(mouse) => view.mouse(mouse, &state),
                Input::Resize(..) => {
                    drawn = None;
                    continue;
                }
                _ => continue,
            };
            for action in actions {
                match action {
                    Action::Leave => return Ok(()),
                    Action::Suspend => screen.stop.store(true, Ordering::Relaxed),
                    Action::Send(command) => view.lost |= commands.send(command).is_err(),
                    Action::Export(wishes) => export(exporter.as_ref(), wishes, &words, &mut view),
                }
            }
        }
    }
}

/// Writes what was asked for on a thread of its own.
fn export(
    exporter: Option<&Exporter>,
    wishes: Vec<(FrontPoint, ExportFormat, PathBuf)>,
    words: &Sender<String>,
    view: &mut View,
) {
    let Some(exporter) = exporter.cloned() else {
        view.message = Some("nothing can be exported here: this is a demonstration".to_owned());
        return;
    };
    view.exporting += wishes.len();
    view.message = Some("writing...".to_owned());
    let words = words.clone();
    std::thread::spawn(move || {
        for (point, format, path) in wishes {
            let text = match exporter(&point, format, &path) {
                Ok(text) => text,
                Err(problem) => format!("not written: {problem}"),
            };
            if words.send(text).is_err() {
                return;
            }
        }
    });
}

/// Seconds that count: those in which the search was not paused.
struct Clock {
    counted: f64,
    since: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { counted: 0.0, since: Instant::now() }
    }

    fn seconds(&mut self, paused: bool) -> f64 {
        let passed = std::mem::replace(&mut self.since, Instant::now()).elapsed().as_secs_f64();
        if !paused {
            self.counted += passed;
        }
        self.counted
    }
}

/// A signal may interrupt the wait; that is no failure.
fn poll(timeout: Duration) -> io::Result<bool> {
    match event::poll(timeout) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        other => other,
    }
}

/// Takes what has come; whether there was anything.
fn take_events(events: &Receiver<Event>, state: &mut State, view: &mut View) -> bool {
    for taken in 0..EVENTS_PER_FRAME {
        match events.try_recv() {
            Ok(event) => state.apply(&event),
            Err(TryRecvError::Empty) => return taken > 0,
            Err(TryRecvError::Disconnected) => {
                let lost = state.ending.is_none();
                let news = lost && !view.lost;
                view.lost = lost;
                return taken > 0 || news;
            }
        }
    }
    true
}
