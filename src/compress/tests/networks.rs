//! Small networks with every kind of dependency between channels.

use std::sync::Arc;

use paretune_kernels::operator::{Conv, Operator, Window};
use paretune_kernels::{Activation, Plan, Schedule, Step, ValueId, ValueSpec, Weights};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Builder of plans with random weights, step by step.
pub struct Builder {
    pub plan: Plan,
    random: Xoshiro256PlusPlus,
}

impl Builder {
    pub fn new(seed: u64, dims: &[usize]) -> Self {
        let plan = Plan { name: "test".into(), threads: 1, ..Plan::default() };
        let mut this = Self { plan, random: Xoshiro256PlusPlus::seed_from_u64(seed) };
        this.value(dims);
        this
    }

    pub fn numbers(&mut self, count: usize, size: f32) -> Arc<[f32]> {
        (0..count).map(|_| self.random.random_range(-size..size)).collect()
    }

    fn value(&mut self, dims: &[usize]) -> ValueId {
        self.plan.values.push(ValueSpec { dims: dims.to_vec(), quantization: None });
        self.plan.values.len() - 1
    }

    pub fn dims(&self, value: ValueId) -> Vec<usize> {
        self.plan.values[value].dims.clone()
    }

    pub fn step(
        &mut self,
        name: &str,
        operator: Operator,
        inputs: &[ValueId],
        dims: &[usize],
    ) -> ValueId {
        let output = self.value(dims);
        self.plan.steps.push(Step { name: name.into(), operator, inputs: inputs.to_vec(), output });
        self.plan.output = output;
        output
    }

    /// Adds a convolution with a square kernel that keeps the size (divided by the stride).
    pub fn conv(
        &mut self,
        name: &str,
        input: ValueId,
        (out, kernel, stride, groups): (usize, usize, usize, usize),
        activation: Activation,
        residual: Option<ValueId>,
    ) -> ValueId {
        let dims = self.dims(input);
        let columns = dims[0] / groups;
        let count = out * columns * kernel * kernel;
        let size = (6.0 / (columns * kernel * kernel) as f32).sqrt();
        let values = self.numbers(count, size);
        let bias = Some(self.numbers(out, 0.3));
        self.plan.weights.push(Weights::dense([out, columns, kernel, kernel], values, bias));
        let half = kernel / 2;
        let window = Window {
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1; 2],
            padding: [half; 4],
        };
        let weights = self.plan.weights.len() - 1;
        let conv = Conv { window, groups, weights, activation, schedule: Schedule::default() };
        let output = match dims[..] {
            [_, h, w] => {
                let [h, w] = window.output([h, w], false).unwrap();
                vec![out, h, w]
            }
            _ => vec![out],
        };
        let inputs: Vec<ValueId> = std::iter::once(input).chain(residual).collect();
        self.step(name, Operator::Conv(conv), &inputs, &output)
    }

    /// Adds the mean over positions, flattened, and a dense layer.
    pub fn head(mut self, input: ValueId) -> Plan {
        let channels = self.dims(input)[0];
        let pooled = self.step("pool", Operator::GlobalAveragePool, &[input], &[channels, 1, 1]);
        let flat = self.step("flatten", Operator::Reshape, &[pooled], &[channels]);
        self.conv("head", flat, (5, 1, 1, 1), Activation::Identity, None);
        self.plan
    }

    pub fn images(&mut self, count: usize) -> Vec<Vec<f32>> {
        let len = self.plan.values[self.plan.input].len();
        (0..count).map(|_| self.numbers(len, 2.0).to_vec()).collect()
    }
}

/// Builds residual blocks, one of them with a strided shortcut.
pub fn residual() -> Plan {
    let mut b = Builder::new(1, &[3, 8, 8]);
    let stem = b.conv("stem", 0, (8, 3, 1, 1), Activation::Relu, None);
    let one = b.conv("one", stem, (12, 3, 1, 1), Activation::Relu, None);
    let two = b.conv("two", one, (8, 3, 1, 1), Activation::Relu, Some(stem));
    let shortcut = b.conv("shortcut", two, (16, 1, 2, 1), Activation::Identity, None);
    let three = b.conv("three", two, (16, 3, 2, 1), Activation::Relu, None);
    let four = b.conv("four", three, (16, 3, 1, 1), Activation::Identity, None);
    let dims = b.dims(four);
    let sum = b.step("sum", Operator::Add(Activation::Relu), &[four, shortcut], &dims);
    b.head(sum)
}

/// Builds an inverted bottleneck with squeeze-and-excitation and a linear residual.
pub fn gated() -> Plan {
    let mut b = Builder::new(2, &[3, 8, 8]);
    let stem = b.conv("stem", 0, (8, 3, 2, 1), Activation::HardSwish, None);
    let expand = b.conv("expand", stem, (24, 1, 1, 1), Activation::HardSwish, None);
    let depth = b.conv("depth", expand, (24, 3, 1, 24), Activation::Relu, None);
    let squeeze = b.step("squeeze", Operator::GlobalAveragePool, &[depth], &[24, 1, 1]);
    let reduce = b.conv("reduce", squeeze, (8, 1, 1, 1), Activation::Relu, None);
    let sigmoid = Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 };
    let excite = b.conv("excite", reduce, (24, 1, 1, 1), sigmoid, None);
    let dims = b.dims(depth);
    let gated = b.step("gate", Operator::Mul(Activation::Identity), &[depth, excite], &dims);
    let project = b.conv("project", gated, (8, 1, 1, 1), Activation::Identity, Some(stem));
    b.head(project)
}

/// Builds concatenations, a normalization that cannot be folded, a constant, and a depth
/// multiplier.
pub fn concatenated() -> Plan {
    let mut b = Builder::new(3, &[3, 6, 6]);
    let a = b.conv("a", 0, (8, 3, 1, 1), Activation::Relu, None);
    let c = b.conv("c", a, (4, 1, 1, 1), Activation::Relu, None);
    let joined = b.step("join", Operator::Concat { axis: 0 }, &[a, c], &[12, 6, 6]);
    let (scale, shift) = (b.numbers(12, 1.0), b.numbers(12, 1.0));
    b.plan.constants.extend([scale, shift]);
    let norm = Operator::ScaleShift { scale: 0, shift: 1, activation: Activation::Relu };
    let norm = b.step("norm", norm, &[joined], &[12, 6, 6]);
    let d = b.conv("d", norm, (4, 3, 1, 1), Activation::Relu, None);
    let all = b.step("all", Operator::Concat { axis: 0 }, &[norm, d], &[16, 6, 6]);
    let offsets = b.numbers(16, 1.0);
    b.plan.constants.push(offsets);
    let offset = b.step("offset", Operator::Constant { constant: 2 }, &[], &[16, 1, 1]);
    let shifted = b.step("shifted", Operator::Add(Activation::Relu), &[all, offset], &[16, 6, 6]);
    let twice = b.conv("twice", shifted, (32, 3, 1, 16), Activation::Relu, None);
    b.head(twice)
}

/// Builds pooling and a dense layer that reads positions.
pub fn flattened() -> Plan {
    let mut b = Builder::new(4, &[1, 8, 8]);
    let a = b.conv("a", 0, (8, 3, 1, 1), Activation::Relu, None);
    let window = Window { kernel: [2; 2], stride: [2; 2], dilation: [1; 2], padding: [0; 4] };
    let pooled = b.step("pool", Operator::MaxPool { window, ceil: false }, &[a], &[8, 4, 4]);
    let flat = b.step("flatten", Operator::Reshape, &[pooled], &[128]);
    let hidden = b.conv("hidden", flat, (40, 1, 1, 1), Activation::Relu, None);
    b.conv("head", hidden, (5, 1, 1, 1), Activation::Identity, None);
    b.plan
}

/// Builds a grouped convolution and a channel shuffle: only the last layer's input can be pruned.
pub fn shuffled() -> Plan {
    let mut b = Builder::new(5, &[4, 4, 4]);
    let a = b.conv("a", 0, (8, 1, 1, 2), Activation::Relu, None);
    let split = b.step("split", Operator::Reshape, &[a], &[2, 4, 4, 4]);
    let swapped = b.step(
        "swap",
        Operator::Transpose { permutation: vec![1, 0, 2, 3] },
        &[split],
        &[4, 2, 4, 4],
    );
    let shuffled = b.step("merge", Operator::Reshape, &[swapped], &[8, 4, 4]);
    let c = b.conv("c", shuffled, (8, 3, 1, 1), Activation::Relu, None);
    b.head(c)
}

pub fn all() -> Vec<(&'static str, Plan)> {
    vec![
        ("residual", residual()),
        ("gated", gated()),
        ("concatenated", concatenated()),
        ("flattened", flattened()),
        ("shuffled", shuffled()),
    ]
}

/// Returns random images that fit the network.
pub fn images(plan: &Plan, count: usize) -> Vec<Vec<f32>> {
    let mut builder = Builder::new(99, &plan.values[plan.input].dims);
    builder.images(count)
}
