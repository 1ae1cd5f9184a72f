//! Sentences about the results of the study of techniques.

use std::fmt::Write;

use paretune_record::characterize::{CHANNEL, CSR, Kernels, ORIGINAL, Row};
use paretune_record::metric::Metric;

use super::DROPS;
use super::rows::{Measured, baseline, fastest, measured_rows, setting_name, settings, techniques};
use crate::units;

/// Returns whether a technique is a combination of others.
fn is_joint(technique: &str) -> bool {
    technique.contains(" and ")
}

fn level_name(point: &Measured<'_>) -> String {
    let experiment = &point.row.experiment;
    if experiment.level.is_empty() {
        experiment.technique.clone()
    } else {
        format!("{} ({})", experiment.technique, experiment.level)
    }
}

fn speedup(base: f64, value: f64) -> String {
    let ratio = base / value;
    if ratio >= 1.0 { format!("{ratio:.2}x faster") } else { format!("{:.2}x slower", 1.0 / ratio) }
}

/// Describes the results of one network, in its first setting and in comparison with the others.
pub(super) fn results(rows: &[&Row]) -> Vec<String> {
    let settings = settings(rows);
    let Some((backend, threads)) = settings.first().copied() else { return Vec::new() };
    let all = measured_rows(rows, backend, threads);
    let Some(base) = baseline(&all, Kernels::Tuned) else { return Vec::new() };
    let here = setting_name(backend, threads);
    let mut sentences = vec![format!(
        "The baseline takes {} on {here}; its size is {} and its accuracy {:.1} % on {} images.",
        units::value(Metric::Latency, base.latency[0]),
        units::value(Metric::Size, base.size),
        100.0 * base.accuracy,
        base.row.known.as_ref().map_or(0, |known| known.score.total)
    )];
    let tuned: Vec<&str> = techniques(&all)
        .into_iter()
        .filter(|(technique, kernels)| *kernels == Kernels::Tuned && *technique != ORIGINAL)
        .map(|(technique, _)| technique)
        .collect();
    for drop in [DROPS[1], DROPS[2]] {
        let mut best: Vec<&Measured<'_>> = tuned
            .iter()
            .filter_map(|technique| fastest(&all, technique, Kernels::Tuned, drop))
            .collect();
        best.sort_by(|a, b| a.latency[0].total_cmp(&b.latency[0]));
        let single: Vec<&&Measured<'_>> =
            best.iter().filter(|point| !is_joint(&point.row.experiment.technique)).collect();
        let Some(first) = single.first() else { continue };
        let mut text = format!(
            "With a loss of at most {:.0} point(s), {} is the fastest single technique: {}, {}",
            100.0 * drop,
            level_name(first),
            units::value(Metric::Latency, first.latency[0]),
            speedup(base.latency[0], first.latency[0])
        );
        let rest: Vec<String> = single[1..]
            .iter()
            .map(|point| {
                format!("{} is {}", level_name(point), speedup(base.latency[0], point.latency[0]))
            })
            .collect();
        if !rest.is_empty() {
            let _ = write!(text, "; {}", rest.join(", "));
        }
        text.push('.');
        sentences.push(text);
        let together = best.iter().find(|point| is_joint(&point.row.experiment.technique));
        if let Some(together) = together {
            sentences.push(format!(
                "Jointly, {} takes {}: {} than that, and {} than the baseline.",
                level_name(together),
                units::value(Metric::Latency, together.latency[0]),
                speedup(first.latency[0], together.latency[0]),
                speedup(base.latency[0], together.latency[0])
            ));
        }
    }
    sentences.extend(pruning_sentences(&all, base));
    sentences.extend(thread_sentence(rows, &settings));
    sentences.extend(naive_sentences(&all));
    sentences
}

/// Compares channel pruning with weight pruning, in time and memory.
fn pruning_sentences(all: &[Measured<'_>], base: &Measured<'_>) -> Vec<String> {
    let of = |technique: &str| -> Vec<&Measured<'_>> {
        let tuned = all.iter().filter(|point| point.row.experiment.kernels == Kernels::Tuned);
        tuned.filter(|point| point.row.experiment.technique == technique).collect()
    };
    let (csr, channel) = (of(CSR), of(CHANNEL));
    let mut sentences = Vec::new();
    let overtaken = csr.iter().find(|point| point.latency[0] < base.latency[0]);
    if !csr.is_empty() {
        sentences.push(match overtaken {
            Some(point) => format!(
                "Weight pruning in CSR overtakes the dense baseline at {}, where {:.1} points are \
                 lost.",
                point.row.experiment.level,
                100.0 * point.drop
            ),
            None => {
                "Weight pruning in CSR is slower than the dense baseline at every level.".to_owned()
            }
        });
    }
    let sparsest = csr.iter().max_by(|a, b| a.drop.total_cmp(&b.drop));
    let beats = sparsest.and_then(|sparse| {
        let better = channel.iter().filter(|channel| {
            channel.latency[0] < sparse.latency[0] && channel.accuracy > sparse.accuracy
        });
        Some((better.min_by(|a, b| b.accuracy.total_cmp(&a.accuracy))?, sparse))
    });
    if let Some((channel, sparse)) = beats {
        sentences.push(format!(
            "Channel pruning to {} beats CSR at {}: {} against {}, {:.1} % against {:.1} % right.",
            channel.row.experiment.level.trim_end_matches(" kept"),
            sparse.row.experiment.level,
            units::value(Metric::Latency, channel.latency[0]),
            units::value(Metric::Latency, sparse.latency[0]),
            100.0 * channel.accuracy,
            100.0 * sparse.accuracy
        ));
    }
    if let Some(sparse) = csr.first() {
        let (more, size) = (sparse.memory / base.memory, sparse.size / base.size);
        sentences.push(format!(
            "In memory, CSR at {} takes {more:.2} times as much as the baseline; on disk \
             {size:.2} times.",
            sparse.row.experiment.level
        ));
    }
    sentences
}

/// Describes the speedup by more threads.
fn thread_sentence(rows: &[&Row], settings: &[(&str, i64)]) -> Option<String> {
    let cpu = |&&(backend, _): &&(&str, i64)| backend == "cpu";
    let most = settings.iter().filter(cpu).max_by_key(|(_, threads)| *threads)?;
    let least = settings.iter().filter(cpu).min_by_key(|(_, threads)| *threads)?;
    if most == least {
        return None;
    }
    let (many, few) = (measured_rows(rows, most.0, most.1), measured_rows(rows, least.0, least.1));
    let gains: Vec<String> = few
        .iter()
        .filter_map(|slow| {
            let experiment = &slow.row.experiment;
            let fast = many.iter().find(|fast| fast.row.experiment == *experiment)?;
            let told = experiment.kernels == Kernels::Tuned
                && !is_joint(&experiment.technique)
                && few
                    .iter()
                    .find(|other| {
                        other.row.experiment.technique == experiment.technique
                            && other.row.experiment.kernels == experiment.kernels
                    })
                    .is_some_and(|first| first.row.experiment == *experiment);
            told.then(|| format!("{} {:.2}x", level_name(slow), slow.latency[0] / fast.latency[0]))
        })
        .collect();
    Some(format!("From {} to {} threads: {}.", least.1, most.1, gains.join(", ")))
}

/// Describes how far the conclusions depend on the kernels.
fn naive_sentences(all: &[Measured<'_>]) -> Vec<String> {
    let (Some(plain), Some(base)) = (baseline(all, Kernels::Naive), baseline(all, Kernels::Tuned))
    else {
        return Vec::new();
    };
    let mut sentences = vec![format!(
        "With naive kernels the baseline takes {}: {:.1} times as long as with tuned ones.",
        units::value(Metric::Latency, plain.latency[0]),
        plain.latency[0] / base.latency[0]
    )];
    for technique in [CSR, CHANNEL] {
        let (Some(naive), Some(tuned)) = (
            fastest(all, technique, Kernels::Naive, DROPS[1]),
            fastest(all, technique, Kernels::Tuned, DROPS[1]),
        ) else {
            continue;
        };
        sentences.push(format!(
            "At one point lost, {technique} seems {} with naive kernels and is {} with tuned ones.",
            speedup(plain.latency[0], naive.latency[0]),
            speedup(base.latency[0], tuned.latency[0])
        ));
    }
    sentences
}
