//! Generates random small networks that use every operator.

use std::sync::Arc;

mod tensor;

use paretune_kernels::operator::{Conv, Operator, Window};
use paretune_kernels::plan::shape;
use paretune_kernels::{
    Activation, Plan, Quantization, Schedule, Step, ValueId, ValueSpec, WeightValues, Weights,
    conv,
    hardware::Isa,
    weights::{Grid, IntegerWeights, Pattern},
};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Options for the generation of networks.
#[derive(Clone, Copy)]
pub struct Options {
    /// Number of images per run, which may matter to algorithms.
    pub batch: usize,
    /// Instruction set that the chosen algorithms must support.
    pub isa: Isa,
    /// Whether convolutions may have 8-bit weights.
    pub integer: bool,
}

/// Generates a valid plan, equal for equal seeds.
pub fn plan(seed: u64, options: Options) -> Plan {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let dims = vec![rng.random_range(1..20), rng.random_range(1..10), rng.random_range(1..10)];
    let mut generator = Generator { plan: Plan { threads: 1, ..Plan::default() }, rng, options };
    generator.value(dims);
    let steps = generator.rng.random_range(1..12);
    while generator.plan.steps.len() < steps {
        generator.step();
    }
    // Usually the last value, sometimes one in the middle or the input.
    let values = generator.plan.values.len();
    generator.plan.output = if generator.rng.random_bool(0.8) {
        values - 1
    } else {
        generator.rng.random_range(0..values)
    };
    generator.plan
}

/// Returns reproducible numbers of moderate size.
#[allow(dead_code)] // Not every test runs what it generates.
pub fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.5_f32..1.5)).collect()
}

struct Generator {
    plan: Plan,
    rng: Xoshiro256PlusPlus,
    options: Options,
}

impl Generator {
    fn value(&mut self, dims: Vec<usize>) -> ValueId {
        // Two grids only, so that neighbors sometimes share one.
        let grids = [
            Quantization { scale: 0.03, zero_point: 128 },
            Quantization { scale: 0.05, zero_point: 7 },
        ];
        let quantization = self.options.integer.then(|| grids[self.rng.random_range(0..2)]);
        self.plan.values.push(ValueSpec { dims, quantization });
        self.plan.values.len() - 1
    }

    fn pick(&mut self) -> ValueId {
        let values = self.plan.values.len();
        // Mostly recent values, for deep rather than wide networks.
        let back = self.rng.random_range(0..values.min(4));
        if self.rng.random_bool(0.2) { self.rng.random_range(0..values) } else { values - 1 - back }
    }

    fn activation(&mut self) -> Activation {
        match self.rng.random_range(0..9) {
            0 => Activation::Relu,
            1 => Activation::Clip { low: -0.5, high: 1.0 },
            2 => Activation::LeakyRelu { slope: 0.1 },
            3 => Activation::Sigmoid,
            4 => Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
            5 => Activation::HardSwish,
            _ => Activation::Identity,
        }
    }

    fn window(&mut self, most_padding: usize) -> Window {
        let mut two = |range: std::ops::RangeInclusive<usize>| {
            [self.rng.random_range(range.clone()), self.rng.random_range(range)]
        };
        let (kernel, stride, dilation) = (two(1..=3), two(1..=2), two(1..=2));
        let (a, b) = (two(0..=most_padding), two(0..=most_padding));
        Window { kernel, stride, dilation, padding: [a[0], a[1], b[0], b[1]] }
    }

    fn constant(&mut self, len: usize) -> usize {
        let values = (0..len).map(|_| self.rng.random_range(-1.5_f32..1.5)).collect();
        self.plan.constants.push(values);
        self.plan.constants.len() - 1
    }

    /// Adds a random step, if it is valid.
    fn step(&mut self) {
        let input = self.pick();
        let dims = self.plan.values[input].dims.clone();
        let mut inputs = vec![input];
        let activation = self.activation();
        let mut declared = Vec::new();
        let operator = match self.rng.random_range(0..34) {
            0..=6 => match self.conv(&dims, activation) {
                Some(conv) => Operator::Conv(conv),
                None => return,
            },
            7 => Operator::MaxPool { window: self.window(1), ceil: self.rng.random() },
            8 => Operator::AveragePool {
                window: self.window(1),
                ceil: self.rng.random(),
                include_padding: self.rng.random(),
            },
            9 => Operator::GlobalAveragePool,
            10 => Operator::ReduceMean {
                axes: (0..dims.len()).filter(|_| self.rng.random_bool(0.5)).collect(),
            },
            11 | 12 => {
                inputs.push(self.partner(&dims));
                if self.rng.random() {
                    Operator::Add(activation)
                } else {
                    Operator::Mul(activation)
                }
            }
            13 => Operator::Activation(activation),
            14 => {
                let channels = dims.first().copied().unwrap_or(1);
                Operator::ScaleShift {
                    scale: self.constant(channels),
                    shift: self.constant(channels),
                    activation,
                }
            }
            15 => {
                for _ in 0..self.rng.random_range(0..3) {
                    inputs.push(self.pick());
                }
                Operator::Concat { axis: self.rng.random_range(0..dims.len().max(1)) }
            }
            16 => Operator::Pad {
                padding: dims
                    .iter()
                    .map(|_| [self.rng.random_range(0..2), self.rng.random_range(0..3)])
                    .collect(),
                value: 0.25,
            },
            17 => {
                let mut permutation: Vec<usize> = (0..dims.len()).collect();
                for i in 0..dims.len() {
                    permutation.swap(i, self.rng.random_range(0..dims.len()));
                }
                Operator::Transpose { permutation }
            }
            18 => {
                declared = self.reshaped(&dims);
                Operator::Reshape
            }
            19 => Operator::Softmax { axis: self.rng.random_range(0..dims.len().max(1)) },
            20 => Operator::Lrn {
                size: self.rng.random_range(1..6),
                alpha: 0.3,
                beta: if self.rng.random() { 0.75 } else { 0.6 },
                bias: 1.0,
            },
            22.. => match self.tensor(&dims, &mut inputs) {
                Some(operator) => Operator::Tensor(operator),
                None => return,
            },
            _ => {
                declared = vec![self.rng.random_range(1..4); self.rng.random_range(0..4)];
                inputs.clear();
                Operator::Constant { constant: self.constant(declared.iter().product()) }
            }
        };
        let shapes: Vec<&[usize]> =
            inputs.iter().map(|&id| &self.plan.values[id].dims[..]).collect();
        let out =
            shape::output(&operator, &shapes, &declared, &self.plan.weights, &self.plan.constants);
        let Ok(out) = out else { return };
        if out.iter().product::<usize>() > 20_000 {
            return;
        }
        let mut operator = operator;
        if let Operator::Conv(conv) = &mut operator {
            // Sometimes add a residual of the right shape.
            let fitting: Vec<ValueId> = (0..self.plan.values.len())
                .filter(|&id| self.plan.values[id].dims == out)
                .collect();
            if !fitting.is_empty() && self.rng.random_bool(0.5) {
                inputs.push(fitting[self.rng.random_range(0..fitting.len())]);
            }
            if !self.choose_algorithm(conv, &dims) {
                return;
            }
        }
        let output = self.value(out);
        let name = format!("step{}", self.plan.steps.len());
        self.plan.steps.push(Step { name, operator, inputs, output });
    }

    /// Returns a value that broadcasts against `dims`: an existing one, or a new constant.
    fn partner(&mut self, dims: &[usize]) -> ValueId {
        let other = self.pick();
        if shape::broadcast(dims, &self.plan.values[other].dims).is_ok() && self.rng.random() {
            return other;
        }
        let keep = self.rng.random_range(0..=dims.len());
        let declared: Vec<usize> = dims[dims.len() - keep..]
            .iter()
            .map(|&size| if self.rng.random() { size } else { 1 })
            .collect();
        let constant = self.constant(declared.iter().product());
        let output = self.value(declared);
        let name = format!("constant{output}");
        self.plan.steps.push(Step {
            name,
            operator: Operator::Constant { constant },
            inputs: vec![],
            output,
        });
        output
    }

    fn reshaped(&mut self, dims: &[usize]) -> Vec<usize> {
        let len: usize = dims.iter().product();
        match self.rng.random_range(0..5) {
            0 => vec![len],
            1 => vec![len, 1, 1],
            2 => dims.to_vec(),
            3 => [vec![1], dims.to_vec()].concat(),
            _ => {
                let divisors: Vec<usize> = (1..=len).filter(|d| len.is_multiple_of(*d)).collect();
                let first = divisors[self.rng.random_range(0..divisors.len())];
                vec![first, len / first]
            }
        }
    }

    fn conv(&mut self, dims: &[usize], activation: Activation) -> Option<Conv> {
        let (channels, image) = match *dims {
            [c] => (c, false),
            [c, _, _] => (c, true),
            _ => return None,
        };
        let divisors: Vec<usize> = (1..=channels).filter(|d| channels.is_multiple_of(*d)).collect();
        let groups = match self.rng.random_range(0..4) {
            0 => channels,
            1 => divisors[self.rng.random_range(0..divisors.len())],
            _ => 1,
        };
        let mut out = groups * self.rng.random_range(1..=(24 / groups).max(1));
        if groups == channels && self.rng.random_bool(0.7) {
            out = channels;
        } else if groups == 1 && self.rng.random_bool(0.4) {
            // A number of channels that some instruction set's blocks divide.
            out = 8 * self.rng.random_range(1..=4);
        }
        let window =
            if image && self.rng.random_bool(0.8) { self.window(2) } else { Window::POINT };
        let dims = [out, channels / groups, window.kernel[0], window.kernel[1]];
        let len: usize = dims.iter().product();
        let bound = 1.5 / ((len / out) as f32).sqrt();
        let mut draw = |len: usize| -> Vec<f32> {
            (0..len).map(|_| self.rng.random_range(-bound..bound)).collect()
        };
        let bias: Vec<f32> = draw(out);
        let dense = draw(len);
        let mut pattern = Pattern::Dense;
        let values = match self.rng.random_range(0..4) {
            0 => {
                pattern = Pattern::Unstructured;
                let sparse = dense.iter().map(|&x| if x.abs() < 0.7 * bound { 0.0 } else { x });
                WeightValues::F32(sparse.collect())
            }
            1 | 2 if self.options.integer => WeightValues::Integer(IntegerWeights {
                values: dense.iter().map(|&x| (x / bound * 127.0) as i8).collect(),
                scales: (0..out).map(|o| bound / 127.0 * (1.0 + 0.1 * (o % 3) as f32)).collect(),
                grid: Grid::Bits8,
            }),
            _ => WeightValues::F32(Arc::from(dense)),
        };
        let bias = self.rng.random_bool(0.8).then(|| bias.into());
        self.plan.weights.push(Weights { dims, values, pattern, bias });
        let weights = self.plan.weights.len() - 1;
        Some(Conv { window, groups, weights, activation, schedule: Schedule::default() })
    }

    /// Chooses any algorithm that supports the step, or the default; returns `false` if none
    /// exists.
    fn choose_algorithm(&mut self, conv: &mut Conv, dims: &[usize]) -> bool {
        let problem = paretune_kernels::operator::ConvProblem {
            batch: self.options.batch,
            in_channels: dims[0],
            out_channels: self.plan.weights[conv.weights].dims[0],
            groups: conv.groups,
            input: [dims.get(1).copied().unwrap_or(1), dims.get(2).copied().unwrap_or(1)],
            window: conv.window,
        };
        let format = self.plan.weights[conv.weights].format();
        let candidates = conv::candidates(&problem, format, self.options.isa);
        if candidates.is_empty() {
            return false;
        }
        if self.rng.random_bool(0.8) {
            let algorithm = candidates[self.rng.random_range(0..candidates.len())];
            conv.schedule = Schedule::of(algorithm.name());
            // A missing tunable takes its default, which decides what later ones may be.
            let mut decided = std::collections::BTreeMap::new();
            for tunable in algorithm.tunables(&problem, self.options.isa) {
                let mut value = tunable.nearest(tunable.default, &decided);
                if self.rng.random_bool(0.5) {
                    let values = tunable.values_beside(&decided);
                    value = values[self.rng.random_range(0..values.len())];
                    conv.schedule.tunables.insert(tunable.name.to_owned(), value);
                }
                decided.insert(tunable.name.to_owned(), value);
            }
        }
        true
    }
}
