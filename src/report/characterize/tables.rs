//! Tables of the study of techniques.

use std::fmt::Write;

use paretune_record::characterize::Row;
use paretune_record::metric::Metric;

use super::DROPS;
use super::rows::{
    baseline, fastest, kernels_name, measured_rows, setting_name, settings, techniques,
};
use crate::units;

pub(super) fn table(rows: &[&Row], backend: &str, threads: i64) -> String {
    let all = measured_rows(rows, backend, threads);
    let mut text = String::from(
        "| technique | level | kernels | accuracy | change | latency | 95 % interval | speed | \
         size | memory |\n\
         | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for point in &all {
        let experiment = &point.row.experiment;
        let kernels = kernels_name(experiment.kernels);
        let speed = baseline(&all, experiment.kernels)
            .map_or(f64::NAN, |base| base.latency[0] / point.latency[0]);
        let scale = units::unit_for(Metric::Latency, point.latency[0]).scale;
        let _ = writeln!(
            text,
            "| {} | {} | {kernels} | {:.1} % | {:+.1} | {} | {} to {} | {speed:.2}x | {} | {} |",
            experiment.technique,
            experiment.level,
            100.0 * point.accuracy,
            100.0 * (0.0 - point.drop),
            units::value(Metric::Latency, point.latency[0]),
            units::digits(point.latency[1] * scale),
            units::digits(point.latency[2] * scale),
            units::value(Metric::Size, point.size),
            units::value(Metric::Memory, point.memory)
        );
    }
    for row in rows.iter().filter(|row| row.backend == backend && row.threads == threads) {
        if let Some(reason) = &row.failure {
            let experiment = &row.experiment;
            let kernels = kernels_name(experiment.kernels);
            let _ = writeln!(
                text,
                "| {} | {} | {kernels} | {} | | | | | | |",
                experiment.technique, experiment.level, reason
            );
        }
    }
    text.push_str(
        "\nChange of accuracy in points, by pairs on the same images; speed against the baseline \
                   with the same kind of kernels.\n",
    );
    text
}

/// Formats the table of the fastest level of each technique within a given loss of accuracy.
pub(super) fn fixed_accuracy(rows: &[&Row]) -> String {
    let Some((backend, threads)) = settings(rows).first().copied() else { return String::new() };
    let all = measured_rows(rows, backend, threads);
    let mut text = format!(
        "\n### At fixed accuracy, {}\n\n| technique | kernels |",
        setting_name(backend, threads)
    );
    for drop in DROPS {
        let _ = write!(text, " at most {:.1} points lost |", 100.0 * drop);
    }
    text.push_str("\n| --- | --- |");
    text.push_str(&" --- |".repeat(DROPS.len()));
    text.push('\n');
    for (technique, kernels) in techniques(&all) {
        let _ = write!(text, "| {technique} | {} |", kernels_name(kernels));
        for drop in DROPS {
            let cell = match fastest(&all, technique, kernels, drop) {
                None => "-".to_owned(),
                Some(point) => {
                    let base = baseline(&all, kernels).map_or(f64::NAN, |base| base.latency[0]);
                    let level = &point.row.experiment.level;
                    let level = if level.is_empty() { String::new() } else { format!("{level}: ") };
                    format!(
                        "{level}{} ({:.2}x), {}",
                        units::value(Metric::Latency, point.latency[0]),
                        base / point.latency[0],
                        units::value(Metric::Size, point.size)
                    )
                }
            };
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}
