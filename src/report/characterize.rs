//! Report of the study of techniques in sentences, tables and plots.

use std::fmt::Write;

use paretune_record::characterize::{CHANNEL, CSR, Kernels, ORIGINAL, Row};

use super::axis::Axis;
use super::svg::escaped;
use super::units;

/// Losses of accuracy (fractions) at which techniques are compared.
const DROPS: [f64; 3] = [0.005, 0.01, 0.05];

/// Formats a whole study as Markdown. `about` describes how it was made, and `pictures` names the
/// file of each network's plot, drawn by [`curves`].
#[must_use]
pub fn characterization(rows: &[Row], about: &str, pictures: &[(String, String)]) -> String {
    let mut text = format!("# Techniques, alone and jointly\n\n{about}\n");
    let mut networks: Vec<&str> = rows.iter().map(|row| row.network.as_str()).collect();
    networks.dedup();
    for network in networks {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.network == network).collect();
        let _ = write!(text, "\n## {network}\n\n");
        for sentence in sentences(&rows) {
            let _ = writeln!(text, "- {sentence}");
        }
        if let Some((_, file)) = pictures.iter().find(|(name, _)| name == network) {
            let _ = write!(text, "\n![Accuracy over latency, one curve per technique]({file})\n");
        }
        text.push_str(&fixed_accuracy(&rows));
        for (backend, threads) in settings(&rows) {
            let _ = write!(text, "\n### {network}: {}\n\n", setting_name(backend, threads));
            text.push_str(&table(&rows, backend, threads));
        }
    }
    text
}

fn settings<'r>(rows: &[&'r Row]) -> Vec<(&'r str, i64)> {
    let mut all: Vec<(&str, i64)> = Vec::new();
    for row in rows {
        if !all.contains(&(row.backend.as_str(), row.threads)) {
            all.push((&row.backend, row.threads));
        }
    }
    all
}

fn setting_name(backend: &str, threads: i64) -> String {
    match (backend, threads) {
        ("cpu", 1) => "1 thread".to_owned(),
        ("cpu", threads) => format!("{threads} threads"),
        (backend, _) => backend.to_owned(),
    }
}

/// A measured row with the values that are compared.
#[derive(Clone, Copy)]
struct Measured<'r> {
    row: &'r Row,
    accuracy: f64,
    /// Loss of accuracy against the baseline on the same images.
    drop: f64,
    latency: [f64; 3],
    size: f64,
    memory: f64,
}

fn measured<'r>(rows: &[&'r Row], backend: &str, threads: i64) -> Vec<Measured<'r>> {
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

fn original<'a, 'r>(all: &'a [Measured<'r>], kernels: Kernels) -> Option<&'a Measured<'r>> {
    let is = |row: &Row| row.experiment.technique == ORIGINAL && row.experiment.kernels == kernels;
    all.iter().find(|measured| is(measured.row))
}

fn table(rows: &[&Row], backend: &str, threads: i64) -> String {
    let all = measured(rows, backend, threads);
    let mut text = String::from(
        "| technique | level | kernels | accuracy | change | latency | 95 % interval | speed | size | memory |\n\
         | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for point in &all {
        let experiment = &point.row.experiment;
        let kernels = kernels_name(experiment.kernels);
        let speed =
            original(&all, experiment.kernels).map_or(f64::NAN, |base| base.latency[0] / point.latency[0]);
        let scale = units::unit_for("latency", point.latency[0]).scale;
        let _ = writeln!(
            text,
            "| {} | {} | {kernels} | {:.1} % | {:+.1} | {} | {} to {} | {speed:.2}x | {} | {} |",
            experiment.technique,
            experiment.level,
            100.0 * point.accuracy,
            100.0 * (0.0 - point.drop),
            units::value("latency", point.latency[0]),
            units::digits(point.latency[1] * scale),
            units::digits(point.latency[2] * scale),
            units::value("size", point.size),
            units::value("memory", point.memory)
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
        "\nChange of accuracy in points, by pairs on the same images; speed against the original network \
                   with the same kind of kernels.\n",
    );
    text
}

fn kernels_name(kernels: Kernels) -> &'static str {
    match kernels {
        Kernels::Tuned => "tuned",
        Kernels::Naive => "naive",
    }
}

/// Formats the table of the fastest level of each technique within a given loss of accuracy.
fn fixed_accuracy(rows: &[&Row]) -> String {
    let Some((backend, threads)) = settings(rows).first().copied() else { return String::new() };
    let all = measured(rows, backend, threads);
    let mut text =
        format!("\n### At fixed accuracy, {}\n\n| technique | kernels |", setting_name(backend, threads));
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
                    let base = original(&all, kernels).map_or(f64::NAN, |base| base.latency[0]);
                    let level = &point.row.experiment.level;
                    let level = if level.is_empty() { String::new() } else { format!("{level}: ") };
                    format!(
                        "{level}{} ({:.2}x), {}",
                        units::value("latency", point.latency[0]),
                        base / point.latency[0],
                        units::value("size", point.size)
                    )
                }
            };
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

fn techniques<'r>(all: &[Measured<'r>]) -> Vec<(&'r str, Kernels)> {
    let mut names: Vec<(&str, Kernels)> = Vec::new();
    for point in all {
        let experiment = &point.row.experiment;
        if !names.contains(&(experiment.technique.as_str(), experiment.kernels)) {
            names.push((&experiment.technique, experiment.kernels));
        }
    }
    names
}

fn fastest<'a, 'r>(
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

/// Returns whether a technique is a combination of others.
fn joint(technique: &str) -> bool {
    technique.contains(" and ")
}

fn named(point: &Measured<'_>) -> String {
    let experiment = &point.row.experiment;
    if experiment.level.is_empty() {
        experiment.technique.clone()
    } else {
        format!("{} ({})", experiment.technique, experiment.level)
    }
}

fn times(base: f64, value: f64) -> String {
    let ratio = base / value;
    if ratio >= 1.0 { format!("{ratio:.2}x faster") } else { format!("{:.2}x slower", 1.0 / ratio) }
}

/// Describes the results of one network, in its first setting and in comparison with the others.
fn sentences(rows: &[&Row]) -> Vec<String> {
    let settings = settings(rows);
    let Some((backend, threads)) = settings.first().copied() else { return Vec::new() };
    let all = measured(rows, backend, threads);
    let Some(base) = original(&all, Kernels::Tuned) else { return Vec::new() };
    let here = setting_name(backend, threads);
    let mut said = vec![format!(
        "The original takes {} on {here} and weighs {}; its accuracy is {:.1} % on {} images.",
        units::value("latency", base.latency[0]),
        units::value("size", base.size),
        100.0 * base.accuracy,
        base.row.known.as_ref().map_or(0, |known| known.score.total)
    )];
    let tuned: Vec<&str> = techniques(&all)
        .into_iter()
        .filter(|(technique, kernels)| *kernels == Kernels::Tuned && *technique != ORIGINAL)
        .map(|(technique, _)| technique)
        .collect();
    for drop in [DROPS[1], DROPS[2]] {
        let mut best: Vec<&Measured<'_>> =
            tuned.iter().filter_map(|technique| fastest(&all, technique, Kernels::Tuned, drop)).collect();
        best.sort_by(|a, b| a.latency[0].total_cmp(&b.latency[0]));
        let single: Vec<&&Measured<'_>> =
            best.iter().filter(|point| !joint(&point.row.experiment.technique)).collect();
        let Some(first) = single.first() else { continue };
        let mut text = format!(
            "Where at most {:.0} point(s) may be lost, {} is the fastest single technique: {}, {}",
            100.0 * drop,
            named(first),
            units::value("latency", first.latency[0]),
            times(base.latency[0], first.latency[0])
        );
        let rest: Vec<String> = single[1..]
            .iter()
            .map(|point| format!("{} is {}", named(point), times(base.latency[0], point.latency[0])))
            .collect();
        if !rest.is_empty() {
            let _ = write!(text, "; {}", rest.join(", "));
        }
        text.push('.');
        said.push(text);
        let together = best.iter().find(|point| joint(&point.row.experiment.technique));
        if let Some(together) = together {
            said.push(format!(
                "Jointly, {} takes {}: {} than that, and {} than the original.",
                named(together),
                units::value("latency", together.latency[0]),
                times(first.latency[0], together.latency[0]),
                times(base.latency[0], together.latency[0])
            ));
        }
    }
    said.extend(formats(&all, base));
    said.extend(thread_words(rows, &settings));
    said.extend(naive_words(&all));
    said
}

/// Compares channel pruning with weight pruning, in time and memory.
fn formats(all: &[Measured<'_>], base: &Measured<'_>) -> Vec<String> {
    let of = |technique: &str| -> Vec<&Measured<'_>> {
        let tuned = all.iter().filter(|point| point.row.experiment.kernels == Kernels::Tuned);
        tuned.filter(|point| point.row.experiment.technique == technique).collect()
    };
    let (csr, channel) = (of(CSR), of(CHANNEL));
    let mut said = Vec::new();
    let overtaken = csr.iter().find(|point| point.latency[0] < base.latency[0]);
    if !csr.is_empty() {
        said.push(match overtaken {
            Some(point) => format!(
                "Weight pruning in CSR overtakes the dense original at {}, where {:.1} points are lost.",
                point.row.experiment.level,
                100.0 * point.drop
            ),
            None => "Weight pruning in CSR is slower than the dense original at every level.".to_owned(),
        });
    }
    let sparsest = csr.iter().max_by(|a, b| a.drop.total_cmp(&b.drop));
    let beats = sparsest.and_then(|sparse| {
        let better = channel
            .iter()
            .filter(|channel| channel.latency[0] < sparse.latency[0] && channel.accuracy > sparse.accuracy);
        Some((better.min_by(|a, b| b.accuracy.total_cmp(&a.accuracy))?, sparse))
    });
    if let Some((channel, sparse)) = beats {
        said.push(format!(
            "Channel pruning to {} beats CSR at {}: {} against {}, {:.1} % against {:.1} % right.",
            channel.row.experiment.level.trim_end_matches(" kept"),
            sparse.row.experiment.level,
            units::value("latency", channel.latency[0]),
            units::value("latency", sparse.latency[0]),
            100.0 * channel.accuracy,
            100.0 * sparse.accuracy
        ));
    }
    if let Some(sparse) = csr.first() {
        let (more, size) = (sparse.memory / base.memory, sparse.size / base.size);
        said.push(format!(
            "In memory, CSR at {} takes {more:.2} times what the original takes; on disk {size:.2} times.",
            sparse.row.experiment.level
        ));
    }
    said
}

/// Describes the speedup by more threads.
fn thread_words(rows: &[&Row], settings: &[(&str, i64)]) -> Option<String> {
    let cpu = |&&(backend, _): &&(&str, i64)| backend == "cpu";
    let most = settings.iter().filter(cpu).max_by_key(|(_, threads)| *threads)?;
    let least = settings.iter().filter(cpu).min_by_key(|(_, threads)| *threads)?;
    if most == least {
        return None;
    }
    let (many, few) = (measured(rows, most.0, most.1), measured(rows, least.0, least.1));
    let gains: Vec<String> = few
        .iter()
        .filter_map(|slow| {
            let experiment = &slow.row.experiment;
            let fast = many.iter().find(|fast| fast.row.experiment == *experiment)?;
            let told = experiment.kernels == Kernels::Tuned
                && !joint(&experiment.technique)
                && few
                    .iter()
                    .find(|other| {
                        other.row.experiment.technique == experiment.technique
                            && other.row.experiment.kernels == experiment.kernels
                    })
                    .is_some_and(|first| first.row.experiment == *experiment);
            told.then(|| format!("{} {:.2}x", named(slow), slow.latency[0] / fast.latency[0]))
        })
        .collect();
    Some(format!("From {} to {} threads: {}.", least.1, most.1, gains.join(", ")))
}

/// Describes how far the conclusions depend on the kernels.
fn naive_words(all: &[Measured<'_>]) -> Vec<String> {
    let (Some(plain), Some(base)) = (original(all, Kernels::Naive), original(all, Kernels::Tuned)) else {
        return Vec::new();
    };
    let mut said = vec![format!(
        "With naive kernels the original takes {}: {:.1} times as long as with tuned ones.",
        units::value("latency", plain.latency[0]),
        plain.latency[0] / base.latency[0]
    )];
    for technique in [CSR, CHANNEL] {
        let (Some(naive), Some(tuned)) = (
            fastest(all, technique, Kernels::Naive, DROPS[1]),
            fastest(all, technique, Kernels::Tuned, DROPS[1]),
        ) else {
            continue;
        };
        said.push(format!(
            "At one point lost, {technique} seems {} with naive kernels and is {} with tuned ones.",
            times(plain.latency[0], naive.latency[0]),
            times(base.latency[0], tuned.latency[0])
        ));
    }
    said
}

const COLORS: [&str; 8] =
    ["#1b7837", "#2166ac", "#b2182b", "#8a5a00", "#762a83", "#01665e", "#d6604d", "#4d4d4d"];

/// Draws accuracy over latency with one curve per technique, in the first setting of `network`.
#[must_use]
pub fn curves(rows: &[Row], network: &str) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.network == network).collect();
    let Some((backend, threads)) = settings(&rows).first().copied() else { return String::new() };
    let all = measured(&rows, backend, threads);
    // Points that lose nearly all accuracy would compress the others.
    let shown: Vec<&Measured<'_>> = all.iter().filter(|point| point.drop < 0.3).collect();
    let x = Axis::new("latency", shown.iter().map(|point| point.latency[0]));
    let y = Axis::new("accuracy", shown.iter().map(|point| point.accuracy));
    let (left, top, right, bottom) = (70.0, 40.0, 560.0, 430.0);
    let place = |point: &Measured<'_>| {
        let (x, y) = (x.place(point.latency[0])?, y.place(point.accuracy)?);
        Some((left + x * (right - left), bottom - y * (bottom - top)))
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 490\" width=\"860\" height=\"490\">\
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
        "<text x=\"315\" y=\"475\" text-anchor=\"middle\">{}</text><text transform=\"translate(18 235) rotate(-90)\" \
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
                point.row.experiment.technique == technique && point.row.experiment.kernels == kernels
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
        let (y, name) = (60.0 + 21.0 * index as f64, if kernels == Kernels::Naive { ", naive" } else { "" });
        let _ = write!(
            out,
            "<path d=\"M575 {:.1}h22\" stroke=\"{color}\" stroke-width=\"2\"{dash}/><text x=\"603\" y=\"{y:.1}\">{}{name}\
             </text>",
            y - 4.0,
            escaped(technique)
        );
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use paretune_kernels::weights::Numbers;

    use super::*;
    use paretune_record::characterize::Experiment;
    use paretune_record::measurement::Known;
    use paretune_record::score::Score;

    fn row(technique: &str, level: &str, kernels: Kernels, correct: u64, latency: f64, threads: i64) -> Row {
        Row {
            network: "net".into(),
            experiment: Experiment {
                technique: technique.into(),
                level: level.into(),
                kernels,
                numbers: Numbers::F32,
                sparsity: 0.0,
                channels: 1.0,
                algorithm: None,
            },
            backend: "cpu".into(),
            threads,
            id: String::new(),
            known: Some(Known {
                score: Score { total: 1000, correct, lost: 900_u64.saturating_sub(correct), gained: 0 },
                latency: [latency, latency * 0.99, latency * 1.01],
                size: 1e6,
                memory: 2e6,
            }),
            failure: None,
        }
    }

    #[test]
    fn a_study_is_told_in_sentences_tables_and_curves() {
        let (tuned, naive) = (Kernels::Tuned, Kernels::Naive);
        let mut rows = Vec::new();
        for (threads, slow) in [(2, 1.0), (1, 1.9)] {
            rows.extend([
                row(ORIGINAL, "", tuned, 900, 1e-3 * slow, threads),
                row("8-bit quantization", "", tuned, 898, 0.5e-3 * slow, threads),
                row(CHANNEL, "75 % kept", tuned, 892, 0.8e-3 * slow, threads),
                row(CSR, "90 % zeros", tuned, 700, 1.2e-3 * slow, threads),
                row(
                    "8-bit quantization and channel pruning",
                    "75 % kept",
                    tuned,
                    891,
                    0.4e-3 * slow,
                    threads,
                ),
                row(ORIGINAL, "", naive, 900, 20e-3 * slow, threads),
                row(CHANNEL, "75 % kept", naive, 892, 12e-3 * slow, threads),
            ]);
        }
        let text = characterization(&rows, "Made up.", &[("net".into(), "net.svg".into())]);
        insta::assert_snapshot!("characterize", text);
        let picture = curves(&rows, "net");
        assert!(picture.ends_with("</svg>\n") && !picture.contains("NaN"));
        assert_eq!(picture.matches("<circle").count(), 7, "one per row of the first setting");
    }
}
