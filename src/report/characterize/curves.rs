//! Plot of accuracy over latency with one curve per technique.

use std::fmt::Write;

use paretune_record::characterize::{Kernels, Row};
use paretune_record::metric::Metric;

use super::rows::{Measured, measured_rows, setting_name, settings, techniques};
use crate::axis::Axis;
use crate::svg::escaped;

const COLORS: [&str; 8] =
    ["#1b7837", "#2166ac", "#b2182b", "#8a5a00", "#762a83", "#01665e", "#d6604d", "#4d4d4d"];

/// Draws accuracy over latency with one curve per technique, in the first setting of `network`.
#[must_use]
pub fn curves(rows: &[Row], network: &str) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.network == network).collect();
    let Some((backend, threads)) = settings(&rows).first().copied() else { return String::new() };
    let all = measured_rows(&rows, backend, threads);
    // Points that lose nearly all accuracy would compress the others.
    let shown: Vec<&Measured<'_>> = all.iter().filter(|point| point.drop < 0.3).collect();
    let x = Axis::new(Metric::Latency, shown.iter().map(|point| point.latency[0]));
    let y = Axis::new(Metric::Accuracy, shown.iter().map(|point| point.accuracy));
    let (left, top, right, bottom) = (70.0, 40.0, 560.0, 430.0);
    let place = |point: &Measured<'_>| {
        let (x, y) = (x.position(point.latency[0])?, y.position(point.accuracy)?);
        Some((left + x * (right - left), bottom - y * (bottom - top)))
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 490\" width=\"860\" \
         height=\"490\">\
         <style>text{{font:13px system-ui,Helvetica,Arial,DejaVu Sans,sans-serif;fill:#333}}</style>\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\
         <text x=\"{left}\" y=\"24\" font-weight=\"600\">{} on {}</text>",
        escaped(network),
        setting_name(backend, threads)
    );
    for (at, text) in x.ticks(7) {
        let x = left + at * (right - left);
        let _ = write!(
            out,
            "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"#e4e4e4\"/><text x=\"{x:.1}\" y=\"448\" \
             text-anchor=\"middle\">{text}</text>"
        );
    }
    for (at, text) in y.ticks(7) {
        let y = bottom - at * (bottom - top);
        let _ = write!(
            out,
            "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#e4e4e4\"/><text x=\"63\" y=\"{:.1}\" \
             text-anchor=\"end\">{text}</text>",
            y + 4.0
        );
    }
    let _ = write!(
        out,
        "<text x=\"315\" y=\"475\" text-anchor=\"middle\">{}</text><text \
         transform=\"translate(18 235) rotate(-90)\" \
         text-anchor=\"middle\">{}</text>",
        escaped(&x.title()),
        escaped(&y.title())
    );
    for (index, (technique, kernels)) in techniques(&all).into_iter().enumerate() {
        let color = COLORS[index % COLORS.len()];
        let dash = if kernels == Kernels::Naive { " stroke-dasharray=\"5 4\"" } else { "" };
        let mut points: Vec<(f64, f64)> = shown
            .iter()
            .filter(|point| {
                point.row.experiment.technique == technique
                    && point.row.experiment.kernels == kernels
            })
            .filter_map(|point| place(point))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.6\"{dash}/>",
            path.join(" ")
        );
        for (x, y) in points {
            let _ = write!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{color}\"/>");
        }
        let (y, name) =
            (60.0 + 21.0 * index as f64, if kernels == Kernels::Naive { ", naive" } else { "" });
        let _ = write!(
            out,
            "<path d=\"M575 {:.1}h22\" stroke=\"{color}\" stroke-width=\"2\"{dash}/><text \
             x=\"603\" y=\"{y:.1}\">{}{name}\
             </text>",
            y - 4.0,
            escaped(technique)
        );
    }
    out.push_str("</svg>\n");
    out
}
