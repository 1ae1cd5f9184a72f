//! `paretune bench`: how fast a bundle or a network is here, whole and layer by layer.

use std::io::Write;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use paretune_db::Store;
use paretune_kernels::bundle::Bundle;
use paretune_kernels::executor::StepInfo;
use paretune_kernels::hardware::{Hardware, Isa, SpeedProbe, ThreadCeilings, ceilings};
use paretune_kernels::{Executor, ExecutorOptions, Plan};

use super::{Ending, paths, usage};
use crate::evaluate::timing::{Effort, Runner, profile, time};
use crate::model::images::normalize_into;
use crate::report::units;
use crate::study::prepare::load_network;
use crate::study::trial::fastest_probes;

/// Arguments of `paretune bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// A bundle's folder, or a network
    #[arg(value_name = "BUNDLE|MODEL.onnx")]
    target: PathBuf,
    /// Threads [default: what the bundle was tuned for; all cores for a network]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// How long to measure, besides warm-up
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    seconds: f64,
    /// Images at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Keep a network at full precision (networks are: only bundles hold anything else)
    #[arg(long)]
    fp32: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// One line of the table.
struct Layer {
    name: String,
    algorithm: String,
    seconds: f64,
    ceiling_share: Option<f64>,
}

/// Times the target.
pub fn bench(args: &BenchArgs) -> anyhow::Result<Ending> {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(usage(anyhow!("--seconds: more than 0, at most 3600")));
    }
    let isa = Isa::detect();
    let (plan, input) = target(args)?;
    let threads = args.threads.map_or(plan.threads, usize::from).max(1);
    let batch = usize::from(args.batch);
    let mut executor = Executor::new(&plan, &ExecutorOptions { batch, threads, isa })?;
    let outputs = batch * plan.values.get(plan.output).map_or(0, paretune_kernels::ValueSpec::len);
    let effort = Effort { precision: 0.0, least_samples: 20, seconds: args.seconds };
    let probe = SpeedProbe::new(threads, isa)?;
    let fastest = fastest_known(threads);
    let timing = time(Runner::new(&mut executor, &input, outputs, probe.clone(), fastest), &effort)?;
    let ceilings = ceilings(&[threads])?;
    let (layers, _) = profile(&mut executor, &input, outputs, &probe, timing.probe, 0.5 * args.seconds)?;
    let layers = with_shares(executor.steps(), &layers, ceilings.threads.first());
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
            "latency": {"median": timing.median, "low": timing.low, "high": timing.high},
            "threads": threads,
            "batch": batch,
            "samples": timing.samples.len(),
            "quiet": timing.quiet,
            "probe": timing.probe,
            "memory": {"weights": memory.weights, "activations": memory.activations, "workspace": memory.workspace},
            "layers": layers,
        });
        writeln!(out, "{all}")?;
        return Ok(Ending::Done);
    }
    writeln!(
        out,
        "{}: {} (95 % interval {} to {}; {} runs, {:.0} % of them undisturbed; {threads} thread(s), batch {batch})",
        plan.name,
        seconds_text(timing.median),
        seconds_text(timing.low),
        seconds_text(timing.high),
        timing.samples.len(),
        100.0 * timing.quiet
    )?;
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
        let ceiling =
            layer.ceiling_share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", 100.0 * share));
        writeln!(
            out,
            "{:width$}  {:wide$}  {:>10}  {:>4.1} %  {ceiling:>10}",
            layer.name,
            layer.algorithm,
            seconds_text(layer.seconds),
            100.0 * layer.seconds / total.max(f64::MIN_POSITIVE),
        )?;
    }
    Ok(Ending::Done)
}

/// The fastest probe that searches on this machine have seen, which one command may not live to see; 0 where there is
/// no store, or a search is using it.
fn fastest_known(threads: usize) -> f64 {
    let folder = paths::store(None).ok().filter(|folder| folder.exists());
    let store = folder.and_then(|folder| Store::open(&folder).ok());
    let probes = store.and_then(|store| fastest_probes(&store, &Hardware::detect().id).ok());
    probes.map_or(0.0, |probes| probes.get(threads))
}

/// The plan to time and an input for it: noise on the pixel scale, never zeros, as denormals and zeros are fast.
fn target(args: &BenchArgs) -> anyhow::Result<(Plan, Vec<f32>)> {
    let batch = usize::from(args.batch);
    if args.target.is_dir() || !args.target.exists() {
        let bundle = Bundle::read(&args.target).map_err(usage)?;
        let numbers = bundle.plan.values.get(bundle.plan.input).map_or(0, paretune_kernels::ValueSpec::len);
        let dims =
            bundle.plan.values.get(bundle.plan.input).map(|value| value.dims.clone()).unwrap_or_default();
        let pixels = noise(numbers * batch);
        let mut input = vec![0.0; numbers * batch];
        match <[usize; 3]>::try_from(dims.as_slice()) {
            Ok(dims) => {
                let (mean, std) = (&bundle.preprocessing.mean, &bundle.preprocessing.std);
                for (image, out) in
                    pixels.chunks_exact(numbers.max(1)).zip(input.chunks_exact_mut(numbers.max(1)))
                {
                    normalize_into(image, mean, std, dims, out);
                }
            }
            Err(_) => fill(&pixels, &mut input),
        }
        return Ok((bundle.plan, input));
    }
    let mut plan = load_network(Some(&args.target)).map_err(usage)?.plan;
    plan.threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let numbers = plan.values.get(plan.input).map_or(0, paretune_kernels::ValueSpec::len) * batch;
    let mut input = vec![0.0; numbers];
    fill(&noise(numbers), &mut input);
    Ok((plan, input))
}

fn fill(pixels: &[u8], input: &mut [f32]) {
    for (pixel, out) in pixels.iter().zip(input) {
        *out = f32::from(*pixel) / 64.0 - 2.0;
    }
}

/// Reproducible pixels.
fn noise(count: usize) -> Vec<u8> {
    let mut state: u32 = 0x9e37_79b9;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}

/// Each step with its share of the ceiling that binds it: the time that its multiply-adds would take at
/// the measured peak, or its bytes at the measured bandwidth, whichever is longer.
fn with_shares(steps: &[StepInfo], seconds: &[f64], ceilings: Option<&ThreadCeilings>) -> Vec<Layer> {
    let layer = |(step, &seconds): (&StepInfo, &f64)| {
        let ideal = ceilings.map_or(0.0, |ceilings| ideal_seconds(step, ceilings));
        Layer {
            name: step.name.clone(),
            algorithm: step.algorithm.clone(),
            seconds,
            ceiling_share: (ideal > 0.0 && seconds > 0.0).then(|| ideal / seconds),
        }
    };
    steps.iter().zip(seconds).map(layer).collect()
}

/// Seconds that the step cannot beat. What it moves comes from the smallest memory that holds all of it.
fn ideal_seconds(step: &StepInfo, ceilings: &ThreadCeilings) -> f64 {
    let integer = step.algorithm.ends_with("int8");
    let fits = |level: &paretune_kernels::hardware::LevelCeilings| level.bytes as u64 >= step.bytes;
    let level = ceilings.memory.iter().position(fits).unwrap_or(ceilings.memory.len().saturating_sub(1));
    ceilings.least_seconds(step.multiply_adds, integer, step.bytes, level)
}

/// Bytes with their unit.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn bytes(count: u64) -> String {
    units::value("memory", count as f64)
}

/// Seconds with their unit.
fn seconds_text(seconds: f64) -> String {
    units::value("latency", seconds)
}
