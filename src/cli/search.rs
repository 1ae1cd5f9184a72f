//! The command `paretune search` searches the joint space of a network.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};
use paretune_evaluate::host::{HostOptions, own_worker};
use paretune_record::budget::Budget;
use paretune_record::event::Event;
use paretune_record::limit;
use paretune_record::metric::Metric;
use paretune_record::preference::Preference;
use paretune_record::request::StudyRequest;
use paretune_search::STRATEGIES;
use paretune_study::error::SessionError;
use paretune_study::prepare::{Material, PrepareError};
use paretune_study::session::{self, Conclusion, Control, SessionOptions};

use super::images::{load_material, say};
use super::{ExitStatus, WorkloadArgs, objective_parser, paths, preference_parser, usage};
use crate::report;
use crate::tui;

/// Arguments of the command `paretune search`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paretune search
  paretune search model.onnx --data images --mean 125.3,123.0,113.9 --std 63.0,62.1,66.7 \
  --limit \"<20ms, <5MB\"
  paretune search model.onnx --data images --limit \"accuracy-drop<1%\" --prefer latency --budget 10m

Exit status: 0 a point meets every limit, 3 none does (the nearest miss is reported), 2 bad usage or input,
1 internal failure, 130 interrupted (the study is intact; the same command resumes it).")]
pub struct SearchArgs {
    /// Trained network (ONNX) [default: the built-in network and images]
    #[arg(value_name = "MODEL.onnx")]
    model: Option<PathBuf>,
    #[command(flatten)]
    subject: WorkloadArgs,
    /// Limit to keep: "latency<20ms", "size<5MB", "memory<64MB", "accuracy>90%",
    /// "accuracy-drop<1%", or a list: "<20ms, <5MB". May be given several times
    #[arg(long = "limit", value_name = "TEXT")]
    limits: Vec<String>,
    /// Names of the objectives to trade off
    #[arg(long, value_name = "NAME,...", value_delimiter = ',',
          default_value = "accuracy,latency,size,memory",
          value_parser = objective_parser())]
    objective: Vec<Metric>,
    /// Criterion of the best feasible point: an objective, or `knee`
    #[arg(long, value_name = "TEXT", default_value = "accuracy",
          value_parser = preference_parser())]
    prefer: Preference,
    /// Budget of the search: 90s, 10m, 2h, 500trials, or several; the first one reached ends the
    /// search [default: 1m for the built-in network, else 5m]
    #[arg(long, value_name = "TEXT")]
    budget: Option<Budget>,
    /// Name of the strategy that proposes configurations
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = strategies())]
    strategy: String,
    /// Seed of the random generator. With the same seed and recorded measurements, the trials
    /// repeat
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Fine-tune every compressed finalist for this time (90s, 2m) by distillation from the
    /// unmodified network on the calibration images
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    finetune: Option<u64>,
    /// Folder of the study; an existing study is resumed [default: named after the request, in the
    /// user's data folder]
    #[arg(long, value_name = "DIR")]
    study: Option<PathBuf>,
    /// Folder of the result store, which all studies share [default: in the user's data folder]
    #[arg(long, value_name = "DIR")]
    db: Option<PathBuf>,
    /// Print plain progress instead of the terminal UI
    #[arg(long, conflicts_with = "tui")]
    headless: bool,
    /// Use the terminal UI, even if standard output is no terminal
    #[arg(long)]
    tui: bool,
    /// Print one JSON object per event on standard output (implies --headless)
    #[arg(long, conflicts_with = "tui")]
    json: bool,
    /// Time limit for one trial in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 120,
        value_parser = clap::value_parser!(u64).range(1..),
    )]
    trial_timeout: u64,
    /// Memory limit for one trial in MiB [default: three quarters of the machine's memory]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..))]
    trial_memory: Option<u64>,
}

/// Parses a duration of whole seconds, at most a day.
fn duration(text: &str) -> Result<u64, String> {
    let budget: Budget = text.parse().map_err(|error| format!("{error}"))?;
    match budget {
        Budget { seconds: Some(seconds), trials: None } if (1.0..=86_400.0).contains(&seconds) => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "just checked"
            )]
            let whole = seconds.round() as u64;
            Ok(whole)
        }
        _ => Err("expected a duration from a second to a day, such as 90s or 2m".to_owned()),
    }
}

/// Lists the strategies with a line of help for each.
fn strategies() -> PossibleValuesParser {
    STRATEGIES.iter().map(|strategy| PossibleValue::new(strategy.name).help(strategy.about)).into()
}

/// Seconds below which a budget may be spent before the first trial.
const SHORT_BUDGET: f64 = 20.0;

/// Runs the search and prints its summary.
pub fn search(args: &SearchArgs) -> anyhow::Result<ExitStatus> {
    // Before anything loads an OpenCL driver: those install handlers of their own, which end the
    // process if they were there first.
    let control = Arc::new(Control::default());
    super::signals::stop_on_signals(&control)?;
    let request = request(args)?;
    let screen = wants_screen(args)?;
    if let Some(folder) = &args.study {
        paths::check_study_folder(folder).map_err(usage)?;
    }
    let material = load_material(&request)?;
    let folder = match &args.study {
        Some(folder) => folder.clone(),
        None => {
            let name = &material.network.name;
            paths::studies()?.join(request.folder_name(
                name,
                &material.network.sha256,
                &material.images_hash,
            ))
        }
    };
    let most = || default_memory_limit(&request.backends);
    let memory_limit = args.trial_memory.map(|mib| mib << 20).or_else(most);
    let options = SessionOptions {
        request,
        folder: folder.clone(),
        store: paths::store(args.db.as_deref())?,
        host: HostOptions {
            command: own_worker()?,
            memory_limit,
            open_deadline: Duration::from_secs(1800),
        },
        trial_deadline: Duration::from_secs(args.trial_timeout),
    };
    if let Some(seconds) = options.request.budget.seconds.filter(|&seconds| seconds < SHORT_BUDGET)
    {
        say(&format!(
            "a budget of {seconds:.0} s is short: preparing the network, measuring the baseline and \
             measuring the best points once more are done in any case, and may take longer"
        ));
    }
    let begun = Instant::now();
    let conclusion = if screen {
        with_terminal_ui(&options, &material, &control)
    } else if args.json {
        with_json(&options, &material, &control)
    } else {
        let mut progress = report::PlainProgress::stderr();
        session::run(&options, &material, &control, &mut |event| progress.event(event))
    };
    let conclusion = conclusion.map_err(classified)?;
    let taken = begun.elapsed().as_secs_f64();
    let budget = options.request.budget.seconds.filter(|_| conclusion.front.trials <= 2);
    if let Some(budget) = budget.filter(|budget| taken > 1.1 * budget && taken > budget + 5.0) {
        say(&format!(
            "the search took {taken:.0} s instead of {budget:.0} s, as preparing the network, the \
             first trial and the final measurements are done in any case"
        ));
    }
    if !args.json {
        let folder = folder.display().to_string();
        let text = report::summary(&conclusion.front, &folder, conclusion.prefer);
        let written = std::io::stdout().lock().write_all(text.as_bytes());
        // After an interrupt, the terminal may be gone.
        if !conclusion.interrupted {
            written?;
        }
    }
    Ok(ending(&conclusion))
}

/// Returns whether the terminal UI is used: if it is asked for, or on a terminal that can move its
/// cursor and from which keys can be read.
fn wants_screen(args: &SearchArgs) -> anyhow::Result<bool> {
    if args.tui && !tui::is_there() {
        return Err(usage(anyhow!(
            "--tui needs a terminal; leave it out, or say --headless, where there is none"
        )));
    }
    // A terminal without keys or full screens gets plain progress.
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    Ok(args.tui || (!args.headless && !args.json && !dumb && tui::is_there()))
}

fn ending(conclusion: &Conclusion) -> ExitStatus {
    if conclusion.interrupted {
        ExitStatus::Interrupted
    } else if conclusion.front.nearest_miss.is_some() || conclusion.front.points.is_empty() {
        ExitStatus::Infeasible
    } else {
        ExitStatus::Done
    }
}

fn request(args: &SearchArgs) -> anyhow::Result<StudyRequest> {
    let mut bounds = Vec::new();
    for text in &args.limits {
        bounds.extend(limit::parse(text).map_err(usage)?);
    }
    let seconds = if args.model.is_some() { 300.0 } else { 60.0 };
    Ok(StudyRequest {
        limits: bounds,
        objectives: args.objective.clone(),
        prefer: args.prefer,
        budget: args.budget.unwrap_or(Budget { seconds: Some(seconds), trials: None }),
        seed: args.seed,
        finetune: args.finetune.unwrap_or(0),
        ..args.subject.request(args.model.as_ref(), &args.strategy)?
    })
}

/// Classifies an error: mistakes in the input exit with 2, failures of this program with 1.
pub(super) fn classified(error: SessionError) -> anyhow::Error {
    match error {
        SessionError::Prepare(
            PrepareError::Model(_)
            | PrepareError::Images(_)
            | PrepareError::Space(_)
            | PrepareError::JointSpace(_)
            | PrepareError::File { .. }
            | PrepareError::Request(_),
        )
        | SessionError::Space(_)
        | SessionError::Folder { .. } => usage(error),
        other => other.into(),
    }
}

fn with_json(
    options: &SessionOptions,
    material: &Material,
    control: &Control,
) -> Result<Conclusion, SessionError> {
    let mut out = std::io::stdout().lock();
    session::run(options, material, control, &mut |event| {
        let written = serde_json::to_writer(&mut out, event).map_err(std::io::Error::from);
        if written.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).is_err() {
            // The reader of the output is gone, so the study stops. It can be resumed.
            control.stop.store(true, Ordering::Relaxed);
        }
    })
}

/// Runs the search on a thread of its own. The screen draws its events and never delays it.
fn with_terminal_ui(
    options: &SessionOptions,
    material: &Material,
    control: &Arc<Control>,
) -> Result<Conclusion, SessionError> {
    let (events, to_draw): (Sender<Event>, _) = channel();
    let (commands, requests) = mpsc::channel();
    let commanded = Arc::clone(control);
    std::thread::spawn(move || {
        for request in requests {
            match request {
                tui::Command::Quit => commanded.stop.store(true, Ordering::Relaxed),
                tui::Command::Pause => commanded.pause.store(true, Ordering::Relaxed),
                tui::Command::Resume => commanded.pause.store(false, Ordering::Relaxed),
                tui::Command::Change(change) => commanded.change(change),
            }
        }
    });
    let exporter = super::exporter::exporter(options.folder.clone(), Arc::clone(control));
    std::thread::scope(|scope| {
        let work = scope.spawn(move || {
            session::run(options, material, control, &mut |event| {
                // The user may have left the screen already. The search then ends by its own rules.
                let _ = events.send(event.clone());
            })
        });
        if let Err(error) = tui::run(to_draw, commands, Some(exporter)) {
            control.stop.store(true, Ordering::Relaxed);
            // The terminal, and with it standard error, may be gone.
            let _ = writeln!(std::io::stderr(), "the terminal UI ended: {error}");
        }
        match work.join() {
            Ok(conclusion) => conclusion,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Returns three quarters of the machine's memory, if that is known. Returns `None` if a device is
/// used, because its driver reserves address space for all of its memory and more.
fn default_memory_limit(backends: &[String]) -> Option<u64> {
    if backends.iter().any(|backend| backend != "cpu") {
        return None;
    }
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024 / 4 * 3)
}
