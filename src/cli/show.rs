//! `paretune show`: the archive of a study.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::{Ending, paths, usage};
use crate::report;
use crate::study::front::Front;

/// Arguments of `paretune show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// The study: its folder, or its name among the user's [default: the latest]
    study: Option<PathBuf>,
    /// Print front.json
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print a row per point, comma-separated
    #[arg(long)]
    csv: bool,
    /// Draw the archive
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Horizontal axis of the drawing
    #[arg(long, value_name = "NAME", default_value = "latency", value_parser = ["accuracy", "latency", "size", "memory"])]
    x: String,
    /// Vertical axis of the drawing
    #[arg(long, value_name = "NAME", default_value = "accuracy", value_parser = ["accuracy", "latency", "size", "memory"])]
    y: String,
}

/// Prints or draws the archive.
pub fn show(args: &ShowArgs) -> anyhow::Result<Ending> {
    let folder = paths::study(args.study.as_deref()).map_err(usage)?;
    let front = read_front(&folder).map_err(usage)?;
    let mut out = std::io::stdout().lock();
    if let Some(file) = &args.svg {
        std::fs::write(file, report::svg(&front, &args.x, &args.y))
            .with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    if args.json {
        serde_json::to_writer_pretty(&mut out, &front).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else if args.csv {
        write!(out, "{}", report::csv(&front))?;
    } else if args.svg.is_none() {
        let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let style = report::TableStyle { color, rows: 0 };
        write!(out, "{}", report::table(&front, style))?;
    }
    Ok(Ending::Done)
}

/// `front.json` of the study in `folder`.
pub fn read_front(folder: &Path) -> anyhow::Result<Front> {
    let path = folder.join("front.json");
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "`{}` cannot be read; the study has not come to an end yet: run its `search` again",
            path.display()
        )
    })?;
    serde_json::from_str(&text).with_context(|| format!("`{}` is damaged", path.display()))
}
