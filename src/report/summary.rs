//! Summary at the end of a search: the best point, why it is the best, its improvement and how to
//! export it; or the nearest miss.

use std::fmt::Write;

use paretune_record::front::{Front, FrontPoint};
use paretune_record::metric::Metric;
use paretune_record::preference::Preference;

use super::units;

/// Formats the summary of a search. `study` is the folder as the user types it, and `prefer` is the
/// criterion of the best point: an objective or `knee`.
#[must_use]
pub fn summary(front: &Front, study: &str, prefer: Preference) -> String {
    let mut text = String::new();
    let feasible = front.points.iter().filter(|point| point.feasible).count();
    let _ = writeln!(
        text,
        "{} trials in {} ({} from the store); {} points are on the front, {feasible} meet every \
         limit.",
        front.trials,
        units::duration(front.seconds),
        front.cached,
        front.points.len()
    );
    match (front.points.iter().find(|point| point.best && point.feasible), &front.nearest_miss) {
        (Some(best), _) => {
            let _ = writeln!(
                text,
                "\nBest: {} ({})",
                units::short_id(&best.id),
                why(prefer, feasible, front)
            );
            figures(&mut text, best, front);
        }
        (None, Some(nearest)) => {
            let id = units::short_id(&nearest.id);
            let _ = writeln!(text, "\nNo point meets every limit. Nearest miss: {id}");
            figures(&mut text, nearest, front);
            for miss in units::misses(nearest, &front.limits, &front.baseline) {
                let _ = writeln!(text, "  {miss}");
            }
        }
        (None, None) => {
            let _ = writeln!(text, "\nNothing was found: no trial gave a result.");
            return text;
        }
    }
    let study = quoted(study);
    let _ = writeln!(text, "\nShow all: paretune show {study}   (--tui, --html FILE)");
    let _ = writeln!(
        text,
        "Export:   paretune export {study} --to bundle   (--pick ID takes another point)"
    );
    text
}

/// Explains which of the `feasible` points (their number) the best one is.
#[must_use]
pub fn why(prefer: Preference, feasible: usize, front: &Front) -> String {
    why_of(prefer, feasible, !front.limits.is_empty())
}

/// Explains the best point like [`why`]; `limited` says whether there are limits.
#[must_use]
pub fn why_of(prefer: Preference, feasible: usize, limited: bool) -> String {
    let which = match prefer {
        Preference::Metric(metric) => metric.row().words.best,
        Preference::Knee => "the knee: where giving up more of one objective stops paying",
    };
    match (feasible, limited) {
        (1, true) => "the only point that meets every limit".to_owned(),
        (_, true) => format!("{which} of {feasible} that meet every limit"),
        (_, false) => format!("{which} of {feasible}"),
    }
}

fn figures(text: &mut String, point: &FrontPoint, front: &Front) {
    for metric in Metric::objectives() {
        let base = front
            .baseline
            .get(metric)
            .map_or_else(String::new, |value| units::value(metric, value));
        let versus = units::versus(metric, &point.metrics, &front.baseline).unwrap_or_default();
        let _ = writeln!(
            text,
            "  {metric:<8}  {:<17} {versus:<15} baseline {base}",
            units::with_spread(point, metric)
        );
    }
}

/// Quotes a path for a shell.
#[must_use]
pub fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%=".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}
