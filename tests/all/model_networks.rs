//! Imports the four development networks, if they are present.

use std::collections::BTreeMap;

use paretune_model::{Network, describe, totals};
use serde::Deserialize;

use crate::common;

#[derive(Deserialize)]
struct Fixture {
    sha256: String,
    outputs: Vec<f64>,
}

fn fixtures() -> BTreeMap<String, Fixture> {
    let text = std::fs::read_to_string(common::fixtures().join("networks.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn sizes_are_as_published() {
    let Some(folder) = common::shared_models() else { return };
    // Name, parameters, multiply-adds, layers, steps.
    for (name, parameters, multiply_adds, layers, steps) in [
        ("resnet20", 272_000, 41_000_000, 22, 23),
        ("mobilenet", 3_200_000, 46_000_000, 28, 29),
        ("resnet18", 11_200_000, 556_000_000, 21, 22),
        ("vgg16", 15_000_000, 314_000_000, 15, 20),
    ] {
        let network = Network::load(&folder.join(format!("{name}.onnx"))).unwrap();
        let totals = totals(&network.plan);
        assert_eq!(
            (totals.layers, network.plan.steps.len()),
            (layers, steps),
            "{name}\n{}",
            describe(&network.plan)
        );
        assert!(totals.parameters.abs_diff(parameters) < parameters / 50, "{name} {totals:?}");
        assert!(
            totals.multiply_adds.abs_diff(multiply_adds) < multiply_adds / 50,
            "{name} {totals:?}"
        );
    }
}

#[test]
fn executed_outputs_agree_with_onnx_runtime() {
    let Some(folder) = common::shared_models() else { return };
    for (name, fixture) in fixtures() {
        let network = Network::load(&folder.join(format!("{name}.onnx"))).unwrap();
        let found = common::run_executor(&network.plan, 3, 1);
        let difference = common::difference(&found, &fixture.outputs);
        println!("{name}: {difference:.2e}");
        assert!(difference < 1e-4, "{name}: {difference:e}");
    }
}

/// Compares one image of the small networks, because the reference is slow.
#[test]
fn reference_outputs_agree_with_onnx_runtime() {
    let Some(folder) = common::shared_models() else { return };
    for (name, fixture) in fixtures() {
        let network = Network::load(&folder.join(format!("{name}.onnx"))).unwrap();
        assert_eq!(
            network.sha256, fixture.sha256,
            "{name} is not the file that the fixture was made with"
        );
        if totals(&network.plan).multiply_adds < 100_000_000 {
            let found = common::run_reference(&network.plan, 1);
            let difference = common::difference(&found, &fixture.outputs[..found.len()]);
            assert!(difference < 1e-4, "{name}: {difference:e}");
        }
    }
}
