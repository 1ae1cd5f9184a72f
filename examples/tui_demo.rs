//! Plays a simulated study in the terminal UI: `cargo run --example tui_demo [-- TRIALS [hard]]`.
//!
//! Nothing is measured, and the events are equal in every run. With `hard`, no point meets the
//! limits.

use std::sync::mpsc::{TryRecvError, channel};
use std::thread;
use std::time::Duration;

use paretune_demo as demo;
use paretune_record::event::Event;
use paretune_tui::{Command, run};

fn main() {
    let trials = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(300);
    let easy = std::env::args().nth(2).as_deref() != Some("hard");
    let (events, receiver) = channel();
    let (sender, commands) = channel();
    let search = thread::spawn(move || {
        let mut paused = false;
        let mut stopped = false;
        for event in demo::study(trials, easy) {
            loop {
                match commands.try_recv() {
                    Ok(Command::Pause) => paused = true,
                    Ok(Command::Resume) => paused = false,
                    Ok(Command::Quit) => stopped = true,
                    // Simulated figures cannot be judged again.
                    Ok(Command::Change(_)) => {}
                    Err(TryRecvError::Empty) if paused && !stopped => {
                        thread::sleep(Duration::from_millis(20))
                    }
                    Err(_) => break,
                }
            }
            if stopped && !matches!(event, Event::Finished { .. }) {
                continue;
            }
            let pause = if matches!(event, Event::TrialFinished(_)) { 60 } else { 20 };
            if events.send(event).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(pause));
        }
    });
    if let Err(error) = run(receiver, sender, None) {
        eprintln!("error: {error}");
        std::process::exit(2);
    }
    // The search has ended, or ends with the program.
    drop(search);
}
