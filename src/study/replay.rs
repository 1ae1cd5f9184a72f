//! Replays strategies against a recorded table: what `paretune replay` does once its arguments are read.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result};
use paretune_search::replay::table::Table;
pub use paretune_search::replay::table::{Columns, TableError, parse_limit};
pub use paretune_search::replay::{ReplayOptions, ReplayReport, Score, StrategyReport};

/// Runs `options` on `table`, a CSV file with a header line, whose columns play the parts in `columns`. The report
/// serializes as `replay --json` prints it.
///
/// # Errors
/// Where the table cannot be read, columns or strategies do not exist, or nothing is to be optimized.
pub fn replay(table: &Path, columns: &Columns, options: &ReplayOptions) -> Result<ReplayReport> {
    let path = table.display();
    let file = File::open(table).with_context(|| format!("cannot open {path}"))?;
    let table = Table::read(BufReader::new(file), columns).with_context(|| format!("cannot use {path}"))?;
    Ok(paretune_search::replay::replay(&table, options)?)
}
