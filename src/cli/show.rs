//! The command `paretune show` prints or draws the archive of a study.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use paretune_record::event::Event;
use paretune_record::journal::Journal;
use paretune_record::metric::Metric;

use super::study_record::read_study;
use super::{ExitStatus, QuestionArgs, objective_parser, paths, usage};
use crate::report;
use crate::tui;

/// Arguments of the command `paretune show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// The study: its folder, or its name in the user's data folder [default: the latest]
    study: Option<PathBuf>,
    #[command(flatten)]
    question: QuestionArgs,
    /// Print the contents of front.json
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print one row per point, comma-separated
    #[arg(long)]
    csv: bool,
    /// Draw the archive as an SVG file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write one HTML page with interactive plots, the chosen configuration and comparisons
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Show the study in the terminal UI, from its journal
    #[arg(long, conflicts_with_all = ["json", "csv", "limits", "prefer"])]
    tui: bool,
    /// Draw every screen of the terminal UI to this folder as SVG files
    #[arg(long, value_name = "DIR")]
    screens: Option<PathBuf>,
    /// Columns and rows of the screens
    #[arg(long, value_name = "WxH", default_value = "100x30", value_parser = size)]
    screen_size: (u16, u16),
    /// Metric of the horizontal axis of the plot
    #[arg(
        long,
        value_name = "NAME",
        default_value = "latency",
        value_parser = objective_parser(),
    )]
    x: Metric,
    /// Metric of the vertical axis of the plot
    #[arg(
        long,
        value_name = "NAME",
        default_value = "accuracy",
        value_parser = objective_parser(),
    )]
    y: Metric,
}

/// Prints or draws the archive of a study.
pub fn show(args: &ShowArgs) -> anyhow::Result<ExitStatus> {
    let folder = paths::study(args.study.as_deref()).map_err(usage)?;
    if args.tui {
        return show_in_terminal(&folder);
    }
    let question = args.question.question()?;
    let study = read_study(&folder)?;
    let front = study.front(&question);
    if let Some(screens) = &args.screens {
        draw_screens(&folder, screens, args.screen_size)?;
    }
    let mut out = std::io::stdout().lock();
    let past = &study.past;
    if let Some(file) = &args.svg {
        let techniques = report::techniques(&past.trials, Some(&front));
        std::fs::write(file, report::svg(&front, &techniques, args.x, args.y))
            .with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    if let Some(file) = &args.html {
        let order =
            past.survey.iter().flat_map(|survey| &survey.layers).map(|layer| layer.name.clone());
        let page = report::PageData {
            front: &front,
            started: past.sessions.last().map(|(_, started)| started),
            trials: &past.trials,
            inspected: &past.inspected,
            prefer: study.prefer(&question),
            order: &order.collect::<Vec<_>>(),
            folder: &folder.display().to_string(),
        };
        std::fs::write(file, report::html(&page))
            .with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    if args.json {
        out.write_all(&front.to_file()?)?;
    } else if args.csv {
        write!(out, "{}", report::csv(&front))?;
    } else if args.svg.is_none() && args.html.is_none() && args.screens.is_none() {
        let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let style = report::TableStyle { color, rows: 0 };
        write!(out, "{}", report::table(&front, style))?;
    }
    Ok(ExitStatus::Done)
}

/// Parses the size of a screen, such as `120x40`.
fn size(text: &str) -> Result<(u16, u16), String> {
    let parsed = text.split_once('x').and_then(|(width, height)| {
        Some((width.parse::<u16>().ok()?, height.parse::<u16>().ok()?))
    });
    parsed
        .filter(|(width, height)| (40..=500).contains(width) && (12..=300).contains(height))
        .ok_or_else(|| "columns and rows, from 40x12 to 500x300".to_owned())
}

/// Replays the journal in the terminal UI until the user leaves it.
fn show_in_terminal(folder: &Path) -> anyhow::Result<ExitStatus> {
    let (sender, events) = std::sync::mpsc::channel();
    for event in events_of(folder)? {
        sender.send(event)?;
    }
    let (commands, wishes) = std::sync::mpsc::channel();
    let exporter = super::exporter::exporter(folder.to_owned(), std::sync::Arc::default());
    tui::run(events, commands, Some(exporter))?;
    // The study is over, so nobody receives commands.
    drop((sender, wishes));
    Ok(ExitStatus::Done)
}

fn draw_screens(folder: &Path, to: &Path, (width, height): (u16, u16)) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot create `{}`", to.display()))?;
    let mut state = tui::State::default();
    events_of(folder)?.iter().for_each(|event| state.apply(event));
    for tab in tui::Tab::ALL {
        let view = tui::View { tab, ..tui::View::default() };
        let path = to.join(format!("{}.svg", tab.title().to_lowercase()));
        std::fs::write(&path, tui::picture(&state, &view, width, height))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}

fn events_of(folder: &Path) -> anyhow::Result<Vec<Event>> {
    let problem = || format!("the journal in `{}` cannot be read", folder.display());
    Journal::events(folder).with_context(problem).map_err(usage)
}
