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
    /// Metrics that compare with those of the front: see [`on_terms_of`].
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
            let seen = metrics(trial)?;
            let metrics = match front {
                Some(front) => on_terms_of(front, &id, &seen, trial.baseline.as_ref()),
                None => seen,
            };
            Some(Technique { name: trial.origin.clone(), label, id, metrics })
        })
        .collect()
}

/// Returns the metrics of the trial `id`, whose search has seen `metrics`, on the terms of `front`:
/// its final ones if the front has it. Else they relate to the front's baseline as those of the
/// search relate to the search's `baseline`. The two fronts are scored on different images and
/// timed at different times, so nothing else compares.
#[must_use]
pub fn on_terms_of(
    front: &Front,
    id: &str,
    metrics: &Metrics,
    baseline: Option<&Metrics>,
) -> Metrics {
    let known = front.points.iter().chain(&front.nearest_miss).find(|point| point.id == id);
    if let Some(point) = known {
        return point.metrics;
    }
    let Some(baseline) = baseline else { return *metrics };
    let related = metrics.iter().map(|(metric, value)| {
        let moved = match (baseline.get(metric), front.baseline.get(metric)) {
            (Some(then), Some(now)) if metric.is_logarithmic() && then > 0.0 => {
                value * (now / then)
            }
            (Some(then), Some(now)) if !metric.is_logarithmic() => {
                (value + (now - then)).clamp(0.0, 1.0)
            }
            _ => value,
        };
        (metric, moved)
    });
    related.collect()
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
    use super::{label, on_terms_of};
    use paretune_record::metric::{Metric, Metrics};

    #[test]
    fn a_technique_that_changes_nothing_is_where_the_baseline_is() {
        let front = paretune_demo::front(30, true);
        // The search saw other images and a slower moment.
        let moved = |metric: Metric, value: f64| match metric {
            Metric::Accuracy => value - 0.035,
            Metric::Latency => value * 1.2,
            _ => value,
        };
        let then: Metrics =
            front.baseline.iter().map(|(metric, value)| (metric, moved(metric, value))).collect();
        let now = on_terms_of(&front, "unknown", &then, Some(&then));
        for (metric, value) in front.baseline.iter() {
            let found = now.get(metric).unwrap();
            assert!((found - value).abs() <= 1e-9 * value.abs(), "{metric}: {found}");
        }
        // A point of the front has its own final figures.
        let point = &front.points[0];
        assert_eq!(on_terms_of(&front, &point.id, &then, Some(&then)), point.metrics);
    }

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
