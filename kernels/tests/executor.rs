//! Compares the executor with the double-precision interpreter on random networks, for every
//! instruction set of this machine.

mod common;

use common::{Options, numbers, plan};
use paretune_kernels::hardware::Isa;
use paretune_kernels::operator::Operator;
use paretune_kernels::reference::{run_f64, step_f64};
use paretune_kernels::{Executor, ExecutorOptions, Plan, WeightValues};
use proptest::prelude::*;

fn executor(plan: &Plan, batch: usize, threads: usize, isa: Isa) -> Executor {
    Executor::new(plan, &ExecutorOptions { batch, threads, isa })
        .unwrap_or_else(|e| panic!("{e}\n{plan:#?}"))
}

/// Returns every value that the executor computes, indexed by value.
fn observed(executor: &mut Executor, plan: &Plan, input: &[f32]) -> Vec<Vec<f32>> {
    let mut values = vec![Vec::new(); plan.values.len()];
    let mut first = None;
    executor
        .observe(input, &mut |value, numbers| {
            first.get_or_insert(value);
            assert!(values[value].is_empty(), "value {value} is shown twice");
            values[value] = numbers.to_vec();
        })
        .unwrap();
    assert_eq!(first, Some(plan.input));
    values
}

fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        let dims: Vec<_> = step.inputs.iter().map(|&id| &plan.values[id].dims).collect();
        let out = &plan.values[step.output].dims;
        text += &format!(
            "{}: {:?} {:?}{dims:?} -> {}{out:?}\n",
            step.name, step.operator, step.inputs, step.output
        );
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_networks_match_the_reference(
        seed in any::<u64>(),
        batch in 1_usize..4,
        threads in 1_usize..4,
        isa in prop::sample::select(Isa::available()),
    ) {
        let plan = plan(seed, Options { batch, isa, integer: false });
        let input = numbers(seed, plan.values[plan.input].len() * batch);
        let exact = run_f64(&plan, batch, &input.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()).unwrap();
        let mut executor = executor(&plan, batch, threads, isa);
        let values = observed(&mut executor, &plan, &input);
        for (id, (exact, value)) in exact.iter().zip(&values).enumerate() {
            prop_assert_eq!(exact.len(), value.len(), "value {}", id);
            let largest = exact.iter().fold(1.0_f64, |a, b| a.max(b.abs()));
            for (i, (e, v)) in exact.iter().zip(value).enumerate() {
                let error = (e - f64::from(*v)).abs();
                prop_assert!(
                    error <= 2e-4 * largest,
                    "value {id}[{i}]: {v}, expected {e}\n{}",
                    describe(&plan)
                );
            }
        }
        // A whole run gives exactly these results, twice, because memory is reused.
        let mut output = vec![f32::NAN; plan.values[plan.output].len() * batch];
        for _ in 0..2 {
            executor.run(&input, &mut output).unwrap();
            prop_assert_eq!(&output, &values[plan.output]);
        }
        let seconds = executor.profile(&input, &mut output).unwrap();
        prop_assert_eq!(seconds.len(), executor.steps().len());
        prop_assert_eq!(&output, &values[plan.output]);
    }

    /// Compares each step on its own, with the inputs that the executor itself has observed, so
    /// that rounding to 8 bits does not accumulate.
    #[test]
    fn random_integer_networks_match_step_by_step(
        seed in any::<u64>(),
        batch in 1_usize..3,
        threads in 1_usize..3,
        isa in prop::sample::select(Isa::available()),
    ) {
        let plan = plan(seed, Options { batch, isa, integer: true });
        let input = numbers(seed, plan.values[plan.input].len() * batch);
        let mut executor = executor(&plan, batch, threads, isa);
        let values = observed(&mut executor, &plan, &input);
        for step in &plan.steps {
            let integer = match &step.operator {
                Operator::Conv(conv) => matches!(plan.weights[conv.weights].values, WeightValues::Integer(_)),
                _ => false,
            };
            // A residual may be read from the same 8-bit buffer as the input, or in single
            // precision.
            let mut close = false;
            let mut last = Vec::new();
            for residual_on_grid in [false, true] {
                let inputs: Vec<Vec<f64>> = step.inputs.iter().enumerate().map(|(place, &id)| {
                    let on_grid = integer && (place == 0 || residual_on_grid);
                    let grid = plan.values[id].quantization.filter(|_| on_grid);
                    values[id].iter().map(|&x| match grid {
                        Some(grid) => {
                            // Ties are rounded to even on the grid, so the zero point is added
                            // first: a uniform softmax over eight values is a tie.
                            let zero = f32::from(grid.zero_point);
                            let q = (x * grid.scale.recip() + zero).round_ties_even();
                            f64::from(q.clamp(0.0, 255.0) - zero) * f64::from(grid.scale)
                        }
                        None => f64::from(x),
                    }).collect()
                }).collect();
                let inputs: Vec<&[f64]> = inputs.iter().map(|input| &input[..]).collect();
                let exact = step_f64(&plan, step, batch, &inputs);
                let largest = exact.iter().fold(1.0_f64, |a, b| a.max(b.abs()));
                let near = |close: &dyn Fn(f64, f64) -> bool| {
                    exact.iter().zip(&values[step.output]).all(|(&e, &v)| close(e, f64::from(v)))
                };
                // Pooling and reshaping keep the grid of their input, and so may their readers.
                let mut grids = plan.values.iter().filter_map(|value| value.quantization);
                close |= near(&|e, v| (e - v).abs() <= 2e-4 * largest)
                    || grids.any(|grid| {
                        let (scale, zero) = (f64::from(grid.scale), f64::from(grid.zero_point));
                        near(&|e, v| {
                            let saturated = e.clamp(-zero * scale, (255.0 - zero) * scale);
                            (saturated - v).abs() <= 0.51 * scale + 2e-4 * largest
                        })
                    });
                last = exact;
            }
            // In single precision, or rounded to the grid.
            prop_assert!(close, "{}\n{:?}\n{last:?}\n{:?}", describe(&plan), step, values[step.output]);
        }
        let mut output = vec![f32::NAN; plan.values[plan.output].len() * batch];
        executor.run(&input, &mut output).unwrap();
        prop_assert_eq!(&output, &values[plan.output]);
    }
}
