//! Taking the terminal over, and giving it back whatever happens.

use std::cell::Cell;
use std::io::{self, IsTerminal, Stdout, stdout};
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

/// Whether this process has the terminal in raw mode: then a panic or the guard's end must give it back, once.
static TAKEN: AtomicBool = AtomicBool::new(false);

thread_local! {
    static DRAWING: Cell<bool> = const { Cell::new(false) };
}

/// The terminal, taken over until this is dropped.
pub(crate) struct Screen {
    pub terminal: Terminal<CrosstermBackend<Stdout>>,
    terminated: Arc<AtomicBool>,
    /// Somebody wants the process suspended: Ctrl-Z, or SIGTSTP from elsewhere.
    pub stop: Arc<AtomicBool>,
    signals: Vec<signal_hook::SigId>,
}

impl Screen {
    pub(crate) fn take() -> io::Result<Self> {
        restore_before_panics();
        DRAWING.set(true);
        let setup = || {
            prepare()?;
            let mut terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
            terminal.clear()?;
            Ok(terminal)
        };
        let terminal = setup().inspect_err(|_: &io::Error| restore())?;
        let (terminated, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let flags = [
            (signal_hook::consts::SIGTERM, &terminated),
            (signal_hook::consts::SIGHUP, &terminated),
            (signal_hook::consts::SIGTSTP, &stop),
        ];
        let signals = flags
            .into_iter()
            .filter_map(|(signal, flag)| signal_hook::flag::register(signal, Arc::clone(flag)).ok())
            .collect();
        Ok(Self { terminal, terminated, stop, signals })
    }

    /// Whether somebody wants the process suspended.
    pub(crate) fn asked_to_stop(&self) -> bool {
        self.stop.swap(false, Ordering::Relaxed)
    }

    /// Gives the terminal back, suspends the process, and takes the terminal again when it is continued.
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        restore();
        #[cfg(unix)]
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP)?;
        prepare()?;
        self.terminal.clear()
    }

    /// Whether the process was asked to end from outside.
    pub(crate) fn terminated(&self) -> bool {
        self.terminated.load(Ordering::Relaxed)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        for signal in self.signals.drain(..) {
            signal_hook::low_level::unregister(signal);
        }
        restore();
        DRAWING.set(false);
    }
}

/// Whether there is a terminal to draw on and to read keys from.
pub(crate) fn is_there() -> bool {
    stdout().is_terminal() && io::stdin().is_terminal()
}

/// Raw mode, the alternate screen, the mouse.
fn prepare() -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    execute!(stdout(), EnterAlternateScreen, EnableMouseCapture)
}

fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // Nothing better can be done where the terminal is gone.
        let _ = disable_raw_mode();
        let _ = execute!(stdout(), DisableMouseCapture, LeaveAlternateScreen, Show);
    }
}

/// A panic of the drawing thread gives the terminal back first, so that its message can be read.
///
/// A panic of another thread must not: it may be caught there, and the screen goes on. Its message would garble the
/// screen, so it goes to the log; whoever joins that thread tells the user.
fn restore_before_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !TAKEN.load(Ordering::SeqCst) {
                next(info);
            } else if DRAWING.try_with(Cell::get).unwrap_or(false) {
                restore();
                next(info);
            } else {
                tracing::error!("{info}");
            }
        }));
    });
}
