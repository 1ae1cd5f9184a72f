//! Random problems, weights and schedules for convolution algorithms.

use paretune_base::plan::activation::Activation;
use paretune_base::plan::operator::{ConvProblem, Window};
use paretune_base::plan::schedule::Schedule;
use paretune_base::plan::weights::{
    Grid, IntegerWeights, Numbers, Pattern, WeightFormat, WeightValues, Weights,
};
use paretune_cpu::conv::Algorithm;
use paretune_simd::Isa;
use proptest::prelude::*;

/// A problem with its fused operators; all values follow from `seed`.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) problem: ConvProblem,
    pub(crate) activation: Activation,
    pub(crate) threads: usize,
    /// Element type of the residual: 0 none, 1 `f32`, 2 8 bits (if the algorithm supports them).
    pub(crate) residual: u8,
    /// Whether the output of an 8-bit algorithm has 8 bits.
    pub(crate) narrow: bool,
    pub(crate) seed: u64,
}

/// A small random generator, so that the tests do not depend on another crate's sequence.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Returns a number in -1..1.
    pub(crate) fn real(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn reals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.real()).collect()
    }
}

pub(crate) fn activations() -> impl Strategy<Value = Activation> {
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

pub(crate) fn windows() -> impl Strategy<Value = Window> {
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

pub(crate) fn cases() -> impl Strategy<Value = Case> {
    let channels = prop_oneof![
        // Channel counts of dense, grouped and depthwise layers.
        4 => (1..=40_usize, 1..=70_usize).prop_map(|(i, o)| (i, o, 1)),
        1 => (1..=4_usize, 1..=9_usize, 2..=4_usize).prop_map(|(i, o, g)| (i * g, o * g, g)),
        2 => (2..=140_usize).prop_map(|c| (c, c, c)),
    ];
    let sizes = prop_oneof![
        3 => [1..=9_usize, 1..=9_usize],
        1 => [1..=3_usize, 10..=40_usize],
        1 => Just([1, 1]),
    ];
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

pub(crate) fn patterns() -> impl Strategy<Value = Pattern> {
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

pub(crate) fn random_schedule(
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

/// Returns which weights are kept: a random fraction of those that `pattern` allows to be zero.
pub(crate) fn keep(
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

/// Returns zero weights in `format`.
pub(crate) fn zero_weights(problem: &ConvProblem, format: WeightFormat) -> Weights {
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

pub(crate) const FORMATS: [WeightFormat; 9] = {
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
