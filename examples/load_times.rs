//! Measures the time from the start of a process until a bundle can run, and the time of its first
//! run.
//!
//! `cargo run --release --example load_times -- [--cold] BUNDLE...` starts a fresh process for each
//! bundle in turn, several times, and prints the medians as a table with a row for each bundle.
//! Files are in the system's cache by then. With `--cold` they are dropped from it before each
//! process starts, if the system supports it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use paretune_kernels::bundle::{Loaded, Stored};
use paretune_kernels::hardware::Isa;
use paretune_kernels::{ExecutorOptions, KernelError};

/// Number of processes for each bundle.
const ROUNDS: usize = 15;

/// Argument that makes a process load one bundle.
const LOAD: &str = "--load";

/// Argument that drops files from the system's cache before each process.
const COLD: &str = "--cold";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [first, folder] if first == LOAD => {
            load(Path::new(folder)).map_err(|error| error.to_string())
        }
        [first, folders @ ..] if first == COLD => {
            table(folders, true).map_err(|error| error.to_string())
        }
        folders => table(folders, false).map_err(|error| error.to_string()),
    };
    if let Err(error) = result {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

/// Loads a bundle, prints when it is ready, and prints the time of the first run.
fn load(folder: &Path) -> Result<(), KernelError> {
    let start = Instant::now();
    let stored = Stored::open(folder)?;
    let threads = stored.description().plan.threads.max(1);
    let Loaded { mut executor, weights, .. } =
        stored.load(&ExecutorOptions { batch: 1, threads, isa: Isa::detect() })?;
    let loaded = start.elapsed().as_secs_f64();
    println!("ready");
    let (inputs, outputs) = executor.lengths();
    let (input, mut output) = (vec![0.5; inputs], vec![0.0; outputs]);
    let start = Instant::now();
    executor.run(&input, &mut output)?;
    let first = start.elapsed().as_secs_f64();
    println!("{loaded} {first} {} {weights}", stored.bytes()?);
    Ok(())
}

/// Figures that one process has printed.
struct Seen {
    /// Seconds from the start of the process until it was ready.
    ready: f64,
    /// Seconds of loading, included in `ready`.
    loaded: f64,
    first: f64,
    bytes: u64,
    weights: String,
}

fn table(folders: &[String], cold: bool) -> std::io::Result<()> {
    println!("| bundle | bytes | process ready | of which loading | first run | |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let mut seen: Vec<Vec<Seen>> = folders.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (seen, folder) in seen.iter_mut().zip(folders) {
            if cold {
                drop_from_cache(Path::new(folder))?;
            }
            seen.push(time_process(folder)?);
        }
    }
    for (folder, seen) in folders.iter().zip(&seen) {
        let median = |of: fn(&Seen) -> f64| {
            let mut all: Vec<f64> = seen.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            format!("{:.2} ms", 1e3 * all[all.len() / 2])
        };
        let name = Path::new(folder).file_name().unwrap_or_default().to_string_lossy();
        let [ready, loaded, first] =
            [median(|s| s.ready), median(|s| s.loaded), median(|s| s.first)];
        println!(
            "| {name} | {} | {ready} | {loaded} | {first} | {} |",
            seen[0].bytes, seen[0].weights
        );
    }
    Ok(())
}

/// Drops the files in a folder from the system's cache.
fn drop_from_cache(folder: &Path) -> std::io::Result<()> {
    for file in std::fs::read_dir(folder)? {
        let file = std::fs::File::open(file?.path())?;
        #[cfg(target_os = "linux")]
        nix::fcntl::posix_fadvise(
            &file,
            0,
            0,
            nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        )?;
        #[cfg(not(target_os = "linux"))]
        drop(file);
    }
    Ok(())
}

fn time_process(folder: &str) -> std::io::Result<Seen> {
    let start = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .args([LOAD, folder])
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout =
        child.stdout.take().ok_or_else(|| std::io::Error::other("a process without output"))?;
    let mut lines = BufReader::new(stdout).lines();
    let mut line = || {
        lines
            .next()
            .unwrap_or_else(|| Err(std::io::Error::other(format!("`{folder}` was not loaded"))))
    };
    line()?;
    let ready = start.elapsed().as_secs_f64();
    let line_of_figures = line()?;
    child.wait()?;
    let mut words = line_of_figures.splitn(4, ' ');
    let mut word = || {
        words
            .next()
            .ok_or_else(|| std::io::Error::other(format!("unexpected output `{line_of_figures}`")))
    };
    let number = |word: &str| word.parse::<f64>().map_err(std::io::Error::other);
    Ok(Seen {
        ready,
        loaded: number(word()?)?,
        first: number(word()?)?,
        bytes: word()?.parse().map_err(std::io::Error::other)?,
        weights: word()?.to_owned(),
    })
}
