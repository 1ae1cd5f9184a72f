//! A self-contained page about a study. It loads nothing from the network: the data is part of the
//! page, and plain JavaScript draws it. Without scripts, a static plot and the text remain.

use std::collections::BTreeMap;
use std::fmt::Write;

use paretune_record::event::{Inspected, Started, TrialFinished};
use paretune_record::front::{Front, FrontPoint};
use paretune_record::metric::{Metric, Metrics};
use paretune_record::preference::Preference;
use paretune_record::step::StepCost;
use serde::Serialize;

use super::layers::{Choices, choices};
use super::relax::relaxations;
use super::svg::{escaped, svg};
use super::techniques::{Technique, metrics, techniques};
use super::{summary, units};

const PAGE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");

/// Data of a study that the page shows.
pub struct PageData<'s> {
    /// Contents of `front.json`, the archive.
    pub front: &'s Front,
    /// The latest session, if the journal is available.
    pub started: Option<&'s Started>,
    /// All trials of the study, if the journal is available.
    pub trials: &'s [TrialFinished],
    /// Points whose steps were timed one by one.
    pub inspected: &'s [Inspected],
    /// Criterion by which the best point was chosen.
    pub prefer: Preference,
    /// Names of the layers in execution order, if known.
    pub order: &'s [String],
    /// Folder of the study, as the user types it.
    pub folder: &'s str,
}

#[derive(Serialize)]
struct PageJson<'s> {
    front: &'s Front,
    chosen: Option<&'s str>,
    trials: Vec<TrialPoint<'s>>,
    techniques: Vec<Technique>,
    choices: BTreeMap<&'s str, Choices>,
    costs: BTreeMap<&'s str, &'s [StepCost]>,
    export: String,
}

#[derive(Serialize)]
struct TrialPoint<'s> {
    id: &'s str,
    origin: &'s str,
    metrics: Metrics,
    feasible: bool,
}

/// Builds the page as one HTML document.
#[must_use]
pub fn html(page_data: &PageData<'_>) -> String {
    let front = page_data.front;
    let chosen = front.points.iter().find(|point| point.best).or(front.nearest_miss.as_ref());
    let techniques = techniques(page_data.trials, Some(front));
    let shown: Vec<&FrontPoint> = front.points.iter().chain(&front.nearest_miss).collect();
    let data = PageJson {
        front,
        chosen: chosen.map(|point| point.id.as_str()),
        trials: page_data.trials.iter().filter_map(trial_point).collect(),
        choices: shown
            .iter()
            .map(|point| (point.id.as_str(), choices(&point.config, page_data.order)))
            .collect(),
        costs: page_data
            .inspected
            .iter()
            .map(|point| (point.id.as_str(), point.steps.as_slice()))
            .collect(),
        export: format!("paretune export {} --to bundle", summary::quoted(page_data.folder)),
        techniques,
    };
    // A script element ends at the first `</`, so the data must not contain any `<`.
    let json = serde_json::to_string(&data).unwrap_or_default().replace('<', "\\u003c");
    let title = format!("{} on {}", front.model.name, front.hardware.cpu);
    let subtitle = format!(
        "{} trials in {}; limits: {}",
        front.trials,
        units::duration(front.seconds),
        units::limits(&front.limits)
    );
    let picture = svg(front, &data.techniques, Metric::Latency, Metric::Accuracy);
    let parts = [
        ("title", escaped(&title)),
        ("subtitle", escaped(&subtitle)),
        ("css", STYLE.to_owned()),
        ("explanation", explanation(page_data)),
        ("static", format!("<noscript>{picture}</noscript>")),
        ("settings", settings(page_data)),
        ("data", json),
        ("js", SCRIPT.to_owned()),
    ];
    // The template is filled in one pass, so that inserted text is never taken for a placeholder.
    let mut page = String::with_capacity(PAGE.len() + SCRIPT.len() + parts[6].1.len());
    for (index, piece) in PAGE.split('@').enumerate() {
        match parts.iter().find(|(name, _)| index % 2 == 1 && *name == piece) {
            Some((_, text)) => page.push_str(text),
            None => page.push_str(piece),
        }
    }
    page
}

fn trial_point(trial: &TrialFinished) -> Option<TrialPoint<'_>> {
    Some(TrialPoint {
        id: &trial.id,
        origin: &trial.origin,
        metrics: metrics(trial)?,
        feasible: trial.point.as_ref().is_some_and(|point| point.feasible),
    })
}

/// Explains why the best point is the best, and how each limit affects it.
fn explanation(page_data: &PageData<'_>) -> String {
    let front = page_data.front;
    let best = front.points.iter().find(|point| point.best);
    let mut lines = Vec::new();
    let feasible = front.points.iter().filter(|point| point.feasible).count();
    match (best, &front.nearest_miss) {
        (Some(best), _) => {
            lines.push(format!(
                "{} is the best: {}.",
                units::short_id(&best.id),
                summary::why(page_data.prefer, feasible, front)
            ));
            let tried: Vec<&FrontPoint> = front
                .points
                .iter()
                .chain(page_data.trials.iter().filter_map(|trial| trial.point.as_ref()))
                .collect();
            lines.extend(
                relaxations(
                    &tried,
                    Some(best),
                    &front.limits,
                    &front.baseline,
                    page_data.prefer,
                    &front.objectives,
                )
                .into_iter()
                .map(|relaxation| format!("What if? {}.", relaxation.text)),
            );
        }
        (None, Some(nearest)) => {
            lines.push(format!(
                "No point meets every limit; {} misses by least:",
                units::short_id(&nearest.id)
            ));
            lines.extend(units::misses(nearest, &front.limits, &front.baseline));
        }
        (None, None) => lines.push("Nothing was found: no trial gave a result.".to_owned()),
    }
    let items: String = lines.iter().map(|line| format!("<li>{}</li>", escaped(line))).collect();
    format!("<ul class=\"explanation\">{items}</ul>")
}

/// Formats hardware, settings and failures as a table.
fn settings(page_data: &PageData<'_>) -> String {
    let front = page_data.front;
    let mut rows: Vec<(&str, String)> = vec![
        ("network", format!("{} (SHA-256 {})", front.model.name, front.model.sha256)),
        ("processor", front.hardware.cpu.clone()),
        ("hardware id", front.hardware.id.clone()),
    ];
    if !front.hardware.devices.is_empty() {
        rows.push(("devices", front.hardware.devices.join(", ")));
    }
    rows.push(("strategy", format!("{}, seed {}", front.strategy, front.seed)));
    rows.push(("preference", page_data.prefer.to_string()));
    rows.push((
        "objectives",
        front.objectives.iter().map(|metric| metric.name()).collect::<Vec<_>>().join(", "),
    ));
    if let Some(started) = page_data.started {
        rows.push((
            "space",
            format!(
                "{} parameters, 10^{:.0} configurations",
                started.parameters, started.log10_configurations
            ),
        ));
        rows.push(("budget", started.budget.clone()));
        rows.push(("program", format!("paretune {}", started.version)));
    }
    rows.push((
        "trials",
        format!("{}, of them {} answered by the store", front.trials, front.cached),
    ));
    if let Some(volume) = front.hypervolume {
        rows.push(("hypervolume", units::digits(volume)));
    }
    let mut failures: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in page_data.trials.iter().filter_map(|trial| trial.failure.as_deref()) {
        *failures.entry(reason).or_default() += 1;
    }
    let mut text = String::from("<table>");
    for (name, value) in rows {
        let _ = write!(text, "<tr><td>{name}</td><td>{}</td></tr>", escaped(&value));
    }
    for (reason, count) in failures {
        let _ = write!(text, "<tr><td>failed {count}x</td><td>{}</td></tr>", escaped(reason));
    }
    text.push_str(
        "</table><p class=\"soft\">latency: median of one inference at batch 1, points of the \
         front timed in turns in three fresh processes, with a distribution-free 95 % interval; \
         accuracy: top-1 on images that were used for no choice, with a Wilson interval; size: \
         bytes of the exported bundle; memory: peak bytes allocated during a run. Limits are \
         judged on the pessimistic end of the intervals. Trials off the front show the figures \
         of the search: accuracy on its own part of the images.</p>",
    );
    text
}
