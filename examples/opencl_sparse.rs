//! Finds the fraction of zeros from which block-sparse weights pay off on an OpenCL device, on
//! single layers under the best dense and the best block-sparse schedule that a search of a given
//! time finds.
//!
//! `cargo run --release --example opencl_sparse -- [--device PLATFORM/DEVICE] [--seconds 120]
//! [--batch 1] [--zeros 0.5,0.75,0.9] [--blocks 8,16] [--layers 64x64x3@56,...] [--threads 8]`
//!
//! A layer is `INxOUTxKERNEL@SIZE`: channels, the side of the window (stride 1, output of equal
//! size) and of the image. `--seconds` is the time of all searches together: a third for the dense
//! schedules, the rest for the others, layer by layer. Other threads build kernels while one is
//! timed by the device's own clock. Candidates for the best schedule are verified against the CPU
//! before they count. The time of dense kernels does not depend on zeros. Tensor cores with fewer
//! bits than single precision are used only with `--reduced`.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Parser;
use paretune_kernels::hardware::Isa;
use paretune_kernels::opencl::{self, Device};
use paretune_kernels::operator::{Conv, ConvProblem, Operator, Window};
use paretune_kernels::registry::Numerics;
use paretune_kernels::weights::Pattern;
use paretune_kernels::{
    Activation, Backend, Executor, ExecutorOptions, Plan, Schedule, Step, ValueSpec, Weights,
};
use paretune_search::{Objective, Outcome, Problem, Search};
use paretune_spaces::CompiledSpace;

mod shared;

use shared::{
    Noise, activations, configuration_of, described, schedule_of, space_of, time_verified,
};

#[derive(Parser)]
struct Arguments {
    /// Device as `PLATFORM/DEVICE`, or a part of it
    #[arg(long, default_value = "")]
    device: String,
    /// Seconds of all searches together
    #[arg(long, default_value_t = 120.0)]
    seconds: f64,
    /// Number of images in a batch
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Fractions of the weights that are zero
    #[arg(long, value_delimiter = ',', default_value = "0.5,0.75,0.9")]
    zeros: Vec<f64>,
    /// Output channels of a block of weights
    #[arg(long, value_delimiter = ',', default_value = "8,16")]
    blocks: Vec<u8>,
    /// Layers to tune, each as INxOUTxKERNEL@SIZE
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "64x64x3@56,128x128x3@28,256x256x3@14,512x512x3@7,\
                         64x256x1@56,256x256x1@28,512x512x1@14,512x512x1@7"
    )]
    layers: Vec<String>,
    /// Also let dense layers use operands of fewer bits than single precision
    #[arg(long)]
    reduced: bool,
    /// Number of kernels that are built at a time
    #[arg(long, default_value_t = 8)]
    threads: usize,
}

/// Convolution of `channels` in and out, `kernel` x `kernel`, on images of `size` x `size`.
struct Layer {
    channels: [usize; 2],
    kernel: usize,
    size: usize,
}

impl std::str::FromStr for Layer {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<usize> = text
            .split(['x', '@'])
            .map(|part| part.parse().with_context(|| format!("`{text}` is not INxOUTxKERNEL@SIZE")))
            .collect::<Result<_, _>>()?;
        let [input, output, kernel, size] = parts[..] else {
            return Err(anyhow!("`{text}` is not INxOUTxKERNEL@SIZE"));
        };
        Ok(Self { channels: [input, output], kernel, size })
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let device = opencl::open(&arguments.device)?;
    let layers: Vec<Layer> =
        arguments.layers.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    println!("{}, batch {}, {} s of search", device.name, arguments.batch, arguments.seconds);
    println!(
        "| layer | dense: us | algorithm | zeros | blocks | sparse: us | dense / sparse | \
         schedule | tried |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    #[expect(clippy::cast_precision_loss, reason = "a handful of layers")]
    let layer_seconds = arguments.seconds / layers.len().max(1) as f64;
    #[expect(clippy::cast_precision_loss, reason = "a handful of combinations")]
    let sparse_seconds =
        layer_seconds * 2.0 / 3.0 / (arguments.zeros.len() * arguments.blocks.len()).max(1) as f64;
    for (layer, name) in layers.iter().zip(&arguments.layers) {
        let plan = layer.plan(&device, 1, 0.0);
        let dense = best(&arguments, &device, &plan, layer_seconds / 3.0, None)?;
        for &outputs in &arguments.blocks {
            // A good schedule at one fraction of zeros is a good starting point at the next.
            let mut known: Option<Schedule> = None;
            for &zeros in &arguments.zeros {
                let plan = layer.plan(&device, outputs, zeros);
                let sparse = best(&arguments, &device, &plan, sparse_seconds, known.as_ref())?;
                println!(
                    "| {name} | {:.1} | {} | {:.0} % | {outputs}x1 | {:.1} | {:.2} | {} | {} + {} |",
                    1e6 * dense.seconds,
                    dense.schedule.algorithm,
                    100.0 * zeros,
                    1e6 * sparse.seconds,
                    dense.seconds / sparse.seconds,
                    described(&sparse.schedule),
                    dense.tried,
                    sparse.tried,
                );
                known = Some(sparse.schedule);
            }
        }
    }
    Ok(())
}

impl Layer {
    /// Builds a plan of the layer with random weights. The fraction `zeros` of them is zero in
    /// blocks of `outputs` x 1.
    fn plan(&self, device: &Device, outputs: u8, zeros: f64) -> Plan {
        let ([inputs, all], kernel) = (self.channels, self.kernel);
        let inner = inputs * kernel * kernel;
        let mut noise = Noise::new(1);
        let bound = 2.0 / (inner as f32).sqrt();
        let mut values: Vec<f32> = (0..all * inner).map(|_| bound * (noise.next() - 0.5)).collect();
        if zeros > 0.0 {
            for first in (0..all).step_by(usize::from(outputs)) {
                for step in 0..inner {
                    if f64::from(noise.next()) < zeros {
                        let block = first..all.min(first + usize::from(outputs));
                        block.for_each(|output| values[output * inner + step] = 0.0);
                    }
                }
            }
        }
        let mut weights = Weights::dense(
            [all, inputs, kernel, kernel],
            values.into(),
            Some(vec![0.1; all].into()),
        );
        if zeros > 0.0 {
            weights.pattern = Pattern::Blocks { outputs, inputs: 1 };
        }
        let value =
            |channels| ValueSpec { dims: vec![channels, self.size, self.size], quantization: None };
        let conv = Conv {
            window: self.window(),
            groups: 1,
            weights: 0,
            activation: Activation::Relu,
            schedule: Schedule::default(),
        };
        Plan {
            name: "layer".to_owned(),
            values: vec![value(inputs), value(all)],
            input: 0,
            output: 1,
            steps: vec![Step {
                name: "conv".to_owned(),
                operator: Operator::Conv(conv),
                inputs: vec![0],
                output: 1,
            }],
            weights: vec![weights],
            constants: Vec::new(),
            threads: 1,
            backend: Backend::OpenCl { device: device.name.clone() },
            switches: Vec::new(),
        }
    }

    fn window(&self) -> Window {
        Window { kernel: [self.kernel; 2], padding: [self.kernel / 2; 4], ..Window::POINT }
    }
}

/// Fastest schedule that a search found.
struct Best {
    seconds: f64,
    schedule: Schedule,
    tried: usize,
}

/// Searches for `seconds`: threads build the kernels, and the main thread times them one after the
/// other. For weights with zeros, only algorithms that need zeros are tried, beginning with
/// `known`.
fn best(
    arguments: &Arguments,
    device: &Device,
    plan: &Plan,
    seconds: f64,
    known: Option<&Schedule>,
) -> anyhow::Result<Best> {
    let problem = paretune_kernels::executor::conv_problem(plan, &plan.steps[0], arguments.batch)
        .ok_or_else(|| anyhow!("a layer without input"))?;
    let (space, first) = space(arguments, device, plan, &problem, known)?;
    let objective = vec![Objective::minimize("seconds").log()];
    let mut search = Search::new(
        Problem::new(space.clone(), vec!["seconds".into()], objective, vec![])?,
        "evolve",
        1,
    )?;
    let starting_points = first.len();
    search.enqueue(first)?;
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let (proposals_out, proposals_in) = mpsc::channel::<(paretune_search::Proposal, Schedule)>();
    let (results, done) = mpsc::channel();
    let proposals_in = Mutex::new(proposals_in);
    let mut best: Option<(f64, Schedule)> = None;
    let (mut tried, mut pending) = (0, 0);
    std::thread::scope(|scope| {
        // Dropped at the end on every path, so that the builders end as well.
        let proposals_out = proposals_out;
        for _ in 0..arguments.threads.max(1) {
            let (proposals_in, results) = (&proposals_in, results.clone());
            scope.spawn(move || {
                loop {
                    let next = proposals_in.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((proposal, schedule)) = next else { break };
                    let built = with(plan, &schedule);
                    let options =
                        ExecutorOptions { batch: arguments.batch, threads: 1, isa: Isa::detect() };
                    let loaded = Executor::new(&built, &options);
                    if results.send((proposal, schedule, built, loaded)).is_err() {
                        break;
                    }
                }
            });
        }
        let mut exhausted = false;
        loop {
            let room = if tried == 0 { starting_points } else { arguments.threads + 2 };
            while !exhausted && pending < room && (tried == 0 || Instant::now() < until) {
                let proposals = search.ask(1);
                exhausted = proposals.is_empty();
                for proposal in proposals {
                    let schedule = schedule_of(&space.decode(&proposal.point));
                    // The receiver lives as long as this function.
                    pending += usize::from(proposals_out.send((proposal, schedule)).is_ok());
                }
            }
            if pending == 0 {
                break;
            }
            let (proposal, schedule, built, loaded) = done.recv()?;
            pending -= 1;
            tried += 1;
            let limit = best.as_ref().map_or(f64::INFINITY, |(seconds, _)| *seconds);
            let timed = loaded
                .map_err(anyhow::Error::from)
                .and_then(|executor| time(executor, &built, arguments.batch, limit));
            let outcome = match timed {
                Ok(seconds) => {
                    if seconds < limit {
                        best = Some((seconds, schedule));
                    }
                    Outcome::exact(vec![seconds])
                }
                Err(error) => {
                    eprintln!("{}: {error:#}", described(&schedule));
                    Outcome::Failed { reason: error.to_string() }
                }
            };
            search.tell(&proposal.point, outcome)?;
        }
        anyhow::Ok(())
    })?;
    let (seconds, schedule) = best.ok_or_else(|| anyhow!("no schedule runs"))?;
    Ok(Best { seconds, schedule, tried })
}

/// Returns the space of the layer's schedules, and its starting points: every algorithm's default
/// and `known`.
#[expect(clippy::type_complexity, reason = "a pair that is taken apart at once")]
fn space(
    arguments: &Arguments,
    device: &Device,
    plan: &Plan,
    problem: &ConvProblem,
    known: Option<&Schedule>,
) -> anyhow::Result<(Arc<CompiledSpace>, Vec<(paretune_spaces::Point, String)>)> {
    let format = plan.weights[0].format();
    let mut offered = opencl::conv::candidates(problem, format, &device.limits);
    let sparse = format.pattern != Pattern::Dense;
    let needs_zeros = |algorithm: &dyn opencl::conv::Algorithm| {
        !algorithm.executes(paretune_kernels::WeightFormat { pattern: Pattern::Dense, ..format })
    };
    offered.retain(|algorithm| {
        needs_zeros(*algorithm) == sparse
            && (arguments.reduced || algorithm.numerics() != Numerics::Reduced)
    });
    let space = Arc::new(space_of(&offered, problem, &device.limits, &[])?.compile()?);
    let defaults = offered.iter().map(|algorithm| Schedule::of(algorithm.name()));
    let first = defaults.chain(known.cloned());
    let first =
        first.map(|schedule| (space.closest(&configuration_of(&schedule)), "begin".to_owned()));
    let first = first.collect();
    Ok((space, first))
}

fn with(plan: &Plan, schedule: &Schedule) -> Plan {
    let mut plan = plan.clone();
    if let Operator::Conv(conv) = &mut plan.steps[0].operator {
        conv.schedule = schedule.clone();
    }
    plan
}

/// Returns the seconds of the layer's kernels by the device's own clock, the median of a few runs.
/// Schedules faster than `limit` are verified before they count, and timed longer.
fn time(mut executor: Executor, plan: &Plan, batch: usize, limit: f64) -> anyhow::Result<f64> {
    let (inputs, outputs) = executor.lengths();
    let (input, mut output) = (activations(inputs), vec![0.0; outputs]);
    let run = || Ok(executor.profile(&input, &mut output)?.iter().sum());
    time_verified(run, plan, batch, limit, [5, 25])
}
