//! Properties of every compression, on small networks against a slow interpreter.

mod database;
pub(super) mod networks;
pub(super) mod reference;

use std::collections::BTreeMap;

use paretune_kernels::executor::validate;
use paretune_kernels::operator::Operator;
use paretune_kernels::weights::{FP16_MAX, Grid, Numbers, Pattern};
use paretune_kernels::{Plan, WeightValues};
use proptest::prelude::*;

use super::channels::{choose, remove};
use super::*;

const INT8: Numbers = Numbers::Integer(Grid::Bits8);

fn close(left: &[f64], right: &[f64], tolerance: f64) {
    assert_eq!(left.len(), right.len());
    let size = left.iter().fold(1.0f64, |size, x| size.max(x.abs()));
    for (a, b) in left.iter().zip(right) {
        assert!((a - b).abs() <= tolerance * size, "{left:?} is not close to {right:?}");
    }
}

fn weights<'a>(plan: &'a Plan, step: &str) -> &'a paretune_kernels::Weights {
    let step = plan.steps.iter().find(|found| found.name == step).unwrap();
    let Operator::Conv(conv) = &step.operator else { panic!("no convolution") };
    &plan.weights[conv.weights]
}

fn recipe(channels: &[(&str, f64)], layers: &[(&str, f64, u8)]) -> Recipe {
    Recipe {
        channels: channels.iter().map(|&(name, fraction)| (name.to_owned(), fraction)).collect(),
        layers: layers
            .iter()
            .map(|&(name, sparsity, bits)| {
                let numbers = Numbers::of_bits(bits.into()).unwrap();
                (name.to_owned(), LayerRecipe { sparsity, numbers, ..LayerRecipe::default() })
            })
            .collect(),
        recalibrate: false,
        ..Recipe::default()
    }
}

fn all_the_same(step: &str, pattern: Pattern, sparsity: f64) -> Recipe {
    let layer = LayerRecipe { sparsity, pattern, ..LayerRecipe::default() };
    Recipe { layers: [(step.to_owned(), layer)].into(), ..Recipe::default() }
}

/// Returns the network with the removed channels' producers and constants set to zero instead.
fn zeroed(plan: &Plan, keep: &mask::ChannelMask) -> Plan {
    let mut plan = plan.clone();
    let rows = |tensor: &mut std::sync::Arc<[f32]>, keep: &[bool]| {
        let row = tensor.len() / keep.len();
        *tensor = tensor
            .iter()
            .enumerate()
            .map(|(at, &x)| if keep[at / row] { x } else { 0.0 })
            .collect();
    };
    for step in plan.steps.clone() {
        let keep = keep.of(step.output);
        match step.operator {
            Operator::Conv(conv) => {
                let weights = &mut plan.weights[conv.weights];
                let WeightValues::F32(values) = &mut weights.values else {
                    panic!("not in single precision")
                };
                rows(values, keep);
                weights.bias.iter_mut().for_each(|bias| rows(bias, keep));
            }
            Operator::ScaleShift { scale, shift, .. } => {
                rows(&mut plan.constants[scale], keep);
                rows(&mut plan.constants[shift], keep);
            }
            Operator::Constant { constant } => rows(&mut plan.constants[constant], keep),
            _ => {}
        }
    }
    plan
}

#[test]
fn weights_beyond_half_precision_are_refused() {
    let mut plan = networks::residual();
    let step = plan.steps.iter().find(|step| step.name == "three").unwrap();
    let Operator::Conv(conv) = &step.operator else { panic!("no convolution") };
    let values = plan.weights[conv.weights].values.reals_mut().unwrap();
    let mut large = values.to_vec();
    large[0] = -1e6;
    *values = large.into();
    let known = layers(&plan).unwrap();
    assert!(
        known.iter().all(|layer| (layer.largest_weight <= FP16_MAX) == (layer.step != "three"))
    );
    let calibration = reference::calibrate(&plan, &networks::images(&plan, 2));
    let halves = LayerRecipe { numbers: Numbers::Fp16, ..LayerRecipe::default() };
    let of =
        |step: &str| Recipe { layers: [(step.to_owned(), halves)].into(), ..Recipe::default() };
    let error = apply(&plan, &calibration, &of("three")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "step `three`: a weight of -1000000 is beyond the greatest number of fp16"
    );
    let small = apply(&plan, &calibration, &of("two")).unwrap();
    assert_eq!(weights(&small, "two").format().numbers, Numbers::Fp16);
}

#[test]
fn groups_follow_the_flow_of_channels() {
    let found = |plan: &Plan| -> BTreeMap<String, ChannelGroup> {
        channel_groups(plan).unwrap().into_iter().map(|group| (group.name.clone(), group)).collect()
    };
    let groups = found(&networks::residual());
    assert_eq!(groups["stem"].producers, ["stem", "two"]);
    assert_eq!(groups["stem"].consumers, ["one", "shortcut", "three"]);
    assert_eq!(groups["one"].width, 12);
    assert_eq!(groups["shortcut"].producers, ["shortcut", "four"]);
    assert_eq!(groups["shortcut"].consumers, ["head"]);
    assert!(!groups["head"].prunable());

    let groups = found(&networks::gated());
    assert_eq!(groups["expand"].producers, ["expand", "excite"]);
    assert_eq!(groups["expand"].consumers, ["reduce", "project"]);
    assert_eq!(groups["stem"].producers, ["stem", "project"]);

    let groups = found(&networks::concatenated());
    assert_eq!((groups["a"].width, groups["c"].width, groups["d"].width), (8, 4, 4));
    assert_eq!(groups["a"].consumers, ["c", "d", "head"]);

    let groups = found(&networks::flattened());
    assert_eq!((groups["a"].width, groups["hidden"].width), (8, 40));
    assert_eq!(groups["a"].consumers, ["hidden"]);

    let groups = found(&networks::shuffled());
    assert!(groups.values().filter(|group| group.prunable()).map(|group| &group.name).eq(["c"]));
}

#[test]
fn shares_snap_to_multiples() {
    let group = |width, multiple| ChannelGroup {
        name: String::new(),
        producers: vec![],
        consumers: vec![],
        width,
        pinned: None,
        multiple,
    };
    assert_eq!(group(64, 8).kept(0.5), 32);
    assert_eq!(group(64, 8).kept(0.01), 8);
    assert_eq!(group(30, 4).kept(0.99), 28);
    assert_eq!(group(30, 4).kept(1.0), 30);
    assert_eq!(group(5, 1).kept(0.01), 1);
    assert_eq!(group(16, 4).choices(), [4, 8, 12, 16]);
    assert_eq!(group(3, 4).kept(0.1), 3);
}

#[test]
fn an_untouched_recipe_changes_nothing() {
    for (name, plan) in networks::all() {
        let calibration = reference::calibrate(&plan, &networks::images(&plan, 2));
        let recipe = Recipe::default();
        assert!(recipe.is_baseline());
        assert_eq!(apply(&plan, &calibration, &recipe).unwrap(), plan, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Removing channels is equivalent to setting them to zero.
    #[test]
    fn removed_channels_are_zeroed_channels(
        network in 0usize..5,
        fractions in proptest::collection::vec(0.05f64..=1.0, 8),
        by_variance: bool,
    ) {
        let (_, plan) = networks::all().swap_remove(network);
        let images = networks::images(&plan, 2);
        let calibration = reference::calibrate(&plan, &images);
        let groups = channel_groups(&plan).unwrap();
        let chosen = groups.iter().zip(&fractions).filter(|(group, _)| group.prunable());
        let recipe = Recipe {
            channels: chosen.map(|(group, &fraction)| (group.name.clone(), fraction)).collect(),
            criterion: if by_variance { ChannelCriterion::Variance } else { ChannelCriterion::Magnitude },
            recalibrate: false,
            ..Recipe::default()
        };
        let small = apply(&plan, &calibration, &recipe).unwrap();
        validate(&small, 1).unwrap();
        let keep = choose(&plan, &calibration, &recipe).unwrap();
        let zeroed = zeroed(&plan, &keep);
        for image in &images {
            close(&reference::output(&zeroed, image), &reference::output(&small, image), 1e-4);
        }
        for (before, after) in groups.iter().zip(channel_groups(&small).unwrap()) {
            let fraction = recipe.channels.get(&before.name).copied().unwrap_or(1.0);
            prop_assert_eq!(before.kept(fraction), after.width);
        }
        prop_assert_eq!(apply(&plan, &calibration, &recipe).unwrap(), small);
    }

    /// All techniques at once keep shapes consistent, and every weight's format is the requested
    /// one.
    #[test]
    fn formats_follow_the_recipe(network in 0usize..5, seed in 0u32..1000, recalibrate: bool) {
        let (_, plan) = networks::all().swap_remove(network);
        let images = networks::images(&plan, 2);
        let calibration = reference::calibrate(&plan, &images);
        let bit = |at: usize| seed >> (at % 10) & 1 == 1;
        let mut recipe = Recipe { recalibrate, ..Recipe::default() };
        for (at, group) in channel_groups(&plan).unwrap().iter().enumerate() {
            recipe.channels.insert(group.name.clone(), if group.prunable() && bit(at) { 0.6 } else { 1.0 });
        }
        let layers = layers(&plan).unwrap();
        for (at, layer) in layers.iter().enumerate() {
            let sparsity = if layer.sparse && bit(at + 3) { 0.5 } else { 0.0 };
            let real = match (bit(at + 6), bit(at + 7)) {
                (true, true) => Numbers::Bf16,
                (true, false) => Numbers::Fp16,
                (false, _) => Numbers::F32,
            };
            let numbers = if bit(at + 5) { INT8 } else { real };
            let of_layer = LayerRecipe { sparsity, numbers, ..LayerRecipe::default() };
            recipe.layers.insert(layer.step.clone(), of_layer);
        }
        let small = apply(&plan, &calibration, &recipe).unwrap();
        for layer in &layers {
            let wanted = recipe.layer(&layer.step);
            let weights = weights(&small, &layer.step);
            let zeros = match &weights.values {
                WeightValues::F32(values) | WeightValues::Bf16(values) | WeightValues::Fp16(values) => {
                    let pattern = if wanted.sparsity > 0.0 { Pattern::Unstructured } else { Pattern::Dense };
                    prop_assert_eq!((weights.format().numbers, weights.pattern), (wanted.numbers, pattern));
                    prop_assert!(values.iter().all(|&x| wanted.numbers.holds(x)));
                    values.iter().filter(|&&x| x == 0.0).count()
                }
                WeightValues::Integer(dense) => {
                    prop_assert!(wanted.numbers == INT8);
                    dense.values.iter().filter(|&&x| x == 0).count()
                }
            };
            prop_assert!(zeros as f64 >= (wanted.sparsity * weights.values.len() as f64).round());
            if wanted.numbers == INT8 {
                let step = small.steps.iter().find(|step| step.name == layer.step).unwrap();
                prop_assert!(step.inputs.iter().all(|&value| small.values[value].quantization.is_some()));
            }
        }
        prop_assert!(reference::output(&small, &images[0]).iter().all(|x| x.is_finite()));
    }
}

#[test]
fn a_constant_channel_is_folded_exactly() {
    let mut plan = networks::gated();
    // Channel 5 of the stem's group is constant, and its consumers have no padding.
    for step in ["stem", "project"] {
        let Some(Operator::Conv(conv)) =
            plan.steps.iter().find(|found| found.name == step).map(|found| found.operator.clone())
        else {
            panic!("no convolution")
        };
        let weights = &mut plan.weights[conv.weights];
        let filter = weights.values.len() / 8;
        let WeightValues::F32(values) = &mut weights.values else {
            panic!("not in single precision")
        };
        *values = values
            .iter()
            .enumerate()
            .map(|(at, &x)| if at / filter == 5 { 0.0 } else { x })
            .collect();
    }
    let images = networks::images(&plan, 3);
    let calibration = reference::calibrate(&plan, &images);
    let recipe = Recipe { recalibrate: true, ..recipe(&[("stem", 0.9)], &[]) };
    let mut groups = groups::groups(&plan).unwrap();
    groups.iter_mut().for_each(|group| group.info.multiple = 1);
    let mut keep = choose(&plan, &calibration, &Recipe::default()).unwrap();
    let stem = groups.iter().find(|group| group.info.name == "stem").unwrap();
    keep.remove(&stem.channels[5]);
    let small = remove(&plan, &keep, recipe.recalibrate.then_some(&calibration)).unwrap();
    validate(&small, 1).unwrap();
    for image in &images {
        close(&reference::output(&plan, image), &reference::output(&small, image), 1e-5);
    }
}

#[test]
fn sparsity_removes_the_smallest() {
    let plan = networks::residual();
    let calibration = reference::calibrate(&plan, &networks::images(&plan, 2));
    let small = apply(&plan, &calibration, &recipe(&[], &[("three", 0.7, 32)])).unwrap();
    let (before, after) = (weights(&plan, "three"), weights(&small, "three"));
    let (WeightValues::F32(before), WeightValues::F32(after)) = (&before.values, &after.values)
    else {
        panic!("wrong formats")
    };
    let removed: Vec<f32> = before
        .iter()
        .zip(after.iter())
        .filter(|(_, after)| **after == 0.0)
        .map(|(x, _)| x.abs())
        .collect();
    assert_eq!(removed.len(), (0.7 * before.len() as f64).round() as usize);
    let largest_removed = removed.iter().fold(0.0f32, |a, &b| a.max(b));
    let smallest_kept = after.iter().filter(|x| **x != 0.0).fold(f32::MAX, |a, &b| a.min(b.abs()));
    assert!(largest_removed <= smallest_kept);
    assert!(before.iter().zip(after.iter()).all(|(a, b)| *b == 0.0 || a == b));
}

#[test]
fn integers_stay_close_to_single_precision() {
    for (name, plan) in networks::all() {
        let images = networks::images(&plan, 4);
        let calibration = reference::calibrate(&plan, &images);
        let every = layers(&plan).unwrap().into_iter();
        let layers = every
            .map(|layer| (layer.step, LayerRecipe { numbers: INT8, ..LayerRecipe::default() }));
        let layers: BTreeMap<_, _> = layers.collect();
        for recalibrate in [false, true] {
            let recipe = Recipe { layers: layers.clone(), recalibrate, ..Recipe::default() };
            let small = apply(&plan, &calibration, &recipe).unwrap();
            for image in &images {
                let (exact, rounded) =
                    (reference::output(&plan, image), reference::output(&small, image));
                let error: f64 = exact.iter().zip(&rounded).map(|(a, b)| (a - b) * (a - b)).sum();
                let power: f64 = exact.iter().map(|a| a * a).sum();
                assert!(error < 0.003 * power, "{name}: {exact:?} became {rounded:?}");
            }
        }
    }
}

#[test]
fn grids_are_shared_across_pooling() {
    let plan = networks::flattened();
    let calibration = reference::calibrate(&plan, &networks::images(&plan, 2));
    let small =
        apply(&plan, &calibration, &recipe(&[], &[("a", 0.0, 8), ("hidden", 0.0, 8)])).unwrap();
    let grid = |step: &str| {
        let step = small.steps.iter().find(|found| found.name == step).unwrap();
        small.values[step.output].quantization
    };
    assert!(grid("a").is_some_and(|grid| grid.zero_point == 0));
    assert_eq!(grid("a"), grid("pool"));
    assert_eq!(grid("a"), grid("flatten"));
    assert_eq!(grid("hidden"), None);
    assert!(small.values[small.input].quantization.is_some_and(|grid| grid.zero_point > 100));
}

#[test]
fn hostile_recipes_are_refused() {
    let plan = networks::gated();
    let calibration = reference::calibrate(&plan, &networks::images(&plan, 1));
    let refused = [
        recipe(&[("nowhere", 0.5)], &[]),
        recipe(&[("head", 0.5)], &[]),
        recipe(&[("stem", 0.0)], &[]),
        recipe(&[("stem", f64::NAN)], &[]),
        recipe(&[("stem", 1.5)], &[]),
        recipe(&[], &[("nowhere", 0.5, 32)]),
        recipe(&[], &[("stem", 1.0, 32)]),
        recipe(&[], &[("stem", -0.1, 32)]),
        recipe(&[], &[("stem", f64::NAN, 32)]),
        all_the_same("stem", Pattern::Dense, 0.5),
        all_the_same("stem", Pattern::NofM { n: 2, m: 4 }, 0.7),
        recipe(&[], &[("depth", 0.5, 32)]),
        recipe(&[], &[("gate", 0.5, 32)]),
    ];
    for recipe in refused {
        let refusal = apply(&plan, &calibration, &recipe);
        assert!(matches!(refusal, Err(CompressError::Recipe(_))), "{recipe:?} gave {refusal:?}");
    }
    let other = networks::residual();
    let foreign = reference::calibrate(&other, &networks::images(&other, 1));
    assert!(matches!(
        apply(&plan, &foreign, &Recipe::default()),
        Err(CompressError::Calibration(_))
    ));
}

#[test]
fn recipes_and_calibrations_survive_storage() {
    let recipe = recipe(&[("stem", 0.5)], &[("one", 0.7, 8)]);
    let text = serde_json::to_string(&recipe).unwrap();
    assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), recipe);
    assert_eq!(serde_json::from_str::<Recipe>("{}").unwrap(), Recipe::default());
    assert!(serde_json::from_str::<Recipe>(r#"{"chanels": {}}"#).is_err());
    // Names of earlier versions are read as aliases.
    let earlier =
        r#"{"repair": false, "layers": {"one": {"pattern": {"Grouped": {"kept": 2, "of": 4}}}}}"#;
    let earlier: Recipe = serde_json::from_str(earlier).unwrap();
    assert!(!earlier.recalibrate);
    assert_eq!(earlier.layers["one"].pattern, Pattern::NofM { n: 2, m: 4 });
    let plan = networks::residual();
    let calibration = reference::calibrate(&plan, &networks::images(&plan, 2));
    let bytes = postcard::to_stdvec(&calibration).unwrap();
    assert_eq!(postcard::from_bytes::<Calibration>(&bytes).unwrap(), calibration);
}
