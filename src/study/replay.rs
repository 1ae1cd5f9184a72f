//! Replays strategies against a recorded table: what `paretune replay` does once its arguments are read.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::{Context, Result};
use paretune_search::replay::table::{Columns, Table};
pub use paretune_search::replay::table::{TableError, parse_limit};
pub use paretune_search::replay::{ReplayReport, Score, StrategyReport};

/// What to replay, as the command line says it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayOptions {
    /// A CSV file with a header line.
    pub table: PathBuf,
    /// `--minimize`: columns of which less is better.
    pub minimize: Vec<String>,
    /// `--maximize`: columns of which more is better.
    pub maximize: Vec<String>,
    /// `--log`: objectives that are compared on a logarithmic scale.
    pub log: Vec<String>,
    /// `--params`: parameters; where empty, every column before the first that is named elsewhere.
    pub params: Vec<String>,
    /// `--valid COL=VALUE`: usable rows; all where absent.
    pub valid: Option<(String, String)>,
    /// `--limit "COL<VALUE"`, each read by [`parse_limit`].
    pub limits: Vec<String>,
    /// `--strategy`: names as listed in [`paretune_search::STRATEGIES`].
    pub strategies: Vec<String>,
    /// `--budget`: evaluations per run.
    pub budget: usize,
    /// `--seeds`: runs per strategy.
    pub seeds: usize,
    /// `--seed`: the first seed.
    pub seed: u64,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        let usual = paretune_search::replay::ReplayOptions::default();
        ReplayOptions {
            table: PathBuf::new(),
            minimize: Vec::new(),
            maximize: Vec::new(),
            log: Vec::new(),
            params: Vec::new(),
            valid: None,
            limits: Vec::new(),
            strategies: usual.strategies,
            budget: usual.budget,
            seeds: usual.seeds,
            seed: usual.seed,
        }
    }
}

/// Runs it. The report serializes as `replay --json` prints it.
///
/// # Errors
/// Where the table cannot be read, columns or strategies do not exist, or nothing is to be optimized.
pub fn replay(options: &ReplayOptions) -> Result<ReplayReport> {
    let columns = Columns {
        minimize: options.minimize.clone(),
        maximize: options.maximize.clone(),
        log: options.log.clone(),
        params: options.params.clone(),
        valid: options.valid.clone(),
        limits: options.limits.iter().map(|l| parse_limit(l)).collect::<Result<Vec<_>, _>>()?,
    };
    let path = options.table.display();
    let file = File::open(&options.table).with_context(|| format!("cannot open {path}"))?;
    let table = Table::read(BufReader::new(file), &columns).with_context(|| format!("cannot use {path}"))?;
    let run = paretune_search::replay::ReplayOptions {
        strategies: options.strategies.clone(),
        budget: options.budget,
        seeds: options.seeds.max(1),
        seed: options.seed,
    };
    Ok(paretune_search::replay::replay(&table, &run)?)
}
