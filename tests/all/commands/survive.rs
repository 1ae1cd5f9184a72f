//! Studies that go on: after a kill, with other options, with dead workers, damaged files, signals
//! and a terminal that is closed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use paretune::evaluate::host::HostOptions;
use paretune::record::budget::Budget;
use paretune::record::change::Change;
use paretune::record::event::Event;
use paretune::record::front::Front;
use paretune::record::limit;
use paretune::record::metric::Metric;
use paretune::record::preference::Preference;
use paretune::record::request::StudyRequest;
use paretune::study::prepare::Material;
use paretune::study::session::{Conclusion, Control, SessionOptions, run};
use serde_json::Value;

use super::{Home, front};

/// Returns a request about the built-in network, with `trials` random trials on one thread.
fn request(trials: u64) -> StudyRequest {
    StudyRequest {
        model: None,
        data: None,
        normalization: None,
        images: Default::default(),
        limits: Vec::new(),
        objectives: Metric::objectives().collect(),
        prefer: Preference::default(),
        budget: Budget { seconds: None, trials: Some(trials) },
        strategy: "random".to_owned(),
        backends: vec!["cpu".to_owned()],
        threads: vec![1],
        space: None,
        seed: 0,
        finetune: 0,
    }
}

/// Runs a session in this process, with workers started by `command`.
fn session(
    home: &Home,
    request: &StudyRequest,
    command: Vec<String>,
    see: &mut dyn FnMut(&Event, &Control),
) -> Conclusion {
    std::fs::create_dir_all(home.path("home")).expect("a folder");
    let options = SessionOptions {
        request: request.clone(),
        folder: home.path("study"),
        store: home.path("home/db"),
        host: HostOptions { command, memory_limit: None, open_deadline: Duration::from_secs(300) },
        trial_deadline: Duration::from_secs(120),
    };
    let material = Material::load(request, None, None).expect("the built-in network");
    let control = Control::default();
    run(&options, &material, &control, &mut |event| see(event, &control)).expect("a conclusion")
}

fn worker() -> Vec<String> {
    [env!("CARGO_BIN_EXE_paretune"), "worker"].map(str::to_owned).to_vec()
}

/// Returns the numbers of the finished trials in the journal of `study`.
fn numbers(study: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(study.join("journal.jsonl")).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["event"] == "trial_finished")
        .filter_map(|event| event["number"].as_u64())
        .collect()
}

fn feasible(front: &Front) -> usize {
    front.points.iter().filter(|point| point.feasible).count()
}

#[test]
fn nothing_measured_is_lost_when_a_study_is_asked_otherwise() {
    let home = Home::new();
    let base = ["search", "--headless", "--threads", "1", "--study", "study"];
    let ask = |more: &[&str]| home.run(&[&base[..], more].concat());
    let first = ask(&["--strategy", "random", "--budget", "5trials"]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let study = home.path("study");
    let before = front(&study);
    // A smaller budget, other limits, another seed and another strategy propose something else.
    ask(&["--strategy", "random", "--budget", "2trials"]);
    assert_eq!(front(&study)["trials"], 5);
    assert_eq!(front(&study)["points"], before["points"]);
    ask(&["--strategy", "random", "--budget", "5trials", "--limit", "size<1B"]);
    let strict = front(&study);
    assert_eq!((&strict["trials"], strict["nearest_miss"].is_null()), (&Value::from(5), false));
    ask(&["--strategy", "nsga2", "--seed", "7", "--budget", "7trials"]);
    assert_eq!(front(&study)["trials"], 7);
    let numbers = numbers(&study);
    let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!((numbers.len(), distinct.len()), (7, 7), "{numbers:?}");
}

#[test]
fn changes_on_the_screen_hold_and_lose_nothing() {
    let home = Home::new();
    let mut strict = request(5);
    strict.limits = limit::parse("size<1B").expect("a limit");
    // After three trials the limits are loosened, later the preference changes, and during the
    // final measurements once more.
    let mut confirming = false;
    let conclusion = session(&home, &strict, worker(), &mut |event, control| match event {
        Event::TrialFinished(trial) if trial.number == 3 => {
            control.change(Change::Limits(limit::parse("size<900MB").expect("a limit")));
        }
        Event::TrialFinished(trial) if trial.number == 4 => {
            control.change(Change::Prefer(Preference::Metric(Metric::Latency)));
        }
        Event::Confirming { .. } if !confirming => {
            confirming = true;
            control.change(Change::Prefer(Preference::Metric(Metric::Size)));
        }
        _ => {}
    });
    assert_eq!(conclusion.prefer, Preference::Metric(Metric::Size));
    let size = |point: &paretune::record::front::FrontPoint| {
        point.metrics.get(Metric::Size).expect("a size")
    };
    let smallest = |front: &Front| front.points.iter().map(size).fold(f64::INFINITY, f64::min);
    let best = conclusion.front.points.iter().find(|point| point.best).expect("a best point");
    assert!(size(best) <= smallest(&conclusion.front), "the preference is the current one");
    let found = feasible(&conclusion.front);
    assert!(found > 0);
    // The same request again: what was set on the screen holds, and every trial is there.
    let mut notices = Vec::new();
    let again = session(&home, &strict, worker(), &mut |event, _| {
        if let Event::Notice { text } = event {
            notices.push(text.clone());
        }
    });
    assert!(notices.iter().any(|text| text.contains("set on the screen")), "{notices:?}");
    assert_eq!((again.front.trials, again.prefer), (5, Preference::Metric(Metric::Size)));
    assert_eq!(feasible(&again.front), found);
    let numbers = numbers(&home.path("study"));
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    // Another request replaces what was set.
    let mut other = strict.clone();
    other.limits = limit::parse("size<800MB").expect("a limit");
    let replaced = session(&home, &other, worker(), &mut |_, _| {});
    assert_eq!(replaced.front.limits, other.limits);
    assert_eq!(replaced.front.trials, 5);
}

/// Starts a search and waits until `trials` of it are finished.
fn searching(home: &Home, arguments: &[&str], trials: usize) -> Child {
    let mut command = home.command(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("the program starts");
    let begun = Instant::now();
    while numbers(&home.path("study")).len() < trials {
        assert!(begun.elapsed().as_secs() < 240, "no trial was finished");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

/// Arguments of a search that goes on for long.
const LONG: [&str; 10] = [
    "search",
    "--headless",
    "--threads",
    "1",
    "--strategy",
    "random",
    "--budget",
    "500trials",
    "--study",
    "study",
];

#[test]
fn a_study_that_runs_or_was_killed_is_shown_exported_and_asked_again() {
    let home = Home::new();
    let mut child = searching(&home, &LONG, 3);
    let shown = |more: &[&str]| -> Value {
        let text = home.ok(&[&["show", "study", "--json"], more].concat());
        serde_json::from_str(&text).expect("JSON")
    };
    assert_eq!(shown(&[])["state"], "running");
    child.kill().expect("SIGKILL");
    child.wait().expect("it ends");
    let killed = shown(&[]);
    assert_eq!(killed["state"], "stopped");
    let points = killed["points"].as_array().expect("points");
    assert!(!points.is_empty() && points.iter().all(|point| point["confirmed"] == false));
    assert!(killed["trials"].as_u64() >= Some(3));
    let told = home.run(&["show", "study"]);
    assert!(String::from_utf8_lossy(&told.stderr).contains("stopped before its end"));
    assert!(points.len() == 1 || String::from_utf8_lossy(&told.stdout).contains('~'));
    home.ok(&["export", "study", "--output", "bundle"]);
    assert!(home.path("bundle/plan.bin").is_file());
    // Asked under a limit that the smallest point alone keeps, that one is the best.
    let sizes = points.iter().filter_map(|point| point["metrics"]["size"].as_f64());
    let smallest = sizes.fold(f64::INFINITY, f64::min);
    let limit = format!("size<{}B", smallest + 1.0);
    let asked = shown(&["--limit", &limit, "--prefer", "latency"]);
    let best = asked["points"].as_array().expect("points").iter().find(|p| p["best"] == true);
    assert_eq!(best.expect("a best point")["metrics"]["size"].as_f64(), Some(smallest));
    assert_eq!(asked["limits"][0]["metric"], "size");
    let none = shown(&["--limit", "size<1B"]);
    assert!(!none["nearest_miss"].is_null());
    home.fails(&["show", "study", "--limit", "speed<1ms"], 2);
    home.ok(&["export", "study", "--limit", &limit, "--output", "small"]);

    // It ends, and is asked again: by its confirmed points, without another measurement.
    let end = [&LONG[..6], &["--budget", "3trials", "--study", "study"]].concat();
    home.ok(&end);
    let ended = shown(&[]);
    assert!(ended["state"].is_null());
    assert_eq!(ended, front(&home.path("study")));
    assert!(ended["trials"].as_u64() >= killed["trials"].as_u64());
    let asked = shown(&["--prefer", "size"]);
    let points = asked["points"].as_array().expect("points");
    let best = points.iter().find(|point| point["best"] == true).expect("a best point");
    let smaller =
        |point: &&Value| point["metrics"]["size"].as_f64() < best["metrics"]["size"].as_f64();
    assert_eq!(points.iter().filter(smaller).count(), 0);
}

#[test]
fn a_folder_of_other_files_is_not_taken_for_a_study() {
    let home = Home::new();
    std::fs::create_dir(home.path("photos")).expect("a folder");
    std::fs::write(home.path("photos/cat.txt"), "meow").expect("written");
    let arguments = [&LONG[..9], &["photos"]].concat();
    let error = home.fails(&arguments, 2);
    assert!(error.contains("not empty") && error.contains("--study"), "{error}");
    assert_eq!(files(&home.path("photos")).len(), 1);
}

#[test]
fn studies_are_listed_with_their_state() {
    let home = Home::new();
    assert!(home.ok(&["studies"]).contains("no studies yet"));
    let search = ["search", "--headless", "--threads", "1", "--strategy", "random"];
    home.ok(&[&search[..], &["--budget", "1trials"]].concat());
    let line: Value = serde_json::from_str(&home.ok(&["studies", "--json"])).expect("one line");
    assert_eq!((&line["state"], &line["trials"]), (&Value::from("ended"), &Value::from(1)));
    assert!(home.ok(&["studies"]).contains("ended, 1 trials"));
    let name = line["name"].as_str().expect("a name");
    home.ok(&["show", name]);
    home.ok(&["export", "--to", "json"]);
}

/// Lists all files of `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all.sort();
    all
}

#[test]
fn damaged_files_are_noticed_and_made_again() {
    let home = Home::new();
    let search = [&LONG[..6], &["--budget", "2trials", "--study", "study"]].concat();
    home.ok(&search);
    let study = home.path("study");
    let whole = front(&study);
    let without_counts = |front: &Value| -> Value {
        let mut front = front.clone();
        for varying in ["seconds", "cached", "checksum"] {
            front.as_object_mut().expect("an object").remove(varying);
        }
        front
    };
    let names = files(&study);
    let has = |end: &str| names.iter().any(|path| path.to_string_lossy().ends_with(end));
    assert!(has(".network") && has(".images") && has("study.toml") && has("front.json"));
    for path in names.iter().filter(|path| !path.ends_with("lock")) {
        let bytes = std::fs::read(path).expect("a file");
        // An artefact has one checksum over everything; a file of lines has one for each.
        let artefact = path.parent().is_some_and(|folder| folder.ends_with("artefacts"));
        for part in if artefact { 2..=2 } else { 1..=4 } {
            let mut damaged = bytes.clone();
            // The last one is in the last line of the journal, which says that the study has ended.
            damaged[(bytes.len() * part / 4).min(bytes.len() - 3)] ^= 1;
            std::fs::write(path, &damaged).expect("written");
            let shown: Value =
                serde_json::from_str(&home.ok(&["show", "study", "--json"])).expect("JSON");
            assert_eq!(shown["points"], whole["points"], "{}", path.display());
            home.ok(&["export", "study", "--output", "bundle"]);
            if part == 2 {
                home.ok(&search);
                let again = front(&study);
                assert_eq!(without_counts(&again), without_counts(&whole), "{}", path.display());
            }
            std::fs::write(path, &bytes).expect("written");
        }
    }
}

/// Returns a worker whose process `n` (from 1) runs `fault` if `when` holds, a test of the shell
/// about `$n`.
fn faulty(home: &Home, when: &str, fault: &str) -> Vec<String> {
    let count = home.path("count");
    let program = env!("CARGO_BIN_EXE_paretune");
    let script = format!(
        "echo >> '{count}'; n=$(wc -l < '{count}'); \
         if {when}; then {fault}; else exec '{program}' worker; fi",
        count = count.display(),
        fault = fault.replace("WORKER", &format!("'{program}' worker")),
    );
    vec!["sh".to_owned(), "-c".to_owned(), script]
}

#[test]
fn workers_that_die_cost_no_result() {
    // Every second process dies: at once, with the workload half open, or in the first trial.
    for fault in ["kill -KILL $$", "head -n 1 | WORKER; kill -KILL $$", "exit 7"] {
        let home = Home::new();
        let mut failures = Vec::new();
        let command = faulty(&home, "[ $((n % 2)) = 1 ]", fault);
        let conclusion = session(&home, &request(2), command, &mut |event, _| {
            if let Event::TrialFinished(trial) = event {
                failures.extend(trial.failure.clone());
            }
        });
        assert_eq!(failures, Vec::<String>::new(), "{fault}");
        assert_eq!(conclusion.front.trials, 2);
        assert!(conclusion.front.points.iter().all(|point| point.confirmed), "{fault}");
    }
}

#[test]
fn a_front_whose_workers_die_while_it_is_confirmed_keeps_its_points() {
    let home = Home::new();
    let before = session(&home, &request(3), worker(), &mut |_, _| {}).front;
    // Without the store, all points are to be confirmed again.
    std::fs::remove_dir_all(home.path("home")).expect("the store");
    let command = faulty(&home, "true", "kill -KILL $$");
    let after = session(&home, &request(3), command, &mut |_, _| {}).front;
    assert!(!after.points.is_empty() && after.points.len() >= before.points.len());
    assert!(after.points.iter().all(|point| !point.confirmed));
    assert!(after.points.iter().any(|point| point.best));
}

#[test]
fn a_baseline_whose_workers_die_is_measured_by_the_next_study() {
    let home = Home::new();
    let command = faulty(&home, "[ $n -le 4 ]", "head -n 1 | WORKER; kill -SEGV $$");
    let options = SessionOptions {
        request: request(1),
        folder: home.path("study"),
        store: home.path("db"),
        host: HostOptions { command, memory_limit: None, open_deadline: Duration::from_secs(300) },
        trial_deadline: Duration::from_secs(120),
    };
    let material = Material::load(&options.request, None, None).expect("the built-in network");
    let failed = run(&options, &material, &Control::default(), &mut |_| {});
    let error = failed.expect_err("two workers died").to_string();
    assert!(error.contains("baseline") && error.contains("SIGSEGV"), "{error}");
    let other = SessionOptions { folder: home.path("other"), ..options };
    let mut other = other;
    other.host.command = worker();
    let found = run(&other, &material, &Control::default(), &mut |_| {}).expect("a conclusion");
    assert_eq!(found.front.points.len(), 1);
}

#[cfg(unix)]
fn signal(process: u32, name: &str) {
    let process = process.to_string();
    let sent = Command::new("kill").args([&format!("-{name}"), &process]).status();
    assert!(sent.expect("kill").success());
}

#[cfg(unix)]
#[test]
fn a_closed_terminal_stops_a_search_unless_it_is_to_be_ignored() {
    for (ignored, expected) in [(false, Some(130)), (true, Some(0))] {
        let home = Home::new();
        let program = env!("CARGO_BIN_EXE_paretune");
        let trap = if ignored { "trap '' HUP; " } else { "" };
        let script = format!(
            "{trap}exec '{program}' search --headless --threads 1 --strategy random --budget \
             4trials --study study"
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(home.path("")).stderr(Stdio::null());
        command.stdout(Stdio::null()).env("PARETUNE_HOME", home.path("home"));
        let mut child = command.spawn().expect("a shell");
        let begun = Instant::now();
        while numbers(&home.path("study")).is_empty() && begun.elapsed().as_secs() < 240 {
            std::thread::sleep(Duration::from_millis(10));
        }
        signal(child.id(), "HUP");
        assert_eq!(child.wait().expect("it ends").code(), expected, "ignored: {ignored}");
        let trials = front(&home.path("study"))["trials"].as_u64();
        assert!(if ignored { trials == Some(4) } else { trials >= Some(1) }, "{trials:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_screen_whose_terminal_is_closed_ends() {
    let there = Command::new("tmux").arg("-V").output().is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("SKIPPED: no tmux");
        return;
    }
    let home = Home::new();
    let program = env!("CARGO_BIN_EXE_paretune");
    let terminal = super::outside::Tmux { socket: home.path("tmux") };
    let command = format!(
        "cd '{}' && PARETUNE_HOME='{}' exec '{program}' search --tui --strategy random --threads 1 \
         --budget 500trials --study study",
        home.path("").display(),
        home.path("home").display()
    );
    terminal.ask(&["new-session", "-d", "-x", "80", "-y", "24", &command]);
    terminal.wait_for("1 Front");
    let process: u32 =
        terminal.ask(&["display-message", "-p", "#{pane_pid}"]).trim().parse().expect("a number");
    drop(terminal);
    let begun = Instant::now();
    while Path::new(&format!("/proc/{process}")).exists() {
        assert!(begun.elapsed().as_secs() < 60, "the process stays");
        std::thread::sleep(Duration::from_millis(50));
    }
}
