//! The command `paretune bench` times a bundle or a network: whole and layer by layer.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use paretune_db::Store;
use paretune_evaluate::host::own_worker;
use paretune_evaluate::inspect::costs;
use paretune_evaluate::protocol::TimeRequest;
use paretune_evaluate::repeat::{self, PROCESSES, noise};
use paretune_evaluate::timing::{Effort, median, profile};
use paretune_kernels::ExecutorOptions;
use paretune_kernels::bundle::{Bundle, Loaded, Preprocessing, Stored, WeightSource};
use paretune_kernels::hardware::{self, Isa, SpeedProbe, ceilings};
use paretune_model::Network;
use paretune_record::budget::Budget;
use paretune_record::metric::Metric;
use paretune_report::units;
use paretune_study::prepare::load_network;
use paretune_study::trial::fastest_probes;
use paretune_tune::{Conditions, Source, best_known};
use tempfile::TempDir;

use super::{ExitStatus, paths, report_load_changes, usage};
use crate::tune;

/// Arguments of the command `paretune bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Folder of a bundle, or file of a network
    #[arg(value_name = "BUNDLE|MODEL.onnx")]
    pub(super) target: PathBuf,
    /// Number of threads [default: those that the bundle was tuned for; all cores for a network]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
    /// Seconds of measurement, without the warm-up
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub(super) seconds: f64,
    /// Number of images per run
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..),
    )]
    pub(super) batch: u16,
    /// Keep a network at full precision and use the best schedules that the result store knows for
    /// it on this machine and number of threads
    #[arg(long)]
    fp32: bool,
    /// Search for the fastest schedule of each layer at full precision, keep the schedules in the
    /// result store, and print the speedup
    #[arg(long)]
    pub(super) tune: bool,
    /// Time for trying schedules with --tune
    #[arg(long, value_name = "TEXT", default_value = "60s", requires = "tune")]
    pub(super) budget: Budget,
    /// Folder of the result store [default: in the user's data folder]
    #[arg(long, value_name = "DIR")]
    pub(super) db: Option<PathBuf>,
    /// Print the result as a JSON object
    #[arg(long)]
    pub(super) json: bool,
}

impl BenchArgs {
    /// Checks the ranges of numbers.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.seconds > 0.0 && self.seconds <= 3600.0 {
            Ok(())
        } else {
            Err(usage(anyhow!("--seconds: more than 0, at most 3600")))
        }
    }
}

/// Times the bundle or network and prints the result.
pub fn bench(args: &BenchArgs) -> anyhow::Result<ExitStatus> {
    args.check()?;
    let isa = Isa::detect();
    let mut scratch = None;
    let store = existing_store(args)?;
    let (folder, source) = target(args, store.as_ref(), &mut scratch)?;
    // The bundle is opened here only for its description. Loading is timed below.
    let bundle = Stored::open(&folder).map_err(usage)?.description().clone();
    let probes =
        store.as_ref().and_then(|store| fastest_probes(store, &hardware::detect().id).ok());
    drop(store);
    let plan = &bundle.plan;
    let threads = args.threads.map_or(plan.threads, usize::from).max(1);
    let batch = usize::from(args.batch);
    let effort = Effort { precision: 0.0, least_samples: 20, seconds: args.seconds };
    let request = TimeRequest {
        threads: Some(threads),
        batch,
        ..repeat::as_made(vec![folder.clone()], effort, probes.unwrap_or_default())
    };
    let deadline = Duration::from_secs_f64(300.0 + 10.0 * args.seconds);
    let timings = repeat::time_afresh(&own_worker()?, &request, deadline, &|| false)?;
    let timing = timings.first().ok_or_else(|| anyhow!("nothing was timed"))?;
    let begun = Instant::now();
    let loaded =
        Stored::open(&folder).map_err(usage)?.load(&ExecutorOptions { batch, threads, isa })?;
    let load = begun.elapsed().as_secs_f64();
    report_load_changes(&loaded);
    let Loaded { mut executor, weights, .. } = loaded;
    let outputs = batch * plan.values.get(plan.output).map_or(0, paretune_kernels::ValueSpec::len);
    let input = noise(plan, &bundle.preprocessing, batch);
    let probe = SpeedProbe::new(threads, isa)?;
    // The ceilings of the processor do not apply to a device.
    let ceilings = if plan.is_on_processor() {
        ceilings(&[threads])?.threads.into_iter().next()
    } else {
        None
    };
    let (layers, _) =
        profile(&mut executor, &input, outputs, &probe, timing.probe, 0.5 * args.seconds)?;
    let layers = costs(plan, executor.steps(), &layers, ceilings.as_ref());
    let memory = executor.memory();
    let mut out = std::io::stdout().lock();
    if args.json {
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| {
                serde_json::json!({
                    "name": layer.name,
                    "algorithm": layer.algorithm,
                    "seconds": layer.seconds,
                    "ceiling_share": layer.ceiling_share,
                })
            })
            .collect();
        let all = serde_json::json!({
            "latency": {
                "median": timing.median,
                "low": timing.low,
                "high": timing.high,
                // The median over all runs, disturbed or not, is comparable with the times of other
                // programs.
                "raw_median": median(&timing.samples),
            },
            "threads": threads,
            "batch": batch,
            "samples": timing.samples.len(),
            "quiet": timing.undisturbed,
            "probe": timing.probe,
            "schedules": source.as_ref().map(ToString::to_string),
            "load": {"seconds": load, "weights": weight_source_name(&weights)},
            "memory": {
                "weights": memory.weights,
                "activations": memory.activations,
                "workspace": memory.workspace,
            },
            "layers": layers,
        });
        writeln!(out, "{all}")?;
        return Ok(ExitStatus::Done);
    }
    writeln!(
        out,
        "{}: {} ({} to {} in {PROCESSES} processes; {} runs, {:.0} % of them undisturbed; \
         {threads} thread(s), batch {batch})",
        plan.name,
        seconds_text(timing.median),
        seconds_text(timing.low),
        seconds_text(timing.high),
        timing.samples.len(),
        100.0 * timing.undisturbed
    )?;
    if let Some(source) = &source {
        writeln!(out, "schedules: {source}")?;
    }
    writeln!(out, "loaded in {}: {weights}", seconds_text(load))?;
    writeln!(
        out,
        "memory: weights {}, activations {}, workspace {}\n",
        bytes(memory.weights),
        bytes(memory.activations),
        bytes(memory.workspace)
    )?;
    let total: f64 = layers.iter().map(|layer| layer.seconds).sum();
    let width = layers.iter().map(|layer| layer.name.len()).max().unwrap_or(0).max(5);
    let wide = layers.iter().map(|layer| layer.algorithm.len()).max().unwrap_or(0).max(9);
    writeln!(
        out,
        "{:width$}  {:wide$}  {:>10}  {:>6}  {:>10}",
        "layer", "algorithm", "time", "share", "of ceiling"
    )?;
    for layer in &layers {
        let ceiling = layer
            .ceiling_share
            .map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", 100.0 * share));
        writeln!(
            out,
            "{:width$}  {:wide$}  {:>10}  {:>4.1} %  {ceiling:>10}",
            layer.name,
            layer.algorithm,
            seconds_text(layer.seconds),
            100.0 * layer.seconds / total.max(f64::MIN_POSITIVE),
        )?;
    }
    Ok(ExitStatus::Done)
}

/// Opens the result store if it exists and no other process uses it. It knows the fastest speed of
/// this machine's cores, which a single command may not observe, and the best schedules of
/// networks.
fn existing_store(args: &BenchArgs) -> anyhow::Result<Option<Store>> {
    // A device without a writable home has no store, and times bundles all the same.
    let folder = match (&args.db, paths::home()) {
        (Some(given), _) => given.clone(),
        (None, Ok(home)) => home.join("db"),
        (None, Err(_)) => return Ok(None),
    };
    if !folder.exists() {
        return Ok(None);
    }
    match Store::open(&folder) {
        Ok(store) => Ok(Some(store)),
        Err(error) => {
            if args.fp32 {
                eprintln!(
                    "using default schedules, because the result store cannot be read: {error}"
                );
            }
            Ok(None)
        }
    }
}

/// Names in one word how the weights were loaded.
fn weight_source_name(weights: &WeightSource) -> &'static str {
    match weights {
        WeightSource::Decoded => "decoded",
        WeightSource::Mapped => "mapped",
        WeightSource::Repacked(_) => "repacked",
    }
}

/// Returns the folder of the bundle to time and, for a network, the source of its schedules. A
/// network is written as a bundle in the folder `scratch`, which must exist as long as the bundle
/// is needed.
fn target(
    args: &BenchArgs,
    store: Option<&Store>,
    scratch: &mut Option<TempDir>,
) -> anyhow::Result<(PathBuf, Option<Source>)> {
    let path = &args.target;
    if path.is_dir() || !path.exists() {
        return Ok((path.to_owned(), None));
    }
    let Network { mut plan, sha256, .. } = load_network(Some(path)).map_err(usage)?;
    plan.threads = threads_of(args);
    let mut source = Source::Default;
    if let Some(store) = store.filter(|_| args.fp32) {
        let (schedules, known) = best_known(store, &conditions(args), &sha256, &plan)?;
        tune::apply(&mut plan, schedules.iter().map(|(index, schedule)| (*index, schedule)));
        source = known;
    }
    let bundle =
        Bundle { plan, preprocessing: Preprocessing::default(), configuration: String::new() };
    let folder = TempDir::new().context("a temporary folder cannot be created")?;
    let path = folder.path().join("bundle");
    bundle.write(&path)?;
    *scratch = Some(folder);
    Ok((path, Some(source)))
}

/// Returns the number of threads for a network: the requested one, or all cores.
pub(super) fn threads_of(args: &BenchArgs) -> usize {
    let all = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    args.threads.map_or_else(all, usize::from).max(1)
}

/// Returns the hardware, threads and batch of the measurement.
pub(super) fn conditions(args: &BenchArgs) -> Conditions {
    Conditions {
        hardware: hardware::detect().id,
        threads: threads_of(args),
        batch: usize::from(args.batch),
        isa: Isa::detect(),
    }
}

/// Formats a number of bytes with its unit.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn bytes(count: u64) -> String {
    units::value(Metric::Memory, count as f64)
}

/// Formats seconds with their unit.
pub(super) fn seconds_text(seconds: f64) -> String {
    units::value(Metric::Latency, seconds)
}
