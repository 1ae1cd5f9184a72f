//! Tests of networks made of reconstructed layers.

use super::*;

/// Returns a network, calibration images and other images.
fn network_and_images() -> (Plan, Vec<f32>, Vec<Vec<f32>>) {
    let plan = networks::residual();
    let images = networks::images(&plan, 272);
    let (seen, fresh) = images.split_at(256);
    (plan, seen.concat(), fresh.to_vec())
}

fn everywhere(plan: &Plan, layer: LayerRecipe, method: Method) -> Recipe {
    let layers = layers(plan).unwrap().into_iter().map(|known| (known.step, layer)).collect();
    Recipe { layers, method, ..Recipe::default() }
}

#[test]
fn reconstructed_networks_lose_less_than_one_shot_ones() {
    let (plan, seen, fresh) = network_and_images();
    let folder = tempfile::tempdir().unwrap();
    let calibration = Calibration::collect(&plan, &seen, 8, 1, &mut |_| {}).unwrap();
    let database =
        Database::open(folder.path(), "test", plan.clone(), seen.clone().into(), 1).unwrap();
    let bits3 = LayerRecipe { numbers: Numbers::Integer(Grid::Bits3), ..LayerRecipe::default() };
    let sparse = LayerRecipe { sparsity: 0.7, ..LayerRecipe::default() };
    let both = LayerRecipe { numbers: Numbers::Integer(Grid::Bits4), ..sparse };
    let blocks =
        LayerRecipe { sparsity: 0.5, pattern: Pattern::Blocks { outputs: 4, inputs: 1 }, ..sparse };
    let all =
        [(bits3, 1.0), (sparse, 1.0), (both, 1.0), (blocks, 1.0), (sparse, 0.75), (bits3, 0.75)];
    for (layer, fraction) in all {
        let compressed = |recipe: &Recipe| {
            apply_recalibrated(&plan, &calibration, Some(&database), recipe, &seen, None, 1)
                .unwrap()
        };
        let channels: BTreeMap<_, _> =
            ["stem", "one"].map(|group| (group.to_owned(), fraction)).into();
        let narrow = compressed(&Recipe { channels: channels.clone(), ..Recipe::default() });
        let error = |method: Method| {
            let small = compressed(&Recipe {
                channels: channels.clone(),
                ..everywhere(&plan, layer, method)
            });
            for step in ["one", "three"] {
                let zeros = match &weights(&small, step).values {
                    WeightValues::F32(values)
                    | WeightValues::Bf16(values)
                    | WeightValues::Fp16(values) => values.iter().filter(|x| **x == 0.0).count(),
                    WeightValues::Integer(integer) => {
                        integer.values.iter().filter(|q| **q == 0).count()
                    }
                };
                assert!(
                    zeros as f64
                        >= layer.sparsity * weights(&small, step).values.len() as f64 - 16.0
                );
            }
            let lost = |image: &Vec<f32>| -> f64 {
                let (exact, found) =
                    (reference::output(&narrow, image), reference::output(&small, image));
                exact.iter().zip(&found).map(|(a, b)| (a - b) * (a - b)).sum()
            };
            fresh.iter().map(lost).sum::<f64>()
        };
        let (plain, made) = (error(Method::OneShot), error(Method::Reconstructed));
        assert!(made < plain, "{layer:?}: {made} is not below {plain}");
    }
}

#[test]
fn what_was_made_is_found_again() {
    let (plan, seen, _) = network_and_images();
    let folder = tempfile::tempdir().unwrap();
    let open =
        || Database::open(folder.path(), "test", plan.clone(), seen.clone().into(), 1).unwrap();
    let mut fractions = Vec::new();
    open()
        .build(&[Pattern::Unstructured], &mut |fraction| {
            fractions.push(fraction);
            fractions.len() < 9
        })
        .unwrap();
    assert!(fractions.len() == 9 && fractions.is_sorted() && fractions[8] < 1.0);
    let files = || std::fs::read_dir(folder.path()).unwrap().count();
    let before = files();
    open().build(&[Pattern::Unstructured], &mut |_| true).unwrap();
    assert!(files() > before);
    let layer = LayerRecipe { sparsity: 0.9, ..LayerRecipe::default() };
    let (first, again) =
        (open().variant("two", &layer).unwrap(), open().variant("two", &layer).unwrap());
    assert_eq!(first, again);
    assert!(
        first.error > open().variant("two", &LayerRecipe { sparsity: 0.5, ..layer }).unwrap().error
    );
    // A damaged file is made again.
    for file in std::fs::read_dir(folder.path()).unwrap() {
        std::fs::write(file.unwrap().path(), b"nonsense").unwrap();
    }
    assert_eq!(open().variant("two", &layer).unwrap(), first);
    assert!(open().variant("nowhere", &layer).is_err());
}
