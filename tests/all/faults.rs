//! The campaign of faults: kills, signals, pauses and single damaged bytes at random, with seeds
//! from the environment. It takes minutes, so it runs only when it is asked for:
//!
//! ```text
//! cargo test --release --test all faults -- --ignored --nocapture --test-threads 1
//! ```
//!
//! `PARETUNE_FAULTS_SEED` (1) is the seed, `PARETUNE_FAULTS_KILLS` (20), `PARETUNE_FAULTS_DAMAGES`
//! (100) and `PARETUNE_FAULTS_PAUSES` (4) are the numbers of faults.
#![cfg(target_os = "linux")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use paretune::record::journal::Journal;
use rand::{RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::Value;

/// A space without compression, in which trials take no longer than their timing.
const SPACE: &str = "[narrow]\n\"*.bits\" = [32, 8]\n\"*.sparsity\" = [0.0]\n\"channels.*\" = [1.0]\n\
                     [fix]\n\"threads\" = 1\n";

/// Number of trials of the searched studies.
const TRIALS: &str = "8trials";

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(format!("PARETUNE_FAULTS_{name}")).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

/// A folder with a store, a study and a space file.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        std::fs::write(place.path("space.toml"), SPACE).expect("written");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paretune"));
        command.args(arguments).current_dir(self.0.path()).env("PARETUNE_HOME", self.path("home"));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command and checks that no panic reaches the user.
    fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().expect("the program starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!errors.contains("panicked"), "{arguments:?}: {errors}");
        output
    }

    fn search(&self, seed: u64, more: &[&str]) -> Vec<String> {
        let seed = seed.to_string();
        let fixed = ["search", "--json", "--strategy", "random", "--backend", "cpu"];
        let rest = ["--space", "space.toml", "--study", "study", "--seed", &seed];
        [&fixed[..], &rest, more].concat().into_iter().map(str::to_owned).collect()
    }
}

/// Lists the processes that descend from `process`, youngest first.
fn descendants(process: u32) -> Vec<u32> {
    let mut all = Vec::new();
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    for task in tasks.into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in text.split_whitespace().filter_map(|id| id.parse::<u32>().ok()) {
            all.extend(descendants(child));
            all.push(child);
        }
    }
    all
}

fn signal(process: u32, name: &str) {
    // The process may have ended meanwhile.
    let _ = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).output();
}

/// Waits until none of `processes` is left.
fn assert_gone(processes: &[u32]) {
    let begun = Instant::now();
    let alive = |process: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    };
    while processes.iter().any(alive) {
        assert!(begun.elapsed().as_secs() < 30, "a process is left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Trials that a search told as finished, by id.
type Told = Arc<Mutex<BTreeMap<String, Value>>>;

/// Starts a search whose finished trials are gathered in `told`.
fn start(place: &Place, arguments: &[String], told: &Told) -> (Child, std::thread::JoinHandle<()>) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = place.command(&arguments);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let stdout = child.stdout.take().expect("a pipe");
    let told = Arc::clone(told);
    let reader = std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(stdout)).map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event["event"] == "trial_finished"
                && let (Some(id), Ok(mut told)) = (event["id"].as_str(), told.lock())
            {
                told.insert(id.to_owned(), event["known"].clone());
            }
        }
    });
    (child, reader)
}

/// Checks that the journal has every trial that was told, with its figures, and no number twice.
fn assert_nothing_lost(place: &Place, told: &Told) {
    let told = told.lock().expect("no panic");
    let past = match Journal::read(&place.path("study")) {
        Ok(past) => past,
        Err(error) => {
            assert!(told.is_empty(), "{error}");
            return;
        }
    };
    let numbers: BTreeSet<u64> = past.trials.iter().map(|trial| trial.number).collect();
    assert_eq!(numbers.len(), past.trials.len(), "a number stands twice");
    for (id, known) in told.iter() {
        let trial = past.trials.iter().find(|trial| trial.id == *id);
        let trial = trial.unwrap_or_else(|| panic!("{id} was told and is lost"));
        assert_eq!(serde_json::to_value(trial.known).expect("JSON"), *known, "{id}");
    }
}

#[test]
#[ignore = "a campaign of minutes, for docs/results/reliability.md"]
fn kills_and_signals_lose_nothing() {
    let seed = number("SEED", 1);
    let mut dice = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut rounds = 0;
    let mut acknowledged = 0;
    let kills = number("KILLS", 20);
    let mut left = kills;
    while left > 0 {
        rounds += 1;
        let place = Place::new();
        let told = Told::default();
        let arguments = place.search(seed + rounds, &["--budget", TRIALS]);
        loop {
            let (mut child, reader) = start(&place, &arguments, &told);
            let until = Instant::now() + Duration::from_millis(dice.random_range(0..6000));
            while left > 0 && Instant::now() < until {
                if child.try_wait().expect("a child").is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let ended = left == 0 || child.try_wait().expect("a child").is_some();
            let family = descendants(child.id());
            let name = ["KILL", "TERM", "INT", "HUP", "worker"][dice.random_range(0..5)];
            if !ended {
                left -= 1;
                *counts.entry(name.to_owned()).or_default() += 1;
                match (name, family.last()) {
                    ("worker", Some(&worker)) => signal(worker, "KILL"),
                    ("worker", None) => {}
                    (name, _) => signal(child.id(), name),
                }
            }
            let status = child.wait().expect("it ends");
            reader.join().expect("it reads");
            assert_gone(&family);
            assert_nothing_lost(&place, &told);
            match (ended || name == "worker", name) {
                (true, _) => assert_eq!(status.code(), Some(0), "round {rounds}"),
                // A signal may come before the program listens, or after its end.
                (false, "KILL") => assert!(matches!(status.code(), None | Some(0))),
                (false, _) => assert!(matches!(status.code(), None | Some(0 | 130)), "{status}"),
            }
            let shown = place.run(&["show", "study", "--json"]);
            let study = place.path("study/study.toml").exists();
            assert_eq!(shown.status.code(), Some(if study { 0 } else { 2 }));
            if status.code() == Some(0) {
                break;
            }
        }
        assert_nothing_lost(&place, &told);
        acknowledged += told.lock().expect("no panic").len();
        let front = std::fs::read(place.path("study/front.json")).expect("front.json");
        let front: Value = serde_json::from_slice(&front).expect("JSON");
        assert_eq!(front["trials"], 8);
        let points = front["points"].as_array().expect("points");
        assert!(!points.is_empty() && points.iter().all(|point| point["confirmed"].is_null()));
        let unfinished = files(&place.path("study"))
            .into_iter()
            .filter(|path| path.to_string_lossy().contains(".partial-"));
        assert_eq!(unfinished.count(), 0);
    }
    println!(
        "seed {seed}: {kills} faults in {rounds} studies ({counts:?}); {acknowledged} trials told, none lost"
    );
}

#[test]
#[ignore = "a campaign of minutes, for docs/results/reliability.md"]
fn pauses_beyond_the_time_limit_record_no_failure() {
    let seed = number("SEED", 1);
    let mut dice = Xoshiro256PlusPlus::seed_from_u64(seed);
    let pauses = number("PAUSES", 4);
    let place = Place::new();
    let told = Told::default();
    let arguments = place.search(seed, &["--budget", "500trials", "--trial-timeout", "10"]);
    let (mut child, reader) = start(&place, &arguments, &told);
    let trials = || told.lock().expect("no panic").len();
    let wait_for = |count: usize| {
        let begun = Instant::now();
        while trials() < count {
            assert!(begun.elapsed().as_secs() < 300, "no trial is finished");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for(1);
    for _ in 0..pauses {
        std::thread::sleep(Duration::from_millis(dice.random_range(0..1500)));
        let workers = descendants(child.id());
        let stopped = match dice.random_range(0..3) {
            0 => vec![child.id()],
            1 => workers,
            _ => [vec![child.id()], workers].concat(),
        };
        stopped.iter().for_each(|&process| signal(process, "STOP"));
        std::thread::sleep(Duration::from_secs(12));
        stopped.iter().for_each(|&process| signal(process, "CONT"));
        wait_for(trials() + 1);
    }
    signal(child.id(), "TERM");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    reader.join().expect("it reads");
    let past = Journal::read(&place.path("study")).expect("the journal");
    let failures: Vec<&String> =
        past.trials.iter().filter_map(|trial| trial.failure.as_ref()).collect();
    assert!(failures.is_empty(), "{failures:?}");
    println!("seed {seed}: {pauses} pauses, {} trials, no failure", past.trials.len());
}

/// Lists all files of `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// Copies a folder with everything in it.
fn copy(from: &Path, to: &Path) {
    for path in files(from) {
        let target = to.join(path.strip_prefix(from).expect("a file of it"));
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("created");
        std::fs::copy(&path, &target).expect("copied");
    }
}

#[test]
#[ignore = "a campaign of minutes, for docs/results/reliability.md"]
fn damaged_bytes_are_never_believed() {
    let seed = number("SEED", 1);
    let mut dice = Xoshiro256PlusPlus::seed_from_u64(seed);
    let place = Place::new();
    let arguments = place.search(seed, &["--budget", "4trials"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert!(place.run(&arguments).status.success());
    assert!(place.run(&["export", "study", "--output", "bundle"]).status.success());
    let input = [&b"\x93NUMPY\x01\x00\x76\x00"[..], &header()[..], &[0x3f; 3 * 32 * 32 * 4]];
    std::fs::write(place.path("x.npy"), input.concat()).expect("written");
    let run = ["run", "bundle", "--input", "x.npy", "--output", "y.npy"];
    assert!(place.run(&run).status.success());
    let output = std::fs::read(place.path("y.npy")).expect("the output");
    let shown = place.run(&["show", "study", "--json"]).stdout;
    let points = |json: &[u8]| -> Value {
        serde_json::from_slice::<Value>(json).expect("JSON")["points"].clone()
    };
    let whole = points(&shown);
    for part in ["study", "home", "bundle"] {
        copy(&place.path(part), &place.path("kept").join(part));
    }
    let damages = number("DAMAGES", 100);
    let mut counts: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for damage in 0..damages {
        let candidates: Vec<PathBuf> = ["study", "home", "bundle"]
            .iter()
            .flat_map(|part| files(&place.path(part)))
            .filter(|path| path.metadata().is_ok_and(|facts| facts.len() > 0))
            .collect();
        let path = &candidates[dice.random_range(0..candidates.len())];
        let mut bytes = std::fs::read(path).expect("a file");
        let at = dice.random_range(0..bytes.len());
        bytes[at] ^= 1 << dice.random_range(0..8);
        std::fs::write(path, bytes).expect("written");
        let name = path.strip_prefix(place.path("")).expect("a file of it");
        let kind = name.extension().or(name.file_name()).unwrap_or_default();
        let kind = format!(
            "{}/{}",
            name.iter().next().unwrap_or_default().to_string_lossy(),
            kind.to_string_lossy()
        );
        let what = format!("damage {damage}, byte {at} of {}", name.display());
        let entry = counts.entry(kind).or_default();
        entry[0] += 1;
        if name.starts_with("bundle") {
            // It is refused, or has no part in what is computed.
            let _ = std::fs::remove_file(place.path("y.npy"));
            let answered = place.run(&run);
            match answered.status.code() {
                Some(0) => {
                    let same = std::fs::read(place.path("y.npy")).expect("the output") == output;
                    assert!(same, "{what}");
                }
                Some(2) => entry[1] += 1,
                code => panic!("{what}: {code:?} {}", String::from_utf8_lossy(&answered.stderr)),
            }
        } else {
            let shown = place.run(&["show", "study", "--json"]);
            let errors = String::from_utf8_lossy(&shown.stderr).into_owned();
            assert_eq!(shown.status.code(), Some(0), "{what}: {errors}");
            assert_eq!(points(&shown.stdout), whole, "{what}");
            let exported = place.run(&["export", "study", "--output", "again"]);
            let errors = String::from_utf8_lossy(&exported.stderr).into_owned();
            assert_eq!(exported.status.code(), Some(0), "{what}: {errors}");
            for file in ["plan.bin", "weights.bin"] {
                let [new, old] = ["again", "kept/bundle"]
                    .map(|folder| std::fs::read(place.path(folder).join(file)).expect("a bundle"));
                assert_eq!(new, old, "{what}");
            }
            if damage % 4 == 0 || name.starts_with("home") {
                let again = place.run(&arguments);
                let errors = String::from_utf8_lossy(&again.stderr).into_owned();
                assert_eq!(again.status.code(), Some(0), "{what}: {errors}");
                let front = std::fs::read(place.path("study/front.json")).expect("front.json");
                let front: Value = serde_json::from_slice(&front).expect("JSON");
                assert_eq!(front["trials"], 4, "{what}");
                // Without its record in the store, a final figure is measured again.
                if !name.starts_with("home") {
                    assert_eq!(front["points"], whole, "{what}");
                }
            }
            entry[1] += 1;
        }
        for part in ["study", "home", "bundle"] {
            std::fs::remove_dir_all(place.path(part)).expect("removed");
            copy(&place.path("kept").join(part), &place.path(part));
        }
    }
    for (kind, [tried, seen]) in counts {
        println!("{kind:24} {tried:4} damaged, {seen:4} refused or made again");
    }
    println!("seed {seed}: {damages} damaged bytes, none believed");
}

/// Returns the header of a NumPy file with one image of the built-in network's size.
fn header() -> Vec<u8> {
    let mut header =
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 32, 32), }".to_vec();
    header.resize(117, b' ');
    header.push(b'\n');
    header
}
