//! Tests that bundles are read back bit by bit, have the stated sizes, and report damage as an
//! error without a panic.

mod common;
#[allow(dead_code)] // Its `main` runs in the program only.
#[path = "../examples/run_bundle.rs"]
mod run_bundle;

use std::path::Path;

use common::{Options, plan};
use paretune_kernels::bundle::{Bundle, Preprocessing, Stored, WeightSource};
use paretune_kernels::executor::{conv_problem, resolve};
use paretune_kernels::hardware::Isa;
use paretune_kernels::image::{Channels, Interpolation, Resize, Transform};
use paretune_kernels::operator::Operator;
use paretune_kernels::{Backend, Executor, ExecutorOptions, Plan, Step, Switch, ValueSpec};
use proptest::prelude::*;

const THIS: ExecutorOptions = ExecutorOptions { batch: 1, threads: 1, isa: Isa::Portable };

/// Returns the bits of `executor`'s output for reproducible images.
fn answers(executor: &mut Executor, seed: u64) -> Vec<u32> {
    let (inputs, outputs) = executor.lengths();
    let mut output = vec![0.0; outputs];
    executor.run(&common::numbers(seed, inputs), &mut output).unwrap();
    output.into_iter().map(f32::to_bits).collect()
}

fn bundle(seed: u64) -> Bundle {
    let mut plan =
        plan(seed, Options { batch: 1, isa: Isa::detect(), integer: seed.is_multiple_of(2) });
    plan.name = "net".into();
    let channels = plan.values[plan.input].dims[0];
    Bundle {
        plan,
        preprocessing: Preprocessing {
            mean: vec![120.0; channels],
            std: vec![60.0; channels],
            classes: vec!["cat".into(), "dog".into()],
            transform: Transform {
                resize: Some(Resize::Shorter(36)),
                crop: true,
                interpolation: Interpolation::Bicubic,
                channels: Channels::Bgr,
            },
        },
        configuration: "c3f1".into(),
    }
}

/// Creates a [`bundle`] that is partitioned if it has enough steps.
fn divided(seed: u64) -> Bundle {
    let mut bundle = bundle(seed);
    if bundle.plan.steps.len() > 1 {
        bundle
            .plan
            .switches
            .push(Switch { step: 1, backend: Backend::OpenCl { device: "some".into() } });
    }
    bundle
}

fn size(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn bundles_come_back_and_weigh_what_they_say(seed in any::<u64>()) {
        let bundle = divided(seed);
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("b");
        bundle.write(&folder).unwrap();
        prop_assert_eq!(&Bundle::read(&folder).unwrap(), &bundle);
        prop_assert_eq!(size(&folder), bundle.bytes());
        prop_assert_eq!(names(&folder), ["plan.bin", "weights.bin"]);
        prop_assert_eq!(names(home.path()), ["b"]);
    }

    /// Bundles packed for any instruction set run on every other.
    #[test]
    fn packed_bundles_run_everywhere_as_coded_ones_do(
        seed in any::<u64>(), threads in 1_usize..3, batch in 1_usize..3, isa in prop::sample::select(Isa::available())
    ) {
        let bundle = bundle(seed);
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("b");
        let here = Isa::detect();
        let bytes = bundle.write_packed(&folder, here).unwrap();
        prop_assert_eq!(size(&folder), bytes.total());
        prop_assert_eq!(bytes.coded, bundle.file_bytes().weights);
        prop_assert_eq!(names(&folder), ["plan.bin", "weights.bin"]);
        prop_assert_eq!(&Bundle::read(&folder).unwrap(), &bundle);
        let stored = Stored::open(&folder).unwrap();
        prop_assert_eq!((stored.packed_for(), stored.bytes().unwrap()), (Some(here.name()), bytes.total()));
        let options = ExecutorOptions { batch, threads, isa };
        let mut loaded = stored.load(&options).unwrap();
        // A plan may need instructions that `isa` excludes, or tunables that exist for single
        // images only.
        let Ok(mut made) = Executor::new(&bundle.plan, &options) else {
            prop_assert!(loaded.refitted > 0 && (isa != here || batch > 1));
            return Ok(());
        };
        prop_assert_eq!(loaded.refitted, 0);
        prop_assert_eq!(answers(&mut loaded.executor, seed), answers(&mut made, seed));
        prop_assert_eq!(loaded.executor.memory(), made.memory());
        let is_layer = |step: &&Step| matches!(step.operator, Operator::Conv(_));
        let layers = bundle.plan.steps.iter().filter(is_layer).count();
        match loaded.weights {
            WeightSource::Mapped => prop_assert!(isa == here && (loaded.executor.mapped_bytes() > 0) == (layers > 0)),
            WeightSource::Repacked(reason) => {
                prop_assert!(isa != here || batch > 1, "{}", reason);
                prop_assert_eq!(loaded.executor.mapped_bytes(), 0);
            }
            WeightSource::Decoded => prop_assert!(false),
        }
        if isa == here && batch == 1 {
            // Mapped packed weights do not need the coded ones.
            let last = bytes.packed + bytes.coded.saturating_sub(1);
            let mut weights = std::fs::read(folder.join("weights.bin")).unwrap();
            if let Some(byte) = weights.get_mut(last as usize) {
                *byte ^= 1;
                std::fs::write(folder.join("weights.bin"), &weights).unwrap();
                let stored = Stored::open(&folder).unwrap();
                prop_assert_eq!(stored.load(&options).unwrap().weights, WeightSource::Mapped);
                prop_assert!(stored.bundle().unwrap_err().to_string().contains("coded weights"));
                // Overwriting a mapped file changes the results, and does no other harm.
                let nonsense = vec![0xFF; weights.len()];
                let file = std::fs::OpenOptions::new().write(true).open(folder.join("weights.bin")).unwrap();
                std::io::Write::write_all(&mut &file, &nonsense).unwrap();
                answers(&mut loaded.executor, seed);
            }
        }
    }

    /// Damages packed bundles, with and without matching checksums.
    #[test]
    fn damage_to_packed_bundles_is_an_error_or_harmless(
        seed in 0_u64..200, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()), in_plan in any::<bool>(), mended in any::<bool>(),
    ) {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("b");
        let whole = bundle(seed);
        let options = ExecutorOptions { isa: Isa::detect(), ..THIS };
        whole.write_packed(&folder, options.isa).unwrap();
        let path = folder.join(if in_plan { "plan.bin" } else { "weights.bin" });
        let mut target = std::fs::read(&path).unwrap();
        for (at, value) in &flips {
            if !target.is_empty() {
                let at = at.index(target.len());
                target[at] ^= value;
            }
        }
        if let Some(cut) = cut && !target.is_empty() {
            target.truncate(cut.index(target.len()));
        }
        if mended && in_plan && target.len() > 44 {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&(target[44..].len() as u64).to_le_bytes()).update(&target[44..]);
            target[12..44].copy_from_slice(hasher.finalize().as_bytes());
        }
        std::fs::write(&path, &target).unwrap();
        let named = |error: &dyn std::fmt::Display| error.to_string().contains("bundle `");
        match Bundle::read(&folder) {
            Err(error) => prop_assert!(named(&error), "{}", error),
            Ok(read) => prop_assert!(mended || read == whole),
        }
        match Stored::open(&folder) {
            Err(error) => prop_assert!(named(&error), "{}", error),
            Ok(stored) => {
                let plan = &stored.description().plan;
                let small = plan.values.iter().map(|value| value.len()).sum::<usize>() < 1 << 22;
                match stored.load(&options) {
                    Err(error) if !mended => prop_assert!(named(&error), "{}", error),
                    Ok(mut loaded) if !mended => {
                        let mut made = Executor::new(&whole.plan, &options).unwrap();
                        prop_assert_eq!(answers(&mut loaded.executor, seed), answers(&mut made, seed));
                    }
                    Ok(mut loaded) if small => drop(answers(&mut loaded.executor, seed)),
                    _ => (),
                }
            }
        }
    }

    /// Damages bundles, with and without a matching checksum.
    #[test]
    fn damage_is_an_error_or_harmless(
        seed in 0_u64..200, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()), in_plan in any::<bool>(), mended in any::<bool>(),
    ) {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("b");
        divided(seed).write(&folder).unwrap();
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
                // The executor can check the plan that was read.
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

/// Schedules that name every tunable, like those of a search, fit one instruction set and one
/// image.
#[test]
fn schedules_give_way_where_they_are_not_possible() {
    let (here, home) = (Isa::detect(), tempfile::tempdir().unwrap());
    let mut refitted = 0;
    for seed in 0..40 {
        let mut bundle = bundle(seed);
        let plan = bundle.plan.clone();
        for step in &mut bundle.plan.steps {
            let problem = conv_problem(&plan, step, 1);
            if let (Operator::Conv(conv), Some(problem)) = (&mut step.operator, problem) {
                let format = plan.weights[conv.weights].format();
                conv.schedule = resolve(&step.name, conv, problem, format, here).unwrap().schedule;
            }
        }
        bundle.write_packed(&home.path().join("b"), here).unwrap();
        let stored = Stored::open(&home.path().join("b")).unwrap();
        let as_made = stored.load(&ExecutorOptions { isa: here, ..THIS }).unwrap();
        assert_eq!((as_made.weights, as_made.refitted), (WeightSource::Mapped, 0));
        for (isa, batch) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 5)]) {
            let mut loaded = stored.load(&ExecutorOptions { isa, batch, threads: 1 }).unwrap();
            answers(&mut loaded.executor, seed);
            refitted += loaded.refitted;
        }
    }
    assert!(refitted > 40, "{refitted}");
}

#[test]
fn what_runs_on_a_device_is_not_packed_ahead() {
    let home = tempfile::tempdir().unwrap();
    let mut whole = bundle(1);
    whole.plan.backend = Backend::OpenCl { device: String::new() };
    let part = (0..).map(divided).find(|bundle| !bundle.plan.switches.is_empty()).unwrap();
    for bundle in [whole, part] {
        let error =
            bundle.write_packed(&home.path().join("b"), Isa::detect()).unwrap_err().to_string();
        assert!(error.contains("processor"), "{error}");
    }
    assert_eq!(names(home.path()), [] as [&str; 0]);
}

#[test]
fn another_schedule_is_packed_again_and_says_so() {
    let home = tempfile::tempdir().unwrap();
    let (packed, other) = (home.path().join("packed"), home.path().join("other"));
    let mut bundle = (0..).map(bundle).find(|bundle| bundle.plan.weights.len() > 2).unwrap();
    // Default schedules are possible everywhere.
    for step in &mut bundle.plan.steps {
        if let Operator::Conv(conv) = &mut step.operator {
            conv.schedule.tunables.clear();
        }
    }
    let narrow = bundle.write_packed(&packed, Isa::Portable).unwrap();
    let stored = Stored::open(&packed).unwrap();
    assert_eq!(stored.packed_for(), Some("portable"));
    let loaded = stored.load(&ExecutorOptions { isa: Isa::detect(), ..THIS }).unwrap();
    let reason = loaded.weights.to_string();
    assert!(reason.contains("packed for portable"), "{reason}");
    // The same plan, followed by another layer's weights.
    let wide = bundle.write_packed(&other, Isa::detect()).unwrap();
    assert_eq!(narrow.coded, wide.coded);
    std::fs::copy(other.join("weights.bin"), packed.join("weights.bin")).unwrap();
    let swapped =
        Stored::open(&packed).and_then(|stored| stored.load(&THIS).map(|loaded| loaded.weights));
    assert!(swapped.is_err(), "{swapped:?}");
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

/// A bundle of a network without steps has the normalized image as its output.
#[test]
fn the_example_returns_the_five_largest_outputs_of_a_bundle() {
    let home = tempfile::tempdir().unwrap();
    let (folder, image) = (home.path().join("bundle"), home.path().join("image"));
    let value = ValueSpec { dims: vec![2, 1, 3], quantization: None };
    let bundle = Bundle {
        plan: Plan { values: vec![value], threads: 1, ..Plan::default() },
        preprocessing: Preprocessing {
            mean: vec![10.0, 20.0],
            std: vec![2.0, 4.0],
            classes: ["cat", "dog", "ship"].map(str::to_owned).to_vec(),
            transform: Transform::default(),
        },
        configuration: String::new(),
    };
    bundle.write(&folder).unwrap();
    std::fs::write(&image, [10, 12, 18, 20, 28, 32]).unwrap();
    let found = run_bundle::run(&folder, Some(&image)).unwrap();
    let expected =
        [("ship", 4.0), ("output 5", 3.0), ("output 4", 2.0), ("dog", 1.0), ("cat", 0.0)];
    assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)));

    assert_eq!(run_bundle::run(&folder, None).unwrap().len(), 5);
    std::fs::write(&image, [10, 12]).unwrap();
    let error = run_bundle::run(&folder, Some(&image)).unwrap_err().to_string();
    assert!(error.contains("input"), "{error}");
    let error = run_bundle::run(home.path(), None).unwrap_err().to_string();
    assert!(error.contains("plan.bin"), "{error}");
}
