//! Compiles kernels that no device of this machine may run, with clang instead of a driver's
//! compiler.

use std::process::Command;

use super::*;
use paretune_opencl::conv::Request;
use paretune_opencl::limits::Limits;

/// Compiles a convolution kernel with clang and returns the compiler's output, or `None` without
/// clang. `algorithm` and `tunables` select the kernel for a convolution of `[inputs, height,
/// width]` to `outputs` on a device with `limits`; `arguments` are for the compiler.
fn compiled(
    algorithm: &str,
    (dims, outputs, window, batch): ([usize; 3], usize, Window, usize),
    tunables: &[(&str, u64)],
    limits: &Limits,
    arguments: &[&str],
) -> Option<String> {
    let names = ["clang", "clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14"];
    let works = |name: &&&str| {
        Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success())
    };
    let Some(clang) = names.iter().find(works) else {
        eprintln!(
            "SKIPPED: there is no clang, which would compile kernels that no device here runs"
        );
        return None;
    };
    let algorithm = conv::algorithm(algorithm).unwrap();
    let [channels, height, width] = dims;
    let input = [height, width];
    let problem = ConvProblem {
        batch,
        in_channels: channels,
        out_channels: outputs,
        groups: 1,
        input,
        window,
    };
    let mut network = Network::new(1, &dims);
    let weights = network.weights([outputs, channels, window.kernel[0], window.kernel[1]], true);
    let mut schedule = Schedule::of(algorithm.name());
    for tunable in algorithm.tunables(&problem, limits) {
        schedule.tunables.insert(tunable.name.to_owned(), tunable.default);
    }
    schedule.tunables.extend(tunables.iter().map(|&(name, value)| typed(name, value)));
    let prepared = algorithm.prepare(&Request {
        problem,
        output: problem.output().unwrap(),
        weights: &network.plan.weights[weights],
        activation: Activation::HardSwish,
        residual: true,
        input_grid: None,
        schedule: &schedule,
        limits,
    });
    let prepared = prepared.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kernel.cl");
    std::fs::write(&file, prepared.launches()[0].text()).unwrap();
    let output = Command::new(clang)
        .args([
            "-x",
            "cl",
            "-cl-std=CL1.2",
            "-Xclang",
            "-finclude-default-header",
            "-Werror",
            // Suppress warnings about a newer CUDA on this machine, which is not used.
            "-Wno-unknown-cuda-version",
            "-Wno-pass-failed",
        ])
        .args(arguments)
        .args(["-o", "-"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{schedule:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn limits() -> Limits {
    Limits {
        work_group: 1024,
        work_items: [1024, 1024, 64],
        local_memory: 49152,
        largest_buffer: 1 << 30,
        compute_units: 132,
        cpu: false,
        compute_capability: 0,
        half_arithmetic: false,
        integer_dot_product: false,
    }
}

#[test]
fn products_in_half_precision_compile() {
    let limits = Limits { half_arithmetic: true, ..limits() };
    // Kernel and padding, outputs of a work-item, pixels at once, slices, local memory.
    for (kernel, thread_m, vector, split, local) in
        [(3, 4, 1, 1, 0), (3, 2, 2, 2, 1), (1, 4, 4, 2, 0), (1, 1, 2, 1, 0), (3, 8, 4, 1, 1)]
    {
        let layer = ([20, 8, 8], 24, window(kernel, 1, kernel / 2), 1);
        let tunables = [
            ("half", 1),
            ("thread_m", thread_m),
            ("vector", vector),
            ("split_k", split),
            ("local", local),
        ];
        let arguments = ["-Xclang", "-cl-ext=+cl_khr_fp16", "-target", "spir64", "-fsyntax-only"];
        if compiled("opencl_implicit_gemm_wfp16", layer, &tunables, &limits, &arguments).is_none() {
            return;
        }
    }
}

/// Compiles to PTX only; whether its instructions are right can only be checked by NVIDIA's
/// assembler.
#[test]
fn tensor_core_kernels_compile_to_ptx() {
    let limits = Limits { compute_capability: 80, ..limits() };
    let shapes = [([64, 32, 32], 64, window(3, 1, 1), 1), ([20, 7, 7], 40, window(3, 2, 1), 3)];
    for algorithm in
        ["opencl_tensor_core_tf32", "opencl_tensor_core_fp16", "opencl_tensor_core_fp32"]
    {
        for patch in [0, 1, 2] {
            let tunables = [
                ("patch", patch),
                ("warp_m", 2),
                ("warp_n", 2),
                ("warps_m", 2),
                ("ahead", patch % 2),
            ];
            let arguments =
                ["-Dasm=__asm__", "-target", "nvptx64-nvidia-cuda", "-nogpulib", "-S", "-O1"];
            let architecture =
                ["-Xclang", "-target-cpu", "-Xclang", "sm_80", "-Xclang", "-target-feature"];
            let arguments = [&arguments[..], &architecture, &["-Xclang", "+ptx70"]].concat();
            let shape = shapes[usize::from(patch == 1)];
            let Some(ptx) = compiled(algorithm, shape, &tunables, &limits, &arguments) else {
                return;
            };
            assert!(ptx.contains("mma.sync.aligned"));
            assert_eq!(ptx.contains("cp.async.ca.shared.global"), patch == 2);
        }
    }
}
