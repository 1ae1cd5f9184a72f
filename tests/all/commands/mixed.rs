//! Runs networks that are partitioned between devices through every command.

use serde_json::Value;

use super::{Home, finished, front, write_npy};

#[test]
fn networks_that_change_sides_are_searched_kept_and_run() {
    if paretune_kernels::opencl::names().is_empty() {
        eprintln!("SKIPPED: there is no OpenCL device");
        return;
    }
    let home = Home::new();
    // The number of kernels is small, because compilers that run on the device are slow.
    std::fs::write(
        home.path("space.toml"),
        "[narrow]\n\"backend\" = [\"cpu then opencl at 1\", \"opencl then cpu at 1\"]\n\
         \"*.bits\" = [32]\n[fix]\n\"threads\" = 1\n",
    )
    .expect("written");
    let search = |budget: &'static str, study: &'static str| {
        [
            "search",
            "--json",
            "--strategy",
            "random",
            "--backend",
            "cpu,opencl",
            "--space",
            "space.toml",
            "--budget",
        ]
        .into_iter()
        .chain([budget, "--study", study])
        .collect::<Vec<_>>()
    };
    let events = super::events(&home.ok(&search("3trials", "study")));
    let first = finished(&events);
    assert_eq!(first.len(), 3);
    let found = front(&home.path("study"));
    let points = found["points"].as_array().expect("points");
    assert!(!points.is_empty());
    for point in points {
        let backend = point["config"]["backend"].as_str().expect("a backend");
        assert!(backend.contains(" then "), "{backend}");
        assert!(point["metrics"]["latency"].as_f64() > Some(0.0));
    }
    assert!(home.ok(&["show", "study"]).contains("accuracy"));

    // The bundle is partitioned as well, and reports the cost of its device boundaries.
    home.ok(&["export", "study", "--to", "bundle", "--output", "bundle"]);
    let image: Vec<f32> =
        (0..3_u16 * 32 * 32).map(|index| f32::from(index % 255) / 128.0 - 1.0).collect();
    write_npy(&home.path("x.npy"), &[1, 3, 32, 32], &image);
    home.ok(&["run", "bundle", "--input", "x.npy", "--output", "y.npy"]);
    let bench: Value =
        serde_json::from_str(&home.ok(&["bench", "bundle", "--seconds", "0.2", "--json"]))
            .expect("JSON");
    let layers = bench["layers"].as_array().expect("layers");
    let has = |test: &dyn Fn(&str) -> bool| {
        layers.iter().any(|layer| layer["algorithm"].as_str().is_some_and(test))
    };
    assert!(has(&|algorithm| algorithm == "transfer"), "{bench}");
    assert!(has(&|algorithm| algorithm.starts_with("opencl_")), "{bench}");

    // The study continues, and another study with equal arguments measures nothing.
    home.ok(&search("3trials", "study"));
    assert_eq!(front(&home.path("study"))["trials"], 3);
    let again = finished(&super::events(&home.ok(&search("3trials", "again"))));
    assert_eq!(
        again.iter().map(|(id, _)| id).collect::<Vec<_>>(),
        first.iter().map(|(id, _)| id).collect::<Vec<_>>()
    );
    assert!(again.iter().all(|(_, cached)| *cached), "{again:?}");
}
