//! Tunes networks on an OpenCL device: times every convolution under its default schedule and under
//! the best one that a search of a given time finds, and the whole network under both.
//!
//! `cargo run --release --example opencl_layers -- MODEL.onnx... [--batch 1,16] [--seconds 60]
//! [--polish 10] [--reduced] [--fix patch=0] [--device PLATFORM/DEVICE] [--threads N] [--out DIR]
//! [--from DIR]`
//!
//! A schedule is timed after a pass of the whole network, so that caches hold the other layers'
//! code and data, as in use. `--seconds` is the time of the search for one network at one batch
//! size; 0 times only the defaults. `--threads` is the number of kernels that are built at a time.
//! Found schedules are written to `DIR` as JSON. `--from` reads them again as starting points of a
//! search.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Parser;
use paretune_kernels::executor::conv_problem;
use paretune_kernels::hardware::Isa;
use paretune_kernels::opencl::{self, Device};
use paretune_kernels::operator::Operator;
use paretune_kernels::registry::Numerics;
use paretune_kernels::schedule::TunableValue;
use paretune_kernels::{Backend, Executor, ExecutorOptions, KernelError, Plan, Schedule};
use paretune_search::{Objective, Outcome, Problem, Proposal, Search};
use paretune_study::prepare::load_network;

mod shared;

use shared::{
    activations, configuration_of, described, median, schedule_of, space_of, time_verified,
};

#[derive(Parser)]
struct Arguments {
    /// ONNX files of the networks to tune
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// Batch sizes for which each network is tuned
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    batch: Vec<usize>,
    /// Seconds of search for each network and batch size
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Device as `PLATFORM/DEVICE`, or a part of it
    #[arg(long, default_value = "")]
    device: String,
    /// Seconds for trying the best schedules of each layer in the network itself
    #[arg(long, default_value_t = 10.0)]
    polish: f64,
    /// Also try algorithms with operands of fewer bits than single precision
    #[arg(long)]
    reduced: bool,
    /// Tunables that are fixed for all algorithms: NAME=VALUE, such as `patch=0`
    #[arg(long, value_delimiter = ',', value_parser = fixed)]
    fix: Vec<(String, TunableValue)>,
    /// Number of kernels that are built at a time
    #[arg(long, default_value_t = 8)]
    threads: usize,
    /// Name of the search strategy to use
    #[arg(long, default_value = "evolve")]
    strategy: String,
    /// Folder to which found schedules are written
    #[arg(long)]
    out: Option<PathBuf>,
    /// Folder of schedules to begin the search with
    #[arg(long)]
    from: Option<PathBuf>,
}

fn fixed(text: &str) -> anyhow::Result<(String, TunableValue)> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| anyhow!("`{text}` is not NAME=VALUE"))?;
    let value = serde_json::from_str(value).or_else(|_| serde_json::from_value(value.into()));
    Ok((name.to_owned(), value?))
}

/// Number of best schedules that are kept for each layer.
const KEPT_SCHEDULES: usize = 4;

/// Schedules by name of the layer.
type Schedules = BTreeMap<String, Schedule>;

/// Layers with equal problems, which are searched once.
struct Kind {
    /// Plan of the first of the layers alone.
    plan: Plan,
    /// Names of all layers of the kind.
    names: Vec<String>,
    search: Search,
    space: Arc<paretune_spaces::CompiledSpace>,
    /// Best schedules with their seconds, best first.
    best: Vec<(f64, Schedule)>,
    /// Seconds under the default schedule.
    default: f64,
    multiply_adds: f64,
    /// Number of schedules that the search begins with.
    starting_points: usize,
    asked: usize,
    tried: usize,
    failed: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let device = opencl::open(&arguments.device)?;
    println!("{}: {:?}", device.name, device.limits);
    for model in &arguments.models {
        let network =
            load_network(Some(model)).with_context(|| format!("`{}`", model.display()))?;
        for &batch in &arguments.batch {
            let mut plan = network.plan.clone();
            plan.backend = Backend::OpenCl { device: device.name.clone() };
            one(&arguments, &device, &network.name, &plan, batch)?;
        }
    }
    Ok(())
}

fn one(
    arguments: &Arguments,
    device: &Device,
    name: &str,
    plan: &Plan,
    batch: usize,
) -> anyhow::Result<()> {
    println!("\n=== {name}, batch {batch}");
    let file = |folder: &Path| folder.join(format!("{name}-{batch}.json"));
    let known: Schedules = match arguments.from.as_deref().map(file) {
        Some(file) if file.exists() => serde_json::from_slice(&std::fs::read(&file)?)?,
        _ => Schedules::new(),
    };
    let begun = Instant::now();
    let plain = whole(plan, batch)?;
    println!("default schedules: {plain} (built in {:.1} s)", begun.elapsed().as_secs_f64());
    let mut kinds = kinds(arguments, device, plan, batch, &known)?;
    search(arguments, plan, &mut kinds, batch)?;
    polish(plan, &mut kinds, batch, arguments.polish)?;
    let found = chosen(&kinds);
    let (mut ratios, mut layers) = (0.0, 0.0);
    println!(
        "{:40} {:>9} {:>9} {:>6} {:>8}  schedule ({} s of search)",
        "layer", "default", "tuned", "ratio", "TFLOP/s", arguments.seconds
    );
    for kind in &kinds {
        let Some((seconds, schedule)) = kind.best.first() else { continue };
        let count = kind.names.len();
        println!(
            "{:40} {:>7.2}us {:>7.2}us {:>6.2} {:>8.2}  {} {} [{} tried, {} failed]",
            format!("{} x{count}", kind.names[0]),
            1e6 * kind.default,
            1e6 * seconds,
            kind.default / seconds,
            2e-12 * kind.multiply_adds / seconds,
            schedule.algorithm,
            described(schedule),
            kind.tried,
            kind.failed,
        );
        #[expect(clippy::cast_precision_loss, reason = "a handful of layers")]
        let weight = count as f64;
        ratios += weight * (kind.default / seconds).ln();
        layers += weight;
    }
    println!("tuned over default, geometric mean over layers: {:.2}x", (ratios / layers).exp());
    let tuned = with(plan, &found);
    let fast = whole(&tuned, batch)?;
    println!("tuned schedules:   {fast}");
    let tunables: usize = kinds.iter().map(|kind| kind.tried).sum();
    println!("{tunables} schedules tried in {:.1} s", begun.elapsed().as_secs_f64());
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder)?;
        std::fs::write(file(folder), serde_json::to_vec_pretty(&found)?)?;
    }
    Ok(())
}

/// Returns the best schedule of every layer.
fn chosen(kinds: &[Kind]) -> Schedules {
    let best = |kind: &Kind| {
        let schedule = kind.best.first().map(|(_, schedule)| schedule.clone());
        kind.names
            .iter()
            .filter_map(|name| Some((name.clone(), schedule.clone()?)))
            .collect::<Vec<_>>()
    };
    kinds.iter().flat_map(best).collect()
}

/// Tries the runners-up of every layer in the network itself, because its latency also includes the
/// time between kernels.
fn polish(plan: &Plan, kinds: &mut [Kind], batch: usize, seconds: f64) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let pass = |schedules: &Schedules| -> anyhow::Result<f64> {
        let mut executor = load(&with(plan, schedules), batch)?;
        let once = executor.pass_seconds(3)?.unwrap_or(0.0);
        let passes = (0.02 / once.max(1e-6)).clamp(2.0, 200.0) as usize;
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.extend(executor.pass_seconds(passes)?);
        }
        Ok(median(&mut seen))
    };
    let mut best = pass(&chosen(kinds))?;
    let before = best;
    let (mut tried, mut taken) = (0, 0);
    for place in 1..KEPT_SCHEDULES {
        for index in 0..kinds.len() {
            if Instant::now() >= until || kinds[index].best.len() <= place {
                continue;
            }
            let plain = kinds[index].best[place].1.clone();
            if opencl::verify(&scheduled(&kinds[index].plan, &plain), batch).is_err() {
                continue;
            }
            kinds[index].best.swap(0, place);
            tried += 1;
            let now = pass(&chosen(kinds))?;
            if now < 0.995 * best {
                best = now;
                taken += 1;
            } else {
                kinds[index].best.swap(0, place);
            }
        }
    }
    println!(
        "in the network: {:.1} us per pass, {:.1} after {taken} of {tried} runners-up were taken",
        1e6 * before,
        1e6 * best
    );
    Ok(())
}

fn with(plan: &Plan, schedules: &Schedules) -> Plan {
    let mut plan = plan.clone();
    for step in &mut plan.steps {
        if let (Operator::Conv(conv), Some(schedule)) =
            (&mut step.operator, schedules.get(&step.name))
        {
            conv.schedule = schedule.clone();
        }
    }
    plan
}

fn load(plan: &Plan, batch: usize) -> Result<Executor, paretune_kernels::KernelError> {
    Executor::new(plan, &ExecutorOptions { batch, threads: 1, isa: Isa::detect() })
}

/// Formats the latencies of a whole network and its difference from the CPU's output.
fn whole(plan: &Plan, batch: usize) -> anyhow::Result<String> {
    let mut executor = load(plan, batch)?;
    let (inputs, outputs) = executor.lengths();
    let input: Vec<f32> = (0..inputs).map(|i| ((i * 7919) % 2003) as f32 / 1001.5 - 1.0).collect();
    let mut output = vec![0.0; outputs];
    let mut runs = Vec::new();
    let begun = Instant::now();
    while runs.len() < 10 || begun.elapsed() < Duration::from_millis(700) {
        let start = Instant::now();
        executor.run(&input, &mut output)?;
        runs.push(start.elapsed().as_secs_f64());
    }
    let once = executor.pass_seconds(1)?.unwrap_or(0.0);
    let passes = (0.2 / once.max(1e-6)).clamp(2.0, 2000.0) as usize;
    let mut pass: Vec<f64> = Vec::new();
    for _ in 0..5 {
        pass.extend(executor.pass_seconds(passes)?);
    }
    let mut kernels: Vec<f64> = Vec::new();
    for _ in 0..9 {
        kernels.push(executor.profile(&input, &mut output)?.iter().sum());
    }
    let mut reference = vec![0.0; outputs];
    let mut host = plan.clone();
    host.backend = Backend::Cpu;
    for step in &mut host.steps {
        if let Operator::Conv(conv) = &mut step.operator {
            conv.schedule = Schedule::default();
        }
    }
    load(&host, batch)?.run(&input, &mut reference)?;
    let largest = reference.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
    let difference = reference
        .iter()
        .zip(&output)
        .fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs() / largest));
    Ok(format!(
        "{:.1} us with transfers, {:.1} us per pass, {:.1} us in {} steps; difference \
         {difference:.1e}",
        1e6 * median(&mut runs),
        1e6 * median(&mut pass),
        1e6 * median(&mut kernels),
        executor.steps().len(),
    ))
}

/// Returns the network's convolutions, grouped by equal problems.
fn kinds(
    arguments: &Arguments,
    device: &Device,
    plan: &Plan,
    batch: usize,
    known: &Schedules,
) -> anyhow::Result<Vec<Kind>> {
    let mut kinds: Vec<Kind> = Vec::new();
    let mut keys: Vec<String> = Vec::new();
    for step in &plan.steps {
        let (Operator::Conv(conv), Some(problem)) =
            (&step.operator, conv_problem(plan, step, batch))
        else {
            continue;
        };
        let key = format!("{problem:?} {:?} {}", conv.activation, step.inputs.len());
        if let Some(index) = keys.iter().position(|other| *other == key) {
            kinds[index].names.push(step.name.clone());
            continue;
        }
        let alone = opencl::alone(plan, step)
            .ok_or_else(|| anyhow!("`{}` is no convolution", step.name))?;
        let mut offered =
            opencl::conv::candidates(&problem, plan.weights[conv.weights].format(), &device.limits);
        offered.retain(|algorithm| arguments.reduced || algorithm.numerics() != Numerics::Reduced);
        let space = space_of(&offered, &problem, &device.limits, &arguments.fix)?;
        let space = Arc::new(space.compile()?);
        let problem_size = problem.multiply_adds();
        let objective = vec![Objective::minimize("seconds").log()];
        let problem = Problem::new(space.clone(), vec!["seconds".into()], objective, vec![])?;
        let mut search = Search::new(problem, &arguments.strategy, keys.len() as u64)?;
        let mut first = Vec::new();
        for algorithm in &offered {
            let wanted = configuration_of(&Schedule::of(algorithm.name()));
            first.push((space.closest(&wanted), "default".to_owned()));
        }
        if let Some(schedule) = known.get(&step.name) {
            first.push((space.closest(&configuration_of(schedule)), "known".to_owned()));
        }
        let starting_points = first.len();
        search.enqueue(first)?;
        keys.push(key);
        let names = vec![step.name.clone()];
        kinds.push(Kind {
            plan: alone,
            names,
            search,
            space,
            best: Vec::new(),
            default: 0.0,
            #[expect(clippy::cast_precision_loss, reason = "for reports")]
            multiply_adds: problem_size as f64,
            starting_points,
            asked: 0,
            tried: 0,
            failed: 0,
        });
    }
    Ok(kinds)
}

/// Schedule of a layer that the search has proposed.
struct Trial {
    kind: usize,
    /// Whether the schedule is the default.
    default: bool,
    proposal: Proposal,
    schedule: Schedule,
    plan: Plan,
}

/// Searches all layers concurrently: threads build the kernels, and the main thread times them one
/// after the other.
fn search(
    arguments: &Arguments,
    plan: &Plan,
    kinds: &mut [Kind],
    batch: usize,
) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let mut neighbors = load(plan, batch)?;
    let (proposals_out, proposals_in) = mpsc::channel::<Trial>();
    let (results, done) = mpsc::channel();
    let proposals_in = Mutex::new(proposals_in);
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            let (proposals_in, results) = (&proposals_in, results.clone());
            scope.spawn(move || {
                loop {
                    let next = proposals_in.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(trial) = next else { break };
                    let late = arguments.seconds > 0.0 && Instant::now() >= until && !trial.default;
                    let loaded = (!late).then(|| load(&trial.plan, batch));
                    if results.send((trial, loaded)).is_err() {
                        break;
                    }
                }
            });
        }
        let mut pending = 0;
        let ask = |kinds: &mut [Kind], index: usize, count: usize, pending: &mut usize| {
            let proposals = kinds[index].search.ask(count);
            let any = !proposals.is_empty();
            for proposal in proposals {
                let trial = kinds[index].trial(index, proposal);
                // The receiver lives as long as this function.
                *pending += usize::from(proposals_out.send(trial).is_ok());
            }
            any
        };
        for index in 0..kinds.len() {
            // The first proposals are the defaults of all algorithms and the known schedules.
            let first = kinds[index].starting_points;
            ask(kinds, index, first, &mut pending);
        }
        let mut renewed = Instant::now();
        let mut exhausted = vec![false; kinds.len()];
        while pending > 0 {
            let (trial, loaded) = done.recv()?;
            pending -= 1;
            if let Some(loaded) = loaded {
                let kind = &mut kinds[trial.kind];
                kind.record(&trial, loaded, batch, &mut neighbors)?;
                // Layers under slow default schedules would keep data in caches that is evicted in
                // use.
                if renewed.elapsed() > Duration::from_secs_f64(0.3 * arguments.seconds) {
                    neighbors = load(&with(plan, &chosen(kinds)), batch)?;
                    renewed = Instant::now();
                }
            }
            while pending < 2 * arguments.threads && Instant::now() < until {
                // The next layer is the one with the largest expected gain.
                let open = (0..kinds.len()).filter(|&index| !exhausted[index]);
                let Some(index) = open
                    .max_by(|&a, &b| kinds[a].expected_gain().total_cmp(&kinds[b].expected_gain()))
                else {
                    break;
                };
                exhausted[index] = !ask(kinds, index, 2, &mut pending);
            }
        }
        drop(proposals_out);
        Ok(())
    })
}

impl Kind {
    fn trial(&mut self, kind: usize, proposal: Proposal) -> Trial {
        let schedule = schedule_of(&self.space.decode(&proposal.point));
        let default = self.asked == 0;
        self.asked += 1;
        Trial { kind, default, plan: scheduled(&self.plan, &schedule), schedule, proposal }
    }

    /// Returns the expected gain of another trial: the time of all its layers over the number of
    /// trials.
    fn expected_gain(&self) -> f64 {
        let best = self.best.first().map_or(self.default, |(seconds, _)| *seconds);
        #[expect(clippy::cast_precision_loss, reason = "counts")]
        let (layers, asked) = (self.names.len() as f64, self.asked as f64);
        layers * best / (asked + 1.0)
    }

    /// Times a schedule and reports it to the search.
    fn record(
        &mut self,
        trial: &Trial,
        loaded: Result<Executor, KernelError>,
        batch: usize,
        neighbors: &mut Executor,
    ) -> anyhow::Result<()> {
        let limit = self.best.first().map_or(f64::INFINITY, |(seconds, _)| *seconds);
        let timed = loaded.map_err(anyhow::Error::from);
        let timed = timed.and_then(|executor| time(executor, &trial.plan, batch, limit, neighbors));
        let outcome = match timed {
            Ok(seconds) => {
                if trial.default {
                    self.default = seconds;
                }
                let place = self.best.partition_point(|(other, _)| *other <= seconds);
                self.best.insert(place, (seconds, trial.schedule.clone()));
                self.best.truncate(KEPT_SCHEDULES);
                Outcome::exact(vec![seconds])
            }
            Err(error) => {
                self.failed += 1;
                let reason: String = error.to_string().chars().take(600).collect();
                if self.failed <= 2 {
                    eprintln!("{}: {reason}", self.names[0]);
                }
                Outcome::Failed { reason }
            }
        };
        self.tried += 1;
        self.search.tell(&trial.proposal.point, outcome)?;
        Ok(())
    }
}

fn scheduled(plan: &Plan, schedule: &Schedule) -> Plan {
    let mut plan = plan.clone();
    for step in &mut plan.steps {
        if let Operator::Conv(conv) = &mut step.operator {
            conv.schedule = schedule.clone();
        }
    }
    plan
}

/// Returns the seconds of the layer's kernels by the device's own clock: the median of a few runs,
/// each after a pass of the network. Schedules faster than `limit` are verified before they count,
/// and timed longer.
fn time(
    mut executor: Executor,
    plan: &Plan,
    batch: usize,
    limit: f64,
    neighbors: &mut Executor,
) -> anyhow::Result<f64> {
    let (inputs, outputs) = executor.lengths();
    let (input, mut output) = (activations(inputs), vec![0.0; outputs]);
    let (others, results) = neighbors.lengths();
    let (other, mut result) = (activations(others), vec![0.0; results]);
    executor.run(&input, &mut output)?;
    let run = || {
        neighbors.run(&other, &mut result)?;
        Ok(executor.profile(&input, &mut output)?.iter().sum())
    };
    time_verified(run, plan, batch, limit, [5, 15])
}
