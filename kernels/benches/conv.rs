//! Speed of the convolution algorithms on layers of well-known networks, single thread, batch 1.
//!
//! `cargo bench -p paretune-kernels --bench conv -- [--all] [FILTER]...` prints, per layer and
//! algorithm, the best of many runs, its rate (two operations per multiply-add) and its share of the
//! measured multiply-add peak. `--all` tries every combination of tunables and prints the best one
//! too. A filter is part of a layer's or an algorithm's name.

use std::hint::black_box;
use std::time::{Duration, Instant};

use paretune_kernels::activation::Activation;
use paretune_kernels::conv::{Call, Element, Kernel, Request, candidates};
use paretune_kernels::hardware::Isa;
use paretune_kernels::operator::{ConvProblem, Window};
use paretune_kernels::plan::Quantization;
use paretune_kernels::schedule::{Schedule, Tunable};
use paretune_kernels::team::{Barrier, Worker};
use paretune_kernels::weights::{IntegerWeights, Numbers, Pattern, WeightFormat, WeightValues, Weights};

/// `(name, in, out, groups, height and width, kernel, stride)`
const LAYERS: [(&str, usize, usize, usize, usize, usize, usize); 22] = [
    ("resnet20 first", 3, 16, 1, 32, 3, 1),
    ("resnet20 16ch", 16, 16, 1, 32, 3, 1),
    ("resnet20 32ch", 32, 32, 1, 16, 3, 1),
    ("resnet20 64ch", 64, 64, 1, 8, 3, 1),
    ("resnet18 64ch", 64, 64, 1, 32, 3, 1),
    ("resnet18 down", 64, 128, 1, 32, 3, 2),
    ("resnet18 128ch", 128, 128, 1, 16, 3, 1),
    ("resnet18 256ch", 256, 256, 1, 8, 3, 1),
    ("resnet18 512ch", 512, 512, 1, 4, 3, 1),
    ("vgg16 first", 3, 64, 1, 32, 3, 1),
    ("vgg16 256ch", 256, 256, 1, 8, 3, 1),
    ("vgg16 512ch", 512, 512, 1, 2, 3, 1),
    ("vgg16 dense", 512, 512, 1, 1, 1, 1),
    ("vgg16 classes", 512, 10, 1, 1, 1, 1),
    ("mobilenet dw 32ch", 32, 32, 32, 32, 3, 1),
    ("mobilenet dw 128ch", 128, 128, 128, 16, 3, 1),
    ("mobilenet dw 512ch", 512, 512, 512, 4, 3, 1),
    ("mobilenet dw down", 64, 64, 64, 32, 3, 2),
    ("mobilenet 1x1 32-64", 32, 64, 1, 32, 1, 1),
    ("mobilenet 1x1 128-128", 128, 128, 1, 16, 1, 1),
    ("mobilenet 1x1 512-512", 512, 512, 1, 4, 1, 1),
    ("mobilenet 1x1 1024", 1024, 1024, 1, 2, 1, 1),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let all = arguments.iter().any(|argument| argument == "--all");
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let isa = Isa::detect();
    let peak = peak();
    println!("{isa:?}, multiply-add peak {:.1} GFLOP/s", peak / 1e9);
    for (name, in_channels, out_channels, groups, size, kernel, stride) in LAYERS {
        let window =
            Window { kernel: [kernel; 2], stride: [stride; 2], dilation: [1, 1], padding: [kernel / 2; 4] };
        let problem = ConvProblem { batch: 1, in_channels, out_channels, groups, input: [size; 2], window };
        for format in [WeightFormat::F32, WeightFormat::SPARSE_F32, WeightFormat::I8] {
            let weights = weights(&problem, format);
            for algorithm in candidates(&problem, format, isa) {
                let label = format!("{name:<22} {:<19}", algorithm.name());
                if !filters.iter().all(|filter| label.contains(filter.as_str())) {
                    continue;
                }
                let tunables = algorithm.tunables(&problem, isa);
                let time = |schedule: &Schedule| {
                    let grid = Quantization { scale: 0.02, zero_point: 120 };
                    let element = if algorithm.integer() { Element::U8(grid) } else { Element::F32 };
                    let request = Request {
                        problem,
                        weights: &weights,
                        activation: Activation::Relu,
                        input: element,
                        output: element,
                        residual: None,
                        schedule,
                        threads: 1,
                        isa,
                    };
                    algorithm.prepare(&request).map(|kernel| measure(&*kernel, &problem))
                };
                let show = |seconds: f64, note: &str| {
                    let rate = 2.0 * problem.multiply_adds() as f64 / seconds;
                    let (micros, share) = (seconds * 1e6, 100.0 * rate / peak);
                    println!("{label} {micros:9.1} us {:7.1} GFLOP/s {share:6.1} %  {note}", rate / 1e9);
                };
                match time(&default_schedule(algorithm.name(), &tunables)) {
                    Ok(seconds) => show(seconds, &values(&default_schedule(algorithm.name(), &tunables))),
                    Err(error) => println!("{label} {error}"),
                }
                if all {
                    let best = combinations(algorithm.name(), &tunables)
                        .into_iter()
                        .filter_map(|schedule| time(&schedule).ok().map(|seconds| (seconds, schedule)))
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
    schedule.tunables.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

fn default_schedule(name: &str, tunables: &[Tunable]) -> Schedule {
    let mut schedule = Schedule::of(name);
    schedule.tunables.extend(tunables.iter().map(|tunable| (tunable.name.to_string(), tunable.default)));
    schedule
}

fn combinations(name: &str, tunables: &[Tunable]) -> Vec<Schedule> {
    let mut all = vec![Schedule::of(name)];
    for tunable in tunables {
        all = all
            .iter()
            .flat_map(|schedule| {
                tunable.values.iter().map(|&value| {
                    let mut schedule = schedule.clone();
                    schedule.tunables.insert(tunable.name.to_string(), value);
                    schedule
                })
            })
            .collect();
    }
    all
}

/// Arbitrary weights; nine tenths are zeros where that is the point.
fn weights(problem: &ConvProblem, format: WeightFormat) -> Weights {
    let [kernel_height, kernel_width] = problem.window.kernel;
    let dims = [problem.out_channels, problem.group_in(), kernel_height, kernel_width];
    let count: usize = dims.iter().product();
    let number = |i: usize| (i.wrapping_mul(2_654_435_761) >> 8 & 0xFF) as f32 / 128.0 - 1.0;
    let values = match format.numbers {
        Numbers::F32 if format.pattern == Pattern::Dense => {
            WeightValues::F32((0..count).map(number).collect())
        }
        Numbers::F32 => {
            let sparse =
                |i: usize| if i.wrapping_mul(0x9E37_79B9) >> 7 & 0xFF < 26 { number(i) } else { 0.0 };
            WeightValues::F32((0..count).map(sparse).collect())
        }
        Numbers::Integer(grid) => WeightValues::Integer(IntegerWeights {
            values: (0..count).map(|i| (number(i) * 127.0) as i8).collect(),
            scales: vec![0.01; problem.out_channels].into(),
            grid,
        }),
    };
    Weights { dims, values, pattern: format.pattern, bias: Some(vec![0.1; problem.out_channels].into()) }
}

/// A buffer of `bytes` that starts on a 64-byte boundary.
fn buffer(bytes: usize) -> Vec<[u8; 64]> {
    vec![[0; 64]; bytes / 64 + 2]
}

fn aligned(buffer: &mut [[u8; 64]]) -> *mut u8 {
    let start = buffer.as_mut_ptr().cast::<u8>();
    start.wrapping_add(start.align_offset(64))
}

/// Seconds of the fastest of many runs.
fn measure(kernel: &dyn Kernel, problem: &ConvProblem) -> f64 {
    let [height, width] = problem.output().unwrap_or([1, 1]);
    let mut input = buffer(4 * problem.in_channels * problem.input[0] * problem.input[1]);
    let mut output = buffer(4 * problem.out_channels * height * width);
    let mut workspace = buffer(kernel.workspace_bytes());
    let call = Call {
        input: aligned(&mut input),
        residual: std::ptr::null(),
        output: aligned(&mut output),
        workspace: aligned(&mut workspace),
    };
    let barrier = Barrier::new(1);
    let worker = Worker { index: 0, count: 1, barrier: &barrier };
    // SAFETY: the buffers have the sizes of the problem, and the team is this one worker.
    let run = || unsafe { kernel.run(black_box(&call), &worker) };
    run();
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    let mut runs = 0;
    while runs < 10 || begin.elapsed() < Duration::from_millis(60) {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

/// Single-precision operations per second of independent multiply-adds on the widest vectors.
fn peak() -> f64 {
    const ROUNDS: u32 = 2_000_000;
    let begin = || Instant::now();
    let mut best = f64::INFINITY;
    let mut lanes = 4.0;
    for _ in 0..20 {
        let start = begin();
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") {
                lanes = 16.0;
                // SAFETY: the processor has the instructions.
                unsafe { chains_avx512(ROUNDS) }
            } else if std::arch::is_x86_feature_detected!("fma") {
                lanes = 8.0;
                // SAFETY: the processor has the instructions.
                unsafe { chains_avx2(ROUNDS) }
            }
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: every 64-bit Arm processor has the instructions.
        unsafe {
            lanes = 4.0;
            chains_neon(ROUNDS);
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    f64::from(ROUNDS) * 12.0 * lanes * 2.0 / best
}

/// Twelve independent chains of multiply-adds.
macro_rules! chains {
    ($name:ident, $features:literal, $splat:expr, $fma:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name(rounds: u32) {
            let x = $splat(black_box(0.5));
            let mut sums = [x; 12];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = $fma(*sum, x, x);
                }
            }
            black_box(sums);
        }
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps};
#[cfg(target_arch = "x86_64")]
chains!(chains_avx2, "avx2,fma", _mm256_set1_ps, _mm256_fmadd_ps);
#[cfg(target_arch = "x86_64")]
chains!(chains_avx512, "avx512f", _mm512_set1_ps, _mm512_fmadd_ps);
#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::{vdupq_n_f32, vfmaq_f32};
#[cfg(target_arch = "aarch64")]
chains!(chains_neon, "neon", vdupq_n_f32, vfmaq_f32);
