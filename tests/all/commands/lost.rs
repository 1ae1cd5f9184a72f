//! Devices that are lost in the middle of a search.

use serde_json::Value;

use super::{Home, finished, front};

/// Runs a search on `backends` in which every OpenCL call of every process fails with `code` after
/// the first `calls`.
fn search(
    home: &Home,
    backends: &str,
    budget: &str,
    code: i32,
    calls: u32,
) -> (Option<i32>, Vec<Value>) {
    let fault = format!("{code}:{calls}:{}", home.path("study.lost").display());
    let arguments = ["search", "--json", "--strategy", "random", "--backend", backends];
    let arguments =
        [&arguments[..], &["--space", "space.toml", "--budget", budget, "--study", "study"]]
            .concat();
    let output =
        home.command(&arguments).env("PARETUNE_OPENCL_FAULT", fault).output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked"), "{errors}");
    (output.status.code(), super::events(&String::from_utf8(output.stdout).expect("text")))
}

fn notices(events: &[Value]) -> Vec<&str> {
    let notices = events.iter().filter(|event| event["event"] == "notice");
    let texts = notices.filter_map(|event| event["text"].as_str());
    texts.filter(|text| text.contains("lost")).collect()
}

#[test]
fn a_search_goes_on_without_the_device_that_it_has_lost() {
    if paretune_kernels::opencl::names().is_empty() {
        eprintln!("SKIPPED: there is no OpenCL device");
        return;
    }
    // Other error codes are tested at their origin. One code suffices here, because each run takes
    // time.
    let home = Home::new();
    // Nothing is compressed, because that would take most of the time.
    let space = "[narrow]\n\"*.bits\" = [32]\n\"*.sparsity\" = [0.0]\n\"channels.*\" = [1.0]\n\
                 [fix]\n\"threads\" = 1\n";
    std::fs::write(home.path("space.toml"), space).expect("written");
    let (status, events) = search(&home, "cpu,opencl", "6trials", -5, 40);
    assert_eq!(status, Some(0));
    let notices = notices(&events);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(
        notices[0].contains("opencl is lost; the search goes on with cpu alone"),
        "{notices:?}"
    );
    assert!(notices[0].contains("CL_OUT_OF_RESOURCES"), "{notices:?}");
    let trials = finished(&events);
    assert_eq!(trials.len(), 6);
    // Trials on the lost device do not count as failures of their configurations.
    let failures = events.iter().filter(|event| event["event"] == "trial_finished");
    assert!(failures.clone().all(|event| event["failure"].is_null()), "{failures:?}");
    let found = front(&home.path("study"));
    let points = found["points"].as_array().expect("points");
    assert!(!points.is_empty());
    assert!(points.iter().all(|point| point["config"]["backend"] == "cpu"), "{points:?}");
}

#[test]
fn a_search_that_has_lost_its_only_device_ends_and_says_so() {
    if paretune_kernels::opencl::names().is_empty() {
        eprintln!("SKIPPED: there is no OpenCL device");
        return;
    }
    let home = Home::new();
    std::fs::write(home.path("space.toml"), "[fix]\n\"threads\" = 1\n").expect("written");
    let (status, events) = search(&home, "opencl", "6trials", -36, 10);
    // The status is that of a search without a feasible point.
    assert_eq!(status, Some(3));
    let notices = notices(&events);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].contains("opencl is lost, and nothing else may be used"), "{notices:?}");
    assert_eq!(events.last().expect("events")["reason"], "device lost");
}

#[test]
fn a_device_that_is_lost_while_the_front_is_confirmed_is_named() {
    if paretune_kernels::opencl::names().is_empty() {
        eprintln!("SKIPPED: there is no OpenCL device");
        return;
    }
    let home = Home::new();
    std::fs::write(home.path("space.toml"), "[fix]\n\"threads\" = 1\n").expect("written");
    let (status, _) = search(&home, "opencl", "1trials", -5, u32::MAX);
    assert_eq!(status, Some(0));
    // The journal has the trial and needs only the device's name. Without the store's final
    // figures, all points must be confirmed again.
    std::fs::remove_dir_all(home.path("home")).expect("the store is there");
    let (status, events) = search(&home, "opencl", "1trials", -5, 40);
    let notices = notices(&events);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].contains("opencl is lost, and nothing else may be used"), "{notices:?}");
    assert_eq!(events.last().expect("events")["reason"], "device lost");
    // The front holds the point as the search measured it before.
    assert_eq!(status, Some(0));
    assert_eq!(front(&home.path("study"))["points"].as_array().expect("points").len(), 1);
}
