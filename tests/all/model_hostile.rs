//! Damaged, hostile and unsupported files cause an error with advice, no panic and no excessive
//! memory use.

use std::path::Path;

use paretune_model::Network;

use crate::common;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(common::fixtures().join(format!("onnx/{name}.onnx"))).unwrap()
}

/// A truncated file is refused.
#[test]
fn truncated() {
    for name in ["mini_shufflenet", "dynamic_flatten", "old_alexnet"] {
        let bytes = fixture(name);
        for length in (0..bytes.len()).step_by(13) {
            if let Ok(network) = Network::from_bytes(name, &bytes[..length], None) {
                panic!(
                    "{name} cut at {length} of {} gives {} steps",
                    bytes.len(),
                    network.plan.steps.len()
                );
            }
        }
    }
}

/// Random damage never causes a panic, and every plan that still imports is valid.
#[test]
fn flipped() {
    use rand::{RngExt, SeedableRng};
    let mut random = rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(7);
    let names = [
        "mini_mobilenet_v3",
        "mini_shufflenet",
        "old_alexnet",
        "dynamic_flatten",
        "reshapes",
        "pools",
        "conv_same",
        "batchnorm",
        "external",
        "activations",
        "dense",
        "matmul_positions",
        "residuals",
        "number_formats",
        "broadcasts",
        "hard_swish_forms",
    ];
    // Larger counts are for changes of the import.
    let count =
        std::env::var("PARETUNE_FLIPS").ok().and_then(|count| count.parse().ok()).unwrap_or(60);
    let folder = common::fixtures().join("onnx");
    let (mut refused, mut sound) = (0, 0);
    for name in names {
        let original = fixture(name);
        for _ in 0..count {
            let mut bytes = original.clone();
            for _ in 0..random.random_range(1..4) {
                let position = random.random_range(0..bytes.len());
                bytes[position] ^= 1 << random.random_range(0..8);
            }
            match Network::from_bytes(name, &bytes, Some(&folder)) {
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    refused += 1;
                }
                Ok(network) => {
                    paretune_kernels::executor::validate(&network.plan, 1).unwrap();
                    sound += 1;
                }
            }
        }
    }
    assert!(refused > 100 && sound > 100, "{refused} refused, {sound} sound");
}

#[test]
fn noise() {
    use rand::{Rng, RngExt, SeedableRng};
    let mut random = rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(8);
    for _ in 0..2000 {
        let mut bytes = vec![0; random.random_range(1..200)];
        random.fill_bytes(&mut bytes);
        assert!(Network::from_bytes("noise", &bytes, None).is_err());
    }
}

/// Messages nested deeper than in any real file are refused before they exhaust the stack.
#[test]
fn deep() {
    fn wrap(field: u8, inner: &[u8]) -> Vec<u8> {
        let length = inner.len();
        let mut outer = vec![field << 3 | 2];
        outer.extend([length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8]);
        outer.extend_from_slice(inner);
        outer
    }
    // A graph with a node with an attribute that holds a graph, and so on.
    let mut graph = Vec::new();
    for _ in 0..5000 {
        graph = wrap(1, &wrap(5, &wrap(6, &graph)));
    }
    let error = Network::from_bytes("deep", &wrap(7, &graph), None).unwrap_err();
    assert!(error.to_string().contains("recursion"), "{error}");
}

#[test]
fn messages() {
    let mut text = String::new();
    let mut note = |what: &str, error: String| text += &format!("{what}:\n  {error}\n");
    let folder = common::fixtures().join("onnx/bad");
    let mut names: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in
        names.iter().filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
    {
        let error = match Network::load(path) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{} was accepted", path.display()),
        };
        let shown = error.replace(folder.to_str().unwrap(), "FOLDER");
        note(&path.file_stem().unwrap().to_string_lossy(), shown);
    }
    for (what, bytes) in
        [("empty", &b""[..]), ("text", b"this is no network"), ("png", b"\x89PNG\r\n\x1a\n0000")]
    {
        note(what, Network::from_bytes(what, bytes, None).unwrap_err().to_string());
    }
    note(
        "no folder",
        Network::from_bytes("external", &fixture("external"), None).unwrap_err().to_string(),
    );
    note("missing", Network::load(Path::new("does/not/exist.onnx")).unwrap_err().to_string());
    insta::assert_snapshot!(text);
}

/// External data contributes to the hash of a network.
#[test]
fn external_data_is_hashed() {
    let folder = tempfile::tempdir().unwrap();
    let source = common::fixtures().join("onnx");
    for file in ["external.onnx", "external.bin"] {
        std::fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    let path = folder.path().join("external.onnx");
    let first = Network::load(&path).unwrap();
    assert_eq!(first.name, "external");
    assert_eq!(first.sha256, Network::load(&source.join("external.onnx")).unwrap().sha256);
    let mut data = std::fs::read(folder.path().join("external.bin")).unwrap();
    data[0] ^= 1;
    std::fs::write(folder.path().join("external.bin"), &data).unwrap();
    assert_ne!(first.sha256, Network::load(&path).unwrap().sha256);
    data.truncate(100);
    std::fs::write(folder.path().join("external.bin"), &data).unwrap();
    assert!(Network::load(&path).unwrap_err().to_string().contains("bytes"));
}
