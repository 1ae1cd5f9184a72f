//! Weights in half precision.

use std::process::Command;

use super::super::conv::Request;
use super::*;

/// The number of half precision (normal, or zero) that is nearest to `x`, or next to that.
fn rounded(x: f32) -> f32 {
    if x.abs() < 6.2e-5 { 0.0 } else { f32::from_bits((x.to_bits() + 0x1000) & 0xffff_e000) }
}

impl Network {
    /// Weights that half precision has.
    fn half_weights(&mut self, dims: [usize; 4]) -> usize {
        let index = self.weights(dims, true);
        if let WeightValues::F32(values) = &mut self.plan.weights[index].values {
            *values = values.iter().copied().map(rounded).collect();
        }
        index
    }
}

/// Random shapes, strides, paddings and groups under random schedules: where weights are what half precision has, nothing else
/// is rounded but as in single precision.
#[test]
fn weights_in_half_precision_match_the_reference() {
    if !present() {
        return;
    }
    let device = open("").unwrap();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed());
    for (round, name) in
        ["opencl_implicit_gemm_fp16", "opencl_direct_fp16"].into_iter().cycle().take(12).enumerate()
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
        // The last one is a dense layer.
        let (input, window) =
            if round > 9 { ([1, 1], Window::POINT) } else { ([pick(&[6, 8]), pick(&[7, 10])], window) };
        let batch = pick(&[1, 2]);
        let (inputs, outputs) = (groups * group_in, groups * group_out);
        let problem =
            ConvProblem { batch, in_channels: inputs, out_channels: outputs, groups, input, window };
        let mut network = Network::new(round as u64, &[inputs, input[0], input[1]]);
        let weights = network.half_weights([outputs, group_in, window.kernel[0], window.kernel[1]]);
        let activation = Activation::Relu;
        let request = Request {
            problem,
            output: problem.output().unwrap(),
            weights: &network.plan.weights[weights].clone(),
            activation,
            residual: false,
            input_grid: None,
            schedule: &Schedule::default(),
            limits: &device.limits,
        };
        let mut schedule = random_schedule(algorithm, &request, &mut rng);
        // What rounds more is looked at below.
        schedule.tunables.entry("half".to_owned()).and_modify(|half| *half = 0);
        if round < 2 {
            schedule = Schedule::of(name);
        }
        network.step(Operator::Conv(Conv { window, groups, weights, activation, schedule }), &[0], &[]);
        network.check(batch, false, EXACT);
    }
}

/// Weights that would become infinite are refused, not used.
#[test]
fn weights_too_large_for_half_precision_are_refused() {
    if !present() {
        return;
    }
    for name in ["opencl_implicit_gemm_fp16", "opencl_direct_fp16", "opencl_tensor_core_fp16"] {
        assert!(conv::algorithm(name).unwrap().largest_weight() < 65505.0);
        let mut network = Network::new(1, &[4, 5, 5]);
        let weights = network.weights([8, 4, 1, 1], true);
        if let WeightValues::F32(values) = &mut network.plan.weights[weights].values {
            *values = values.iter().enumerate().map(|(i, x)| if i == 9 { -7e4 } else { *x }).collect();
        }
        let (window, activation, schedule) = (Window::POINT, Activation::Identity, Schedule::of(name));
        network.step(Operator::Conv(Conv { window, groups: 1, weights, activation, schedule }), &[0], &[]);
        let options = ExecutorOptions { batch: 1, threads: 1, isa: Isa::Portable };
        let error = Executor::new(&network.plan, &options).map(drop).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("no weight of -70000"), "{error}");
    }
}

/// Sums in half precision, where the device offers them; run by whoever has such a device.
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
        let mut schedule = Schedule::of("opencl_implicit_gemm_fp16");
        let tunables = [("half", 1), ("local", local), ("tile_k", 8), ("split", 2)];
        schedule.tunables.extend(tunables.map(|(name, value)| (name.to_owned(), value)));
        let (window, activation) = (window(3, 1, 1), Activation::Relu);
        network.step(Operator::Conv(Conv { window, groups: 1, weights, activation, schedule }), &[0], &[]);
        network.check(1, false, REDUCED);
    }
}

/// What a compiler makes of the kernels that need arithmetic in half precision, which no device of many machines has.
#[test]
fn kernels_in_half_precision_compile() {
    if !present() {
        return;
    }
    let names = ["clang", "clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14"];
    let works =
        |name: &&&str| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success());
    let Some(clang) = names.iter().find(works) else {
        eprintln!("SKIPPED: there is no clang, which would compile kernels that no device here runs");
        return;
    };
    let mut limits = open("").unwrap().limits.clone();
    limits.half_arithmetic = true;
    let folder = tempfile::tempdir().unwrap();
    let algorithm = conv::algorithm("opencl_implicit_gemm_fp16").unwrap();
    // Kernel and padding, outputs of a work-item, pixels at once, slices, local memory.
    for (kernel, thread_m, vector, split, local) in
        [(3, 4, 1, 1, 0), (3, 2, 2, 2, 1), (1, 4, 4, 2, 0), (1, 1, 2, 1, 0), (3, 8, 4, 1, 1)]
    {
        let window = window(kernel, 1, kernel / 2);
        let problem =
            ConvProblem { batch: 1, in_channels: 20, out_channels: 24, groups: 1, input: [8, 8], window };
        let mut network = Network::new(1, &[20, 8, 8]);
        let weights = network.half_weights([24, 20, kernel, kernel]);
        let mut schedule = Schedule::of(algorithm.name());
        for tunable in algorithm.tunables(&problem, &limits) {
            schedule.tunables.insert(tunable.name.to_owned(), tunable.default);
        }
        let tunables =
            [("half", 1), ("thread_m", thread_m), ("vector", vector), ("split", split), ("local", local)];
        schedule.tunables.extend(tunables.map(|(name, value)| (name.to_owned(), value)));
        let prepared = algorithm.prepare(&Request {
            problem,
            output: problem.output().unwrap(),
            weights: &network.plan.weights[weights],
            activation: Activation::HardSwish,
            residual: split > 1,
            input_grid: None,
            schedule: &schedule,
            limits: &limits,
        });
        let launch = &prepared.unwrap().launches[0];
        let file = folder.path().join("kernel.cl");
        std::fs::write(&file, launch.macros.complete(launch.source)).unwrap();
        let output = Command::new(clang)
            .args(["-x", "cl", "-cl-std=CL1.2", "-Xclang", "-cl-ext=+cl_khr_fp16"])
            .args(["-Xclang", "-finclude-default-header", "-target", "spir64", "-fsyntax-only", "-Werror"])
            .arg("-Wno-pass-failed")
            .arg(&file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
