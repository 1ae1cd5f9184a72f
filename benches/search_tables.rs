//! Measures the tables of `docs/results/search.md`: strategies on recorded spaces, compared with
//! the best results of other tools.
//!
//! ```sh
//! cargo bench --bench search_tables -- FOLDER [--seeds K] [--strategy NAME,...] [--table NAME]
//! ```
//!
//! `FOLDER` holds the recorded spaces as CSV files. Missing spaces are reported and left out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use paretune_study::replay::{Columns, ReplayOptions, replay};

/// Numbers of evaluations at which strategies are compared.
const AT: [usize; 4] = [25, 50, 100, 200];

#[derive(Parser)]
struct Arguments {
    /// Folder of the recorded spaces
    folder: Option<PathBuf>,
    /// Number of runs per strategy
    #[arg(long, default_value_t = 20)]
    seeds: usize,
    /// Names of the strategies to compare
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "auto,gaussian,forest,annealing,local,nsga2,random"
    )]
    strategy: Vec<String>,
    /// Run only tables whose title contains this text
    #[arg(long, default_value = "")]
    table: String,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// A recorded space, its objectives, and the best result of other tools (random, NSGA-II, local and
/// Pareto local search, Optuna's TPE and NSGA-II, genetic, tree ensembles) at 50, 100 and 200
/// evaluations.
struct Table {
    title: &'static str,
    file: &'static str,
    minimize: &'static [&'static str],
    maximize: &'static [&'static str],
    log: &'static [&'static str],
    params: &'static [&'static str],
    valid: Option<(&'static str, &'static str)>,
    peers: [Option<f64>; 3],
}

const CONVOLUTION: [&str; 10] = [
    "block_size_x",
    "block_size_y",
    "tile_size_x",
    "tile_size_y",
    "read_only",
    "use_padding",
    "use_shmem",
    "use_cmem",
    "filter_height",
    "filter_width",
];

fn tables() -> Vec<Table> {
    let convolution = |title, file, peers| Table {
        title,
        file,
        minimize: &["time_ms"],
        maximize: &[],
        log: &[],
        params: &CONVOLUTION,
        valid: Some(("invalidity", "correct")),
        peers,
    };
    let networks = |title, minimize, log, peers| Table {
        title,
        file: "nasbench201.csv",
        minimize,
        maximize: &["acc_c10_fp32"],
        log,
        params: &[],
        valid: None,
        peers,
    };
    vec![
        networks(
            "NAS-Bench-201, accuracy and latency",
            &["lat_raspi4"],
            &["lat_raspi4"],
            [Some(0.935), Some(0.980), Some(0.991)],
        ),
        networks(
            "NAS-Bench-201, accuracy, latency and parameters",
            &["lat_raspi4", "params"],
            &["lat_raspi4", "params"],
            [Some(0.960), Some(0.972), Some(0.988)],
        ),
        convolution(
            "convolution, A100",
            "convolution_milo__A100.csv",
            [Some(0.77), Some(0.83), Some(0.97)],
        ),
        convolution("convolution, A4000", "convolution_milo__A4000.csv", [None; 3]),
        convolution(
            "convolution, MI250X",
            "convolution_milo__MI250X.csv",
            [Some(0.63), Some(0.78), Some(0.98)],
        ),
    ]
}

fn columns(table: &Table) -> Columns {
    let owned =
        |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
    Columns {
        minimize: owned(table.minimize),
        maximize: owned(table.maximize),
        log: owned(table.log),
        params: owned(table.params),
        valid: table.valid.map(|(column, value)| (column.to_owned(), value.to_owned())),
        limits: Vec::new(),
    }
}

fn print(table: &Table, folder: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    println!("\n{} ({} seeds)\n", table.title, arguments.seeds);
    let path = folder.join(table.file);
    if !path.exists() {
        println!("left out: there is no `{}`", path.display());
        return Ok(());
    }
    println!("| strategy | {} | s a run |", AT.map(|at| at.to_string()).join(" | "));
    println!("| --- |{}", " --- |".repeat(AT.len() + 1));
    let options = ReplayOptions {
        strategies: arguments.strategy.clone(),
        budget: AT[AT.len() - 1],
        seeds: arguments.seeds,
        seed: 0,
    };
    let report = replay(&path, &columns(table), &options)?;
    for (name, strategy) in &report.strategies {
        let cell = |at: &usize| {
            let (mean, sd) = (strategy.mean.get(at), strategy.sd.get(at));
            mean.zip(sd).map_or_else(String::new, |(mean, sd)| format!("{mean:.3} ({sd:.3})"))
        };
        println!("| {name} | {} | {:.2} |", AT.each_ref().map(cell).join(" | "), strategy.seconds);
    }
    let cell = |peer: Option<f64>| peer.map_or_else(String::new, |share| format!("{share:.3}"));
    println!("| best peer | | {} | |", table.peers.map(cell).join(" | "));
    Ok(())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(folder) = &arguments.folder else {
        println!(
            "search_tables: name the folder of the recorded spaces: cargo bench --bench \
             search_tables -- FOLDER"
        );
        return ExitCode::SUCCESS;
    };
    for table in tables().iter().filter(|table| table.title.contains(&arguments.table)) {
        if let Err(error) = print(table, folder, &arguments) {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
