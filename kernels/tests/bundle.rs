//! Bundles come back bit by bit, weigh what they say, and damage is an error, never a panic.

mod common;

use std::path::Path;

use common::{Options, plan};
use paretune_kernels::bundle::{Bundle, Preprocessing};
use paretune_kernels::hardware::Isa;
use paretune_kernels::{Executor, ExecutorOptions};
use proptest::prelude::*;

fn bundle(seed: u64) -> Bundle {
    let mut plan = plan(seed, Options { batch: 1, isa: Isa::detect(), integer: seed.is_multiple_of(2) });
    plan.name = "net".into();
    let channels = plan.values[plan.input].dims[0];
    Bundle {
        plan,
        preprocessing: Preprocessing {
            mean: vec![120.0; channels],
            std: vec![60.0; channels],
            classes: vec!["cat".into(), "dog".into()],
        },
        configuration: "c3f1".into(),
    }
}

fn size(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn bundles_come_back_and_weigh_what_they_say(seed in any::<u64>()) {
        let bundle = bundle(seed);
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("b");
        bundle.write(&folder).unwrap();
        prop_assert_eq!(&Bundle::read(&folder).unwrap(), &bundle);
        prop_assert_eq!(size(&folder), bundle.bytes());
        prop_assert_eq!(names(&folder), ["plan.bin", "weights.bin"]);
        prop_assert_eq!(names(home.path()), ["b"]);
    }

    /// With and without a checksum that matches the damage.
    #[test]
    fn damage_is_an_error_or_harmless(
        seed in 0_u64..200, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()), in_plan in any::<bool>(), mended in any::<bool>(),
    ) {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("b");
        bundle(seed).write(&folder).unwrap();
        let mut files = ["plan.bin", "weights.bin"].map(|name| std::fs::read(folder.join(name)).unwrap());
        let target = &mut files[usize::from(!in_plan)];
        let before = target.clone();
        for (at, value) in &flips {
            if !target.is_empty() {
                let at = at.index(target.len());
                target[at] ^= value;
            }
        }
        if let Some(cut) = cut && !target.is_empty() {
            target.truncate(cut.index(target.len()));
        }
        let same = *target == before;
        if mended && files[0].len() > 44 {
            let [plan, weights] = &mut files;
            let mut hasher = blake3::Hasher::new();
            hasher.update(&(plan[44..].len() as u64).to_le_bytes()).update(&plan[44..]).update(weights);
            plan[12..44].copy_from_slice(hasher.finalize().as_bytes());
        }
        std::fs::write(folder.join("plan.bin"), &files[0]).unwrap();
        std::fs::write(folder.join("weights.bin"), &files[1]).unwrap();
        match Bundle::read(&folder) {
            Err(error) => prop_assert!(error.to_string().contains("bundle `"), "{}", error),
            Ok(read) => {
                prop_assert!(mended || same);
                // What was read is a plan that the executor can judge.
                let plan = read.plan;
                let small = plan.values.iter().map(|value| value.len()).sum::<usize>() < 1 << 22;
                if small {
                    let _ = Executor::new(&plan, &ExecutorOptions { batch: 1, threads: 1, isa: Isa::detect() });
                }
            }
        }
    }
}

#[test]
fn a_bundle_is_replaced_but_nothing_else_is() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("b");
    bundle(1).write(&folder).unwrap();
    bundle(2).write(&folder).unwrap();
    assert_eq!(Bundle::read(&folder).unwrap(), bundle(2));
    assert_eq!(names(home.path()), ["b"]);
    std::fs::write(folder.join("notes.txt"), "mine").unwrap();
    let error = bundle(3).write(&folder).unwrap_err().to_string();
    assert!(error.contains("not a bundle"), "{error}");
    assert_eq!(Bundle::read(&folder).unwrap(), bundle(2));
    let file = home.path().join("f");
    std::fs::write(&file, "mine").unwrap();
    assert!(bundle(1).write(&file).is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn missing_and_foreign_files_are_named() {
    let home = tempfile::tempdir().unwrap();
    let error = Bundle::read(home.path()).unwrap_err().to_string();
    assert!(error.contains("plan.bin"), "{error}");
    std::fs::write(home.path().join("plan.bin"), "PK something else").unwrap();
    std::fs::write(home.path().join("weights.bin"), "").unwrap();
    let error = Bundle::read(home.path()).unwrap_err().to_string();
    assert!(error.contains("not the plan of a bundle"), "{error}");
    std::fs::write(home.path().join("plan.bin"), b"PARETUNE\x09\0\0\0more").unwrap();
    let error = Bundle::read(home.path()).unwrap_err().to_string();
    assert!(error.contains("version 9"), "{error}");
}
