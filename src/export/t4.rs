//! Exports a study in T4, version 1.0.0, the result format of the autotuning community
//! (TuningSchema, `results-schema.json`).

use paretune_record::failure::FailureKind;
use paretune_record::metric::Metric;
use serde_json::{Value, json};

use super::history::{History, HistoryTrial, timestamp};

/// Builds the T4 document of all trials of a study. Times and metrics are in SI units, each
/// measurement with its unit. The wall-clock time of a trial is reported as `framework`, because it
/// is not divided further.
#[must_use]
pub fn t4(history: &History) -> Value {
    let started = &history.started;
    let results: Vec<Value> =
        history.trials.iter().filter_map(|trial| result(trial, &started.objectives)).collect();
    json!({
        "schema_version": "1.0.0",
        "metadata": {
            "program": "paretune",
            "program_version": started.version,
            "model": started.model,
            "model_sha256": started.model_sha256,
            "hardware": started.hardware,
            "cpu": started.cpu,
            "strategy": started.strategy,
            "seed": started.seed,
            "limits": started.limits,
            "time_unit": "s",
        },
        "results": results,
    })
}

/// Builds the T4 result of one trial; `None` if the journal does not record its configuration.
fn result(entry: &HistoryTrial, objectives: &[Metric]) -> Option<Value> {
    let trial = &entry.trial;
    let configuration = entry.configuration()?;
    let mut measurements = Vec::new();
    let mut add = |name: &str, value: f64, unit: &str| {
        measurements.push(json!({"name": name, "value": value, "unit": unit}));
    };
    let mut runtimes = Vec::new();
    if let Some(known) = &trial.known {
        runtimes.push(known.latency[0]);
        add("images", known.score.total as f64, "");
        for (metric, estimate) in known.estimates() {
            let unit = metric.quantity().sign();
            add(metric.name(), estimate.value, unit);
            if metric.row().is_uncertain {
                add(&format!("{metric}_low"), estimate.low, unit);
                add(&format!("{metric}_high"), estimate.high, unit);
            }
        }
    }
    let invalidity = trial.failed().map_or("correct", |failure| invalidity(failure.kind));
    Some(json!({
        "timestamp": entry.begun.map(timestamp).unwrap_or_default(),
        "configuration": configuration,
        "objectives": objectives,
        "times": {
            "compilation": 0.0,
            "runtimes": runtimes,
            "framework": trial.seconds,
            "search_algorithm": 0.0,
            "validation": 0.0,
        },
        "invalidity": invalidity,
        "correctness": if trial.failure.is_none() { 1.0 } else { 0.0 },
        "measurements": measurements,
    }))
}

/// Returns T4's class of a kind of failure.
fn invalidity(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Build => "compile",
        FailureKind::Crash => "runtime",
        FailureKind::Timeout => "timeout",
        FailureKind::WrongResult => "correctness",
    }
}
