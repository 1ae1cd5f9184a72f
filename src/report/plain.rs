//! Progress without a terminal UI: a progress bar on a terminal, otherwise lines, few enough for a
//! log file.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use paretune_record::event::{Event, Started, TrialFinished};
use paretune_record::metric::Metric;

use super::units;

/// Minimum time between two lines without a terminal, except for significant events.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Reports the progress of a search from its events.
pub struct PlainProgress {
    out: Output,
    /// Description of the current session.
    started: Option<Started>,
    counts: Counts,
    last_line: Option<Instant>,
}

#[derive(Default)]
struct Counts {
    trials: u64,
    failed: u64,
    cached: u64,
    front: usize,
    elapsed: f64,
    best: Option<String>,
}

enum Output {
    Bar(ProgressBar),
    Lines(Box<dyn Write + Send>),
}

impl PlainProgress {
    /// Reports on standard error: with a progress bar if it is a terminal, else with lines.
    #[must_use]
    pub fn stderr() -> Self {
        if !io::stderr().is_terminal() {
            return Self::lines(Box::new(io::stderr()));
        }
        let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr_with_hz(4));
        let template = "{wide_bar} {msg}";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self::new(Output::Bar(bar))
    }

    /// Writes lines to any writer. A failing writer is ignored, so that the search goes on.
    #[must_use]
    pub fn lines(writer: Box<dyn Write + Send>) -> Self {
        Self::new(Output::Lines(writer))
    }

    fn new(out: Output) -> Self {
        Self { out, started: None, counts: Counts::default(), last_line: None }
    }

    /// Processes the next event of the search.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Started(started) => self.start(started),
            Event::Preparing { task, fraction } => {
                let text = format!("{task} {:.0} %", fraction * 100.0);
                match &self.out {
                    Output::Bar(bar) => bar.set_message(text),
                    Output::Lines(_) if *fraction <= 0.0 => self.print(task),
                    Output::Lines(_) => self.print_at_intervals(|_| text),
                }
            }
            Event::TrialStarted { .. }
            | Event::Stage { .. }
            | Event::Surveyed(_)
            | Event::Changed(_)
            | Event::Inspected(_) => {}
            Event::TrialFinished(trial) => self.trial(trial),
            Event::Confirming { done, total } => {
                let text = format!("measuring final points again: {done} of {total}");
                match &self.out {
                    Output::Bar(bar) => bar.set_message(text),
                    Output::Lines(_) if *done == 0 => self.print(&text),
                    Output::Lines(_) => self.print_at_intervals(|_| text),
                }
            }
            Event::Finished { .. } => {
                if let Output::Bar(bar) = &self.out {
                    bar.finish_and_clear();
                }
            }
            Event::Notice { text } => self.print(&format!("note: {text}")),
        }
    }

    fn start(&mut self, started: &Started) {
        self.counts = Counts { trials: started.resumed_trials, ..Counts::default() };
        self.print(&format!(
            "{} on {}: {} parameters, 10^{:.0} configurations; limits: {}; budget {}",
            started.model,
            started.cpu,
            started.parameters,
            started.log10_configurations,
            units::limits(&started.limits),
            started.budget
        ));
        if started.resumed_trials > 0 {
            self.print(&format!("resumed after {} trials", started.resumed_trials));
        }
        self.started = Some(started.clone());
    }

    fn trial(&mut self, trial: &TrialFinished) {
        let counts = &mut self.counts;
        counts.trials = counts.trials.max(trial.number);
        counts.elapsed = trial.elapsed;
        counts.cached += u64::from(trial.cached);
        counts.failed += u64::from(trial.failure.is_some());
        if trial.entered {
            counts.front = (counts.front + 1).saturating_sub(trial.displaced.len());
        }
        let best = trial.point.as_ref().filter(|point| trial.entered && point.best);
        if let Some(point) = best {
            let mut parts: Vec<_> = Metric::objectives()
                .filter_map(|metric| Some(units::value(metric, point.metrics.get(metric)?)))
                .collect();
            let faster = trial
                .baseline
                .as_ref()
                .and_then(|base| units::versus(Metric::Latency, &point.metrics, base));
            parts.extend(faster);
            counts.best = Some(parts.join(", "));
        }
        let found = best.is_some();
        match &self.out {
            Output::Bar(bar) => {
                bar.set_position((self.used_budget() * 1000.0) as u64);
                bar.set_message(self.status());
            }
            Output::Lines(_) if found => {
                let text = format!("{} (new best)", self.status());
                self.print(&text);
            }
            Output::Lines(_) => self.print_at_intervals(Self::status),
        }
    }

    /// Returns the fraction of the budget that is used.
    fn used_budget(&self) -> f64 {
        let Some(started) = &self.started else { return 0.0 };
        let time = started.budget_seconds.map_or(0.0, |budget| self.counts.elapsed / budget);
        let trials =
            started.budget_trials.map_or(0.0, |budget| self.counts.trials as f64 / budget as f64);
        let fraction = time.max(trials);
        if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 }
    }

    fn status(&self) -> String {
        let counts = &self.counts;
        let mut text = format!("{}  trial {}", units::duration(counts.elapsed), counts.trials);
        if counts.cached > 0 {
            text += &format!(" ({} cached)", counts.cached);
        }
        if counts.failed > 0 {
            text += &format!(" ({} failed)", counts.failed);
        }
        text += &format!(", front {}", counts.front);
        if let Some(best) = &counts.best {
            text += &format!(", best {best}");
        }
        text
    }

    fn print_at_intervals(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.last_line.is_none_or(|at| at.elapsed() >= LINE_INTERVAL) {
            let text = text(self);
            self.print(&text);
        }
    }

    fn print(&mut self, text: &str) {
        match &mut self.out {
            Output::Bar(bar) => bar.println(text),
            Output::Lines(writer) => {
                self.last_line = Some(Instant::now());
                // Progress is optional: a closed pipe must not end the search.
                let _ = writeln!(writer, "{text}").and_then(|()| writer.flush());
            }
        }
    }
}
