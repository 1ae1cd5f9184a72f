//! The archive as an aligned table, for the command `paretune show`.

use std::fmt::Write;

use paretune_record::front::{Front, FrontPoint};
use paretune_record::limit::Limit;
use paretune_record::metric::{Metric, Metrics};

use super::units;

/// Settings for the format of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStyle {
    /// Whether to print the best point in bold and misses in red.
    pub color: bool,
    /// Largest number of points to show; 0 for all.
    pub rows: usize,
}

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// Formats a table for people: the request, the points (best first) with their ratios to the
/// baseline, and the baseline.
#[must_use]
pub fn table(front: &Front, style: TableStyle) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} on {}", front.model.name, front.hardware.cpu);
    let _ = writeln!(text, "limits: {}", units::limits(&front.limits));
    let _ = writeln!(
        text,
        "{} trials ({} from the store) in {}, strategy {}, seed {}",
        front.trials,
        front.cached,
        units::duration(front.seconds),
        front.strategy,
        front.seed
    );
    text.push('\n');

    let shown =
        if style.rows == 0 { front.points.len() } else { style.rows.min(front.points.len()) };
    let mut rows = vec![heads()];
    rows.extend(
        front.points[..shown].iter().map(|point| cells(point, &front.limits, &front.baseline)),
    );
    let nearest_apart = front
        .nearest_miss
        .as_ref()
        .filter(|miss| front.points[..shown].iter().all(|p| p.id != miss.id));
    rows.extend(nearest_apart.map(|point| cells(point, &front.limits, &front.baseline)));
    rows.push(baseline(&front.baseline));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            // Marks, ids, origins and misses are left-aligned, figures right-aligned.
            let left = column < 2 || column >= row.len() - 2;
            let _ = if left {
                write!(line, "{gap}{cell:<width$}")
            } else {
                write!(line, "{gap}{cell:>width$}")
            };
        }
        let line = line.trim_end();
        let point = number.checked_sub(1).and_then(|at| front.points[..shown].get(at));
        let paint = match point {
            Some(point) if point.best => BOLD,
            Some(point) if !point.feasible => RED,
            None if number == 0 => BOLD,
            _ => "",
        };
        let _ = if style.color && !paint.is_empty() {
            writeln!(text, "{paint}{line}{PLAIN}")
        } else {
            writeln!(text, "{line}")
        };
    }
    if shown < front.points.len() {
        let _ = writeln!(text, "... and {} more points", front.points.len() - shown);
    }
    text
}

fn heads() -> Vec<String> {
    let mut heads = vec![String::new(), "id".to_owned()];
    for metric in Metric::objectives() {
        heads.extend([metric.name().to_owned(), String::new()]);
    }
    heads.extend(["origin".to_owned(), "misses".to_owned()]);
    heads
}

fn cells(point: &FrontPoint, limits: &[Limit], baseline: &Metrics) -> Vec<String> {
    let mark = match (point.best, point.feasible) {
        (true, _) => "*",
        (false, true) if !point.confirmed => "~",
        (false, true) => "",
        (false, false) => "!",
    };
    let mut cells = vec![mark.to_owned(), units::short_id(&point.id).to_owned()];
    for metric in Metric::objectives() {
        cells.push(units::with_spread(point, metric));
        cells.push(units::versus(metric, &point.metrics, baseline).unwrap_or_default());
    }
    cells.extend([point.origin.clone(), units::misses_short(point, limits, baseline)]);
    cells
}

fn baseline(metrics: &Metrics) -> Vec<String> {
    let mut cells = vec![String::new(), "baseline".to_owned()];
    for metric in Metric::objectives() {
        cells.push(
            metrics.get(metric).map_or_else(String::new, |value| units::value(metric, value)),
        );
        cells.push(String::new());
    }
    cells.extend([String::new(), String::new()]);
    cells
}
