//! Signals that end a command without loss of data.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use paretune_study::session::Control;

/// Stops the work of `control` at the first signal, and the program at the second.
pub(super) fn stop_on_signals(control: &Arc<Control>) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut wanted = vec![SIGINT, SIGTERM];
    // `nohup` asks for a closed terminal to be ignored.
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(wanted)?;
    let control = Arc::clone(control);
    std::thread::spawn(move || {
        for (count, _) in signals.forever().enumerate() {
            control.stop.store(true, Ordering::Relaxed);
            if count > 0 {
                // At the second signal the program exits at once. The journal is consistent at any
                // time, so at most one trial is lost.
                std::process::exit(130);
            }
        }
    });
    Ok(())
}

/// Returns whether the process was started with `signal` ignored, where the system tells.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
