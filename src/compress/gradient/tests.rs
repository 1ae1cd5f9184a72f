//! Checks derivatives against differences of the double-precision interpreter, and the guarantees
//! of training.

use std::time::Duration;

use paretune_kernels::operator::{Operator, Window};
use paretune_kernels::reference::{real_weights, run_f64};
use paretune_kernels::weights::Grid;
use paretune_kernels::{Activation, Plan, WeightValues};

use super::parameters::Parameters;
use super::tape::Tape;
use super::teacher::Teacher;
use super::*;
use crate::error::CompressError;
use crate::mask::ChannelMask;
use crate::tests::networks::{self, Builder};

/// Builds a network of all differentiable operators that the other networks do not have.
fn odds_and_ends() -> Plan {
    let mut b = Builder::new(7, &[3, 9, 7]);
    let leaky = Activation::LeakyRelu { slope: 0.1 };
    let a = b.conv("a", 0, (6, 3, 2, 1), leaky, None);
    let d = b.conv("d", a, (6, 3, 2, 6), Activation::Sigmoid, None);
    let pad = Operator::Pad { padding: vec![[0, 0], [1, 0], [0, 2]], value: 0.5 };
    let dims = b.dims(d);
    let padded = b.step("pad", pad, &[d], &[6, dims[1] + 1, dims[2] + 2]);
    let window = Window { kernel: [2, 3], stride: [1, 2], dilation: [1; 2], padding: [1, 1, 0, 1] };
    let average = Operator::AveragePool { window, ceil: false, include_padding: false };
    let [h, w] = window.output([dims[1] + 1, dims[2] + 2], false).unwrap();
    let pooled = b.step("average", average, &[padded], &[6, h, w]);
    let turned =
        b.step("turn", Operator::Transpose { permutation: vec![0, 2, 1] }, &[pooled], &[6, w, h]);
    let clip = Activation::Clip { low: -1.0, high: 1.5 };
    let g = b.conv("g", turned, (8, 1, 1, 2), clip, None);
    let mean = b.step("mean", Operator::ReduceMean { axes: vec![1] }, &[g], &[8, 1, h]);
    let joined = b.step("join", Operator::Concat { axis: 1 }, &[g, mean], &[8, w + 1, h]);
    let normal = b.step("soft", Operator::Softmax { axis: 0 }, &[joined], &[8, w + 1, h]);
    b.head(normal)
}

#[test]
fn slopes_are_those_of_small_differences() {
    let mut all = networks::all();
    all.push(("odds and ends", odds_and_ends()));
    for (name, plan) in all {
        let images = networks::images(&plan, 3).concat();
        let parameters = Parameters::of(&plan);
        let tape = Tape::forward(&plan, &parameters, &images, false);
        let exact = |plan: &Plan, images: &[f32]| {
            let images: Vec<f64> = images.iter().map(|&x| f64::from(x)).collect();
            run_f64(plan, 3, &images).unwrap().swap_remove(plan.output)
        };
        let output = exact(&plan, &images);
        for (a, b) in tape.output().iter().zip(&output) {
            assert!((f64::from(*a) - b).abs() < 1e-4 * b.abs().max(1.0), "{name}: {a} {b}");
        }
        // The error is a weighted sum of the outputs.
        let weights: Vec<f32> = (0..output.len()).map(|at| (at as f32 * 0.7).sin()).collect();
        let error = |plan: &Plan| -> f64 {
            exact(plan, &images)
                .iter()
                .zip(&weights)
                .map(|(x, weight)| x * f64::from(*weight))
                .sum()
        };
        let mut gradients = parameters.zeros();
        tape.backward(&parameters, &weights, [], Some(&mut gradients), &mut |_| {});
        let mut compared = 0;
        for step in &plan.steps {
            let Operator::Conv(conv) = &step.operator else { continue };
            let count = parameters.weights[conv.weights].len();
            for at in [0, count / 3, 2 * count / 3, count - 1] {
                let moved = |by: f32| {
                    let mut plan = plan.clone();
                    let WeightValues::F32(values) = &mut plan.weights[conv.weights].values else {
                        panic!()
                    };
                    *values = values
                        .iter()
                        .enumerate()
                        .map(|(i, &x)| if i == at { x + by } else { x })
                        .collect();
                    plan
                };
                // Single precision rounds, so the difference of the weights as stored is used.
                let (up, down) = (moved(2e-3), moved(-2e-3));
                let weight = |plan: &Plan| {
                    let WeightValues::F32(values) = &plan.weights[conv.weights].values else {
                        panic!()
                    };
                    f64::from(values[at])
                };
                let difference = (error(&up) - error(&down)) / (weight(&up) - weight(&down));
                let gradient = f64::from(gradients.weights[conv.weights][at]);
                let close = (gradient - difference).abs() < 0.02 * difference.abs().max(0.05);
                // A kink between the two points spoils a difference now and then, but a wrong
                // gradient spoils all of them.
                compared += usize::from(close);
                if !close {
                    compared = compared.saturating_sub(3);
                }
            }
        }
        let convolutions =
            plan.steps.iter().filter(|step| matches!(step.operator, Operator::Conv(_))).count();
        assert!(compared + 8 >= 4 * convolutions, "{name}: {compared} of {}", 4 * convolutions);
    }
}

#[test]
fn a_dense_layer_has_the_slopes_of_the_textbook() {
    // y = relu(W x + b), error = y0 - 2 y1 + 3 y2; by hand.
    let mut b = Builder::new(1, &[2]);
    b.conv("only", 0, (3, 1, 1, 1), Activation::Relu, None);
    let mut plan = b.plan;
    plan.weights[0].values = WeightValues::F32(vec![1.0, 2.0, -1.0, 1.0, 0.5, -3.0].into());
    plan.weights[0].bias = Some(vec![0.5, 0.0, 1.0].into());
    let parameters = Parameters::of(&plan);
    let tape = Tape::forward(&plan, &parameters, &[1.0, 2.0, -1.0, 1.0], false);
    assert_eq!(tape.output(), [5.5, 1.0, 0.0, 1.5, 2.0, 0.0]);
    let mut gradients = parameters.zeros();
    tape.backward(
        &parameters,
        &[1.0, -2.0, 3.0, 1.0, -2.0, 3.0],
        [],
        Some(&mut gradients),
        &mut |_| {},
    );
    assert_eq!(gradients.weights[0], [0.0, 3.0, 0.0, -6.0, 0.0, 0.0]);
    assert_eq!(gradients.biases[0], [2.0, -4.0, 0.0]);
}

/// Training keeps the formats of the student, and its predictions get no further from the
/// teacher's.
#[test]
fn training_keeps_zeros_and_grids() {
    let plan = networks::residual();
    let images = networks::images(&plan, 32);
    let calibration = crate::tests::reference::calibrate(&plan, &images[..8]);
    let mut recipe = crate::Recipe::default();
    recipe.channels.insert("one".into(), 0.5);
    let layer = |text: &str| serde_json::from_str(text).unwrap();
    recipe.layers.insert("three".into(), layer(r#"{"sparsity": 0.6}"#));
    let mut student = crate::apply(&plan, &calibration, &recipe).unwrap();
    // A grid of four levels in the last layer.
    let last = student.weights.len() - 1;
    let WeightValues::F32(values) = &student.weights[last].values else {
        panic!("not in single precision")
    };
    let values = values.iter().map(|x| (x / 0.3).round().clamp(-2.0, 1.0) as i8).collect();
    let integer = paretune_kernels::weights::IntegerWeights {
        values,
        scales: vec![0.3; 5].into(),
        grid: Grid::Bits2,
    };
    student.weights[last].values = WeightValues::Integer(integer);
    let zeros = |plan: &Plan| -> Vec<bool> {
        plan.weights
            .iter()
            .filter(|weights| weights.pattern != paretune_kernels::weights::Pattern::Dense)
            .flat_map(real_weights)
            .map(|x| x == 0.0)
            .collect()
    };
    let (learn, validation) = (images[8..].concat(), images[..8].concat());
    let options =
        Distillation { duration: Duration::from_millis(400), batch: 8, ..Distillation::default() };
    let keep = crate::channel_mask(&plan, &calibration, &recipe).unwrap();
    let none = distill(
        &plan,
        &student,
        &ChannelMask::full(&plan),
        &learn,
        &validation,
        &options,
        &mut |_| true,
    );
    assert!(matches!(none, Err(CompressError::Calibration(_))), "channels have gone");
    let tuned =
        distill(&plan, &student, &keep, &learn, &validation, &options, &mut |_| true).unwrap();
    assert!(zeros(&student).iter().filter(|zero| **zero).count() > 100);
    assert!(zeros(&student).iter().zip(&zeros(&tuned)).all(|(before, after)| !before || *after));
    let (before, after) = (&student.weights[last].values, &tuned.weights[last].values);
    let (WeightValues::Integer(before), WeightValues::Integer(after)) = (before, after) else {
        panic!("no grid")
    };
    assert!(before.scales == after.scales && before.grid == after.grid);
    assert!(after.values.iter().all(|value| (-2..=1).contains(value)));
    let distance = |student: &Plan| -> f64 {
        let predictions =
            |plan: &Plan| Tape::forward(plan, &Parameters::of(plan), &validation, true).output();
        let (wanted, found) = (predictions(&plan), predictions(student));
        let soft = |output: &[f32]| super::pointwise::softened(output, 1.0);
        let pairs = wanted.chunks(5).zip(found.chunks(5)).map(|(p, q)| (soft(p), soft(q)));
        pairs
            .flat_map(|(p, q)| p.into_iter().zip(q))
            .map(|(p, q)| f64::from(p * (p / q).ln()))
            .sum()
    };
    assert!(distance(&tuned) <= distance(&student) + 1e-6);
}

#[test]
fn a_teacher_in_parts_computes_what_the_whole_network_does() {
    for (name, plan) in networks::all() {
        let images = networks::images(&plan, 3).concat();
        let mut keep = ChannelMask::full(&plan);
        let parameters = Parameters::of(&plan);
        let tape = Tape::forward(&plan, &parameters, &images, false);
        let mut teacher = Teacher::new(&plan, 3).unwrap();
        teacher.run(&images).unwrap();
        let close = |got: &[f32], wanted: &[f32]| {
            let (got, wanted) = (got.iter(), wanted.iter());
            got.len() == wanted.len()
                && got.zip(wanted).all(|(a, b)| (a - b).abs() < 1e-4 * b.abs().max(1.0))
        };
        assert!(close(teacher.predictions(), &tape.output()), "{name}");
        let inside: Vec<_> = teacher.features(&keep).collect();
        assert_eq!(inside.len(), teacher.feature_count(), "{name}");
        assert!(
            inside.iter().all(|(value, computed)| close(computed, tape.value(*value))),
            "{name}"
        );
        // Without its first channel, the rest stays in place.
        let &(value, ref whole) = inside.last().unwrap();
        keep.remove(&[(value, 0)]);
        let (_, left) = teacher.features(&keep).last().unwrap();
        assert_eq!(left, whole[whole.len() / plan.values[value].dims[0]..], "{name}");
    }
}

#[test]
fn slopes_inside_go_back_as_if_the_network_ended_there() {
    let plan = networks::all().swap_remove(0).1;
    let images = networks::images(&plan, 2).concat();
    let parameters = Parameters::of(&plan);
    let tape = Tape::forward(&plan, &parameters, &images, false);
    let (teacher, keep) = (Teacher::new(&plan, 2).unwrap(), ChannelMask::full(&plan));
    let (value, _) = teacher.features(&keep).last().unwrap();
    let gradient: Vec<f32> =
        (0..tape.value(value).len()).map(|at| (at as f32 * 0.3).sin()).collect();
    let mut inner = parameters.zeros();
    let nothing = vec![0.0; tape.output().len()];
    tape.backward(
        &parameters,
        &nothing,
        [(value, gradient.clone())],
        Some(&mut inner),
        &mut |_| {},
    );
    let mut short = plan.clone();
    let last = plan.steps.iter().position(|step| step.output == value).unwrap();
    short.steps.truncate(last + 1);
    short.output = value;
    let mut outer = parameters.zeros();
    let output = movement::separate(&plan.values[value].dims, 2, &gradient);
    Tape::forward(&short, &parameters, &images, false).backward(
        &parameters,
        &output,
        [],
        Some(&mut outer),
        &mut |_| {},
    );
    assert!(outer.weights.iter().flatten().any(|&gradient| gradient != 0.0));
    assert_eq!((inner.weights, inner.biases), (outer.weights, outer.biases));
}
