//! The command `paretune bench --tune` finds every layer's best schedule at full precision and
//! prints the improvement.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use paretune_db::Store;
use paretune_evaluate::host::{HostError, own_worker};
use paretune_evaluate::protocol::TimeRequest;
use paretune_evaluate::repeat::{self, PROCESSES};
use paretune_evaluate::timing::{Effort, Timing};
use paretune_kernels::Plan;
use paretune_kernels::bundle::{Bundle, Preprocessing};
use paretune_kernels::schedule::Schedule;
use paretune_model::Network;
use paretune_study::prepare::load_network;
use paretune_study::session::Control;
use paretune_study::trial::{fastest_probes, remember_probes};
use paretune_tune::{Progress, STRATEGY, Schedules, TuneOptions, Tuned, TunedLayer, store_network};

use super::bench::{BenchArgs, conditions, seconds_text};
use super::{ExitStatus, paths, usage};
use crate::tune;

/// Number of steps of the progress bar.
const STEPS: u64 = 1000;
/// Minimum time between two lines of progress without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Tunes the network of `args` and prints the result.
pub fn tune(args: &BenchArgs) -> anyhow::Result<ExitStatus> {
    args.check()?;
    let Some(seconds) = args.budget.seconds else {
        return Err(usage(anyhow!("--budget: tuning takes a time, for example 60s")));
    };
    if args.budget.trials.is_some() {
        return Err(usage(anyhow!("--budget: tuning takes a time alone, for example 60s")));
    }
    if args.target.is_dir() {
        return Err(usage(anyhow!(
            "`{}` is a folder, but --tune takes a network (MODEL.onnx) at full precision; a \
             bundle already has its schedules",
            args.target.display()
        )));
    }
    let control = Arc::new(Control::default());
    super::signals::stop_on_signals(&control)?;
    let Network { mut plan, sha256, .. } = load_network(Some(&args.target)).map_err(usage)?;
    let conditions = conditions(args);
    plan.threads = conditions.threads;
    debug_assert!(plan.is_on_processor());
    let store = Store::open(&paths::store(args.db.as_deref())?)?;
    let probes = fastest_probes(&store, &conditions.hardware)?;
    let stopped = || control.stop.load(Ordering::Relaxed);
    let options = TuneOptions {
        conditions: conditions.clone(),
        seconds,
        strategy: STRATEGY.to_owned(),
        seed: 0,
    };
    let preprocessing = Preprocessing::default();
    let mut reporter = ProgressReporter::new(args.json);
    let tuned = tune::tune(
        &plan,
        &preprocessing,
        &store,
        &options,
        probes,
        &mut |progress| reporter.see(progress),
        &stopped,
    );
    reporter.end();
    let Some(tuned) = tuned? else {
        eprintln!(
            "interrupted; the measurements are in the result store, and the same command continues"
        );
        return Ok(ExitStatus::Interrupted);
    };
    remember_probes(&store, &conditions.hardware, &tuned.probes)?;

    // The whole network is timed with and without the tuned schedules, in turns. If some layers
    // work in a tensor format of their own, a third variant leaves those out, because their
    // conversions may cost the other layers more than they gain.
    let scratch = tempfile::TempDir::new().context("a temporary folder cannot be created")?;
    let none = Schedules::new();
    let mut variants = vec![&none];
    if !tuned.schedules.is_empty() {
        variants.push(&tuned.schedules);
        variants.extend(&tuned.same_layouts);
    }
    let mut folders: Vec<PathBuf> = Vec::new();
    for (index, schedules) in variants.iter().enumerate() {
        let folder = scratch.path().join(index.to_string());
        write_bundle(&plan, schedules, &preprocessing, &folder)?;
        folders.push(folder);
    }
    let effort = Effort { precision: 0.0, least_samples: 20, seconds: args.seconds };
    let request = TimeRequest {
        threads: Some(conditions.threads),
        batch: conditions.batch,
        ..repeat::as_made(folders, effort, tuned.probes.clone())
    };
    let deadline = Duration::from_secs_f64(300.0 + 30.0 * args.seconds);
    let timings = match repeat::time_afresh(&own_worker()?, &request, deadline, &stopped) {
        Err(HostError::Interrupted) => return Ok(ExitStatus::Interrupted),
        other => other?,
    };
    let chosen = (0..timings.len())
        .min_by(|a, b| timings[*a].median.total_cmp(&timings[*b].median))
        .ok_or_else(|| anyhow!("nothing was timed"))?;
    let seconds = [timings[0].median, timings[chosen].median];
    if let Err(error) = store_network(&store, &conditions, &sha256, variants[chosen], seconds) {
        eprintln!("the schedules of the whole network could not be stored: {error}");
    }
    let report = TuningReport {
        plan: &plan,
        tuned: &tuned,
        default: &timings[0],
        best: &timings[chosen],
        chosen,
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", report.json(conditions.threads, conditions.batch))?;
    } else {
        report.print(&mut out, conditions.threads, conditions.batch)?;
    }
    Ok(ExitStatus::Done)
}

fn write_bundle(
    plan: &Plan,
    schedules: &Schedules,
    preprocessing: &Preprocessing,
    folder: &Path,
) -> anyhow::Result<()> {
    let mut plan = plan.clone();
    tune::apply(&mut plan, schedules.iter().map(|(index, schedule)| (*index, schedule)));
    let bundle =
        Bundle { plan, preprocessing: preprocessing.clone(), configuration: String::new() };
    Ok(bundle.write(folder)?)
}

/// Reports progress on standard error.
struct ProgressReporter {
    bar: ProgressBar,
    last_line: Instant,
    plain: bool,
}

impl ProgressReporter {
    fn new(quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(STEPS) };
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {msg} {elapsed}") {
            bar.set_style(style);
        }
        Self { plain: !quiet && bar.is_hidden(), bar, last_line: Instant::now() }
    }

    fn see(&mut self, progress: &Progress) {
        let activity = if progress.finals { "timing the best again" } else { "trying" };
        let text =
            format!("{activity}: {} schedules, layers {:.2}x", progress.tried, progress.gained);
        if self.plain {
            if self.last_line.elapsed() >= LINE_INTERVAL {
                self.last_line = Instant::now();
                eprintln!("{:3.0} %: {text}", 100.0 * progress.fraction);
            }
            return;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
        #[expect(clippy::cast_precision_loss, reason = "1000")]
        self.bar.set_position((progress.fraction * STEPS as f64) as u64);
        self.bar.set_message(text);
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Result of a tuning, ready to be printed.
struct TuningReport<'f> {
    plan: &'f Plan,
    tuned: &'f Tuned,
    default: &'f Timing,
    best: &'f Timing,
    /// Index of the fastest variant of the network: default, tuned, or tuned in the same layouts.
    chosen: usize,
}

impl TuningReport<'_> {
    /// Returns the geometric mean of the layers' speedups, every step counted.
    fn mean_gain(&self) -> f64 {
        let mut sum = (0.0, 0.0);
        for layer in &self.tuned.layers {
            #[expect(clippy::cast_precision_loss, reason = "a handful of steps")]
            let steps = layer.names.len() as f64;
            sum = (sum.0 + steps * gain(layer).ln(), sum.1 + steps);
        }
        if sum.1 > 0.0 { (sum.0 / sum.1).exp() } else { 1.0 }
    }

    fn kept(&self) -> &'static str {
        match self.chosen {
            0 if self.tuned.schedules.is_empty() => "the default schedules are the best",
            0 => "the default schedules stay: together, the tuned ones are not faster",
            1 => "the tuned schedules",
            _ => {
                "the tuned schedules except those in another tensor format, which together are \
                 slower"
            }
        }
    }

    fn json(&self, threads: usize, batch: usize) -> serde_json::Value {
        let layers: Vec<_> = self
            .tuned
            .layers
            .iter()
            .map(|layer| {
                serde_json::json!({
                    "name": layer.names[0],
                    "names": layer.names,
                    "algorithm": layer.schedule.algorithm,
                    "tunables": layer.schedule.tunables,
                    "seconds": layer.seconds,
                    "default_algorithm": layer.default.algorithm,
                    "default_seconds": layer.default_seconds,
                    "gain": gain(layer),
                    "ceiling_share": layer.ceiling_share,
                    "tried": layer.tried,
                })
            })
            .collect();
        let timing = |timing: &Timing| {
            let Timing { median, low, high, .. } = timing;
            serde_json::json!({"median": median, "low": low, "high": high})
        };
        serde_json::json!({
            "latency": timing(self.best),
            "default_latency": timing(self.default),
            "gain": self.default.median / self.best.median,
            "layer_gain": self.mean_gain(),
            "kept": self.kept(),
            "threads": threads,
            "batch": batch,
            "runs": self.tuned.runs,
            "layers": layers,
        })
    }

    fn print(&self, out: &mut impl Write, threads: usize, batch: usize) -> std::io::Result<()> {
        let rows: Vec<[String; 7]> = self.tuned.layers.iter().map(row).collect();
        let head = ["layer", "default", "tuned", "gain", "of ceiling", "tried", "schedule"]
            .map(str::to_owned);
        let width = |column: usize| {
            let cells = rows.iter().chain([&head]).map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: [usize; 7] = std::array::from_fn(width);
        for row in std::iter::once(&head).chain(&rows) {
            let [name, .., schedule] = row;
            write!(out, "{name:0$}", widths[0])?;
            for column in 1..6 {
                write!(out, "  {:>1$}", row[column], widths[column])?;
            }
            writeln!(out, "  {schedule}")?;
        }
        let tried: usize = self.tuned.layers.iter().map(|layer| layer.tried).sum();
        writeln!(
            out,
            "\ngeometric mean of the layers' gains: {:.2}x ({tried} schedules in {} runs; \
             {threads} thread(s), batch {batch})",
            self.mean_gain(),
            self.tuned.runs
        )?;
        writeln!(
            out,
            "{}: default {} ({} to {}), now {} ({} to {}), {:.2}x, in {PROCESSES} processes",
            self.plan.name,
            seconds_text(self.default.median),
            seconds_text(self.default.low),
            seconds_text(self.default.high),
            seconds_text(self.best.median),
            seconds_text(self.best.low),
            seconds_text(self.best.high),
            self.default.median / self.best.median,
        )?;
        writeln!(out, "kept for `bench --fp32`: {}", self.kept())
    }
}

fn gain(layer: &TunedLayer) -> f64 {
    layer.default_seconds / layer.seconds
}

fn row(layer: &TunedLayer) -> [String; 7] {
    let name = match layer.names.len() {
        1 => layer.names[0].clone(),
        several => format!("{} x{several}", layer.names[0]),
    };
    let kept = layer.schedule == layer.default;
    [
        name,
        seconds_text(layer.default_seconds),
        seconds_text(layer.seconds),
        format!("{:.2}x", gain(layer)),
        layer
            .ceiling_share
            .map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", 100.0 * share)),
        layer.tried.to_string(),
        format!("{}{}", schedule_text(&layer.schedule), if kept { " (default)" } else { "" }),
    ]
}

/// Formats a schedule: `winograd chunk=16 tile_m=6 tile_n=16`.
fn schedule_text(schedule: &Schedule) -> String {
    let tunables = schedule.tunables.iter().map(|(name, value)| format!(" {name}={value}"));
    format!("{}{}", schedule.algorithm, tunables.collect::<String>())
}
