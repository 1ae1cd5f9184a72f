//! The loop between events, keys and the terminal.

use std::io;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event as Input, KeyEventKind};

use super::draw::draw;
use super::state::State;
use super::terminal::{self, Screen};
use super::theme::Theme;
use super::view::{Action, View};
use crate::study::event::Event;

/// At most 20 pictures a second.
const FRAME: Duration = Duration::from_millis(50);
/// The clock and the time left are redrawn this often where nothing else changes.
const IDLE_FRAME: Duration = Duration::from_millis(500);
/// Events taken between two pictures: a flood must not keep keys waiting.
const EVENTS_PER_FRAME: usize = 5000;

/// What the user asks of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Finish the trial, write the archive, end with [`Event::Finished`].
    Quit,
    /// Start no further trial until [`Command::Resume`].
    Pause,
    /// Go on.
    Resume,
}

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
/// panics included.
///
/// # Errors
/// [`TuiError`] where there is no terminal, or it fails.
pub fn run(events: Receiver<Event>, commands: Sender<Command>) -> Result<(), TuiError> {
    if !terminal::is_there() {
        return Err(TuiError::NoTerminal);
    }
    let mut screen = Screen::take()?;
    let mut state = State::default();
    let mut view = View { theme: Theme::from_environment(), ..View::default() };
    let mut begun = Instant::now();
    let mut drawn: Option<Instant> = None;
    let mut dirty = true;
    loop {
        let had_started = state.started.is_some();
        dirty |= take_events(&events, &mut state, &mut view);
        if !had_started && state.started.is_some() {
            begun = Instant::now();
        }
        view.clock = begun.elapsed().as_secs_f64();
        if view.stopping && (state.ending.is_some() || view.lost) {
            return Ok(());
        }
        if screen.terminated() {
            // A search that is already gone needs no telling.
            let _ = commands.send(Command::Quit);
            return Ok(());
        }
        let age = drawn.map(|at| at.elapsed());
        if age.is_none_or(|age| (dirty && age >= FRAME) || age >= IDLE_FRAME) {
            screen.terminal.draw(|frame| draw(frame, &state, &view))?;
            (drawn, dirty) = (Some(Instant::now()), false);
        }
        if !poll(FRAME)? {
            continue;
        }
        // Everything typed since the last picture, so that a held key does not lag behind.
        while poll(Duration::ZERO)? {
            dirty = true;
            let Input::Key(key) = event::read()? else { continue };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            match view.key(key, &state) {
                Some(Action::Leave) => return Ok(()),
                Some(Action::Send(command)) => view.lost |= commands.send(command).is_err(),
                None => {}
            }
        }
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
