//! The archive as comma-separated values in SI units, for spreadsheets and scripts.

use std::collections::BTreeSet;

use paretune_record::front::{Front, FrontPoint};
use paretune_record::metric::Metric;

/// Formats one line per point after a line of names: id, flags, metrics, intervals, violations,
/// origin, then every parameter that is active in some point (empty in the others). Fields are
/// quoted according to RFC 4180; lines end in a single newline.
#[must_use]
pub fn csv(front: &Front) -> String {
    let parameters: BTreeSet<&String> =
        front.points.iter().flat_map(|point| point.config.0.keys()).collect();
    let limited: Vec<Metric> = front.limits.iter().map(|limit| limit.metric).collect();
    let uncertain: Vec<Metric> =
        Metric::objectives().filter(|metric| metric.row().is_uncertain).collect();
    let mut names: Vec<String> = ["id", "feasible", "best", "origin"].map(str::to_owned).to_vec();
    names.extend(Metric::objectives().map(|metric| metric.name().to_owned()));
    names.extend(
        uncertain.iter().flat_map(|metric| [format!("{metric}_low"), format!("{metric}_high")]),
    );
    names.extend(limited.iter().map(|metric| format!("violation_{metric}")));
    names.extend(parameters.iter().map(|name| format!("config.{name}")));
    let mut text = line(&names);
    for point in &front.points {
        let mut fields = flags(point);
        fields.extend(
            Metric::objectives().map(|metric| {
                point.metrics.get(metric).map_or_else(String::new, |v| v.to_string())
            }),
        );
        for metric in &uncertain {
            match point.spread.get(metric) {
                Some([low, high]) => fields.extend([low.to_string(), high.to_string()]),
                None => fields.extend([String::new(), String::new()]),
            }
        }
        let violation = |metric: &Metric| {
            point.violation.get(metric).map_or_else(|| "0".to_owned(), f64::to_string)
        };
        fields.extend(limited.iter().map(violation));
        fields.extend(
            parameters
                .iter()
                .map(|name| point.config.0.get(*name).map_or_else(String::new, super::setting)),
        );
        text.push_str(&line(&fields));
    }
    text
}

fn flags(point: &FrontPoint) -> Vec<String> {
    vec![point.id.clone(), point.feasible.to_string(), point.best.to_string(), point.origin.clone()]
}

fn line(fields: &[String]) -> String {
    let mut line = fields.iter().map(|field| quoted(field)).collect::<Vec<_>>().join(",");
    line.push('\n');
    line
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
