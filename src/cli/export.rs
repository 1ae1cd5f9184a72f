//! `paretune export`: the best configuration of a study as something that runs.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};

use super::show::read_front;
use super::{Ending, paths, usage};
use crate::export;

/// Arguments of `paretune export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// The study: its folder, or its name among the user's
    study: Option<PathBuf>,
    /// What to write
    #[arg(long = "to", value_enum, default_value_t = Format::Bundle)]
    format: Format,
    /// Another point of the archive than the best, by (the beginning of) its id
    #[arg(long, value_name = "ID")]
    pick: Option<String>,
    /// Where to write [default: bundle, or - for json]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
}

/// Formats of `paretune export`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A folder with a plan and its weights, for `paretune run`
    Bundle,
    /// The configuration and its figures
    Json,
}

/// Writes the chosen point.
pub fn export(args: &ExportArgs) -> anyhow::Result<Ending> {
    let folder = paths::study(args.study.as_deref()).map_err(usage)?;
    let front = read_front(&folder).map_err(usage)?;
    let point = export::chosen(&front, args.pick.as_deref()).map_err(usage)?;
    let mut out = std::io::stdout().lock();
    match args.format {
        Format::Json => {
            let text = serde_json::to_string_pretty(point)?;
            match args.output.as_deref().filter(|path| path.as_os_str() != "-") {
                Some(path) => std::fs::write(path, text + "\n")
                    .with_context(|| format!("cannot write `{}`", path.display()))?,
                None => writeln!(out, "{text}")?,
            }
        }
        Format::Bundle => {
            let path = args.output.clone().unwrap_or_else(|| PathBuf::from("bundle"));
            let bytes = export::bundle(&folder, point, &path).map_err(|error| anyhow!(error))?;
            let miss = if point.feasible { "" } else { " (meets not every limit: the nearest miss)" };
            writeln!(out, "{} is in {}: {bytes} bytes{miss}", point.id, path.display())?;
        }
    }
    Ok(Ending::Done)
}
