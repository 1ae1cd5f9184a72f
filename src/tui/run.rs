//! The event loop of the terminal UI: search events, keys, mouse and terminal.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use paretune_record::event::Event;
use paretune_record::front::FrontPoint;
use ratatui::crossterm::event::{self, Event as Input, KeyEventKind};

use super::command::{Command, ExportFormat, Exporter};
use super::draw::draw;
use super::input::Action;
use super::state::State;
use super::terminal::{self, Screen};
use super::theme::Theme;
use super::view::View;

/// Shortest time between two frames (20 frames a second).
const FRAME: Duration = Duration::from_millis(50);

/// Time between two looks for input.
const PAUSE: Duration = Duration::from_millis(25);

/// Time between two frames that update only the clock and the time left.
const IDLE_FRAME: Duration = Duration::from_millis(500);

/// Largest number of events processed between two frames, so that a flood of events does not delay
/// keys.
const EVENTS_PER_FRAME: usize = 5000;

/// Reason why the terminal UI could not run.
#[derive(Debug, thiserror::Error)]
pub enum TuiError {
    /// Standard input or output is not a terminal.
    #[error("the terminal UI needs a terminal; run with --headless where there is none")]
    NoTerminal,
    /// Reading from or writing to the terminal failed.
    #[error("the terminal failed: {0}")]
    Io(#[from] io::Error),
}

/// Draws the study until it has ended and the user presses `q`, or until the user quits.
///
/// `q` sends [`Command::Quit`] and waits until the search has ended its trial and written its
/// archive. A second `q` returns at once, and so do SIGTERM and a terminal that is closed, after
/// the command. The sender of events is never blocked. The terminal is restored in every case, also
/// after a panic and while the process is suspended.
///
/// # Errors
/// Fails with a [`TuiError`] if there is no terminal or if it fails.
pub fn run(
    events: Receiver<Event>,
    commands: Sender<Command>,
    exporter: Option<Exporter>,
) -> Result<(), TuiError> {
    if !terminal::is_there() {
        return Err(TuiError::NoTerminal);
    }
    let quit = commands.clone();
    let _watch = terminal::watch(move || {
        // The search may have ended already, in which case nobody receives the command.
        let _ = quit.send(Command::Quit);
    });
    let mut screen = Screen::take()?;
    let mut state = State::default();
    let mut view = View { theme: Theme::from_environment(), ..View::default() };
    let (results, export_results) = channel();
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
        for text in export_results.try_iter() {
            view.exporting = view.exporting.saturating_sub(1);
            view.message = Some(text);
            dirty = true;
        }
        if view.stopping && (state.ending.is_some() || view.disconnected) && view.exporting == 0 {
            return Ok(());
        }
        if screen.terminated() || !terminal::is_there() {
            // The search may have ended already, in which case nobody receives the command.
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
        // Waiting is not left to the library, which would never return from a terminal that is
        // closed meanwhile.
        std::thread::sleep(PAUSE);
        // All input since the last frame is processed, so that a held key does not lag behind.
        while terminal::is_there() && poll()? {
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
                    Action::Send(command) => view.disconnected |= commands.send(command).is_err(),
                    Action::Export(exports) => {
                        export(exporter.as_ref(), exports, &results, &mut view)
                    }
                }
            }
        }
    }
}

/// Exports points on a thread of its own.
fn export(
    exporter: Option<&Exporter>,
    exports: Vec<(FrontPoint, ExportFormat, PathBuf)>,
    results: &Sender<String>,
    view: &mut View,
) {
    let Some(exporter) = exporter.cloned() else {
        view.message = Some("nothing can be exported here: this is a demonstration".to_owned());
        return;
    };
    view.exporting += exports.len();
    view.message = Some("writing...".to_owned());
    let results = results.clone();
    std::thread::spawn(move || {
        for (point, format, path) in exports {
            let text = match exporter(&point, format, &path) {
                Ok(text) => text,
                Err(problem) => format!("not export_results: {problem}"),
            };
            if results.send(text).is_err() {
                return;
            }
        }
    });
}

/// Clock that does not count the time in which the search is paused.
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

/// Returns whether there is input. An interrupting signal is not an error.
fn poll() -> io::Result<bool> {
    match event::poll(Duration::ZERO) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        other => other,
    }
}

/// Processes pending events. Returns whether there were any.
fn take_events(events: &Receiver<Event>, state: &mut State, view: &mut View) -> bool {
    for taken in 0..EVENTS_PER_FRAME {
        match events.try_recv() {
            Ok(event) => state.apply(&event),
            Err(TryRecvError::Empty) => return taken > 0,
            Err(TryRecvError::Disconnected) => {
                let lost = state.ending.is_none();
                let news = lost && !view.disconnected;
                view.disconnected = lost;
                return taken > 0 || news;
            }
        }
    }
    true
}
