//! Takes over the terminal and restores it in all cases.

use std::cell::Cell;
use std::io::{self, IsTerminal, Stdout, stdout};
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

/// Whether this process has the terminal in raw mode. If so, a panic or the end of the guard must
/// restore it exactly once.
static TAKEN: AtomicBool = AtomicBool::new(false);

thread_local! {
    static DRAWING: Cell<bool> = const { Cell::new(false) };
}

/// The terminal, taken over until this value is dropped.
pub(crate) struct Screen {
    /// Never dropped: it would show the cursor, and complain on a stream that may be gone. The end
    /// of this value shows it.
    pub terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
    terminated: Arc<AtomicBool>,
    /// Whether the process shall be suspended, by Ctrl-Z or by SIGTSTP from elsewhere.
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
            Ok(ManuallyDrop::new(terminal))
        };
        let terminal = setup().inspect_err(|_: &io::Error| restore())?;
        let (terminated, stop) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
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

    /// Returns whether the process shall be suspended, and resets the request.
    pub(crate) fn asked_to_stop(&self) -> bool {
        self.stop.swap(false, Ordering::Relaxed)
    }

    /// Restores the terminal, suspends the process, and takes the terminal over again when it is
    /// continued.
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        restore();
        #[cfg(unix)]
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP)?;
        prepare()?;
        self.terminal.clear()
    }

    /// Returns whether a signal has asked the process to end.
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

/// Returns whether standard input and output are a terminal that is still open.
#[must_use]
pub fn is_there() -> bool {
    stdout().is_terminal() && io::stdin().is_terminal()
}

/// Time between two looks at the terminal.
const WATCH: Duration = Duration::from_millis(500);

/// Time after which the process ends if the drawing thread does not notice that the terminal is
/// gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Watches the terminal from a thread of its own until the returned value is dropped. If the
/// terminal is closed and nobody notices, `quit` is called, and the process ends a while later. The
/// library that reads keys would otherwise read at the end of the file forever.
pub(crate) fn watch(quit: impl Fn() + Send + 'static) -> Watch {
    let over = Arc::new(AtomicBool::new(false));
    let watched = Arc::clone(&over);
    std::thread::spawn(move || {
        let mut gone: Option<Instant> = None;
        while !watched.load(Ordering::Relaxed) {
            std::thread::sleep(WATCH);
            match gone {
                None if !is_there() => {
                    quit();
                    gone = Some(Instant::now());
                }
                Some(since) if since.elapsed() > PATIENCE => std::process::exit(130),
                _ => {}
            }
        }
    });
    Watch(over)
}

/// Ends the watch over the terminal when it is dropped.
pub(crate) struct Watch(Arc<AtomicBool>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Enables raw mode, the alternate screen and the mouse.
fn prepare() -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    execute!(stdout(), EnterAlternateScreen, EnableMouseCapture)
}

fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // If the terminal is gone, nothing better can be done.
        let _ = disable_raw_mode();
        let _ = execute!(stdout(), DisableMouseCapture, LeaveAlternateScreen, Show);
    }
}

/// Installs a panic hook that restores the terminal before the drawing thread prints its message.
///
/// A panic of another thread must not restore it, because that thread may catch the panic and the
/// screen continues. Its message would destroy the screen, so it goes to the log. The code that
/// joins that thread tells the user.
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
