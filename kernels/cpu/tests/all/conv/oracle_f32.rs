//! Algorithms on single and half precision against the double-precision reference, on every
//! instruction set of this machine.

use paretune_base::plan::layout::Element;
use paretune_base::plan::weights::{Numbers, WeightFormat, WeightValues, Weights};
use paretune_cpu::conv::reference::conv_f64;
use paretune_cpu::conv::{Algorithm, Packing, Request, baselines, candidates};
use paretune_simd::Isa;
use proptest::prelude::*;

use super::cases::{Case, Random, cases, keep, patterns, random_schedule};
use super::memory::{Guarded, arrange, run};
use super::packed;

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
}
