//! Report of the study of techniques in sentences, tables and plots.

mod curves;
mod rows;
mod sentences;
mod tables;

use std::fmt::Write;

use paretune_record::characterize::Row;

pub use curves::curves;
use rows::{setting_name, settings};
use sentences::results;
use tables::{fixed_accuracy, table};

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
        for sentence in results(&rows) {
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

#[cfg(test)]
mod tests {
    use paretune_kernels::weights::Numbers;

    use super::*;
    use paretune_record::characterize::{CHANNEL, CSR, Experiment, Kernels, ORIGINAL};
    use paretune_record::measurement::Measurement;
    use paretune_record::score::Score;

    fn row(
        technique: &str,
        level: &str,
        kernels: Kernels,
        correct: u64,
        latency: f64,
        threads: i64,
    ) -> Row {
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
            known: Some(Measurement {
                score: Score {
                    total: 1000,
                    correct,
                    lost: 900_u64.saturating_sub(correct),
                    gained: 0,
                },
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
