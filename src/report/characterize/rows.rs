//! The measured rows of a study: settings, baselines, and the fastest level of a technique.

use paretune_record::characterize::{Kernels, ORIGINAL, Row};

pub(super) fn settings<'r>(rows: &[&'r Row]) -> Vec<(&'r str, i64)> {
    let mut all: Vec<(&str, i64)> = Vec::new();
    for row in rows {
        if !all.contains(&(row.backend.as_str(), row.threads)) {
            all.push((&row.backend, row.threads));
        }
    }
    all
}

pub(super) fn setting_name(backend: &str, threads: i64) -> String {
    match (backend, threads) {
        ("cpu", 1) => "1 thread".to_owned(),
        ("cpu", threads) => format!("{threads} threads"),
        (backend, _) => backend.to_owned(),
    }
}

/// A measured row with the values that are compared.
#[derive(Clone, Copy)]
pub(super) struct Measured<'r> {
    pub row: &'r Row,
    pub accuracy: f64,
    /// Loss of accuracy against the baseline on the same images.
    pub drop: f64,
    pub latency: [f64; 3],
    pub size: f64,
    pub memory: f64,
}

pub(super) fn measured_rows<'r>(
    rows: &[&'r Row],
    backend: &str,
    threads: i64,
) -> Vec<Measured<'r>> {
    let here = rows.iter().filter(|row| row.backend == backend && row.threads == threads);
    here.filter_map(|row| {
        let known = row.known.as_ref()?;
        Some(Measured {
            row,
            accuracy: known.score.accuracy(),
            drop: known.score.drop().0,
            latency: known.latency,
            size: known.size,
            memory: known.memory,
        })
    })
    .collect()
}

pub(super) fn baseline<'a, 'r>(
    all: &'a [Measured<'r>],
    kernels: Kernels,
) -> Option<&'a Measured<'r>> {
    let is = |row: &Row| row.experiment.technique == ORIGINAL && row.experiment.kernels == kernels;
    all.iter().find(|measured| is(measured.row))
}

pub(super) fn kernels_name(kernels: Kernels) -> &'static str {
    match kernels {
        Kernels::Tuned => "tuned",
        Kernels::Naive => "naive",
    }
}

pub(super) fn techniques<'r>(all: &[Measured<'r>]) -> Vec<(&'r str, Kernels)> {
    let mut names: Vec<(&str, Kernels)> = Vec::new();
    for point in all {
        let experiment = &point.row.experiment;
        if !names.contains(&(experiment.technique.as_str(), experiment.kernels)) {
            names.push((&experiment.technique, experiment.kernels));
        }
    }
    names
}

pub(super) fn fastest<'a, 'r>(
    all: &'a [Measured<'r>],
    technique: &str,
    kernels: Kernels,
    drop: f64,
) -> Option<&'a Measured<'r>> {
    all.iter()
        .filter(|point| {
            let experiment = &point.row.experiment;
            experiment.technique == technique && experiment.kernels == kernels && point.drop <= drop
        })
        .min_by(|a, b| a.latency[0].total_cmp(&b.latency[0]))
}
