//! Algorithms on integers against the reference, on every instruction set of this machine.

use paretune_base::plan::Quantization;
use paretune_base::plan::activation::Activation;
use paretune_base::plan::layout::Element;
use paretune_base::plan::weights::{
    Grid, IntegerWeights, Numbers, WeightFormat, WeightValues, Weights,
};
use paretune_cpu::conv::reference::conv_f64;
use paretune_cpu::conv::{Packing, Request, candidates};
use paretune_simd::Isa;
use proptest::prelude::*;

use super::cases::{Case, Random, cases, keep, patterns, random_schedule};
use super::memory::{Guarded, arrange, run};
use super::packed;

fn dequantize(byte: u8, grid: Quantization) -> f64 {
    (f64::from(byte) - f64::from(grid.zero_point)) * f64::from(grid.scale)
}

fn check_i8(case: &Case, format: WeightFormat) {
    let Numbers::Integer(numbers) = format.numbers else { panic!("{format:?} are no integers") };
    let (lowest, highest) = numbers.levels();
    let (lowest, highest) = (i32::from(lowest), i32::from(highest));
    let problem = &case.problem;
    let mut random = Random(case.seed);
    let [height, width] = problem.output().unwrap();
    let shape_in = [problem.batch, problem.in_channels, problem.input[0] * problem.input[1]];
    let shape_out = [problem.batch, problem.out_channels, height * width];
    let count_out: usize = shape_out.iter().product();
    let [kernel_height, kernel_width] = problem.window.kernel;
    let dims = [problem.out_channels, problem.group_in(), kernel_height, kernel_width];
    let count: usize = dims.iter().product();
    // With scales of one and no epilogue, results must be exact.
    let exact = random.below(2) == 0;
    // Extreme values reveal saturating instructions.
    let extreme = random.below(3) == 0;
    let input: Vec<u8> = (0..shape_in.iter().product())
        .map(|_| if extreme { [0, 255][random.below(2)] } else { random.next() as u8 })
        .collect();
    let mut values: Vec<i8> = (0..count)
        .map(|_| {
            let any = random.below((highest - lowest + 1) as usize) as i32 + lowest;
            (if extreme { [lowest, highest][random.below(2)] } else { any }) as i8
        })
        .collect();
    let kept = keep(&mut random, dims, format.pattern);
    for (value, kept) in values.iter_mut().zip(kept) {
        *value = if kept { *value } else { 0 };
    }
    let depth = (count / problem.out_channels) as f32;
    let scales: Vec<f32> = (0..problem.out_channels)
        .map(|_| {
            if exact {
                1.0
            } else {
                (1.5 + random.real()) / (127.0 * highest as f32 * depth.sqrt())
            }
        })
        .collect();
    let bias: Option<Vec<f32>> =
        (!exact && random.below(3) > 0).then(|| random.reals(problem.out_channels));
    let zero_point = [0, 128, 255, random.next() as u8][random.below(4)];
    let grid_in = Quantization { scale: if exact { 1.0 } else { 0.75 }, zero_point };
    let grid_out = Quantization { scale: 0.011, zero_point: [0, 130][random.below(2)] };
    let grid_residual = Quantization { scale: 0.007, zero_point: 100 };
    let activation = if exact { Activation::Identity } else { case.activation };
    let residual = if exact { 0 } else { case.residual };
    let narrow = !exact && case.narrow;
    let residual_bytes: Vec<u8> = (0..count_out).map(|_| random.next() as u8).collect();
    let residual_reals: Vec<f32> = random.reals(count_out);

    let centered: Vec<f64> = input.iter().map(|&x| f64::from(x) - f64::from(zero_point)).collect();
    let integers: Vec<f64> = values.iter().copied().map(f64::from).collect();
    let sums = conv_f64(problem, &centered, &integers, &vec![0.0; problem.out_channels]);
    let weights = Weights {
        dims,
        values: WeightValues::Integer(IntegerWeights {
            values: values.into(),
            scales: scales.clone().into(),
            grid: numbers,
        }),
        pattern: format.pattern,
        bias: bias.clone().map(Into::into),
    };

    for isa in Isa::available() {
        for algorithm in candidates(problem, format, isa) {
            let schedule = random_schedule(algorithm, problem, isa, &mut random);
            let [_, layout] = algorithm.layouts(&schedule, isa);
            let mut placed = Guarded::from_bytes(&arrange(&input, shape_in, layout), 1);
            let mut placed_residual = match residual {
                0 => None,
                1 => Some(Guarded::from_f32(&arrange(&residual_reals, shape_out, layout), 4)),
                _ => Some(Guarded::from_bytes(&arrange(&residual_bytes, shape_out, layout), 1)),
            };
            let mut request = Request {
                problem: *problem,
                weights: &weights,
                activation,
                input: Element::U8(grid_in),
                output: if narrow { Element::U8(grid_out) } else { Element::F32 },
                residual: match residual {
                    0 => None,
                    1 => Some(Element::F32),
                    _ => Some(Element::U8(grid_residual)),
                },
                schedule: &schedule,
                threads: case.threads,
                isa,
                packing: &Packing::fresh(),
            };
            let bytes = count_out * if narrow { 1 } else { 4 };
            let output = run(algorithm, &request, &mut placed, placed_residual.as_mut(), bytes);
            packed::check(
                algorithm,
                &request,
                &mut placed,
                placed_residual.as_mut(),
                &output,
                &mut random,
            );
            let wanted: Vec<f64> = (0..count_out)
                .map(|i| {
                    let channel = i / (height * width) % problem.out_channels;
                    let extra = match residual {
                        0 => 0.0,
                        1 => f64::from(residual_reals[i]),
                        _ => dequantize(residual_bytes[i], grid_residual),
                    };
                    let scale = f64::from(scales[channel]) * f64::from(grid_in.scale);
                    let offset = bias.as_ref().map_or(0.0, |bias| f64::from(bias[channel]));
                    sums[i] * scale + offset + extra
                })
                .collect();
            let label = format!("{} on {isa:?} with {:?}", algorithm.name(), schedule.tunables);
            for (i, want) in arrange(&wanted, shape_out, layout).into_iter().enumerate() {
                let finished = f64::from(activation.apply(want as f32));
                let slack = 1e-5 * (want.abs() + 1.0);
                if narrow {
                    let exact = finished / f64::from(grid_out.scale);
                    let (low, high) = (exact - slack / 0.011, exact + slack / 0.011);
                    let quantize = |x: f64| {
                        (x.round_ties_even() + f64::from(grid_out.zero_point)).clamp(0.0, 255.0)
                    };
                    let got = f64::from(output.contents()[i]);
                    assert!(
                        (quantize(low)..=quantize(high)).contains(&got),
                        "{label}: number {i} is {got} where {exact} should be quantized"
                    );
                } else {
                    let got = f64::from(output.f32s()[i]);
                    let slack = if exact { 0.0 } else { slack };
                    assert!(
                        (got - finished).abs() <= slack,
                        "{label}: number {i}: {got}, right: {finished}"
                    );
                }
            }
            if case.threads > 1 {
                request.threads = 1;
                let alone = run(algorithm, &request, &mut placed, placed_residual.as_mut(), bytes);
                assert!(alone.contents() == output.contents(), "{label}: threads change it");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn eight_bits_match_the_oracle(case in cases()) {
        check_i8(&case, WeightFormat::I8);
    }

    #[test]
    fn few_bits_and_sparse_integers_match_the_oracle(
        case in cases(),
        pattern in patterns(),
        grid in prop::sample::select(Grid::ALL.to_vec()),
    ) {
        check_i8(&case, WeightFormat { numbers: Numbers::Integer(grid), pattern });
    }
}
