//! Exports a study as a journal of Optuna (`JournalFileBackend`), for its dashboard and its
//! analyses.
//!
//! Such a journal has implicit identifiers: the first study is 0, and trials count from 0. Numeric
//! parameters become integer or float distributions over the observed range. All others become
//! categories, whose internal values are indices.

use std::collections::BTreeMap;

use paretune_record::archive::violation_of;
use paretune_spaces::{Configuration, Value};
use serde_json::json;

use super::history::{History, HistoryTrial, timestamp};

/// Identifier of the worker that all operations in the file carry.
const WORKER: &str = "paretune";

/// Formats the journal with one operation per line. Completely measured trials are complete, with a
/// constraint per limit (met at or below 0, on the pessimistic end of the interval, relative to the
/// limit). Trials that were dropped early are pruned, and failures are failed.
#[must_use]
pub fn optuna(history: &History) -> String {
    let started = &history.started;
    let directions: Vec<u8> =
        started.objectives.iter().map(|metric| if metric.is_maximized() { 2 } else { 1 }).collect();
    let name = format!("{} on {}", started.model, started.cpu);
    let mut text = String::new();
    let mut add = |operation: serde_json::Value| {
        text.push_str(&operation.to_string());
        text.push('\n');
    };
    add(json!({"op_code": 0, "worker_id": WORKER, "study_name": name, "directions": directions}));
    add(json!({
        "op_code": 3, "worker_id": WORKER, "study_id": 0,
        "system_attr": {"study:metric_names": started.objectives},
    }));
    let limits: Vec<String> = started.limits.iter().map(paretune_report::units::limit).collect();
    for (key, value) in [
        ("limits", json!(limits)),
        ("model_sha256", json!(started.model_sha256)),
        ("hardware", json!(started.hardware)),
        ("strategy", json!(started.strategy)),
        ("seed", json!(started.seed)),
        ("version", json!(started.version)),
    ] {
        add(json!({"op_code": 2, "worker_id": WORKER, "study_id": 0, "user_attr": {key: value}}));
    }
    let domains = domains(history.trials.iter().filter_map(HistoryTrial::configuration));
    for trial in &history.trials {
        add(operation(trial, history, &domains));
    }
    text
}

fn operation(
    entry: &HistoryTrial,
    history: &History,
    domains: &BTreeMap<&str, Domain>,
) -> serde_json::Value {
    let trial = &entry.trial;
    let (mut distributions, mut params) = (serde_json::Map::new(), serde_json::Map::new());
    for (name, value) in entry.configuration().iter().flat_map(|configuration| configuration.iter())
    {
        let Some(domain) = domains.get(name.as_str()) else { continue };
        distributions.insert(name.clone(), json!(domain.distribution().to_string()));
        params.insert(name.clone(), domain.internal(value));
    }
    let state = match (&trial.failure, &trial.point) {
        (Some(_), _) => 3,
        (None, None) => 2,
        (None, Some(_)) => 1,
    };
    let mut user = serde_json::Map::new();
    user.insert("id".into(), json!(trial.id));
    user.insert("cached".into(), json!(trial.cached));
    user.insert("origin".into(), json!(trial.origin));
    if let Some(point) = &trial.point {
        user.insert("metrics".into(), json!(point.metrics));
    }
    if let Some(partial) = &trial.partial {
        user.insert("metrics".into(), json!(partial));
    }
    if let Some(reason) = &trial.failure {
        user.insert("failure".into(), json!(reason));
    }
    let mut system = serde_json::Map::new();
    if let Some(known) = &trial.known {
        let constraints: Vec<f64> =
            history.limits().iter().map(|limit| violation_of(limit, known)).collect();
        system.insert("constraints".into(), json!(constraints));
    }
    let values: Option<Vec<Option<f64>>> = trial.point.as_ref().map(|point| {
        history.started.objectives.iter().map(|&metric| point.metrics.get(metric)).collect()
    });
    // Optuna requires a start time. If the journal has none, the Unix epoch marks it as unknown.
    let mut operation = json!({
        "op_code": 4,
        "worker_id": WORKER,
        "study_id": 0,
        "state": state,
        "datetime_start": timestamp(entry.begun.unwrap_or(0.0)),
        "datetime_complete": timestamp(entry.ended().unwrap_or(trial.seconds)),
        "distributions": distributions,
        "params": params,
        "user_attrs": user,
        "system_attrs": system,
        "intermediate_values": {},
    });
    if let Some(values) = values {
        operation["values"] = json!(values);
    }
    operation
}

/// The observed values of a parameter.
enum Domain {
    Integer(i64, i64),
    Real(f64, f64),
    Categories(Vec<Value>),
}

fn domains<'c>(
    configurations: impl Iterator<Item = &'c Configuration>,
) -> BTreeMap<&'c str, Domain> {
    let mut seen: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for (name, value) in configurations.flat_map(Configuration::iter) {
        let values = seen.entry(name).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }
    seen.into_iter().map(|(name, values)| (name, Domain::of(&values))).collect()
}

impl Domain {
    fn of(values: &[&Value]) -> Self {
        let integers: Option<Vec<i64>> = values.iter().map(|value| value.as_i64()).collect();
        if let Some(integers) = integers
            && let (Some(low), Some(high)) = (integers.iter().min(), integers.iter().max())
        {
            return Self::Integer(*low, *high);
        }
        let reals: Option<Vec<f64>> = values.iter().map(|value| value.as_f64()).collect();
        if let Some(reals) = reals {
            let low = reals.iter().copied().fold(f64::INFINITY, f64::min);
            return Self::Real(low, reals.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
        let mut categories: Vec<Value> = values.iter().map(|value| (*value).clone()).collect();
        categories.sort_by_key(ToString::to_string);
        Self::Categories(categories)
    }

    fn distribution(&self) -> serde_json::Value {
        match self {
            Self::Integer(low, high) => json!({
                "name": "IntDistribution",
                "attributes": {"log": false, "step": 1, "low": low, "high": high},
            }),
            Self::Real(low, high) => json!({
                "name": "FloatDistribution",
                "attributes": {"step": null, "low": low, "high": high, "log": false},
            }),
            Self::Categories(choices) => {
                json!({"name": "CategoricalDistribution", "attributes": {"choices": choices}})
            }
        }
    }

    fn internal(&self, value: &Value) -> serde_json::Value {
        match self {
            Self::Categories(choices) => {
                json!(choices.iter().position(|choice| choice == value).unwrap_or(0))
            }
            _ => json!(value.as_f64()),
        }
    }
}
