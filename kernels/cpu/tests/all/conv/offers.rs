//! Algorithms prepare everything that they offer, and refuse everything else.

use std::collections::BTreeMap;

use paretune_base::plan::Quantization;
use paretune_base::plan::activation::Activation;
use paretune_base::plan::layout::Element;
use paretune_base::plan::operator::{ConvProblem, Window};
use paretune_base::plan::schedule::{Schedule, Tunable, TunableValue};
use paretune_base::plan::weights::WeightFormat;
use paretune_cpu::conv::{Packing, Request, algorithms, candidates};
use paretune_simd::Isa;

use super::cases::{FORMATS, zero_weights};

/// Returns every combination of the tunables' values.
fn combinations(tunables: &[Tunable]) -> Vec<BTreeMap<String, TunableValue>> {
    tunables.iter().fold(vec![BTreeMap::new()], |all, tunable| {
        all.iter()
            .flat_map(|one| {
                tunable.values_beside(one).into_iter().map(|value| {
                    let mut one = one.clone();
                    one.insert(tunable.name.to_string(), value);
                    one
                })
            })
            .collect()
    })
}

#[test]
fn every_offered_combination_can_be_prepared() {
    let same = |k: usize, stride: usize| Window {
        kernel: [k, k],
        stride: [stride, stride],
        dilation: [1, 1],
        padding: [k / 2; 4],
    };
    let problem = |channels: [usize; 2], groups, input, window| ConvProblem {
        batch: 1,
        in_channels: channels[0],
        out_channels: channels[1],
        groups,
        input,
        window,
    };
    let problems = [
        problem([3, 16], 1, [8, 8], same(3, 1)),
        problem([20, 37], 1, [4, 4], same(3, 1)),
        problem([24, 24], 24, [6, 6], same(3, 2)),
        problem([64, 10], 1, [1, 1], Window::POINT),
        problem([8, 12], 4, [5, 5], same(5, 1)),
    ];
    for problem in problems {
        for format in FORMATS {
            for isa in Isa::available() {
                let candidates = candidates(&problem, format, isa);
                assert!(
                    !candidates.is_empty(),
                    "nobody solves {problem:?} in {format:?} on {isa:?}"
                );
                for algorithm in candidates {
                    for tunables in combinations(&algorithm.tunables(&problem, isa)) {
                        let weights = zero_weights(&problem, format);
                        let schedule = Schedule { algorithm: algorithm.name().into(), tunables };
                        let grid = Quantization { scale: 1.0, zero_point: 0 };
                        let request = Request {
                            problem,
                            weights: &weights,
                            activation: Activation::Relu,
                            input: if algorithm.is_integer() {
                                Element::U8(grid)
                            } else {
                                Element::F32
                            },
                            output: Element::F32,
                            residual: None,
                            schedule: &schedule,
                            threads: 2,
                            isa,
                            packing: &Packing::fresh(),
                        };
                        if let Err(error) = algorithm.prepare(&request) {
                            panic!("{schedule:?} for {problem:?} on {isa:?}: {error}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn nonsense_is_refused() {
    let window = Window { kernel: [3, 3], ..Window::POINT };
    let good =
        ConvProblem { batch: 1, in_channels: 4, out_channels: 4, groups: 1, input: [5, 5], window };
    let bad = [
        ConvProblem { groups: 3, ..good },
        ConvProblem { groups: 0, ..good },
        ConvProblem { batch: 0, ..good },
        ConvProblem { input: [2, 5], ..good },
        ConvProblem { batch: usize::MAX / 2, ..good },
        ConvProblem { window: Window { stride: [0, 1], ..window }, ..good },
    ];
    for problem in bad {
        for algorithm in algorithms() {
            assert!(
                !algorithm.supports(&problem, Isa::Portable),
                "{} on {problem:?}",
                algorithm.name()
            );
        }
    }
    // Weights of another shape, an instruction set of another machine, a missing tunable.
    let schedule = Schedule::of("implicit_gemm");
    let weights = zero_weights(&ConvProblem { out_channels: 8, ..good }, WeightFormat::F32);
    let right = zero_weights(&good, WeightFormat::F32);
    let foreign = Isa::ALL.into_iter().find(|isa| !isa.is_available()).unwrap();
    for (weights, isa) in [(&weights, Isa::Portable), (&right, foreign), (&right, Isa::Portable)] {
        let request = Request {
            problem: good,
            weights,
            activation: Activation::Identity,
            input: Element::F32,
            output: Element::F32,
            residual: None,
            schedule: &schedule,
            threads: 1,
            isa,
            packing: &Packing::fresh(),
        };
        for algorithm in algorithms() {
            if !algorithm.tunables(&good, isa).is_empty() {
                assert!(algorithm.prepare(&request).is_err(), "{}", algorithm.name());
            }
        }
    }
}
