//! Across-stack study of techniques: each one alone at several levels, and jointly, on every
//! backend and number of threads.
//!
//! Schedules are tuned within each weight format first, so that the study compares techniques and
//! not how well their kernels are tuned. With [`Kernels::Naive`] it compares plain loops instead,
//! as a first implementation has them. All measurements go through the result store, so an
//! interrupted study continues without measuring anything twice.

use std::collections::BTreeSet;

use paretune_joint_space::layer::{LayerSchedules, ScheduleChoice};
use paretune_kernels::registry;
use paretune_kernels::weights::{Grid, Numbers, WeightFormat};
use paretune_names::numbers::{choose, offered};
use paretune_names::{
    ALGORITHM, BACKEND, CHANNELS, LayerPart, Name, PATTERN, Partition, SPARSITY, THREADS,
    layer_parameter, layers_of, tunable_parameter,
};
use paretune_record::characterize::{CHANNEL, CSR, Experiment, Kernels, ORIGINAL, SPARSE};
use paretune_record::survey::Survey;
use paretune_spaces::{CompiledSpace, Configuration, Value};

/// Values that the space offers for the parameters that the study varies.
struct Offer {
    /// Number types of weights, smallest number of bits first.
    numbers: Vec<Numbers>,
    sparsities: Vec<f64>,
    algorithms: BTreeSet<String>,
}

impl Offer {
    fn of(space: &CompiledSpace) -> Self {
        let mut offer =
            Self { numbers: Vec::new(), sparsities: Vec::new(), algorithms: BTreeSet::new() };
        let layers = layers_of(space.parameters().iter().map(|parameter| parameter.name.as_str()));
        for parameter in space.parameters() {
            let values = parameter.domain.values();
            match Name::parse(&parameter.name, &layers) {
                Some(Name::Layer(layer, LayerPart::Bits)) => {
                    offer.numbers.extend(offered(space, layer))
                }
                Some(Name::Layer(_, LayerPart::Sparsity)) => {
                    offer.sparsities.extend(values.iter().filter_map(Value::as_f64));
                }
                Some(Name::Layer(_, LayerPart::Algorithm)) => {
                    offer.algorithms.extend(
                        values.iter().filter_map(|value| value.as_str().map(str::to_owned)),
                    );
                }
                _ => {}
            }
        }
        offer.numbers = Numbers::all().filter(|numbers| offer.numbers.contains(numbers)).collect();
        offer.sparsities.sort_by(f64::total_cmp);
        offer.sparsities.dedup();
        offer
    }
}

/// Kept fractions of channels that are studied alone.
const SHARES: [f64; 5] = [0.875, 0.75, 0.625, 0.5, 0.25];
/// Kept fractions of channels that are studied jointly with other techniques.
const JOINT_SHARES: [f64; 3] = [0.875, 0.75, 0.5];
/// Fractions of zero weights that are studied.
const ZEROS: [f64; 5] = [0.5, 0.7, 0.8, 0.9, 0.95];

/// Lists every experiment that `space` can express, the most informative ones first. With `naive`,
/// adds copies of the experiments that plain loops can run.
#[must_use]
pub fn experiments(space: &CompiledSpace, naive: bool) -> Vec<Experiment> {
    let offer = Offer::of(space);
    let plain = Experiment {
        technique: ORIGINAL.to_owned(),
        level: String::new(),
        kernels: Kernels::Tuned,
        numbers: Numbers::F32,
        sparsity: 0.0,
        channels: 1.0,
        algorithm: None,
    };
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let mut all = vec![plain.clone()];
    for &numbers in offer.numbers.iter().rev().filter(|numbers| **numbers != Numbers::F32) {
        all.push(Experiment { technique: quantization(numbers), numbers, ..plain.clone() });
    }
    for channels in SHARES {
        let level = format!("{} kept", percent(channels));
        all.push(Experiment { technique: CHANNEL.to_owned(), level, channels, ..plain.clone() });
    }
    let zeros: Vec<f64> =
        ZEROS.into_iter().filter(|zeros| offer.sparsities.contains(zeros)).collect();
    for (technique, algorithm) in [(CSR, "csr_naive"), (SPARSE, "spmm_nchw")] {
        for &sparsity in zeros.iter().filter(|_| offer.algorithms.contains(algorithm)) {
            all.push(Experiment {
                technique: technique.to_owned(),
                level: format!("{} zeros", percent(sparsity)),
                sparsity,
                algorithm: Some(algorithm.to_owned()),
                ..plain.clone()
            });
        }
    }
    let joint = [Grid::Bits8, Grid::Ternary].map(Numbers::Integer);
    for &numbers in offer.numbers.iter().rev().filter(|numbers| joint.contains(numbers)) {
        for channels in JOINT_SHARES {
            let technique = format!("{} and channel pruning", quantization(numbers));
            let level = format!("{} kept", percent(channels));
            all.push(Experiment { technique, level, numbers, channels, ..plain.clone() });
        }
    }
    for (channels, sparsity) in [(0.875, 0.5), (0.75, 0.7)] {
        if offer.algorithms.contains("spmm_nchw") && zeros.contains(&sparsity) {
            all.push(Experiment {
                technique: "weight and channel pruning".to_owned(),
                level: format!("{} zeros, {} kept", percent(sparsity), percent(channels)),
                sparsity,
                channels,
                algorithm: Some("spmm_nchw".to_owned()),
                ..plain.clone()
            });
        }
    }
    if naive {
        let by = |experiment: &Experiment, algorithm: &str| Experiment {
            kernels: Kernels::Naive,
            algorithm: Some(algorithm.to_owned()),
            ..experiment.clone()
        };
        let copies: Vec<Experiment> = all
            .iter()
            .filter_map(|experiment| match experiment.technique.as_str() {
                ORIGINAL | CHANNEL => Some(by(experiment, "naive")),
                CSR => Some(by(experiment, "naive_csr")),
                _ => None,
            })
            .collect();
        all.extend(copies);
    }
    all
}

/// Names the technique of storing weights as `numbers`: `8-bit quantization`, `ternary
/// quantization`, `fp16 weights`.
fn quantization(numbers: Numbers) -> String {
    match (numbers.half(), numbers) {
        (Some(half), _) => format!("{half} weights"),
        (None, Numbers::Integer(Grid::Ternary)) => "ternary quantization".to_owned(),
        _ => format!("{:.0}-bit quantization", numbers.bits()),
    }
}

/// Returns the number type that `layer` offers for `wanted`: floating point for floating point,
/// else the integers with the nearest number of bits.
fn had(space: &CompiledSpace, layer: &str, wanted: Numbers) -> Numbers {
    let alike = offered(space, layer)
        .into_iter()
        .filter(|numbers| numbers.is_integer() == wanted.is_integer());
    let distance = |numbers: &Numbers| (numbers.bits() - wanted.bits()).abs();
    let nearest = alike.min_by(|a, b| {
        (*a != wanted).cmp(&(*b != wanted)).then(distance(a).total_cmp(&distance(b)))
    });
    nearest.unwrap_or_default()
}

/// Backend, threads and kernels that experiments run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Value of the parameter that selects the backend.
    pub backend: String,
    /// Number of CPU threads. Devices ignore it.
    pub threads: i64,
    /// On a device, the algorithm of single-precision layers that offer it, and its name in tables.
    /// Hand-written kernels and matrix products are separate settings.
    pub kernels: Option<(&'static str, &'static str)>,
}

/// OpenCL algorithms that are studied separately, each with its name in tables.
const DEVICE_KERNELS: [(&str, &str); 2] =
    [("opencl_direct", "tiled by hand"), ("opencl_implicit_gemm", "matrix products")];

impl Setting {
    /// Returns the setting's name in the tables.
    #[must_use]
    pub fn name(&self) -> String {
        self.kernels
            .map_or_else(|| self.backend.clone(), |(_, name)| format!("{}, {name}", self.backend))
    }

    /// Returns whether `experiment` can run in this setting: devices have neither sparse kernels
    /// nor plain loops.
    #[must_use]
    pub fn takes(&self, experiment: &Experiment) -> bool {
        self.kernels.is_none()
            || (experiment.kernels == Kernels::Tuned
                && experiment.algorithm.is_none()
                && experiment.sparsity <= 0.0)
    }
}

/// Lists every setting that `space` offers.
#[must_use]
pub fn settings(space: &CompiledSpace) -> Vec<Setting> {
    let domain = |name: &str| {
        let found = space.parameters().iter().find(|parameter| parameter.name == name);
        found.map(|parameter| parameter.domain.values().to_vec()).unwrap_or_default()
    };
    let mut threads: Vec<i64> = domain(THREADS).iter().filter_map(Value::as_i64).collect();
    if threads.is_empty() {
        threads.push(1);
    }
    let backends = domain(BACKEND);
    let mut backends: Vec<&str> = backends
        .iter()
        .filter_map(Value::as_str)
        .filter(|backend| Partition::read(backend).is_none())
        .collect();
    if backends.is_empty() {
        backends.push("cpu");
    }
    let mut all = Vec::new();
    for backend in backends.into_iter().map(str::to_owned) {
        if backend == "cpu" {
            // The largest number of threads comes first, because it is usually deployed.
            let counts = threads.iter().rev();
            all.extend(counts.map(|&threads| Setting {
                backend: backend.clone(),
                threads,
                kernels: None,
            }));
        } else {
            let threads = threads[threads.len() - 1];
            let kinds = DEVICE_KERNELS.into_iter().map(Some);
            all.extend(kinds.map(|kernels| Setting { backend: backend.clone(), threads, kernels }));
        }
    }
    all
}

/// Builds the configuration of `experiment` in a setting. A layer that cannot do all of it does the
/// nearest that it can. The fastest schedules come from `survey`.
#[must_use]
pub fn configuration(
    space: &CompiledSpace,
    survey: &Survey,
    experiment: &Experiment,
    setting: &Setting,
) -> Configuration {
    let naive = experiment.kernels == Kernels::Naive;
    let mut wanted = Configuration::new();
    wanted.insert(BACKEND.to_owned(), Value::Text(setting.backend.clone()));
    wanted.insert(THREADS.to_owned(), Value::Int(setting.threads));
    // The times of a survey on a device say nothing about the processor.
    let surveyed = setting.kernels.is_none() && matches!(survey.backend.as_str(), "" | "cpu");
    for parameter in space.parameters() {
        if parameter.name.starts_with(CHANNELS) {
            wanted.insert(parameter.name.clone(), Value::Real(experiment.channels));
        }
    }
    for layer in &survey.layers {
        let name = |part: &str| layer_parameter(&layer.name, part);
        let numbers = had(space, &layer.name, experiment.numbers);
        let sparse = nearest(space, &name(SPARSITY), experiment.sparsity);
        let sparsity = sparse.as_ref().and_then(Value::as_f64).unwrap_or(0.0);
        wanted.extend_with(name(SPARSITY), sparse);
        // The CSR format stores any pattern of zeros, so the weights are pruned without structure.
        if offers(space, &name(PATTERN), "unstructured") {
            wanted.insert(name(PATTERN), Value::Text("unstructured".to_owned()));
        }
        let on_device =
            setting.kernels.filter(|_| numbers == Numbers::F32).map(|(algorithm, _)| algorithm);
        let offered = experiment.algorithm.as_deref().or(on_device).filter(|algorithm| {
            let known = offers(space, &name(ALGORITHM), algorithm);
            known && (sparsity > 0.0 || !matches!(*algorithm, "csr_naive" | "spmm_nchw"))
        });
        let fastest = layer.fastest(numbers, sparsity, 1);
        match (offered, fastest.first()) {
            (Some(algorithm), _) => {
                wanted.insert(name(ALGORITHM), Value::Text(algorithm.to_owned()));
            }
            (None, Some(&index)) if surveyed => {
                layer.schedules[index].schedule.write(&layer.name, &mut wanted);
            }
            _ => {}
        }
        // A schedule is stored with the widest number type that it serves, so the number type is
        // written after it.
        choose(numbers, &layer.name, &mut wanted);
    }
    let mut found = space.decode(&space.closest(&wanted));
    if naive && let Some(algorithm) = &experiment.algorithm {
        for layer in &survey.layers {
            // Plain loops are in no space, so they replace the algorithms that the space has
            // chosen.
            let sparse = found.get(&layer_parameter(&layer.name, SPARSITY)).and_then(Value::as_f64);
            let format =
                if sparse > Some(0.0) { WeightFormat::SPARSE_F32 } else { WeightFormat::F32 };
            let runs = registry::info(algorithm).is_some_and(|info| info.executes(format));
            let algorithm = if runs { algorithm.as_str() } else { "naive" };
            found = replaced(&found, &layer.name, algorithm);
        }
    }
    found
}

/// Returns `configuration` with another algorithm for `layer` and all its tunables at their
/// defaults.
fn replaced(configuration: &Configuration, layer: &str, algorithm: &str) -> Configuration {
    let parameter = layer_parameter(layer, ALGORITHM);
    let before = configuration.get(&parameter).and_then(Value::as_str).unwrap_or_default();
    let tunables = tunable_parameter(layer, before, "");
    let mut changed = Configuration::new();
    for (name, value) in configuration.iter().filter(|(name, _)| !name.starts_with(&tunables)) {
        changed.insert(name.clone(), value.clone());
    }
    changed.insert(parameter, Value::Text(algorithm.to_owned()));
    changed
}

/// Returns the value of a parameter's domain that is nearest to `wanted`.
fn nearest(space: &CompiledSpace, parameter: &str, wanted: f64) -> Option<Value> {
    let found = space.parameters().iter().find(|known| known.name == parameter)?;
    let values = found.domain.values().iter().filter_map(|value| Some((value.as_f64()?, value)));
    values
        .min_by(|a, b| (a.0 - wanted).abs().total_cmp(&(b.0 - wanted).abs()))
        .map(|(_, value)| value.clone())
}

fn offers(space: &CompiledSpace, parameter: &str, text: &str) -> bool {
    let found = space.parameters().iter().find(|known| known.name == parameter);
    found
        .is_some_and(|known| known.domain.values().iter().any(|value| value.as_str() == Some(text)))
}

trait Extend {
    fn extend_with(&mut self, name: String, value: Option<Value>);
}

impl Extend for Configuration {
    fn extend_with(&mut self, name: String, value: Option<Value>) {
        if let Some(value) = value {
            self.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use paretune_kernels::hardware::Isa;

    use super::*;
    use paretune_joint_space::builder::joint_space;
    use paretune_model::{Network, builtin};
    use paretune_record::survey::{LayerSchedule, LayerSurvey, ScheduleTime};

    #[test]
    fn experiments_become_configurations_of_the_whole_network() {
        let network =
            Network::from_bytes(builtin::NAME, builtin::network_bytes(), None).expect("a network");
        let space =
            joint_space(&network, &[1, 2], &[paretune_kernels::Backend::Cpu], Isa::detect())
                .expect("a space");
        let space = space.compile().expect("valid");
        let layers = paretune_compress::layers(&network.plan).expect("layers");
        let layers: Vec<LayerSurvey> = layers
            .iter()
            .map(|layer| LayerSurvey { name: layer.step.clone(), ..LayerSurvey::default() })
            .collect();
        let survey = Survey { threads: 2, layers, ..Survey::default() };
        let all = experiments(&space, true);
        assert_eq!(all[0].technique, ORIGINAL);
        // The fastest schedule is one for sparse weights, which the baseline cannot use.
        let mut surveyed = survey.clone();
        for layer in &mut surveyed.layers {
            layer.schedules = [("spmm_nchw", 0.8, 1e-6), ("implicit_gemm", 0.0, 2e-6)]
                .map(|(algorithm, sparsity, seconds)| ScheduleTime {
                    schedule: LayerSchedule {
                        bits: 32,
                        sparsity,
                        algorithm: algorithm.to_owned(),
                        tunables: BTreeMap::new(),
                    },
                    seconds,
                })
                .to_vec();
        }
        let original = configuration(
            &space,
            &surveyed,
            &all[0],
            &Setting { backend: "cpu".to_owned(), threads: 2, kernels: None },
        );
        for layer in &surveyed.layers {
            let chosen = |part: &str| original.get(&layer_parameter(&layer.name, part));
            assert!(
                chosen("sparsity").and_then(Value::as_f64).is_none_or(|share| share == 0.0),
                "{}",
                layer.name
            );
            assert_eq!(chosen("algorithm").and_then(Value::as_str), Some("implicit_gemm"));
        }
        let mut ids = BTreeSet::new();
        let cpu = |threads| Setting { backend: "cpu".to_owned(), threads, kernels: None };
        for experiment in &all {
            let found = configuration(&space, &survey, experiment, &cpu(2));
            assert_eq!(found.get(THREADS).and_then(Value::as_i64), Some(2));
            assert!(ids.insert(found.id()), "{experiment:?} is another one again");
            let algorithms = |wanted: &str| {
                let algorithm = |name: &String| name.ends_with(".algorithm");
                found
                    .iter()
                    .filter(|(name, value)| algorithm(name) && value.as_str() == Some(wanted))
                    .count()
            };
            match (experiment.kernels, experiment.technique.as_str()) {
                (Kernels::Naive, CSR) => assert!(algorithms("naive_csr") > 0),
                (Kernels::Naive, _) => assert_eq!(algorithms("naive"), survey.layers.len()),
                (Kernels::Tuned, CSR) => assert!(algorithms("csr_naive") > 0),
                _ => {}
            }
            if experiment.kernels == Kernels::Tuned {
                assert!(space.encode(&found).is_ok(), "{experiment:?}");
            }
        }
        assert_eq!(settings(&space), [cpu(2), cpu(1)]);
        let device = Setting { kernels: Some(DEVICE_KERNELS[0]), ..cpu(2) };
        let taken: Vec<&Experiment> =
            all.iter().filter(|experiment| device.takes(experiment)).collect();
        assert!(taken.iter().any(|experiment| experiment.technique == CHANNEL));
        assert!(
            taken.iter().all(|experiment| ![CSR, SPARSE].contains(&experiment.technique.as_str()))
        );
    }
}
