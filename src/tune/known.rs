//! Single-precision schedules in the result store: all measured times, and the results of tunings.

use std::collections::BTreeMap;

use paretune_db::{KeyParts, Record, Store, StoreError};
use paretune_evaluate::PROTOCOL_VERSION;
use paretune_kernels::Plan;
use paretune_kernels::executor::conv_problem;
use paretune_kernels::hardware::Isa;
use paretune_kernels::operator::ConvProblem;
use paretune_kernels::registry::{self, Target};
use paretune_kernels::schedule::Schedule;
use paretune_study::survey::{SPEED, SpeedKey};

/// Version of the program, part of every key: other kernels have other speeds.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Kind of the records that hold the best schedule of a layer's shape.
const LAYER: &str = "layer-schedule";
/// Kind of the records that hold the best schedules of a whole network.
const NETWORK: &str = "network-schedules";
/// A single measurement of a survey counts only if its time is below this fraction of the
/// default's.
const CLEARLY: f64 = 0.97;

/// Hardware, threads and batch for which schedules are measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// Identity of the hardware that was measured.
    pub hardware: String,
    /// Number of CPU threads that run it.
    pub threads: usize,
    /// Number of images per run.
    pub batch: usize,
    /// Widest instruction set to use.
    pub isa: Isa,
}

/// Source of a network's schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A tuning of exactly this network.
    Network,
    /// Measurements of single layers with equal shapes.
    Layers {
        /// Number of layers with a schedule from the store.
        known: usize,
        /// Number of all layers in the network.
        all: usize,
    },
    /// The default schedules, without measurements.
    Default,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network => f.write_str("tuned for this network"),
            Self::Layers { known, all } => {
                write!(f, "best known for {known} of {all} layers, default for the others")
            }
            Self::Default => f.write_str("default"),
        }
    }
}

/// Schedules by step of a plan. Steps that are not listed have their defaults.
pub type Schedules = BTreeMap<usize, Schedule>;

/// Returns the best schedules that the store knows for `plan`, the network whose file has the hash
/// `network`.
///
/// # Errors
/// Fails if the store cannot be read.
pub fn best_known(
    store: &Store,
    conditions: &Conditions,
    network: &str,
    plan: &Plan,
) -> Result<(Schedules, Source), StoreError> {
    let layers: Vec<(usize, ConvProblem)> = plan
        .steps
        .iter()
        .enumerate()
        .filter_map(|(index, step)| Some((index, conv_problem(plan, step, conditions.batch)?)))
        .collect();
    if let Some(record) = store.get(&network_key(conditions, network).key())? {
        let schedules = schedules_of(&record);
        let fits = |(index, schedule): (&usize, &Schedule)| {
            let layer = layers.iter().find(|(known, _)| known == index);
            layer.is_some_and(|(_, problem)| is_offered(schedule, problem, conditions.isa))
        };
        if schedules.iter().all(fits) {
            return Ok((schedules, Source::Network));
        }
    }
    let mut schedules = Schedules::new();
    let mut surveyed: Option<BTreeMap<String, Vec<(Schedule, f64)>>> = None;
    for (index, problem) in &layers {
        let tuned = match store.get(&layer_key(conditions, problem).key())? {
            Some(record) => schedules_of(&record).remove(&0),
            None => None,
        };
        let schedule = match tuned {
            Some(schedule) => Some(schedule),
            None => {
                let all = match &mut surveyed {
                    Some(known) => known,
                    none => none.insert(measured(store, conditions)?),
                };
                all.get(&format!("{problem:?}"))
                    .and_then(|known| fastest(known, problem, conditions.isa))
            }
        };
        if let Some(schedule) =
            schedule.filter(|schedule| is_offered(schedule, problem, conditions.isa))
        {
            schedules.insert(*index, schedule);
        }
    }
    let source = match schedules.len() {
        0 => Source::Default,
        known => Source::Layers { known, all: layers.len() },
    };
    Ok((schedules, source))
}

/// Returns the fastest measured schedule, if it is clearly faster than the default.
fn fastest(known: &[(Schedule, f64)], problem: &ConvProblem, isa: Isa) -> Option<Schedule> {
    let default = default_of(problem, isa)?;
    let (_, usual) = known.iter().find(|(schedule, _)| *schedule == default)?;
    let (schedule, seconds) = known.iter().min_by(|left, right| left.1.total_cmp(&right.1))?;
    (*seconds < CLEARLY * usual).then(|| schedule.clone())
}

/// Returns the default schedule of a layer.
fn default_of(problem: &ConvProblem, isa: Isa) -> Option<Schedule> {
    let dense = paretune_kernels::weights::WeightFormat {
        numbers: paretune_kernels::weights::Numbers::F32,
        pattern: paretune_kernels::weights::Pattern::Dense,
    };
    let target = Target::Cpu(isa);
    let first = target.offers(problem).into_iter().find(|offer| offer.info.executes(dense))?;
    target.fitted(&Schedule::of(first.info.name()), problem)
}

/// Returns whether this machine can run `schedule` exactly as given.
fn is_offered(schedule: &Schedule, problem: &ConvProblem, isa: Isa) -> bool {
    let target = Target::Cpu(isa);
    target.offers(problem).iter().any(|offer| offer.info.name() == schedule.algorithm)
        && target.fitted(schedule, problem).is_some_and(|fitted| fitted == *schedule)
}

/// Returns the measured times of all dense single-precision schedules under `conditions`, by the
/// formatted problem.
pub(super) fn measured(
    store: &Store,
    conditions: &Conditions,
) -> Result<BTreeMap<String, Vec<(Schedule, f64)>>, StoreError> {
    let mut all: BTreeMap<String, Vec<(Schedule, f64)>> = BTreeMap::new();
    for record in store.iter() {
        let record = record?;
        let parts = &record.key_parts.parts;
        let part = |name: &str| parts.get(name).map_or("", String::as_str);
        let here = record.key_parts.kind == SPEED
            && part("protocol") == PROTOCOL_VERSION.to_string()
            && part("program") == VERSION
            && part("kernels") == registry::source_hash()
            && part("hardware") == conditions.hardware
            && part("threads") == conditions.threads.to_string()
            && part("bits") == "32"
            && part("sparsity") == "0";
        // The key holds the tunables as JSON.
        let tunables = serde_json::from_str(part("tunables"));
        if let (true, Ok(tunables), Some(seconds)) = (here, tunables, record.value("seconds")) {
            let schedule = Schedule { algorithm: part("algorithm").to_owned(), tunables };
            all.entry(part("problem").to_owned()).or_default().push((schedule, seconds));
        }
    }
    Ok(all)
}

/// Stores the time of one schedule under the key that surveys use, too.
pub(super) fn store_time(
    store: &Store,
    conditions: &Conditions,
    problem: &ConvProblem,
    schedule: &Schedule,
    seconds: f64,
) -> Result<(), StoreError> {
    let key = SpeedKey {
        hardware: &conditions.hardware,
        problem,
        bits: 32,
        sparsity: 0.0,
        place: &conditions.threads.to_string(),
        algorithm: &schedule.algorithm,
        tunables: &schedule.tunables,
    };
    let values = BTreeMap::from([("seconds".to_owned(), seconds)]);
    store.put(&Record::measured(key.parts(), values, &[], VERSION))
}

/// Stores the best schedule of a layer's shape.
pub(super) fn store_layer(
    store: &Store,
    conditions: &Conditions,
    problem: &ConvProblem,
    schedule: &Schedule,
    seconds: [f64; 2],
) -> Result<(), StoreError> {
    let mut values = values_of(std::iter::once((0, schedule)));
    values.insert("default-seconds".to_owned(), seconds[0]);
    values.insert("seconds".to_owned(), seconds[1]);
    store.put(&Record::measured(layer_key(conditions, problem), values, &[], VERSION))
}

/// Stores the best `schedules` of a network (empty if the defaults are best), with the seconds of
/// the whole network under the default and these schedules.
///
/// # Errors
/// Fails if the store cannot be written, or if the schedules of all layers exceed the size of a
/// record.
pub fn store_network(
    store: &Store,
    conditions: &Conditions,
    network: &str,
    schedules: &Schedules,
    seconds: [f64; 2],
) -> Result<(), StoreError> {
    let mut values = values_of(schedules.iter().map(|(index, schedule)| (*index, schedule)));
    values.insert("default-seconds".to_owned(), seconds[0]);
    values.insert("seconds".to_owned(), seconds[1]);
    store.put(&Record::measured(network_key(conditions, network), values, &[], VERSION))
}

/// Encodes schedules as named numbers, all of them 1: `STEP:ALGORITHM`, and
/// `STEP:ALGORITHM:TUNABLE:VALUE` with the value as JSON.
fn values_of<'s>(schedules: impl Iterator<Item = (usize, &'s Schedule)>) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::new();
    for (step, Schedule { algorithm, tunables }) in schedules {
        values.insert(format!("{step}:{algorithm}"), 1.0);
        for (name, value) in tunables {
            let value = serde_json::to_string(value).unwrap_or_default();
            values.insert(format!("{step}:{algorithm}:{name}:{value}"), 1.0);
        }
    }
    values
}

/// Decodes the numbers of [`values_of`].
fn schedules_of(record: &Record) -> Schedules {
    let paretune_db::Outcome::Measured(values) = &record.outcome else { return Schedules::new() };
    let mut schedules = Schedules::new();
    for name in values.keys() {
        let mut words = name.split(':');
        let (Some(step), Some(algorithm)) = (words.next(), words.next()) else { continue };
        let Ok(step) = step.parse::<usize>() else { continue };
        let schedule = schedules.entry(step).or_insert_with(|| Schedule::of(algorithm));
        if let (Some(tunable), Some(value)) = (words.next(), words.next())
            && let Ok(value) = serde_json::from_str(value)
        {
            schedule.tunables.insert(tunable.to_owned(), value);
        }
    }
    schedules
}

fn key(kind: &str, conditions: &Conditions) -> KeyParts {
    KeyParts::new(kind)
        .with("protocol", PROTOCOL_VERSION)
        .with("program", VERSION)
        .with("kernels", registry::source_hash())
        .with("hardware", &conditions.hardware)
        .with("threads", conditions.threads)
}

fn layer_key(conditions: &Conditions, problem: &ConvProblem) -> KeyParts {
    key(LAYER, conditions).with("problem", format!("{problem:?}"))
}

fn network_key(conditions: &Conditions, network: &str) -> KeyParts {
    key(NETWORK, conditions).with("network", network).with("batch", conditions.batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use paretune_model::Network;

    fn conditions() -> Conditions {
        Conditions { hardware: "here".into(), threads: 1, batch: 1, isa: Isa::detect() }
    }

    fn network() -> Network {
        paretune_study::prepare::load_network(None).expect("the built-in network")
    }

    #[test]
    fn stored_schedules_are_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("db")).expect("a store");
        let (conditions, network) = (conditions(), network());
        let plan = &network.plan;
        let known = |hash: &str| best_known(&store, &conditions, hash, plan).expect("readable");
        assert_eq!(known("a"), (Schedules::new(), Source::Default));

        let (index, problem) = plan
            .steps
            .iter()
            .enumerate()
            .find_map(|(index, step)| Some((index, conv_problem(plan, step, 1)?)))
            .expect("a convolution");
        let default = default_of(&problem, conditions.isa).expect("an algorithm");
        let other = Target::Cpu(conditions.isa)
            .fitted(&Schedule::of("im2col_gemm"), &problem)
            .filter(|other| *other != default)
            .expect("another");

        // A survey's measurement counts only if it is clearly faster.
        store_time(&store, &conditions, &problem, &default, 1.0).expect("kept");
        store_time(&store, &conditions, &problem, &other, 0.99).expect("kept");
        assert_eq!(known("a").1, Source::Default);
        store_time(&store, &conditions, &problem, &other, 0.5).expect("kept");
        let (schedules, source) = known("a");
        assert!(matches!(source, Source::Layers { .. }), "{source}");
        assert_eq!(schedules[&index], other);
        assert_eq!(
            measured(&store, &conditions).expect("readable")[&format!("{problem:?}")].len(),
            2
        );

        // A tuning's result for the shape counts in any case.
        store_layer(&store, &conditions, &problem, &default, [1.0, 1.0]).expect("kept");
        assert_eq!(known("a").0[&index], default);

        // A tuning's result for the network counts for no other network.
        let all = Schedules::from([(index, other.clone())]);
        store_network(&store, &conditions, "a", &all, [2.0, 1.0]).expect("kept");
        assert_eq!(known("a"), (all, Source::Network));
        assert_ne!(known("b").1, Source::Network);
        let elsewhere = Conditions { threads: 2, ..conditions.clone() };
        assert_eq!(best_known(&store, &elsewhere, "a", plan).expect("readable").1, Source::Default);

        // A schedule that this machine does not offer is ignored.
        let mut foreign = other;
        foreign.tunables.insert("tile_m".into(), 4999_u64.into());
        store_network(&store, &conditions, "a", &Schedules::from([(index, foreign)]), [2.0, 1.0])
            .expect("kept");
        assert_ne!(known("a").1, Source::Network);
    }
}
