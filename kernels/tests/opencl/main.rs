//! Tests of every kernel against the double-precision reference, on any available OpenCL device,
//! such as PoCL on the processor.

#![cfg(feature = "opencl")]

use std::collections::BTreeMap;
use std::sync::Arc;

use paretune_base::registry::Numerics;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use paretune_base::plan::activation::Activation;
use paretune_base::plan::operator::{Conv, ConvProblem, Operator, Window};
use paretune_base::plan::schedule::{Schedule, TunableValue};
use paretune_base::plan::shape;
use paretune_base::plan::weights::{
    Grid, IntegerWeights, Pattern, WeightFormat, WeightValues, Weights,
};
use paretune_base::plan::{Backend, Plan, Quantization, Step, ValueId, ValueSpec};
use paretune_kernels::executor::{Executor, ExecutorOptions};
use paretune_kernels::reference::run_f64;
use paretune_opencl::conv;
use paretune_opencl::conv::Algorithm;
use paretune_opencl::limits::Limits;
use paretune_opencl::{fault, names, open};
use paretune_simd::Isa;

mod compile;
mod half;
mod lost;
mod mixed;
mod patch;
mod sparse;

/// Returns whether a device exists; prints a notice if none does.
fn present() -> bool {
    fault::TENSOR_CORES_ANYWHERE.store(true, std::sync::atomic::Ordering::Relaxed);
    let present = !names().is_empty();
    if !present {
        eprintln!(
            "SKIPPED: there is no OpenCL device; `apt-get install pocl-opencl-icd` makes one of \
             the CPU"
        );
    }
    present
}

/// A random network under construction.
struct Network {
    plan: Plan,
    rng: Xoshiro256PlusPlus,
}

impl Network {
    fn new(seed: u64, dims: &[usize]) -> Self {
        let plan = Plan {
            threads: 1,
            backend: Backend::OpenCl { device: String::new() },
            ..Plan::default()
        };
        let mut network = Self { plan, rng: Xoshiro256PlusPlus::seed_from_u64(seed) };
        network.value(dims.to_vec());
        network
    }

    fn value(&mut self, dims: Vec<usize>) -> ValueId {
        self.plan.values.push(ValueSpec { dims, quantization: None });
        self.plan.values.len() - 1
    }

    fn draw(&mut self, count: usize, bound: f32) -> Vec<f32> {
        (0..count).map(|_| self.rng.random_range(-bound..bound)).collect()
    }

    /// Adds a step and makes its result the output of the network.
    fn step(&mut self, operator: Operator, inputs: &[ValueId], declared: &[usize]) -> ValueId {
        let shapes: Vec<&[usize]> =
            inputs.iter().map(|&id| &self.plan.values[id].dims[..]).collect();
        let dims =
            shape::output(&operator, &shapes, declared, &self.plan.weights, &self.plan.constants)
                .unwrap();
        let output = self.value(dims);
        let name = format!("step{}", self.plan.steps.len());
        self.plan.steps.push(Step { name, operator, inputs: inputs.to_vec(), output });
        self.plan.output = output;
        output
    }

    fn constant(&mut self, count: usize) -> usize {
        let numbers = self.draw(count, 1.5).into();
        self.plan.constants.push(numbers);
        self.plan.constants.len() - 1
    }

    fn weights(&mut self, dims: [usize; 4], bias: bool) -> usize {
        let count: usize = dims.iter().product();
        let bound = 1.5 / ((count / dims[0]) as f32).sqrt();
        let values = self.draw(count, bound).into();
        let bias = bias.then(|| Arc::from(self.draw(dims[0], 1.0)));
        self.plan.weights.push(Weights::dense(dims, values, bias));
        self.plan.weights.len() - 1
    }

    fn integer_weights(&mut self, dims: [usize; 4]) -> usize {
        let count: usize = dims.iter().product();
        let values = (0..count).map(|_| self.rng.random_range(-127..=127)).collect();
        let scales = (0..dims[0]).map(|o| 0.001 * (1.0 + 0.1 * (o % 3) as f32)).collect();
        let bias = Some(Arc::from(self.draw(dims[0], 1.0)));
        let values = WeightValues::Integer(IntegerWeights { values, scales, grid: Grid::Bits8 });
        self.plan.weights.push(Weights { dims, values, pattern: Pattern::Dense, bias });
        self.plan.weights.len() - 1
    }

    /// Runs the plan on the device and compares every value with the reference.
    fn check(&mut self, batch: usize, on_grid: bool, tolerance: f64) {
        let mut input = self.draw(self.plan.values[self.plan.input].len() * batch, 1.45);
        if on_grid {
            // Round the input to the grid, because the reference does not.
            input.iter_mut().for_each(|x| *x = (*x / GRID.scale).round() * GRID.scale);
        }
        let wide: Vec<f64> = input.iter().map(|&x| f64::from(x)).collect();
        let expected = run_f64(&self.plan, batch, &wide).unwrap();
        let options = ExecutorOptions { batch, threads: 1, isa: Isa::Portable };
        let mut executor = Executor::new(&self.plan, &options)
            .unwrap_or_else(|e| panic!("{e}\n{:?}", self.plan.steps));
        let mut seen = 0;
        executor
            .observe(&input, &mut |value, found| {
                seen += 1;
                close(&expected[value], found, tolerance, || {
                    format!("value {value} of {:#?}", self.plan.steps)
                });
            })
            .unwrap();
        assert_eq!(seen, self.plan.values.len());
        let mut output = vec![0.0; self.plan.values[self.plan.output].len() * batch];
        executor.run(&input, &mut output).unwrap();
        close(&expected[self.plan.output], &output, tolerance, || "run".to_owned());
        output.fill(0.0);
        let times = executor.profile(&input, &mut output).unwrap();
        assert_eq!(times.len(), executor.steps().len());
        close(&expected[self.plan.output], &output, tolerance, || "profile".to_owned());
    }
}

/// Tolerances as fractions of the largest absolute value: for single precision, and for operands
/// with 10 bits of mantissa.
const EXACT: f64 = 1e-4;
const REDUCED: f64 = 3e-3;

fn close(expected: &[f64], found: &[f32], tolerance: f64, what: impl Fn() -> String) {
    assert_eq!(expected.len(), found.len());
    let largest = expected.iter().fold(1e-3_f64, |most, x| most.max(x.abs()));
    for (index, (&expected, &found)) in expected.iter().zip(found).enumerate() {
        let off = (expected - f64::from(found)).abs() / largest;
        assert!(off < tolerance, "number {index}: {found} instead of {expected} in {}", what());
    }
}

/// Creates a request for a convolution in single precision without a residual.
fn request<'a>(
    problem: ConvProblem,
    weights: &'a Weights,
    activation: Activation,
    limits: &'a Limits,
) -> conv::Request<'a> {
    static DEFAULT: Schedule = Schedule { algorithm: String::new(), tunables: BTreeMap::new() };
    let output = problem.output().unwrap();
    conv::Request {
        problem,
        output,
        weights,
        activation,
        residual: false,
        input_grid: None,
        schedule: &DEFAULT,
        limits,
    }
}

/// Returns the value of a tunable; 0 and 1 are off and on for switches.
fn typed(name: &str, number: u64) -> (String, TunableValue) {
    let switch = ["half", "local", "ahead"].contains(&name);
    let value = if switch { TunableValue::Switch(number != 0) } else { TunableValue::Size(number) };
    (name.to_owned(), value)
}

/// Draws a random schedule that the algorithm accepts.
fn random_schedule(
    algorithm: &dyn Algorithm,
    request: &conv::Request<'_>,
    rng: &mut Xoshiro256PlusPlus,
) -> Schedule {
    loop {
        let mut schedule = Schedule::of(algorithm.name());
        for tunable in algorithm.tunables(&request.problem, request.limits) {
            // Compilers take long for large unrolled loops.
            let unrolled = [
                "unroll",
                "thread_",
                "tile_o",
                "tile_x",
                "tile_y",
                "output_tile",
                "stage",
                "warp",
                "split",
            ];
            let short = unrolled.iter().any(|name| tunable.name.starts_with(name));
            let mut values = tunable.values_beside(&schedule.tunables);
            values.retain(|value| !short || value.size().is_none_or(|size| size <= 2));
            let value = if values.is_empty() {
                tunable.default
            } else {
                values[rng.random_range(0..values.len())]
            };
            schedule.tunables.insert(tunable.name.to_owned(), value);
        }
        if algorithm.prepare(&conv::Request { schedule: &schedule, ..*request }).is_ok() {
            return schedule;
        }
    }
}

fn window(kernel: usize, stride: usize, padding: usize) -> Window {
    Window { kernel: [kernel; 2], stride: [stride; 2], dilation: [1, 1], padding: [padding; 4] }
}

/// Tests one convolution for each of a few shapes, under the default and a random schedule.
#[test]
fn convolutions_match_the_reference() {
    if !present() {
        return;
    }
    let device = open("").unwrap();
    let odd = Window { kernel: [3, 2], stride: [2, 1], dilation: [1, 2], padding: [1, 0, 0, 2] };
    // Input, outputs, groups, window, batch.
    let shapes = [
        ([3, 9, 7], 10, 1, window(3, 1, 1), 1),
        ([8, 6, 6], 12, 1, window(1, 1, 0), 2),
        ([6, 8, 5], 4, 2, odd, 1),
        ([5, 7, 8], 5, 5, window(3, 2, 1), 2),
        ([37, 1, 1], 11, 1, Window::POINT, 3),
    ];
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed());
    for (round, (dims, outputs, groups, window, batch)) in shapes.into_iter().enumerate() {
        let problem = ConvProblem {
            batch,
            in_channels: dims[0],
            out_channels: outputs,
            groups,
            input: [dims[1], dims[2]],
            window,
        };
        for algorithm in conv::algorithms() {
            // Compilation is slow, so most algorithms run only some of the shapes.
            let few = match algorithm.name() {
                "opencl_implicit_gemm" => true,
                "opencl_direct" => round == 2 || round == 3,
                "opencl_gemm_int8" => round == 2,
                "opencl_winograd" => round == 0,
                "opencl_tensor_core_tf32" => round == 0,
                "opencl_tensor_core_fp16" => round == 4,
                "opencl_tensor_core_fp32" => round == 0 || round == 4,
                // These algorithms have their own tests.
                "opencl_implicit_gemm_wfp16" | "opencl_direct_wfp16" => false,
                _ => round == 3,
            };
            // Algorithms that require zeros have their own tests.
            let dense = [WeightFormat::F32, WeightFormat::I8];
            let able = dense.into_iter().any(|format| algorithm.executes(format));
            if !few || !able || !algorithm.supports(&problem, &device.limits) {
                continue;
            }
            let mut network = Network::new(round as u64, &dims);
            network.plan.values[0].quantization = Some(GRID);
            let dims = [outputs, dims[0] / groups, window.kernel[0], window.kernel[1]];
            let mut weights = network.weights(dims, round != 1);
            if algorithm.is_integer() {
                weights = network.integer_weights(dims);
            }
            let activation = if round == 0 {
                Activation::Clip { low: -0.5, high: 0.7 }
            } else {
                Activation::Relu
            };
            let stored = network.plan.weights[weights].clone();
            let request = conv::Request {
                residual: true,
                input_grid: Some(GRID),
                ..request(problem, &stored, activation, &device.limits)
            };
            let schedule = random_schedule(*algorithm, &request, &mut rng);
            let conv =
                |schedule| Operator::Conv(Conv { window, groups, weights, activation, schedule });
            if round == 0 || round == 2 {
                let first = network.step(conv(Schedule::of(algorithm.name())), &[0], &[]);
                // The result of the first convolution is the residual of the second.
                network.step(conv(schedule), &[0, first], &[]);
            } else {
                network.step(conv(schedule), &[0], &[]);
            }
            network.check(
                batch,
                algorithm.is_integer(),
                if algorithm.numerics() == Numerics::Reduced { REDUCED } else { EXACT },
            );
        }
    }
}

/// Quantization grid of 8-bit inputs.
const GRID: Quantization = Quantization { scale: 0.0125, zero_point: 120 };

/// Returns the seed of random schedules; `PARETUNE_TEST_SEED` overrides it to try others.
fn seed() -> u64 {
    std::env::var("PARETUNE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7)
}

/// Tests all other operators in one network.
#[test]
fn operators_match_the_reference() {
    if !present() {
        return;
    }
    let mut network = Network::new(3, &[6, 7, 5]);
    let pooled =
        network.step(Operator::MaxPool { window: window(3, 2, 1), ceil: false }, &[0], &[]);
    let mean =
        Operator::AveragePool { window: window(2, 2, 0), ceil: true, include_padding: false };
    let averaged = network.step(mean, &[0], &[]);
    let padded =
        Operator::AveragePool { window: window(3, 2, 1), ceil: false, include_padding: true };
    let padded = network.step(padded, &[0], &[]);
    let sum = network.step(Operator::Add(Activation::HardSwish), &[pooled, averaged], &[]);
    let (scale, shift) = (network.constant(6), network.constant(6));
    let activation = Activation::LeakyRelu { slope: 0.1 };
    let scaled = network.step(Operator::ScaleShift { scale, shift, activation }, &[sum], &[]);
    let joined = network.step(Operator::Concat { axis: 0 }, &[scaled, padded, pooled], &[]);
    let normal =
        network.step(Operator::Lrn { size: 3, alpha: 0.3, beta: 0.6, bias: 1.0 }, &[joined], &[]);
    let gate = network.step(Operator::GlobalAveragePool, &[normal], &[]);
    let gate = network.step(Operator::Activation(Activation::Sigmoid), &[gate], &[]);
    let gated = network.step(Operator::Mul(Activation::Identity), &[normal, gate], &[]);
    let turned = network.step(Operator::Transpose { permutation: vec![1, 2, 0] }, &[gated], &[]);
    let padding = vec![[1, 0], [0, 2], [1, 1]];
    let larger = network.step(Operator::Pad { padding, value: 0.25 }, &[turned], &[]);
    let shorter = network.step(Operator::ReduceMean { axes: vec![1] }, &[larger], &[]);
    let count = network.plan.values[shorter].len();
    let flat = network.step(Operator::Reshape, &[shorter], &[count]);
    network.step(Operator::Softmax { axis: 0 }, &[flat], &[]);
    network.check(2, false, EXACT);
}

#[test]
fn what_is_wrong_with_a_schedule_is_said() {
    if !present() {
        return;
    }
    let plan = |schedule: Schedule| {
        let mut network = Network::new(1, &[4, 5, 5]);
        let weights = network.weights([4, 4, 3, 3], true);
        let (window, activation) = (window(3, 1, 1), Activation::Relu);
        network.step(
            Operator::Conv(Conv { window, groups: 1, weights, activation, schedule }),
            &[0],
            &[],
        );
        network.plan
    };
    let options = ExecutorOptions { batch: 1, threads: 1, isa: Isa::Portable };
    let failure = |schedule| match Executor::new(&plan(schedule), &options) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    assert!(failure(Schedule::of("winograd")).contains("unknown algorithm"));
    assert!(failure(Schedule::of("opencl_depthwise")).contains("does not support"));
    let mut schedule = Schedule::of("opencl_direct");
    schedule.tunables.insert("tile_o".to_owned(), TunableValue::Size(3));
    assert!(failure(schedule).contains("cannot be 3"));
    let mut elsewhere = plan(Schedule::default());
    elsewhere.backend = Backend::OpenCl { device: "no such device".to_owned() };
    let error = Executor::new(&elsewhere, &options).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("no such device"), "{error}");
}
