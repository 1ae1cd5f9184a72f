//! The four development networks, where they are there.

use std::path::PathBuf;

use paretune::model::{Network, describe, totals};

/// The folder with networks that are not part of the repository; `None`, with a notice, where it is absent.
fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("PARETUNE_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from)
        .join("models");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is not there", folder.display());
    None
}

#[test]
fn import() {
    let Some(folder) = shared() else { return };
    // Name, parameters, multiply-adds, layers, steps.
    for (name, parameters, multiply_adds, layers, steps) in [
        ("resnet20", 272_000, 41_000_000, 22, 24),
        ("mobilenet", 3_200_000, 46_000_000, 28, 30),
        ("resnet18", 11_200_000, 556_000_000, 21, 23),
        ("vgg16", 15_000_000, 314_000_000, 15, 21),
    ] {
        let network = Network::load(&folder.join(format!("{name}.onnx"))).unwrap();
        println!("{name} {}\n{}", network.sha256, describe(&network.plan));
        let totals = totals(&network.plan);
        assert_eq!((totals.layers, network.plan.steps.len()), (layers, steps), "{name}");
        assert!(totals.parameters.abs_diff(parameters) < parameters / 50, "{name} {totals:?}");
        assert!(totals.multiply_adds.abs_diff(multiply_adds) < multiply_adds / 50, "{name} {totals:?}");
    }
}
