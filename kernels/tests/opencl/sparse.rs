//! Tests of OpenCL kernels with block-sparse weights.

use super::*;
use paretune_base::plan::operator::Window;
use paretune_kernels::opencl::verify;

impl Network {
    /// Adds weights in which a fraction of about `share` of the blocks is zero.
    fn block_weights(
        &mut self,
        dims: [usize; 4],
        groups: usize,
        block: [usize; 2],
        share: f64,
    ) -> usize {
        let index = self.weights(dims, true);
        let [outputs, inputs] = block;
        let taps = dims[2] * dims[3];
        let group_out = dims[0] / groups;
        let mut values = match &self.plan.weights[index].values {
            WeightValues::F32(values) => values.to_vec(),
            _ => unreachable!("made above"),
        };
        let mut zero = std::collections::HashMap::new();
        for (at, value) in values.iter_mut().enumerate() {
            let (output, input, tap) = (at / taps / dims[1], at / taps % dims[1], at % taps);
            let place = (output / group_out, output % group_out / outputs, input / inputs, tap);
            if *zero.entry(place).or_insert_with(|| self.rng.random_bool(share)) {
                *value = 0.0;
            }
        }
        let weights = &mut self.plan.weights[index];
        weights.values = WeightValues::F32(values.into());
        let [outputs, inputs] = block.map(|size| u8::try_from(size).unwrap());
        weights.pattern = Pattern::Blocks { outputs, inputs };
        index
    }
}

/// Tests random shapes, strides, paddings, groups and fractions of zeros, including none and all,
/// under random schedules.
#[test]
fn block_sparse_convolutions_match_the_reference() {
    if !present() {
        return;
    }
    let device = open("").unwrap();
    let algorithm = conv::algorithm("opencl_bsr_gemm").unwrap();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed());
    for round in 0..12 {
        let mut pick = |choices: &[usize]| choices[rng.random_range(0..choices.len())];
        let groups = pick(&[1, 1, 1, 2, 3]);
        let [group_in, group_out] = [pick(&[1, 3, 8, 17]), pick(&[4, 8, 11, 16, 24, 40])];
        let block = [pick(&[8, 16]), pick(&[1, 1, 1, 4])];
        let kernel = if round % 3 == 0 { [1, 1] } else { [pick(&[1, 2, 3]), pick(&[2, 3])] };
        let window = Window {
            kernel,
            stride: if round % 3 == 0 { [1, 1] } else { [pick(&[1, 2]), pick(&[1, 2, 3])] },
            dilation: [pick(&[1, 1, 2]), pick(&[1, 2])],
            padding: if round % 3 == 0 {
                [0; 4]
            } else {
                [pick(&[0, 1]), pick(&[0, 2]), pick(&[0, 1]), 1]
            },
        };
        let input = [pick(&[6, 8]), pick(&[7, 8, 10])];
        let (batch, residual) = (pick(&[1, 2]), round % 2 == 0);
        let share = [0.0, 0.5, 0.75, 0.9, 0.97, 1.0][round % 6];
        let problem = ConvProblem {
            batch,
            in_channels: groups * group_in,
            out_channels: groups * group_out,
            groups,
            input,
            window,
        };
        let mut network = Network::new(round as u64, &[problem.in_channels, input[0], input[1]]);
        let dims = [problem.out_channels, group_in, kernel[0], kernel[1]];
        let weights = network.block_weights(dims, groups, block, share);
        let activation = if round % 4 < 2 { Activation::Relu } else { Activation::Identity };
        let stored = network.plan.weights[weights].clone();
        let request =
            conv::Request { residual, ..request(problem, &stored, activation, &device.limits) };
        let schedule = random_schedule(algorithm, &request, &mut rng);
        let conv =
            |schedule| Operator::Conv(Conv { window, groups, weights, activation, schedule });
        let first = network.step(conv(schedule), &[0], &[]);
        if residual {
            network.step(conv(Schedule::of(algorithm.name())), &[0, first], &[]);
        }
        network.check(batch, false, EXACT);
    }
}

/// Tests a network with block-sparse and other layers, and verifies each of its layers against the
/// processor.
#[test]
fn a_network_with_block_sparse_layers_matches_the_reference() {
    if !present() {
        return;
    }
    let mut network = Network::new(11, &[3, 12, 12]);
    let conv = |weights, kernel, schedule| {
        let window = window(kernel, 1, kernel / 2);
        Operator::Conv(Conv { window, groups: 1, weights, activation: Activation::Relu, schedule })
    };
    // Four pixels at once, from the input itself and from local memory.
    let four = |local: u64| {
        let tunables = [("threads_m", 4), ("thread_n", 4), ("vector", 4), ("local", local)];
        let tunables = tunables.map(|(name, value)| typed(name, value)).into();
        Schedule { algorithm: "opencl_bsr_gemm".to_owned(), tunables }
    };
    let first = network.weights([16, 3, 3, 3], true);
    let first = network.step(conv(first, 3, Schedule::default()), &[0], &[]);
    let wide = network.block_weights([32, 16, 1, 1], 1, [16, 1], 0.6);
    let wide = network.step(conv(wide, 1, four(0)), &[first], &[]);
    let back = network.block_weights([16, 32, 3, 3], 1, [8, 1], 0.8);
    let back = network.step(conv(back, 3, four(1)), &[wide, first], &[]);
    let pooled =
        network.step(Operator::MaxPool { window: window(2, 2, 0), ceil: false }, &[back], &[]);
    // Dense kernels execute block-sparse weights too.
    let dense = network.block_weights([8, 16, 3, 3], 1, [8, 1], 0.5);
    let dense = network.step(conv(dense, 3, Schedule::of("opencl_implicit_gemm")), &[pooled], &[]);
    network.step(Operator::GlobalAveragePool, &[dense], &[]);
    verify(&network.plan, 2).unwrap();
    network.check(2, false, EXACT);
}

/// The algorithm only accepts patterns that it accelerates.
#[test]
fn block_sparse_wants_blocks_of_outputs() {
    let algorithm = conv::algorithm("opencl_bsr_gemm").unwrap();
    let with = |pattern| algorithm.executes(WeightFormat { pattern, ..WeightFormat::F32 });
    assert!(
        with(Pattern::Blocks { outputs: 8, inputs: 1 })
            && with(Pattern::Blocks { outputs: 16, inputs: 1 })
    );
    for pattern in
        [Pattern::Dense, Pattern::Unstructured, Pattern::Blocks { outputs: 1, inputs: 4 }]
    {
        assert!(!with(pattern), "{pattern}");
    }
    assert!(!algorithm.executes(WeightFormat::I8));
}
