//! Tests of weights in half precision.

use super::*;
use paretune_base::plan::weights::Numbers;

impl Network {
    /// Adds weights that half precision represents exactly.
    fn half_weights(&mut self, dims: [usize; 4]) -> usize {
        let index = self.weights(dims, true);
        if let WeightValues::F32(values) = &mut self.plan.weights[index].values {
            *values = values.iter().map(|&x| Numbers::Fp16.nearest(x)).collect();
        }
        index
    }
}

/// Tests random shapes, strides, paddings and groups under random schedules. As the weights are
/// exact in half precision, rounding is that of single precision.
#[test]
fn weights_in_half_precision_match_the_reference() {
    if !present() {
        return;
    }
    let device = open("").unwrap();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed());
    for (round, name) in ["opencl_implicit_gemm_wfp16", "opencl_direct_wfp16"]
        .into_iter()
        .cycle()
        .take(12)
        .enumerate()
    {
        let algorithm = conv::algorithm(name).unwrap();
        let mut pick = |choices: &[usize]| choices[rng.random_range(0..choices.len())];
        let groups = pick(&[1, 1, 1, 2]);
        let (group_in, group_out) = (pick(&[1, 3, 8, 17]), pick(&[4, 7, 16, 33]));
        let window = Window {
            kernel: [pick(&[1, 2, 3]), pick(&[1, 3])],
            stride: [pick(&[1, 2]), pick(&[1, 2, 3])],
            dilation: [pick(&[1, 1, 2]), 1],
            padding: [pick(&[0, 1]), pick(&[0, 2]), pick(&[0, 1]), pick(&[0, 1])],
        };
        // The last round is a dense layer.
        let (input, window) = if round > 9 {
            ([1, 1], Window::POINT)
        } else {
            ([pick(&[6, 8]), pick(&[7, 10])], window)
        };
        let batch = pick(&[1, 2]);
        let (inputs, outputs) = (groups * group_in, groups * group_out);
        let problem = ConvProblem {
            batch,
            in_channels: inputs,
            out_channels: outputs,
            groups,
            input,
            window,
        };
        let mut network = Network::new(round as u64, &[inputs, input[0], input[1]]);
        let weights = network.half_weights([outputs, group_in, window.kernel[0], window.kernel[1]]);
        let activation = Activation::Relu;
        let stored = network.plan.weights[weights].clone();
        let request = request(problem, &stored, activation, &device.limits);
        let mut schedule = random_schedule(algorithm, &request, &mut rng);
        // Half-precision sums have their own test below.
        schedule
            .tunables
            .entry("half".to_owned())
            .and_modify(|half| *half = TunableValue::Switch(false));
        if round < 2 {
            schedule = Schedule::of(name);
        }
        network.step(
            Operator::Conv(Conv { window, groups, weights, activation, schedule }),
            &[0],
            &[],
        );
        network.check(batch, false, EXACT);
    }
}

/// Weights that would become infinite are refused.
#[test]
fn weights_too_large_for_half_precision_are_refused() {
    if !present() {
        return;
    }
    for name in ["opencl_implicit_gemm_wfp16", "opencl_direct_wfp16", "opencl_tensor_core_fp16"] {
        assert!(conv::algorithm(name).unwrap().largest_weight() < 65505.0);
        let mut network = Network::new(1, &[4, 5, 5]);
        let weights = network.weights([8, 4, 1, 1], true);
        if let WeightValues::F32(values) = &mut network.plan.weights[weights].values {
            *values =
                values.iter().enumerate().map(|(i, x)| if i == 9 { -7e4 } else { *x }).collect();
        }
        let (window, activation, schedule) =
            (Window::POINT, Activation::Identity, Schedule::of(name));
        network.step(
            Operator::Conv(Conv { window, groups: 1, weights, activation, schedule }),
            &[0],
            &[],
        );
        let options = ExecutorOptions { batch: 1, threads: 1, isa: Isa::Portable };
        let error = Executor::new(&network.plan, &options).map(drop).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("no weight of -70000"), "{error}");
    }
}

/// Tests sums in half precision, on devices that support them.
#[test]
fn sums_in_half_precision_match_the_reference() {
    if !present() {
        return;
    }
    let device = open("").unwrap();
    if !device.limits.half_arithmetic {
        eprintln!("SKIPPED: `{}` has no arithmetic in half precision (cl_khr_fp16)", device.name);
        return;
    }
    for local in [0, 1] {
        let mut network = Network::new(9, &[24, 9, 7]);
        let weights = network.half_weights([10, 24, 3, 3]);
        let mut schedule = Schedule::of("opencl_implicit_gemm_wfp16");
        let tunables = [("half", 1), ("local", local), ("tile_k", 8), ("split_k", 2)];
        schedule.tunables.extend(tunables.map(|(name, value)| typed(name, value)));
        let (window, activation) = (window(3, 1, 1), Activation::Relu);
        network.step(
            Operator::Conv(Conv { window, groups: 1, weights, activation, schedule }),
            &[0],
            &[],
        );
        network.check(1, false, REDUCED);
    }
}
