//! Trials that apply one technique alone to the whole network. Joint configurations are compared
//! with them.

use paretune_record::event::TrialFinished;
use paretune_record::front::Front;
use paretune_record::metric::{Metric, Metrics};

/// A trial that applies one technique alone.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Technique {
    /// Name of the recipe: `8 bits everywhere`.
    pub name: String,
    /// Short name for labels: `8 bits`.
    pub label: String,
    /// Content hash of the configuration.
    pub id: String,
    /// Final metrics if it is a point of the front, else those of the search.
    pub metrics: Metrics,
}

/// Selects the single techniques among `trials`, in their order.
#[must_use]
pub fn techniques(trials: &[TrialFinished], front: Option<&Front>) -> Vec<Technique> {
    trials
        .iter()
        .filter_map(|trial| {
            let label = label(&trial.origin)?;
            let id = trial.id.clone();
            let last = front.and_then(|front| front.points.iter().find(|point| point.id == id));
            let metrics = last.map(|point| point.metrics).or_else(|| metrics(trial))?;
            Some(Technique { name: trial.origin.clone(), label, id, metrics })
        })
        .collect()
}

/// Returns the metrics of a trial, also if it was dropped before all of its images were scored.
#[must_use]
pub fn metrics(trial: &TrialFinished) -> Option<Metrics> {
    if let Some(point) = &trial.point {
        return Some(point.metrics);
    }
    trial.partial.filter(|seen| Metric::objectives().all(|metric| seen.get(metric).is_some()))
}

/// Returns the short name of a recipe that applies one technique alone; `None` for all other
/// origins.
#[must_use]
pub fn label(origin: &str) -> Option<String> {
    if origin.ends_with("threads") {
        return None;
    }
    if let Some(bits) = origin.strip_suffix(" everywhere") {
        return Some(bits.to_owned());
    }
    if let Some(share) = origin.strip_suffix(" of channels") {
        return (!share.contains(',')).then(|| format!("{share} ch."));
    }
    if let Some((sparsity, kernels)) = origin.split_once(" sparse, ") {
        return Some(if kernels == "CSR" {
            format!("{sparsity} CSR")
        } else {
            format!("{sparsity} sparse")
        });
    }
    matches!(origin, "Winograd" | "im2col").then(|| origin.to_owned())
}

#[cfg(test)]
mod tests {
    use super::label;

    #[test]
    fn only_single_techniques_have_labels() {
        let labels =
            ["8 bits everywhere", "75 % of channels", "70 % sparse, CSR", "Winograd"].map(label);
        assert_eq!(labels.map(Option::unwrap), ["8 bits", "75 % ch.", "70 % CSR", "Winograd"]);
        let others = [
            "untouched",
            "compose",
            "8 bits, 75 % of channels",
            "8 bits everywhere, 2 threads",
            "evolve",
        ];
        assert!(others.into_iter().all(|origin| label(origin).is_none()));
    }
}
