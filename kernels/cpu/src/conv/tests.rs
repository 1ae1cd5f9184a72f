//! Comparison of every algorithm, on every instruction set of this machine, with the reference on
//! random problems.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::reference::conv_f64;
use super::*;
use paretune_base::error::KernelError;
use paretune_base::plan::Quantization;
use paretune_base::plan::activation::Activation;
use paretune_base::plan::layout::{Element, Layout};
use paretune_base::plan::operator::{ConvProblem, Window};
use paretune_base::plan::schedule::{Schedule, Tunable, TunableValue};
use paretune_base::plan::weights::{
    Grid, IntegerWeights, Numbers, Pattern, WeightFormat, WeightValues, Weights,
};
use paretune_base::threads::Team;
use paretune_simd::Isa;

mod packed;

/// A problem with its fused operators; all values follow from `seed`.
#[derive(Clone, Debug)]
struct Case {
    problem: ConvProblem,
    activation: Activation,
    threads: usize,
    /// Element type of the residual: 0 none, 1 `f32`, 2 8 bits (if the algorithm supports them).
    residual: u8,
    /// Whether the output of an 8-bit algorithm has 8 bits.
    narrow: bool,
    seed: u64,
}

/// A small random generator, so that the tests do not depend on another crate's sequence.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Returns a number in -1..1.
    fn real(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn reals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.real()).collect()
    }
}

fn activations() -> impl Strategy<Value = Activation> {
    prop_oneof![
        3 => Just(Activation::Identity),
        3 => Just(Activation::Relu),
        1 => Just(Activation::Clip { low: -0.5, high: 0.75 }),
        1 => Just(Activation::LeakyRelu { slope: 0.125 }),
        1 => Just(Activation::Sigmoid),
        1 => Just(Activation::HardSigmoid { alpha: 0.2, beta: 0.5 }),
        1 => Just(Activation::HardSwish),
    ]
}

fn windows() -> impl Strategy<Value = Window> {
    let kernels = prop_oneof![
        3 => Just([1, 1]),
        5 => Just([3, 3]),
        1 => Just([5, 5]),
        1 => Just([7, 7]),
        2 => [1..=4_usize, 1..=4_usize],
    ];
    let free = (
        kernels,
        [1..=3_usize, 1..=3_usize],
        [1..=2_usize, 1..=2_usize],
        prop::array::uniform4(0..=3_usize),
    )
        .prop_map(|(kernel, stride, dilation, padding)| Window {
            kernel,
            stride,
            dilation,
            padding,
        });
    let same = prop_oneof![Just(1), Just(3), Just(5), Just(7)].prop_flat_map(|k: usize| {
        (1..=2_usize).prop_map(move |s| Window {
            kernel: [k, k],
            stride: [s, s],
            dilation: [1, 1],
            padding: [k / 2; 4],
        })
    });
    prop_oneof![free, same]
}

fn cases() -> impl Strategy<Value = Case> {
    let channels = prop_oneof![
        // Channel counts of dense, grouped and depthwise layers.
        4 => (1..=40_usize, 1..=70_usize).prop_map(|(i, o)| (i, o, 1)),
        1 => (1..=4_usize, 1..=9_usize, 2..=4_usize).prop_map(|(i, o, g)| (i * g, o * g, g)),
        2 => (2..=140_usize).prop_map(|c| (c, c, c)),
    ];
    let sizes = prop_oneof![3 => [1..=9_usize, 1..=9_usize], 1 => [1..=3_usize, 10..=40_usize], 1 => Just([1, 1])];
    (
        (1..=3_usize, channels, sizes, windows()),
        (activations(), 1..=3_usize, 0..=2_u8, any::<bool>(), any::<u64>()),
    )
        .prop_map(|((batch, (in_channels, out_channels, groups), input, window), rest)| {
            let (activation, threads, residual, narrow, seed) = rest;
            let problem = ConvProblem { batch, in_channels, out_channels, groups, input, window };
            Case { problem, activation, threads, residual, narrow, seed }
        })
        .prop_filter("the window fits", |case| case.problem.output().is_ok())
}

fn patterns() -> impl Strategy<Value = Pattern> {
    let blocks = |outputs, inputs| Just(Pattern::Blocks { outputs, inputs });
    prop_oneof![
        3 => Just(Pattern::Unstructured),
        2 => blocks(16, 1),
        2 => blocks(8, 1),
        2 => blocks(8, 4),
        1 => blocks(4, 1),
        1 => blocks(5, 2),
        1 => Just(Pattern::NofM { n: 2, m: 4 }),
        1 => Just(Pattern::Dense),
    ]
}

const GUARD: usize = 128;
const POISON: u8 = 0xFF;

/// Memory between two guard bands that must stay untouched. All bits are set, which is NaN in
/// single precision.
struct Guarded {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Guarded {
    /// Allocates memory that starts `skew` bytes after a 64-byte boundary.
    fn poisoned(len: usize, skew: usize) -> Self {
        let bytes = vec![POISON; len + 2 * GUARD + 64 + skew];
        let start = GUARD + bytes.as_ptr().align_offset(64) + skew;
        Self { bytes, start, len }
    }

    fn from_f32(values: &[f32], skew: usize) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        Self::from_bytes(&bytes, skew)
    }

    fn from_bytes(values: &[u8], skew: usize) -> Self {
        let mut guarded = Self::poisoned(values.len(), skew);
        let start = guarded.start;
        guarded.bytes[start..start + values.len()].copy_from_slice(values);
        guarded
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes[self.start..].as_mut_ptr()
    }

    fn contents(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    fn f32s(&self) -> Vec<f32> {
        self.contents().as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect()
    }

    fn check(&self, what: &str) {
        let (before, rest) = self.bytes.split_at(self.start);
        let guards = before.iter().chain(&rest[self.len..]);
        assert!(guards.copied().all(|byte| byte == POISON), "something wrote around the {what}");
    }
}

/// Permutes a tensor from NCHW to `layout`.
fn arrange<T: Copy>(values: &[T], [batch, channels, pixels]: [usize; 3], layout: Layout) -> Vec<T> {
    let mut arranged = values.to_vec();
    let size = channels * pixels;
    for (i, value) in values.iter().enumerate().take(batch * size) {
        let place = layout.place([channels, pixels], i % size / pixels, i % pixels);
        arranged[i / size * size + place] = *value;
    }
    arranged
}

fn random_schedule(
    algorithm: &dyn Algorithm,
    problem: &ConvProblem,
    isa: Isa,
    random: &mut Random,
) -> Schedule {
    let mut schedule = Schedule::of(algorithm.name());
    for tunable in algorithm.tunables(problem, isa) {
        assert!(tunable.values().contains(&tunable.default), "{tunable:?}");
        let values = tunable.values_beside(&schedule.tunables);
        let value = values[random.below(values.len())];
        schedule.tunables.insert(tunable.name.to_string(), value);
    }
    schedule
}

/// Prepares the kernel and runs it on the requested threads; the result has the algorithm's layout.
fn run(
    algorithm: &dyn Algorithm,
    request: &Request<'_>,
    input: &mut Guarded,
    residual: Option<&mut Guarded>,
    output_bytes: usize,
) -> Guarded {
    let kernel = algorithm.prepare(request).unwrap_or_else(|error| {
        panic!("{} refuses {:?}: {error}", algorithm.name(), request.schedule)
    });
    run_kernel(kernel, request.threads, input, residual, output_bytes)
}

/// Runs the kernel on `threads` threads; the result has the algorithm's layout.
fn run_kernel(
    kernel: Box<dyn Kernel>,
    threads: usize,
    input: &mut Guarded,
    residual: Option<&mut Guarded>,
    output_bytes: usize,
) -> Guarded {
    let mut output = Guarded::poisoned(output_bytes, 4);
    let mut workspace = Guarded::poisoned(kernel.workspace_bytes(), 0);
    assert!(kernel.weight_bytes() > 0);
    struct Shared(Call, Box<dyn Kernel>);
    // SAFETY: the addresses outlive the run below, and kernels share them out among workers.
    unsafe impl Sync for Shared {}
    let shared = Shared(
        Call {
            input: input.as_mut_ptr(),
            residual: residual
                .map_or(std::ptr::null(), |residual| residual.as_mut_ptr().cast_const()),
            output: output.as_mut_ptr(),
            workspace: workspace.as_mut_ptr(),
        },
        kernel,
    );
    let shared = &shared;
    // Run twice, because the workspace then holds the data of the first run.
    for _ in 0..2 {
        Team::new(threads)
            .unwrap()
            // SAFETY: the buffers have the sizes of the request, and the whole team makes this
            // call.
            .run(|worker| unsafe { shared.1.run(&shared.0, worker) })
            .unwrap();
    }
    output.check("output");
    workspace.check("workspace");
    output
}

/// Returns the largest allowed error of single precision, relative to the sum of the absolute
/// values of all terms.
fn tolerance(algorithm: &dyn Algorithm) -> f64 {
    match algorithm.name() {
        "winograd" => 1e-4,
        // Inputs are rounded to 8 bits of mantissa.
        "implicit_gemm_bf16" => 1.0 / 512.0 + 1e-5,
        _ => 1e-5,
    }
}

fn to_f64(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// Returns which weights are kept: a random fraction of those that `pattern` allows to be zero.
fn keep(
    random: &mut Random,
    [outputs, inputs, height, width]: [usize; 4],
    pattern: Pattern,
) -> Vec<bool> {
    let share = random.below(5);
    let [block_out, block_in] = match pattern {
        Pattern::Dense => return vec![true; outputs * inputs * height * width],
        Pattern::Unstructured => [1, 1],
        Pattern::Blocks { outputs, inputs } => [usize::from(outputs), usize::from(inputs)],
        Pattern::NofM { n, m } => {
            let (n, m) = (usize::from(n), usize::from(m));
            // The first weight of each group is kept, and groups begin at varying positions.
            return (0..outputs * inputs * height * width)
                .map(|i| (i / (height * width) % inputs % m + i) % m < n)
                .collect();
        }
    };
    let blocks_in = inputs.div_ceil(block_in);
    let blocks: Vec<bool> = (0..outputs.div_ceil(block_out) * blocks_in * height * width)
        .map(|_| random.below(4) < share)
        .collect();
    (0..outputs * inputs * height * width)
        .map(|i| {
            let (tap, channel) = (i % (height * width), i / (height * width));
            let block = channel / inputs / block_out * blocks_in + channel % inputs / block_in;
            blocks[block * height * width + tap]
        })
        .collect()
}

fn check_f32(case: &Case, format: WeightFormat) {
    let problem = &case.problem;
    let mut random = Random(case.seed);
    let [height, width] = problem.output().unwrap();
    let pixels_in = problem.input[0] * problem.input[1];
    let shape_in = [problem.batch, problem.in_channels, pixels_in];
    let shape_out = [problem.batch, problem.out_channels, height * width];
    let [kernel_height, kernel_width] = problem.window.kernel;
    let dims = [problem.out_channels, problem.group_in(), kernel_height, kernel_width];

    let input = random.reals(shape_in.iter().product());
    let mut values = random.reals(dims.iter().product());
    let kept = keep(&mut random, dims, format.pattern);
    for (value, kept) in values.iter_mut().zip(kept) {
        *value = if kept { *value } else { 0.0 };
        // Some values are subnormal in half precision.
        if format.numbers == Numbers::Fp16 && random.below(8) == 0 {
            *value *= 1e-5;
        }
        *value = format.numbers.nearest(*value);
    }
    let bias: Option<Vec<f32>> = (random.below(3) > 0).then(|| random.reals(problem.out_channels));
    let residual = (case.residual > 0).then(|| random.reals(shape_out.iter().product()));

    let flat_bias = bias.clone().unwrap_or_else(|| vec![0.0; problem.out_channels]);
    let want = conv_f64(problem, &to_f64(&input), &to_f64(&values), &to_f64(&flat_bias));
    let absolute =
        |values: &[f32]| values.iter().map(|value| f64::from(value.abs())).collect::<Vec<_>>();
    let magnitude = conv_f64(problem, &absolute(&input), &absolute(&values), &absolute(&flat_bias));
    let weights = Weights {
        dims,
        bias: bias.map(Into::into),
        values: WeightValues::F32(values.into()).rounded(format.numbers).unwrap(),
        pattern: format.pattern,
    };

    for isa in Isa::available() {
        let plain = baselines().iter().copied().filter(|algorithm| algorithm.executes(format));
        for algorithm in candidates(problem, format, isa).into_iter().chain(plain) {
            let schedule = random_schedule(algorithm, problem, isa, &mut random);
            let [layout_in, layout] = algorithm.layouts(&schedule, isa);
            let mut placed = Guarded::from_f32(&arrange(&input, shape_in, layout_in), 4);
            let mut placed_residual = residual
                .as_ref()
                .map(|residual| Guarded::from_f32(&arrange(residual, shape_out, layout), 8));
            let mut request = Request {
                problem: *problem,
                weights: &weights,
                activation: case.activation,
                input: Element::F32,
                output: Element::F32,
                residual: residual.as_ref().map(|_| Element::F32),
                schedule: &schedule,
                threads: case.threads,
                isa,
                packing: &Packing::fresh(),
            };
            let bytes = shape_out.iter().product::<usize>() * 4;
            let output = run(algorithm, &request, &mut placed, placed_residual.as_mut(), bytes);
            packed::check(
                algorithm,
                &request,
                &mut placed,
                placed_residual.as_mut(),
                &output,
                &mut random,
            );
            let got = output.f32s();
            let arranged = |values: &[f64]| arrange(values, shape_out, layout);
            let residuals = residual.as_ref().map(|residual| arrange(residual, shape_out, layout));
            for (i, (want, magnitude)) in
                arranged(&want).into_iter().zip(arranged(&magnitude)).enumerate()
            {
                let extra = residuals.as_ref().map_or(0.0, |residuals| f64::from(residuals[i]));
                let want = f64::from(case.activation.apply((want + extra) as f32));
                let slack = tolerance(algorithm) * (magnitude + extra.abs() + 1.0);
                assert!(
                    (f64::from(got[i]) - want).abs() <= slack,
                    "{} on {isa:?} with {:?}: number {i} is {} where {want} is right",
                    algorithm.name(),
                    schedule.tunables,
                    got[i]
                );
            }
            if case.threads > 1 {
                request.threads = 1;
                let alone = run(algorithm, &request, &mut placed, placed_residual.as_mut(), bytes);
                assert!(
                    alone.contents() == output.contents(),
                    "{}: threads change it",
                    algorithm.name()
                );
            }
        }
    }
}

fn dequantize(byte: u8, grid: Quantization) -> f64 {
    (f64::from(byte) - f64::from(grid.zero_point)) * f64::from(grid.scale)
}

fn check_i8(case: &Case, format: WeightFormat) {
    let Numbers::Integer(numbers) = format.numbers else { panic!("{format:?} are no integers") };
    let (lowest, highest) = numbers.levels();
    let (lowest, highest) = (i32::from(lowest), i32::from(highest));
    let problem = &case.problem;
    let mut random = Random(case.seed);
    let [height, width] = problem.output().unwrap();
    let shape_in = [problem.batch, problem.in_channels, problem.input[0] * problem.input[1]];
    let shape_out = [problem.batch, problem.out_channels, height * width];
    let count_out: usize = shape_out.iter().product();
    let [kernel_height, kernel_width] = problem.window.kernel;
    let dims = [problem.out_channels, problem.group_in(), kernel_height, kernel_width];
    let count: usize = dims.iter().product();
    // With scales of one and no epilogue, results must be exact.
    let exact = random.below(2) == 0;
    // Extreme values reveal saturating instructions.
    let extreme = random.below(3) == 0;
    let input: Vec<u8> = (0..shape_in.iter().product())
        .map(|_| if extreme { [0, 255][random.below(2)] } else { random.next() as u8 })
        .collect();
    let mut values: Vec<i8> = (0..count)
        .map(|_| {
            let any = random.below((highest - lowest + 1) as usize) as i32 + lowest;
            (if extreme { [lowest, highest][random.below(2)] } else { any }) as i8
        })
        .collect();
    let kept = keep(&mut random, dims, format.pattern);
    for (value, kept) in values.iter_mut().zip(kept) {
        *value = if kept { *value } else { 0 };
    }
    let depth = (count / problem.out_channels) as f32;
    let scales: Vec<f32> = (0..problem.out_channels)
        .map(|_| {
            if exact {
                1.0
            } else {
                (1.5 + random.real()) / (127.0 * highest as f32 * depth.sqrt())
            }
        })
        .collect();
    let bias: Option<Vec<f32>> =
        (!exact && random.below(3) > 0).then(|| random.reals(problem.out_channels));
    let zero_point = [0, 128, 255, random.next() as u8][random.below(4)];
    let grid_in = Quantization { scale: if exact { 1.0 } else { 0.75 }, zero_point };
    let grid_out = Quantization { scale: 0.011, zero_point: [0, 130][random.below(2)] };
    let grid_residual = Quantization { scale: 0.007, zero_point: 100 };
    let activation = if exact { Activation::Identity } else { case.activation };
    let residual = if exact { 0 } else { case.residual };
    let narrow = !exact && case.narrow;
    let residual_bytes: Vec<u8> = (0..count_out).map(|_| random.next() as u8).collect();
    let residual_reals: Vec<f32> = random.reals(count_out);

    let centered: Vec<f64> = input.iter().map(|&x| f64::from(x) - f64::from(zero_point)).collect();
    let integers: Vec<f64> = values.iter().copied().map(f64::from).collect();
    let sums = conv_f64(problem, &centered, &integers, &vec![0.0; problem.out_channels]);
    let weights = Weights {
        dims,
        values: WeightValues::Integer(IntegerWeights {
            values: values.into(),
            scales: scales.clone().into(),
            grid: numbers,
        }),
        pattern: format.pattern,
        bias: bias.clone().map(Into::into),
    };

    for isa in Isa::available() {
        for algorithm in candidates(problem, format, isa) {
            let schedule = random_schedule(algorithm, problem, isa, &mut random);
            let [_, layout] = algorithm.layouts(&schedule, isa);
            let mut placed = Guarded::from_bytes(&arrange(&input, shape_in, layout), 1);
            let mut placed_residual = match residual {
                0 => None,
                1 => Some(Guarded::from_f32(&arrange(&residual_reals, shape_out, layout), 4)),
                _ => Some(Guarded::from_bytes(&arrange(&residual_bytes, shape_out, layout), 1)),
            };
            let mut request = Request {
                problem: *problem,
                weights: &weights,
                activation,
                input: Element::U8(grid_in),
                output: if narrow { Element::U8(grid_out) } else { Element::F32 },
                residual: match residual {
                    0 => None,
                    1 => Some(Element::F32),
                    _ => Some(Element::U8(grid_residual)),
                },
                schedule: &schedule,
                threads: case.threads,
                isa,
                packing: &Packing::fresh(),
            };
            let bytes = count_out * if narrow { 1 } else { 4 };
            let output = run(algorithm, &request, &mut placed, placed_residual.as_mut(), bytes);
            packed::check(
                algorithm,
                &request,
                &mut placed,
                placed_residual.as_mut(),
                &output,
                &mut random,
            );
            let wanted: Vec<f64> = (0..count_out)
                .map(|i| {
                    let channel = i / (height * width) % problem.out_channels;
                    let extra = match residual {
                        0 => 0.0,
                        1 => f64::from(residual_reals[i]),
                        _ => dequantize(residual_bytes[i], grid_residual),
                    };
                    let scale = f64::from(scales[channel]) * f64::from(grid_in.scale);
                    let offset = bias.as_ref().map_or(0.0, |bias| f64::from(bias[channel]));
                    sums[i] * scale + offset + extra
                })
                .collect();
            let label = format!("{} on {isa:?} with {:?}", algorithm.name(), schedule.tunables);
            for (i, want) in arrange(&wanted, shape_out, layout).into_iter().enumerate() {
                let finished = f64::from(activation.apply(want as f32));
                let slack = 1e-5 * (want.abs() + 1.0);
                if narrow {
                    let exact = finished / f64::from(grid_out.scale);
                    let (low, high) = (exact - slack / 0.011, exact + slack / 0.011);
                    let quantize = |x: f64| {
                        (x.round_ties_even() + f64::from(grid_out.zero_point)).clamp(0.0, 255.0)
                    };
                    let got = f64::from(output.contents()[i]);
                    assert!(
                        (quantize(low)..=quantize(high)).contains(&got),
                        "{label}: number {i} is {got} where {exact} should be quantized"
                    );
                } else {
                    let got = f64::from(output.f32s()[i]);
                    let slack = if exact { 0.0 } else { slack };
                    assert!(
                        (got - finished).abs() <= slack,
                        "{label}: number {i}: {got}, right: {finished}"
                    );
                }
            }
            if case.threads > 1 {
                request.threads = 1;
                let alone = run(algorithm, &request, &mut placed, placed_residual.as_mut(), bytes);
                assert!(alone.contents() == output.contents(), "{label}: threads change it");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn single_precision_matches_the_oracle(case in cases()) {
        check_f32(&case, WeightFormat::F32);
    }

    #[test]
    fn bfloat16_matches_the_oracle(case in cases()) {
        check_f32(&case, WeightFormat::BF16);
    }

    #[test]
    fn half_precision_matches_the_oracle(case in cases()) {
        check_f32(&case, WeightFormat::FP16);
    }

    #[test]
    fn sparse_matches_the_oracle(case in cases(), pattern in patterns()) {
        check_f32(&case, WeightFormat { numbers: Numbers::F32, pattern });
    }

    #[test]
    fn eight_bits_match_the_oracle(case in cases()) {
        check_i8(&case, WeightFormat::I8);
    }

    #[test]
    fn few_bits_and_sparse_integers_match_the_oracle(
        case in cases(),
        pattern in patterns(),
        grid in prop::sample::select(Grid::ALL.to_vec()),
    ) {
        check_i8(&case, WeightFormat { numbers: Numbers::Integer(grid), pattern });
    }
}

/// Returns zero weights in `format`.
fn zero_weights(problem: &ConvProblem, format: WeightFormat) -> Weights {
    let dims = [
        problem.out_channels,
        problem.group_in(),
        problem.window.kernel[0],
        problem.window.kernel[1],
    ];
    let count = dims.iter().product();
    let values = match format.numbers {
        Numbers::F32 | Numbers::Bf16 | Numbers::Fp16 => {
            WeightValues::F32(vec![0.0; count].into()).rounded(format.numbers).unwrap()
        }
        Numbers::Integer(grid) => WeightValues::Integer(IntegerWeights {
            values: vec![0; count].into(),
            scales: vec![1.0; problem.out_channels].into(),
            grid,
        }),
    };
    Weights { dims, values, pattern: format.pattern, bias: None }
}

/// Returns every combination of the tunables' values.
fn combinations(tunables: &[Tunable]) -> Vec<BTreeMap<String, TunableValue>> {
    tunables.iter().fold(vec![BTreeMap::new()], |all, tunable| {
        all.iter()
            .flat_map(|one| {
                tunable.values_beside(one).into_iter().map(|value| {
                    let mut one = one.clone();
                    one.insert(tunable.name.to_string(), value);
                    one
                })
            })
            .collect()
    })
}

const FORMATS: [WeightFormat; 9] = {
    const BLOCKS: Pattern = Pattern::Blocks { outputs: 8, inputs: 4 };
    const FOUR_BITS: Numbers = Numbers::Integer(Grid::Bits4);
    const TERNARY: Numbers = Numbers::Integer(Grid::Ternary);
    [
        WeightFormat::F32,
        WeightFormat::SPARSE_F32,
        WeightFormat::BF16,
        WeightFormat::FP16,
        WeightFormat::I8,
        WeightFormat { numbers: Numbers::F32, pattern: BLOCKS },
        WeightFormat { numbers: Numbers::Integer(Grid::Bits8), pattern: BLOCKS },
        WeightFormat { numbers: FOUR_BITS, pattern: Pattern::Dense },
        WeightFormat { numbers: TERNARY, pattern: Pattern::Unstructured },
    ]
};

#[test]
fn every_offered_combination_can_be_prepared() {
    let same = |k: usize, stride: usize| Window {
        kernel: [k, k],
        stride: [stride, stride],
        dilation: [1, 1],
        padding: [k / 2; 4],
    };
    let problem = |channels: [usize; 2], groups, input, window| ConvProblem {
        batch: 1,
        in_channels: channels[0],
        out_channels: channels[1],
        groups,
        input,
        window,
    };
    let problems = [
        problem([3, 16], 1, [8, 8], same(3, 1)),
        problem([20, 37], 1, [4, 4], same(3, 1)),
        problem([24, 24], 24, [6, 6], same(3, 2)),
        problem([64, 10], 1, [1, 1], Window::POINT),
        problem([8, 12], 4, [5, 5], same(5, 1)),
    ];
    for problem in problems {
        for format in FORMATS {
            for isa in Isa::available() {
                let candidates = candidates(&problem, format, isa);
                assert!(
                    !candidates.is_empty(),
                    "nobody solves {problem:?} in {format:?} on {isa:?}"
                );
                for algorithm in candidates {
                    for tunables in combinations(&algorithm.tunables(&problem, isa)) {
                        let weights = zero_weights(&problem, format);
                        let schedule = Schedule { algorithm: algorithm.name().into(), tunables };
                        let grid = Quantization { scale: 1.0, zero_point: 0 };
                        let request = Request {
                            problem,
                            weights: &weights,
                            activation: Activation::Relu,
                            input: if algorithm.is_integer() {
                                Element::U8(grid)
                            } else {
                                Element::F32
                            },
                            output: Element::F32,
                            residual: None,
                            schedule: &schedule,
                            threads: 2,
                            isa,
                            packing: &Packing::fresh(),
                        };
                        if let Err(error) = algorithm.prepare(&request) {
                            panic!("{schedule:?} for {problem:?} on {isa:?}: {error}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn nonsense_is_refused() {
    let window = Window { kernel: [3, 3], ..Window::POINT };
    let good =
        ConvProblem { batch: 1, in_channels: 4, out_channels: 4, groups: 1, input: [5, 5], window };
    let bad = [
        ConvProblem { groups: 3, ..good },
        ConvProblem { groups: 0, ..good },
        ConvProblem { batch: 0, ..good },
        ConvProblem { input: [2, 5], ..good },
        ConvProblem { batch: usize::MAX / 2, ..good },
        ConvProblem { window: Window { stride: [0, 1], ..window }, ..good },
    ];
    for problem in bad {
        for algorithm in algorithms() {
            assert!(
                !algorithm.supports(&problem, Isa::Portable),
                "{} on {problem:?}",
                algorithm.name()
            );
        }
    }
    // Weights of another shape, an instruction set of another machine, a missing tunable.
    let schedule = Schedule::of("implicit_gemm");
    let weights = zero_weights(&ConvProblem { out_channels: 8, ..good }, WeightFormat::F32);
    let right = zero_weights(&good, WeightFormat::F32);
    let foreign = Isa::ALL.into_iter().find(|isa| !isa.is_available()).unwrap();
    for (weights, isa) in [(&weights, Isa::Portable), (&right, foreign), (&right, Isa::Portable)] {
        let request = Request {
            problem: good,
            weights,
            activation: Activation::Identity,
            input: Element::F32,
            output: Element::F32,
            residual: None,
            schedule: &schedule,
            threads: 1,
            isa,
            packing: &Packing::fresh(),
        };
        for algorithm in algorithms() {
            if !algorithm.tunables(&good, isa).is_empty() {
                assert!(algorithm.prepare(&request).is_err(), "{}", algorithm.name());
            }
        }
    }
}
