//! The command `paretune studies` lists the studies in the user's data folder.

use std::io::Write;
use std::time::SystemTime;

use clap::Args;
use paretune_record::again::{Question, StudyRecord};
use paretune_record::front::State;
use paretune_record::metric::Metric;
use serde_json::json;

use super::{ExitStatus, paths};
use crate::report::units;

/// Arguments of the command `paretune studies`.
#[derive(Args, Debug)]
pub struct StudiesArgs {
    /// Print one JSON object per study, one a line
    #[arg(long)]
    json: bool,
}

/// Lists the studies, the latest one first.
pub fn studies(args: &StudiesArgs) -> anyhow::Result<ExitStatus> {
    let folder = paths::studies()?;
    let mut out = std::io::stdout().lock();
    let all = paths::all(&folder);
    if all.is_empty() && !args.json {
        writeln!(out, "no studies yet in {}; `paretune search` makes one", folder.display())?;
    }
    for (changed, path) in all {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let study = match StudyRecord::read(&path) {
            Ok(study) => study,
            Err(error) => {
                // One study that cannot be read does not hide the others.
                let _ = writeln!(std::io::stderr(), "note: {error}");
                continue;
            }
        };
        let front = study.front(&Question::default());
        let state = match study.state {
            None => "ended",
            Some(State::Running) => "running",
            Some(State::Stopped) => "stopped",
        };
        let feasible = front.points.iter().filter(|point| point.feasible).count();
        let best = front.points.iter().find(|point| point.best);
        if args.json {
            let since = changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let line = json!({
                "name": name,
                "path": path,
                "state": state,
                "model": front.model,
                "limits": front.limits,
                "trials": front.trials,
                "points": front.points.len(),
                "feasible": feasible,
                "best": best.map(|point| &point.metrics),
                "seconds": front.seconds,
                "changed": since.as_secs_f64(),
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let figures = best.map_or_else(
            || "no point meets the limits".to_owned(),
            |point| {
                let figures = Metric::objectives()
                    .filter_map(|metric| Some(units::value(metric, point.metrics.get(metric)?)));
                figures.collect::<Vec<_>>().join(", ")
            },
        );
        let ago = SystemTime::now().duration_since(changed).unwrap_or_default();
        writeln!(
            out,
            "{name}  {state}, {} trials, {} points; best: {figures}; limits: {}; {} ago",
            front.trials,
            front.points.len(),
            units::limits(&front.limits),
            units::duration(ago.as_secs_f64())
        )?;
    }
    Ok(ExitStatus::Done)
}
