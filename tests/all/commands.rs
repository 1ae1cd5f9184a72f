//! Runs every command end to end on the built-in network and images, as a user does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

mod images;
mod lost;
mod mixed;
mod network;
mod outside;
mod survive;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paretune"));
        command.args(arguments).current_dir(self.0.path()).env("PARETUNE_HOME", self.path("home"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    fn fails(&self, arguments: &[&str], status: i32) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {errors}");
        assert!(!errors.contains("panicked"), "{errors}");
        errors
    }
}

fn front(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("front.json")).expect("front.json"))
        .expect("JSON")
}

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("an event a line")).collect()
}

/// Returns the ids of finished trials and whether the store provided their results.
fn finished(events: &[Value]) -> Vec<(String, bool)> {
    events
        .iter()
        .filter(|event| event["event"] == "trial_finished")
        .map(|event| (event["id"].as_str().expect("an id").to_owned(), event["cached"] == true))
        .collect()
}

/// Arguments of a search of two trials: the baseline, and all layers in 8 bits.
const QUICK: [&str; 5] = ["search", "--headless", "--budget", "2trials", "--strategy"];

#[test]
fn a_search_ends_in_something_that_runs() {
    let home = Home::new();
    let study = home.path("study");
    home.ok(&[&QUICK[..], &["nsga2", "--study", "study", "--limit", "size<1MB"]].concat());
    let front = front(&study);
    assert_eq!(front["format"], "paretune-front/1");
    assert_eq!(front["trials"], 2);
    assert!(front["nearest_miss"].is_null());
    let points = front["points"].as_array().expect("points");
    let best: Vec<&Value> = points.iter().filter(|point| point["best"] == true).collect();
    assert_eq!(best.len(), 1);
    let metrics = &best[0]["metrics"];
    assert!(metrics["accuracy"].as_f64() > Some(0.5), "{metrics}");
    assert!(metrics["latency"].as_f64() > Some(1e-6), "{metrics}");
    assert!(metrics["size"].as_f64() < Some(1e6), "{metrics}");
    assert!(metrics["memory"].as_f64() > Some(1e4), "{metrics}");
    let spread = &best[0]["spread"]["latency"];
    assert!(
        spread[0].as_f64() <= metrics["latency"].as_f64()
            && metrics["latency"].as_f64() <= spread[1].as_f64()
    );

    // The output of `show` equals the stored front.
    let shown: Value = serde_json::from_str(&home.ok(&["show", "study", "--json"])).expect("JSON");
    assert_eq!(shown, front);
    assert!(home.ok(&["show", "study"]).contains("accuracy"));
    assert_eq!(home.ok(&["show", "study", "--csv"]).lines().count(), points.len() + 1);
    home.ok(&["show", "study", "--svg", "front.svg", "--html", "front.html"]);
    assert!(std::fs::read_to_string(home.path("front.svg")).expect("the picture").contains("<svg"));

    // The bundle has the size stated in the front and runs without the study.
    home.ok(&["export", "study", "--to", "bundle", "--output", "bundle"]);
    let bytes: u64 = std::fs::read_dir(home.path("bundle"))
        .expect("the bundle")
        .map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").len())
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let bytes = bytes as f64;
    assert_eq!(Some(bytes), metrics["size"].as_f64());
    let json: Value =
        serde_json::from_str(&home.ok(&["export", "study", "--to", "json"])).expect("JSON");
    assert_eq!(&json, best[0]);
    outside::exports_run_elsewhere(&home, &front);
    let said = home.ok(&["export", "study", "--weights", "packed", "--output", "packed"]);
    assert!(said.contains("packed for") && said.contains("coded"), "{said}");
    home.ok(&["export", "study", "--weights", "coded", "--output", "bundle"]);
    home.fails(&["export", "study", "--to", "json", "--weights", "packed"], 2);
    std::fs::remove_dir_all(&study).expect("the study goes");
    let image: Vec<f32> =
        (0..2_u16 * 3 * 32 * 32).map(|index| f32::from(index % 255) / 128.0 - 1.0).collect();
    write_npy(&home.path("x.npy"), &[2, 3, 32, 32], &image);
    home.ok(&["run", "bundle", "--input", "x.npy", "--output", "y.npy"]);
    let output = std::fs::read(home.path("y.npy")).expect("the output");
    assert!(
        output.starts_with(b"\x93NUMPY") && output.len() % 64 == (2 * 10 * 4) % 64,
        "{} bytes",
        output.len()
    );
    let bench: Value =
        serde_json::from_str(&home.ok(&["bench", "bundle", "--seconds", "0.2", "--json"]))
            .expect("JSON");
    assert!(bench["latency"]["median"].as_f64() > Some(0.0));
    assert!(bench["layers"].as_array().is_some_and(|layers| layers.len() > 5));
    assert_eq!(bench["load"]["weights"], "decoded");

    // Weights packed ahead give equal outputs and take no additional memory.
    home.ok(&["run", "packed", "--input", "x.npy", "--output", "z.npy"]);
    assert_eq!(output, std::fs::read(home.path("z.npy")).expect("the output"));
    home.ok(&["run", "packed", "--threads", "1", "--input", "x.npy", "--output", "z.npy"]);
    assert_eq!(output, std::fs::read(home.path("z.npy")).expect("the output"));
    let [plain, packed] = ["bundle", "packed"].map(|bundle| -> Value {
        serde_json::from_str(&home.ok(&["bench", bundle, "--seconds", "0.2", "--json"]))
            .expect("JSON")
    });
    assert_eq!(
        (&packed["load"]["weights"], &packed["memory"]),
        (&Value::from("mapped"), &plain["memory"])
    );
    assert!(
        home.ok(&["bench", "packed", "--seconds", "0.2"]).contains("weights mapped as they are")
    );
    // Other tiles may be chosen for more images. Weights are then repacked, with a note.
    let batch = home.run(&["bench", "packed", "--batch", "7", "--seconds", "0.2", "--json"]);
    let said: Value = serde_json::from_slice(&batch.stdout).expect("JSON");
    let told =
        String::from_utf8_lossy(&batch.stderr).contains("note: weights decoded and packed again");
    assert_eq!(said["load"]["weights"], if told { "repacked" } else { "mapped" });
}

#[test]
fn tuned_schedules_are_kept_and_used() {
    let home = Home::new();
    std::fs::write(home.path("model.onnx"), paretune_model::builtin::network_bytes())
        .expect("the network");
    let json =
        |arguments: &[&str]| -> Value { serde_json::from_str(&home.ok(arguments)).expect("JSON") };
    let common = ["bench", "model.onnx", "--threads", "1", "--seconds", "0.2", "--json"];
    let plain = json(&[&common[..], &["--fp32"]].concat());
    assert_eq!(plain["schedules"], "default");
    let tuned = json(&[&common[..], &["--tune", "--budget", "1s"]].concat());
    let layers = tuned["layers"].as_array().expect("layers");
    assert!(!layers.is_empty());
    for layer in layers {
        // The default schedule is one of the candidates.
        assert!(layer["seconds"].as_f64() <= layer["default_seconds"].as_f64(), "{layer}");
        assert!(layer["tried"].as_u64() >= Some(1) && layer["algorithm"].is_string(), "{layer}");
    }
    assert!(tuned["latency"]["median"].as_f64() <= tuned["default_latency"]["median"].as_f64());
    let stats = json(&["db", "stats", "--json"]);
    assert_eq!(stats["kinds"]["network-schedules"], 1);
    assert_eq!(stats["kinds"]["layer-schedule"].as_u64(), Some(layers.len() as u64));
    let used = json(&[&common[..], &["--fp32"]].concat());
    assert_eq!(used["schedules"], "tuned for this network");
    // No schedules are stored for two threads.
    let other =
        json(&["bench", "model.onnx", "--threads", "2", "--seconds", "0.2", "--json", "--fp32"]);
    assert_eq!(other["schedules"], "default");
    home.fails(&["bench", "model.onnx", "--tune", "--budget", "5trials"], 2);
    home.fails(&["bench", "model.onnx", "--budget", "5s"], 2);
}

#[test]
fn the_same_search_again_measures_nothing() {
    let home = Home::new();
    let arguments = |study: &'static str| {
        vec!["search", "--json", "--budget", "3trials", "--strategy", "random", "--study", study]
    };
    let before = finished(&events(&home.ok(&arguments("one"))));
    assert_eq!(before.len(), 3);
    assert!(before.iter().all(|(_, cached)| !cached));
    // Another study with equal arguments: the store provides all results in the same order.
    let second = finished(&events(&home.ok(&arguments("two"))));
    let ids =
        |trials: &[(String, bool)]| trials.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&second), ids(&before));
    assert!(second.iter().all(|(_, cached)| *cached));
    assert_eq!(front(&home.path("one"))["points"], front(&home.path("two"))["points"]);
    // The finished study has nothing left to do, and its front stays.
    let again = events(&home.ok(&arguments("one")));
    assert_eq!(finished(&again), []);
    assert_eq!(front(&home.path("one"))["points"], front(&home.path("two"))["points"]);
    let stats: Value = serde_json::from_str(&home.ok(&["db", "stats", "--json"])).expect("JSON");
    assert_eq!(stats["kinds"]["speed"], 3);
}

#[cfg(unix)]
#[test]
fn a_killed_study_goes_on_and_measures_nothing_twice() {
    let home = Home::new();
    let study = home.path("study");
    let arguments =
        ["search", "--headless", "--budget", "5trials", "--strategy", "nsga2", "--study", "study"];
    let mut child = home.command(&arguments).spawn().expect("the program starts");
    let ids = || -> Vec<String> {
        let text = std::fs::read_to_string(study.join("journal.jsonl")).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|event| event["event"] == "trial_finished")
            .map(|event| event["id"].as_str().expect("an id").to_owned())
            .collect()
    };
    let start = std::time::Instant::now();
    while ids().len() < 2 && start.elapsed().as_secs() < 120 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("it ends");
    let before = ids();
    assert!((2..5).contains(&before.len()), "{} trials before the kill", before.len());
    home.ok(&arguments);
    let after = ids();
    assert_eq!(after.len(), 5);
    assert_eq!(after[..before.len()], before[..]);
    let mut distinct = after.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 5, "no trial is measured twice");
    assert_eq!(front(&study)["trials"], 5);
}

#[test]
fn limits_that_nothing_meets_exit_with_3_and_name_the_nearest_miss() {
    let home = Home::new();
    let output =
        home.run(&[&QUICK[..], &["nsga2", "--study", "study", "--limit", "<0.001ms"]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let words = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("Nearest miss") && words.contains("latency"), "{words}");
    let front = front(&home.path("study"));
    assert!(front["nearest_miss"]["violation"]["latency"].as_f64() > Some(1.0));
    home.ok(&["export", "study", "--to", "bundle", "--output", "nearest"]);
}

#[test]
fn evaluate_scores_what_space_offers() {
    let home = Home::new();
    let space: Value = serde_json::from_str(&home.ok(&["space", "--json"])).expect("JSON");
    let default = &space["default"];
    assert!(default.as_object().is_some_and(|object| object.len() > 20));
    std::fs::write(home.path("config.json"), serde_json::to_string_pretty(default).expect("JSON"))
        .expect("written");
    let line = home.ok(&["evaluate", "--config", "config.json", "--images", "256"]);
    let result: Value = serde_json::from_str(&line).expect("one line of JSON");
    assert!(result["metrics"]["accuracy"].as_f64() > Some(0.85), "{result}");
    // A configuration outside the space is reported as a failed result and does not end the
    // command.
    std::fs::write(home.path("wrong.json"), "{\"no.such.layer\": 1}").expect("written");
    let line = home.ok(&["evaluate", "--config", "wrong.json"]);
    assert!(line.contains("failed") && line.contains("no.such.layer"), "{line}");
}

#[test]
fn mistakes_are_told_in_one_message() {
    let home = Home::new();
    for (arguments, expected) in [
        (&["search", "absent.onnx", "--data", "."][..], "absent.onnx"),
        (&["space", "garbage.onnx"], "garbage"),
        (&["search", "--limit", "speed<5ms"], "speed<5ms"),
        (&["search", "--budget", "soon"], "soon"),
        (&["search", "--strategy", "luck"], "luck"),
        (&["show", "nowhere"], "nowhere"),
        (&["export", "nowhere"], "nowhere"),
        (&["run", "nowhere", "--data", "."], "nowhere"),
        (&["bench", "nowhere"], "nowhere"),
        (&["frobnicate"], "frobnicate"),
    ] {
        std::fs::write(home.path("garbage.onnx"), b"this is no network").expect("written");
        let error = home.fails(arguments, 2);
        assert!(error.matches("os error").count() <= 1, "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}

#[test]
fn help_teaches_every_command() {
    let home = Home::new();
    let help = home.ok(&["--help"]);
    for command in [
        "search",
        "show",
        "export",
        "run",
        "bench",
        "characterize",
        "space",
        "evaluate",
        "replay",
        "devices",
        "db",
    ] {
        assert!(help.contains(command), "{command}");
        assert!(home.ok(&[command, "--help"]).contains("Usage"), "{command}");
    }
    assert!(home.ok(&["devices", "--quick", "--json"]).contains("cores"));
    assert!(home.ok(&["completions", "bash"]).contains("--budget"));
    home.ok(&["man", "manual"]);
    let page =
        std::fs::read_to_string(home.path("manual").join("paretune-search.1")).expect("a page");
    assert!(page.contains("paretune\\-search") && page.contains("limit"), "{page}");
}

#[test]
fn techniques_are_characterized_and_a_second_run_measures_nothing() {
    let home = Home::new();
    let arguments = [
        "characterize",
        "--threads",
        "1",
        "--images",
        "256",
        "--budget",
        "4trials",
        "--output",
        "study.md",
    ];
    home.ok(&arguments);
    let text = std::fs::read_to_string(home.path("study.md")).expect("the report");
    assert!(text.contains("| original |") && text.contains("8-bit quantization"), "{text}");
    assert!(text.contains("measurements are missing"), "{text}");
    assert!(
        std::fs::read_to_string(home.path("study-builtin.svg"))
            .expect("curves")
            .contains("<polyline")
    );
    let stats = |home: &Home| -> Value {
        serde_json::from_str(&home.ok(&["db", "stats", "--json"])).expect("JSON")
    };
    let before = stats(&home);
    home.ok(&arguments);
    assert_eq!(stats(&home)["kinds"]["speed"], before["kinds"]["speed"]);
}

/// Writes a NumPy file in single precision.
fn write_npy(path: &Path, shape: &[u64], data: &[f32]) {
    let dims: Vec<String> = shape.iter().map(u64::to_string).collect();
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", dims.join(", "))
            .into_bytes();
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(b' ');
    }
    header.push(b'\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&u16::try_from(header.len()).expect("short").to_le_bytes());
    bytes.extend_from_slice(&header);
    for number in data {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    std::fs::write(path, bytes).expect("written");
}
