//! Speed of the convolution algorithms on layers of well-known networks, single thread, batch 1.
//!
//! `cargo bench -p paretune-kernels --bench conv -- [--all] [--in-network] [FILTER]...` prints, per
//! layer and algorithm, the best of many runs, its rate (two operations per multiply-add) and the
//! fraction of the measured multiply-add peak. `--all` also tries every combination of tunables and
//! prints the best one. A filter is a part of a layer's or an algorithm's name. With
//! `--in-network`, as many bytes as the network has weights pass through the caches between two
//! runs; without it the layer runs alone, with its weights in the nearest caches that hold them.
//!
//! `cargo bench -p paretune-kernels --bench conv -- --formats [--in-network] [FILTER]...` prints,
//! per layer, the time of each weight format at several sparsities, and the sparsity from which on
//! it is faster than the best dense schedule of the same weight type.
//!
//! `cargo bench -p paretune-kernels --bench conv -- --errors [FILTER]...` prints, per layer and
//! algorithm, the error of single precision relative to double precision.

use std::hint::black_box;
use std::time::{Duration, Instant};

use paretune_kernels::activation::Activation;
use paretune_kernels::conv::{Algorithm, Call, Kernel, Packing, Request, candidates};
use paretune_kernels::error::KernelError;
use paretune_kernels::hardware::Isa;
use paretune_kernels::operator::ConvProblem;
use paretune_kernels::plan::Quantization;
use paretune_kernels::plan::layout::Element;
use paretune_kernels::schedule::{Schedule, Tunable};
use paretune_kernels::threads::{Barrier, Worker};
use paretune_kernels::weights::{
    IntegerWeights, Numbers, Pattern, WeightFormat, WeightValues, Weights,
};

mod errors;
mod formats;
mod layers;
mod peak;
mod surroundings;

use surroundings::Surroundings;

/// Weight formats whose algorithms are timed.
const FORMATS: [WeightFormat; 5] = [
    WeightFormat::F32,
    WeightFormat::BF16,
    WeightFormat::FP16,
    WeightFormat::SPARSE_F32,
    WeightFormat::I8,
];

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let all = arguments.iter().any(|argument| argument == "--all");
    let filters: Vec<&String> =
        arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let isa = Isa::detect();
    let in_network = arguments.iter().any(|argument| argument == "--in-network");
    if arguments.iter().any(|argument| argument == "--formats") {
        return formats::table(&filters, isa, in_network);
    }
    if arguments.iter().any(|argument| argument == "--errors") {
        return errors::table(&filters, isa);
    }
    let peak = peak::peak();
    println!("{isa:?}, multiply-add peak {:.1} GFLOP/s", peak / 1e9);
    for (layer, problem) in layers::all() {
        let name = format!("{layer} {}", layers::name(&problem));
        let surroundings = if in_network { Surroundings::of(layer) } else { Surroundings::none() };
        for format in FORMATS {
            let sparsity = if format == WeightFormat::SPARSE_F32 { 0.9 } else { 0.0 };
            let weights = weights(&problem, format, sparsity);
            for algorithm in candidates(&problem, format, isa) {
                let label = format!("{name:<38} {:<19}", algorithm.name());
                if !filters.iter().all(|filter| label.contains(filter.as_str())) {
                    continue;
                }
                let tunables = algorithm.tunables(&problem, isa);
                let time = |schedule: &Schedule| {
                    let budget = Duration::from_millis(60);
                    Bed::new(&problem, &weights, algorithm, schedule, isa)
                        .map(|mut bed| surroundings.best(&problem, format, &mut bed, budget))
                };
                let show = |seconds: f64, note: &str| {
                    let rate = 2.0 * problem.multiply_adds() as f64 / seconds;
                    let (micros, share) = (seconds * 1e6, 100.0 * rate / peak);
                    println!(
                        "{label} {micros:9.1} us {:7.1} GFLOP/s {share:6.1} %  {note}",
                        rate / 1e9
                    );
                };
                match time(&default_schedule(algorithm.name(), &tunables)) {
                    Ok(seconds) => {
                        show(seconds, &values(&default_schedule(algorithm.name(), &tunables)))
                    }
                    Err(error) => println!("{label} {error}"),
                }
                if all {
                    let best = combinations(algorithm.name(), &tunables)
                        .into_iter()
                        .filter_map(|schedule| {
                            time(&schedule).ok().map(|seconds| (seconds, schedule))
                        })
                        .min_by(|a, b| a.0.total_cmp(&b.0));
                    if let Some((seconds, schedule)) = best {
                        show(seconds, &format!("best: {}", values(&schedule)));
                    }
                }
            }
        }
    }
}

fn values(schedule: &Schedule) -> String {
    schedule
        .tunables
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn default_schedule(name: &str, tunables: &[Tunable]) -> Schedule {
    let mut schedule = Schedule::of(name);
    schedule
        .tunables
        .extend(tunables.iter().map(|tunable| (tunable.name.to_string(), tunable.default)));
    schedule
}

fn combinations(name: &str, tunables: &[Tunable]) -> Vec<Schedule> {
    let mut all = vec![Schedule::of(name)];
    for tunable in tunables {
        all = all
            .iter()
            .flat_map(|schedule| {
                tunable.values_beside(&schedule.tunables).into_iter().map(|value| {
                    let mut schedule = schedule.clone();
                    schedule.tunables.insert(tunable.name.to_string(), value);
                    schedule
                })
            })
            .collect();
    }
    all
}

/// Returns pseudo-random weights, of which the fraction `sparsity` is zero in the blocks of the
/// format's pattern.
fn weights(problem: &ConvProblem, format: WeightFormat, sparsity: f64) -> Weights {
    let [kernel_height, kernel_width] = problem.window.kernel;
    let dims = [problem.out_channels, problem.group_in(), kernel_height, kernel_width];
    let taps = kernel_height * kernel_width;
    let depth = problem.group_in() * taps;
    let [outputs, inputs] = match format.pattern {
        Pattern::Blocks { outputs, inputs } => [usize::from(outputs), usize::from(inputs)],
        _ => [1, 1],
    };
    let zero = |i: usize| {
        let (output, input, tap) = (i / depth, i % depth / taps, i % taps);
        let block = (output / outputs * depth + input / inputs) * taps + tap;
        chance(block) < sparsity
    };
    let number =
        |i: usize| if zero(i) { 0.0 } else { chance(i.wrapping_mul(31)) as f32 * 2.0 - 1.0 };
    let count = dims.iter().product();
    let values = match format.numbers {
        // All values are below 1, which every format can represent.
        Numbers::F32 | Numbers::Bf16 | Numbers::Fp16 => {
            WeightValues::F32((0..count).map(number).collect())
                .rounded(format.numbers)
                .expect("weights below 1")
        }
        Numbers::Integer(grid) => {
            let (low, high) = grid.levels();
            let integer = |i: usize| {
                let x = number(i);
                (if x < 0.0 { x * -f32::from(low) - 0.5 } else { x * f32::from(high) + 0.5 }) as i8
            };
            let integer = |i: usize| if zero(i) { 0 } else { integer(i) };
            WeightValues::Integer(IntegerWeights {
                values: (0..count).map(integer).collect(),
                scales: vec![0.01; problem.out_channels].into(),
                grid,
            })
        }
    };
    Weights {
        dims,
        values,
        pattern: format.pattern,
        bias: Some(vec![0.1; problem.out_channels].into()),
    }
}

/// Returns a pseudo-random number in 0..1 for index `i`.
fn chance(i: usize) -> f64 {
    let mixed = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed >> 40) as f64 / (1_u64 << 24) as f64
}

/// Returns pseudo-random numbers around zero, most of them close to it.
fn noise(count: usize) -> impl Iterator<Item = f32> {
    (0..count).map(|i| (chance(3 * i) + chance(3 * i + 1) + chance(3 * i + 2) - 1.5) as f32)
}

/// Returns a buffer with room for `bytes` from a 64-byte boundary on.
fn buffer(bytes: usize) -> Vec<[u8; 64]> {
    vec![[0; 64]; bytes / 64 + 2]
}

fn aligned(buffer: &mut [[u8; 64]]) -> *mut u8 {
    let start = buffer.as_mut_ptr().cast::<u8>();
    start.wrapping_add(start.align_offset(64))
}

/// A prepared kernel with its buffers.
struct Bed {
    kernel: Box<dyn Kernel>,
    input: Vec<[u8; 64]>,
    output: Vec<[u8; 64]>,
    workspace: Vec<[u8; 64]>,
}

impl Bed {
    /// Prepares `algorithm` for the weights on a single thread; input and output have the element
    /// type that it computes with.
    fn new(
        problem: &ConvProblem,
        weights: &Weights,
        algorithm: &dyn Algorithm,
        schedule: &Schedule,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        let grid = Quantization { scale: 0.02, zero_point: 120 };
        let element = if algorithm.is_integer() { Element::U8(grid) } else { Element::F32 };
        let kernel = algorithm.prepare(&Request {
            problem: *problem,
            weights,
            activation: Activation::Relu,
            input: element,
            output: element,
            residual: None,
            schedule,
            threads: 1,
            isa,
            packing: &Packing::fresh(),
        })?;
        let [height, width] = problem.output()?;
        let inputs = problem.in_channels * problem.input[0] * problem.input[1];
        let mut bed = Self {
            input: buffer(4 * inputs),
            output: buffer(4 * problem.out_channels * height * width),
            workspace: buffer(kernel.workspace_bytes()),
            kernel,
        };
        for (i, x) in noise(inputs).enumerate() {
            if algorithm.is_integer() {
                // SAFETY: the buffer has room for four times as many bytes.
                unsafe {
                    *aligned(&mut bed.input).add(i) =
                        (f32::from(grid.zero_point) + x / grid.scale) as u8
                };
            } else {
                bed.set_input(i, x.max(0.0));
            }
        }
        Ok(bed)
    }

    /// Sets an element of a single-precision input.
    fn set_input(&mut self, place: usize, x: f32) {
        assert!(4 * place < 64 * (self.input.len() - 1));
        // SAFETY: within the buffer, which is a cache line longer than what is aligned in it.
        unsafe { aligned(&mut self.input).cast::<f32>().add(place).write(x) }
    }

    /// Returns an element of a single-precision output.
    fn output(&mut self, place: usize) -> f32 {
        assert!(4 * place < 64 * (self.output.len() - 1));
        // SAFETY: as for inputs.
        unsafe { aligned(&mut self.output).cast::<f32>().add(place).read() }
    }

    /// Returns the seconds of one run.
    fn run(&mut self) -> f64 {
        let call = Call {
            input: aligned(&mut self.input),
            residual: std::ptr::null(),
            output: aligned(&mut self.output),
            workspace: aligned(&mut self.workspace),
        };
        let barrier = Barrier::new(1);
        let worker = Worker::alone(&barrier);
        let start = Instant::now();
        // SAFETY: the buffers have the sizes of the problem, and the pool is this one worker.
        unsafe { self.kernel.run(black_box(&call), &worker) };
        start.elapsed().as_secs_f64()
    }

    /// Brings the kernel's buffers, but not its weights, into the caches, as the preceding steps of
    /// a network would.
    fn touch(&self) {
        for buffer in [&self.input, &self.output, &self.workspace] {
            black_box(buffer.iter().fold(0, |sum, line| sum ^ black_box(line[0])));
        }
    }
}
