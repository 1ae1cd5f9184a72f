//! How long bundles take from the start of a process until they can run, and what their first run takes.
//!
//! `cargo run --release --example load_times -- [--cold] BUNDLE...` starts a fresh process for each bundle in turn, several
//! times, and prints the middle one of what they say: a row of a table for each bundle. Files are in the system's cache by
//! then; with `--cold` they are dropped from it before each process starts, where the system lets itself be asked.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use paretune_kernels::bundle::{Loaded, Stored};
use paretune_kernels::hardware::Isa;
use paretune_kernels::{ExecutorOptions, KernelError};

/// Processes for each bundle.
const ROUNDS: usize = 15;

/// The argument that makes a process load one bundle.
const LOAD: &str = "--load";

/// The argument that asks for files that are not in the system's cache.
const COLD: &str = "--cold";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ended = match arguments.as_slice() {
        [first, folder] if first == LOAD => load(Path::new(folder)).map_err(|error| error.to_string()),
        [first, folders @ ..] if first == COLD => table(folders, true).map_err(|error| error.to_string()),
        folders => table(folders, false).map_err(|error| error.to_string()),
    };
    if let Err(error) = ended {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

/// Loads a bundle, says so, and says how long the first run took.
fn load(folder: &Path) -> Result<(), KernelError> {
    let begun = Instant::now();
    let stored = Stored::open(folder)?;
    let threads = stored.description().plan.threads.max(1);
    let Loaded { mut executor, weights, .. } =
        stored.load(&ExecutorOptions { batch: 1, threads, isa: Isa::detect() })?;
    let loaded = begun.elapsed().as_secs_f64();
    println!("ready");
    let (inputs, outputs) = executor.lengths();
    let (input, mut output) = (vec![0.5; inputs], vec![0.0; outputs]);
    let begun = Instant::now();
    executor.run(&input, &mut output)?;
    let first = begun.elapsed().as_secs_f64();
    println!("{loaded} {first} {} {weights}", stored.bytes()?);
    Ok(())
}

/// What one process has said.
struct Seen {
    /// Seconds from its start until it was ready.
    ready: f64,
    /// Of these, for loading.
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
                forget(Path::new(folder))?;
            }
            seen.push(watch(folder)?);
        }
    }
    for (folder, seen) in folders.iter().zip(&seen) {
        let middle = |of: fn(&Seen) -> f64| {
            let mut all: Vec<f64> = seen.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            format!("{:.2} ms", 1e3 * all[all.len() / 2])
        };
        let name = Path::new(folder).file_name().unwrap_or_default().to_string_lossy();
        let [ready, loaded, first] = [middle(|s| s.ready), middle(|s| s.loaded), middle(|s| s.first)];
        println!("| {name} | {} | {ready} | {loaded} | {first} | {} |", seen[0].bytes, seen[0].weights);
    }
    Ok(())
}

/// Asks the system to drop the files in a folder from its cache.
fn forget(folder: &Path) -> std::io::Result<()> {
    for file in std::fs::read_dir(folder)? {
        let file = std::fs::File::open(file?.path())?;
        #[cfg(target_os = "linux")]
        nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        #[cfg(not(target_os = "linux"))]
        drop(file);
    }
    Ok(())
}

fn watch(folder: &str) -> std::io::Result<Seen> {
    let begun = Instant::now();
    let mut child =
        Command::new(std::env::current_exe()?).args([LOAD, folder]).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| std::io::Error::other("a process without output"))?;
    let mut lines = BufReader::new(stdout).lines();
    let mut line =
        || lines.next().unwrap_or_else(|| Err(std::io::Error::other(format!("`{folder}` was not loaded"))));
    line()?;
    let ready = begun.elapsed().as_secs_f64();
    let said = line()?;
    child.wait()?;
    let mut words = said.splitn(4, ' ');
    let mut word =
        || words.next().ok_or_else(|| std::io::Error::other(format!("nobody understands `{said}`")));
    let number = |word: &str| word.parse::<f64>().map_err(std::io::Error::other);
    Ok(Seen {
        ready,
        loaded: number(word()?)?,
        first: number(word()?)?,
        bytes: word()?.parse().map_err(std::io::Error::other)?,
        weights: word()?.to_owned(),
    })
}
