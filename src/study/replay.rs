//! Replays strategies against a recorded table, for the command `paretune replay`.

use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result};
use paretune_search::replay::table::Table;
pub use paretune_search::replay::table::{Columns, TableError, parse_limit};
pub use paretune_search::replay::{ReplayOptions, ReplayReport, Score, StrategyReport};

/// Runs `options` on `table`, a CSV file with a header line, whose columns have the roles given in
/// `columns`. The report serializes as `replay --json` prints it.
///
/// # Errors
/// Fails if the table cannot be read, if columns or strategies do not exist, or if there is nothing
/// to optimize.
pub fn replay(table: &Path, columns: &Columns, options: &ReplayOptions) -> Result<ReplayReport> {
    let path = table.display();
    let (file, _) =
        paretune_kernels::file::open(table).with_context(|| format!("cannot open {path}"))?;
    let table =
        Table::read(BufReader::new(file), columns).with_context(|| format!("cannot use {path}"))?;
    Ok(paretune_search::replay::replay(&table, options)?)
}
