//! Shared helpers of the tests: fixtures, their inputs, and the comparison of outputs.

use std::path::PathBuf;

use paretune_kernels::hardware::Isa;
use paretune_kernels::{Executor, ExecutorOptions, Plan, reference};

/// Returns the folder of committed fixtures.
pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Returns the folder of networks outside of the repository; `None`, with a notice, if it is
/// missing.
pub fn shared_models() -> Option<PathBuf> {
    let folder = std::env::var_os("PARETUNE_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from)
        .join("models");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is not there", folder.display());
    None
}

/// Returns numbers in -2..2, equal to those of `pseudo` in tests/fixtures/make_ort_fixtures.py.
pub fn pseudo(len: usize) -> Vec<f32> {
    (0..len as u32)
        .map(|index| {
            let bits = index.wrapping_mul(2_654_435_761);
            let bits = (bits ^ (bits >> 15)).wrapping_mul(2_246_822_519);
            (f64::from(bits >> 8) / f64::from(1 << 22) - 2.0) as f32
        })
        .collect()
}

/// Computes a plan's output for `images` pseudo-random images in double precision.
pub fn run_reference(plan: &Plan, images: usize) -> Vec<f64> {
    let input: Vec<f64> =
        pseudo(plan.values[plan.input].len() * images).iter().map(|&x| x.into()).collect();
    reference::run_f64(plan, images, &input).unwrap().swap_remove(plan.output)
}

/// Computes a plan's output for `images` pseudo-random images in the runtime, in batches of
/// `batch`.
pub fn run_executor(plan: &Plan, images: usize, batch: usize) -> Vec<f64> {
    let options = ExecutorOptions { batch, threads: 1, isa: Isa::detect() };
    let mut executor = Executor::new(plan, &options).unwrap();
    let (inputs, outputs) =
        (plan.values[plan.input].len() * batch, plan.values[plan.output].len() * batch);
    let data = pseudo(plan.values[plan.input].len() * images);
    let mut all = Vec::new();
    for input in data.chunks_exact(inputs) {
        let mut output = vec![0.0; outputs];
        executor.run(input, &mut output).unwrap();
        all.extend(output.into_iter().map(f64::from));
    }
    all
}

/// Returns the largest difference, relative to the largest expected magnitude.
pub fn difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1e-6, |scale: f64, value| scale.max(value.abs()));
    found.iter().zip(expected).map(|(a, b)| (a - b).abs() / scale).fold(0.0, f64::max)
}
