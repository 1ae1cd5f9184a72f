//! The command `paretune db` maintains the result store.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use paretune_db::Store;
use paretune_record::metric::Metric;
use paretune_report::units;

use super::{ExitStatus, paths, usage};

/// Arguments of the command `paretune db`.
#[derive(Args, Debug)]
pub struct DbArgs {
    #[command(subcommand)]
    action: Action,
    /// Folder of the result store [default: in the user's data folder]
    #[arg(long, value_name = "DIR", global = true)]
    db: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Print the number of measurements of each kind, and their size on disk
    Stats {
        /// Print the numbers as a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write all measurements as JSON lines
    Export {
        /// File to write [default: standard output]
        file: Option<PathBuf>,
    },
    /// Read measurements from JSON lines
    Import {
        /// File to read [default: standard input]
        file: Option<PathBuf>,
    },
    /// Free the disk space that overwritten records still occupy
    Compact,
    /// Check the checksum of every record
    Verify,
}

/// Runs the requested action on the store.
pub fn db(args: &DbArgs) -> anyhow::Result<ExitStatus> {
    let mut store = Store::open(&paths::store(args.db.as_deref())?)?;
    for notice in store.notices() {
        eprintln!("note: {notice}");
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    match &args.action {
        Action::Stats { json } => {
            let stats = store.stats()?;
            if *json {
                writeln!(out, "{}", serde_json::to_string(&stats)?)?;
            } else {
                let records: u64 = stats.kinds.values().sum();
                writeln!(out, "{}", store.path().display())?;
                writeln!(
                    out,
                    "{records} measurements, {} of them failures; {} on disk",
                    stats.failed,
                    units::value(Metric::Size, real(stats.bytes))
                )?;
                for (kind, count) in &stats.kinds {
                    writeln!(out, "  {count:>8}  {kind}")?;
                }
                for (hardware, count) in &stats.hardware {
                    writeln!(out, "  {count:>8}  on hardware {hardware}")?;
                }
                if stats.damaged > 0 {
                    writeln!(
                        out,
                        "  {:>8}  damaged; `paretune db verify` tells more",
                        stats.damaged
                    )?;
                }
            }
        }
        Action::Export { file: None } => {
            store.export(&mut out)?;
        }
        Action::Export { file: Some(path) } => {
            let file = File::create(path)
                .with_context(|| format!("cannot create `{}`", path.display()))?;
            let mut file = BufWriter::new(file);
            let count = store.export(&mut file)?;
            file.flush()?;
            writeln!(out, "{count} measurements written to {}", path.display())?;
        }
        Action::Import { file } => {
            let imported = match file {
                None => store.import(&mut std::io::stdin().lock())?,
                Some(path) => {
                    let (file, _) = paretune_kernels::file::open(path)
                        .with_context(|| format!("cannot open `{}`", path.display()))
                        .map_err(usage)?;
                    store.import(&mut BufReader::new(file))?
                }
            };
            writeln!(
                out,
                "{} added, {} replaced, {} known already, {} rejected",
                imported.added, imported.replaced, imported.unchanged, imported.rejected
            )?;
            for reason in &imported.reasons {
                eprintln!("note: {reason}");
            }
        }
        Action::Compact => {
            let compacted = store.compact()?;
            writeln!(
                out,
                "{} records kept; {} before, {} now",
                compacted.records,
                units::value(Metric::Size, real(compacted.bytes_before)),
                units::value(Metric::Size, real(store.stats()?.bytes))
            )?;
        }
        Action::Verify => {
            let verified = store.verify()?;
            writeln!(
                out,
                "{} records are intact, {} entries are damaged",
                verified.intact, verified.damaged
            )?;
            if verified.unreachable > 0 {
                writeln!(
                    out,
                    "{} intact records are in files that the store no longer refers to; `paretune \
                     db compact` restores them",
                    verified.unreachable
                )?;
            }
        }
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn real(count: u64) -> f64 {
    count as f64
}
