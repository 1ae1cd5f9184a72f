//! The command `paretune replay` runs strategies against a recorded table instead of hardware.

use std::io::Write;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use paretune_search::STRATEGIES;
use paretune_study::replay::{self, Columns, ReplayOptions, parse_limit};

use super::{ExitStatus, usage};

/// Arguments of the command `paretune replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// CSV file with a header line: parameters, then measured values
    #[arg(value_name = "TABLE.csv")]
    table: PathBuf,
    /// Names of the columns to minimize
    #[arg(long, value_name = "COL,...", value_delimiter = ',')]
    minimize: Vec<String>,
    /// Names of the columns to maximize
    #[arg(long, value_name = "COL,...", value_delimiter = ',')]
    maximize: Vec<String>,
    /// Objectives to compare on a logarithmic scale
    #[arg(long, value_name = "COL,...", value_delimiter = ',')]
    log: Vec<String>,
    /// Columns of the parameters [default: every column before the first that is named elsewhere]
    #[arg(long, value_name = "COL,...", value_delimiter = ',')]
    params: Vec<String>,
    /// Condition of the usable rows. Unusable rows cost an evaluation, and the strategy learns from
    /// them
    #[arg(long, value_name = "COL=VALUE")]
    valid: Option<String>,
    /// Limit on a column; may be given several times
    #[arg(long = "limit", value_name = "COL<VALUE")]
    limits: Vec<String>,
    /// Names of the strategies to run
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_value = "auto")]
    strategy: Vec<String>,
    /// Number of evaluations per run
    #[arg(
        long,
        value_name = "N",
        default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(1..),
    )]
    budget: u32,
    /// Number of runs per strategy, each with its own seed
    #[arg(
        long,
        value_name = "K",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..),
    )]
    seeds: u32,
    /// Print the report as a JSON object
    #[arg(long)]
    json: bool,
}

/// Replays the strategies and prints the report.
pub fn replay(args: &ReplayArgs) -> anyhow::Result<ExitStatus> {
    for name in &args.strategy {
        if STRATEGIES.iter().all(|strategy| strategy.name != name) {
            let known: Vec<&str> = STRATEGIES.iter().map(|strategy| strategy.name).collect();
            return Err(usage(anyhow!(
                "there is no strategy `{name}`; there are {}",
                known.join(", ")
            )));
        }
    }
    let valid = match &args.valid {
        None => None,
        Some(text) => {
            let (column, value) = text.split_once('=').ok_or_else(|| {
                usage(anyhow!("--valid `{text}`: write COL=VALUE, for example invalidity=correct"))
            })?;
            Some((column.trim().to_owned(), value.trim().to_owned()))
        }
    };
    let limits = args.limits.iter().map(|limit| parse_limit(limit)).collect::<Result<_, _>>();
    let columns = Columns {
        minimize: args.minimize.clone(),
        maximize: args.maximize.clone(),
        log: args.log.clone(),
        params: args.params.clone(),
        valid,
        limits: limits.map_err(usage)?,
    };
    let options = ReplayOptions {
        strategies: args.strategy.clone(),
        budget: args.budget as usize,
        seeds: args.seeds as usize,
        seed: 0,
    };
    let report = replay::replay(&args.table, &columns, &options).map_err(usage)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
        return Ok(ExitStatus::Done);
    }
    writeln!(
        out,
        "{} rows, {} of them usable; {} evaluations, mean over {} seeds (standard deviation)\n",
        report.rows, report.usable, report.budget, report.seeds
    )?;
    for (name, strategy) in &report.strategies {
        write!(out, "{name:<14}")?;
        for (evaluations, mean) in &strategy.mean {
            let deviation = strategy.sd.get(evaluations).copied().unwrap_or(0.0);
            write!(out, "  {evaluations:>4}: {mean:.3} ({deviation:.3})")?;
        }
        writeln!(out, "  {:.2} s a run", strategy.seconds)?;
    }
    Ok(ExitStatus::Done)
}
