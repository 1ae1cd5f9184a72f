//! Compares small ONNX files, one per family of operators and several small networks, with ONNX
//! Runtime.

use paretune_kernels::operator::Operator;
use paretune_model::{Network, describe, onnx, passes, totals};
use serde::Deserialize;

use crate::common;

#[derive(Deserialize)]
struct Fixture {
    name: String,
    images: usize,
    shape: Vec<usize>,
    outputs: Vec<f64>,
}

fn read(file: &str) -> Vec<Fixture> {
    let text = std::fs::read_to_string(common::fixtures().join("onnx").join(file)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Networks of convolutions and what stands between them.
fn plain() -> Vec<Fixture> {
    read("expected.json")
}

/// All networks, those of the more general operators among them.
fn all() -> Vec<Fixture> {
    plain().into_iter().chain(read("operators.json")).collect()
}

fn path(name: &str) -> std::path::PathBuf {
    common::fixtures().join(format!("onnx/{name}.onnx"))
}

#[test]
fn as_imported() {
    for fixture in all() {
        let network = onnx::load(&path(&fixture.name))
            .unwrap_or_else(|error| panic!("{}: {error}", fixture.name));
        let plan = &network.plan;
        assert_eq!(plan.values[plan.output].dims, fixture.shape, "{}", fixture.name);
        let found = common::run_reference(plan, fixture.images);
        let difference = common::difference(&found, &fixture.outputs);
        assert!(difference < 2e-6, "{}: {difference:e}\n{}", fixture.name, describe(plan));
    }
}

/// Every pass preserves the function, also when it is repeated until it finds nothing to do.
#[test]
fn every_pass_preserves_the_function() {
    let late: [(&str, passes::Pass); 4] = [
        ("fuse_residuals", passes::fuse_residuals),
        ("remove_dead", passes::remove_dead),
        ("clear_subnormals", passes::clear_subnormals),
        ("shorten_names", passes::shorten_names),
    ];
    let mut used = std::collections::BTreeSet::new();
    for fixture in all() {
        let mut plan = onnx::load(&path(&fixture.name)).unwrap().plan;
        for _ in 0..4 {
            for (name, pass) in passes::PASSES.iter().chain(&late) {
                if pass(&mut plan) {
                    used.insert(*name);
                    let found = common::run_reference(&plan, fixture.images);
                    let difference = common::difference(&found, &fixture.outputs);
                    assert!(
                        difference < 4e-6,
                        "{} {name}: {difference:e}\n{}",
                        fixture.name,
                        describe(&plan)
                    );
                }
            }
        }
    }
    assert_eq!(
        used.len(),
        passes::PASSES.len() + late.len() - 1,
        "subnormals alone do not occur: {used:?}"
    );
}

#[test]
fn simplified() {
    let mut table = String::new();
    let described = plain().len();
    for (index, fixture) in all().into_iter().enumerate() {
        let network = Network::load(&path(&fixture.name)).unwrap();
        let found = common::run_reference(&network.plan, fixture.images);
        let difference = common::difference(&found, &fixture.outputs);
        assert!(difference < 4e-6, "{}: {difference:e}\n{}", fixture.name, describe(&network.plan));
        let mut again = network.plan.clone();
        passes::simplify(&mut again);
        assert_eq!(again, network.plan, "{} is not simplified in one go", fixture.name);
        if index < described {
            table += &format!("{}\n{}\n", fixture.name, describe(&network.plan));
        }
    }
    insta::assert_snapshot!(table);
}

/// The runtime computes equal outputs in batches of one and two images.
#[test]
fn executed() {
    for fixture in all() {
        let plan = Network::load(&path(&fixture.name)).unwrap().plan;
        for batch in 1..=fixture.images {
            let found = common::run_executor(&plan, fixture.images, batch);
            let difference = common::difference(&found, &fixture.outputs);
            assert!(difference < 2e-5, "{}: {difference:e}\n{}", fixture.name, describe(&plan));
        }
    }
}

/// An exported plan imports as an equal network, as written and simplified.
#[test]
fn exported() {
    let folder = std::env::var_os("PARETUNE_KEEP_EXPORTS").map(std::path::PathBuf::from);
    for fixture in all() {
        let raw = onnx::load(&path(&fixture.name)).unwrap().plan;
        let plan = Network::load(&path(&fixture.name)).unwrap().plan;
        for (kind, plan) in [("raw", &raw), ("simplified", &plan)] {
            let bytes = onnx::export(plan)
                .unwrap_or_else(|error| panic!("{} {kind}: {error}", fixture.name));
            if let Some(folder) = &folder {
                std::fs::write(folder.join(format!("{}.{kind}.onnx", fixture.name)), &bytes)
                    .unwrap();
            }
            let again = Network::from_bytes(&fixture.name, &bytes, None)
                .unwrap_or_else(|error| panic!("{} {kind}: {error}", fixture.name));
            let found = common::run_reference(&again.plan, fixture.images);
            let difference = common::difference(&found, &fixture.outputs);
            assert!(
                difference < 4e-6,
                "{} {kind}: {difference:e}\n{}",
                fixture.name,
                describe(&again.plan)
            );
            // General operators are written as primitives, with constants and products of their
            // own.
            if kind == "simplified" && !fixture.name.starts_with("op_") {
                assert_eq!(totals(&again.plan), totals(plan), "{}", fixture.name);
            }
        }
    }
}

/// Names of steps survive the round trip, because they name the parameters of layers.
#[test]
fn names_survive_export() {
    for name in ["residuals", "mini_mobilenet_v3", "old_alexnet"] {
        let plan = Network::load(&path(name)).unwrap().plan;
        let again = Network::from_bytes(name, &onnx::export(&plan).unwrap(), None).unwrap().plan;
        assert_eq!(plan, again, "{name}");
    }
}

#[test]
fn names_are_words() {
    for fixture in all() {
        let plan = Network::load(&path(&fixture.name)).unwrap().plan;
        let mut seen = std::collections::HashSet::new();
        for step in &plan.steps {
            let mut letters = step.name.chars();
            assert!(
                letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            );
            assert!(
                letters.all(|letter| letter.is_ascii_alphanumeric() || "_.".contains(letter)),
                "{}",
                step.name
            );
            assert!(seen.insert(&step.name), "{} twice", step.name);
        }
    }
}

#[test]
fn weights_are_finite_and_normal() {
    for fixture in all() {
        let plan = Network::load(&path(&fixture.name)).unwrap().plan;
        for step in &plan.steps {
            if let Operator::Conv(conv) = &step.operator {
                let paretune_kernels::WeightValues::F32(values) =
                    &plan.weights[conv.weights].values
                else {
                    panic!("not single precision")
                };
                assert!(values.iter().all(|value| value.is_finite() && !value.is_subnormal()));
            }
        }
    }
}

/// Runs the whole built-in network on an OpenCL device, if there is one, and compares it with the
/// CPU.
#[test]
fn the_builtin_network_runs_on_an_opencl_device() {
    if paretune_kernels::opencl::names().is_empty() {
        println!(
            "SKIPPED: there is no OpenCL device; `apt-get install pocl-opencl-icd` makes one of \
             the CPU"
        );
        return;
    }
    let mut plan = paretune_study::prepare::load_network(None).unwrap().plan;
    let expected = common::run_executor(&plan, 4, 2);
    plan.backend = paretune_kernels::Backend::OpenCl { device: String::new() };
    paretune_kernels::opencl::verify(&plan, 2).unwrap();
    let found = common::run_executor(&plan, 4, 2);
    assert!(common::difference(&found, &expected) < 1e-4);
}
