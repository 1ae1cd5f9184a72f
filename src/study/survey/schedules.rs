//! Times each layer under each schedule.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use paretune_compress::LayerInfo;
use paretune_db::{KeyParts, Record};
use paretune_evaluate::PROTOCOL_VERSION;
use paretune_evaluate::protocol::{Reply, Request};
use paretune_joint_space::layer::{SCHEDULE_BITS, ScheduleChoice, needs_zeros};
use paretune_joint_space::tunables::tunable_value;
use paretune_kernels::hardware::Isa;
use paretune_kernels::operator::ConvProblem;
use paretune_kernels::registry::{self, BackendKind, Target};
use paretune_kernels::schedule::{TILE, TunableValue};
use paretune_kernels::weights::WeightFormat;
use paretune_names::numbers::offered;
use paretune_names::{ALGORITHM, BACKEND, Partition, SPARSITY, THREADS, layer_parameter};
use paretune_record::survey::{LayerSchedule, LayerSurvey, Mixed, ScheduleTime, Survey};
use paretune_spaces::{Configuration, Value};

use super::{Surveyor, fraction};
use crate::error::SessionError;

/// Seconds for which one network is profiled.
const PROFILE_SECONDS: f64 = 0.03;
/// The tunables of sparse algorithms are tuned at the offered sparsity nearest to this one.
const TUNED_SPARSITY: f64 = 0.8;

impl Surveyor<'_, '_> {
    /// Times schedules: first the default of every algorithm, then other values of the tunables of
    /// those algorithms that are not far behind the fastest.
    pub(super) fn schedules(
        &mut self,
        layers: &[LayerInfo],
        survey: &mut Survey,
        until: Instant,
        see: &mut dyn FnMut(f64),
    ) -> Result<(), SessionError> {
        self.choose_backend(layers, survey)?;
        let tunables = self.tunables(layers);
        let mut first: Vec<Vec<LayerSchedule>> = Vec::new();
        for layer in layers {
            first.push(self.defaults(layer, &survey.backend));
        }
        // As many layers as possible have the same algorithm in one network, so that few layouts
        // are converted.
        let mut kinds: Vec<&LayerSchedule> = Vec::new();
        let tuned: Vec<f64> = first.iter().map(|variants| tuned_sparsity(variants)).collect();
        for (variants, tuned) in first.iter().zip(&tuned) {
            for variant in variants {
                // The other sparsities are measured after the best schedule at this one is known.
                if [0.0, *tuned].contains(&variant.sparsity) && !kinds.contains(&variant) {
                    kinds.push(variant);
                }
            }
        }
        // Dense schedules come first.
        kinds.sort_by(|left, right| order(left.sparsity).total_cmp(&order(right.sparsity)));
        for (index, kind) in kinds.iter().enumerate() {
            see(0.3 * fraction(index, kinds.len()));
            let chosen = |layer: usize| {
                let same_bits = || first[layer].iter().filter(|variant| variant.bits == kind.bits);
                let same = same_bits().find(|variant| variant == kind);
                same.or_else(|| same_bits().next()).or_else(|| first[layer].first()).cloned()
            };
            let variants: Vec<Option<LayerSchedule>> = (0..layers.len()).map(chosen).collect();
            if index > 1 && !self.pace.profiles.may_go_on(until) {
                return Ok(());
            }
            self.profile(layers, &variants, survey)?;
        }
        // For the competitive algorithms, one tunable at a time takes each of its values.
        let mut lists: Vec<Vec<LayerSchedule>> = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let mut list = Vec::new();
            let times = &survey.layers[index].schedules;
            for bits in SCHEDULE_BITS {
                // A sparse algorithm must beat the dense ones to be worth tuning.
                let offered = || {
                    let of_bits = times.iter().filter(move |time| time.schedule.bits == bits);
                    of_bits.filter(|time| [0.0, tuned[index]].contains(&time.schedule.sparsity))
                };
                let dense = offered().filter(|time| time.schedule.sparsity <= 0.0);
                let Some(best) = dense.map(|time| time.seconds).min_by(f64::total_cmp) else {
                    continue;
                };
                for time in offered().filter(|time| time.seconds <= 1.4 * best) {
                    let LayerSchedule { sparsity, algorithm, .. } = &time.schedule;
                    let Some(known) = tunables.get(&(layer.step.as_str(), algorithm.as_str()))
                    else {
                        continue;
                    };
                    // The two sides of a tile are varied together.
                    for tile in tiles(&layer.problem, algorithm) {
                        let mut variant =
                            LayerSchedule::default_of(bits, *sparsity, algorithm.clone());
                        variant.tunables.extend(tile);
                        list.push(variant);
                    }
                    for (name, values) in
                        known.iter().filter(|(name, _)| !TILE.contains(&name.as_str()))
                    {
                        for value in values {
                            let mut variant =
                                LayerSchedule::default_of(bits, *sparsity, algorithm.clone());
                            variant.tunables.insert(name.clone(), *value);
                            list.push(variant);
                        }
                    }
                }
            }
            lists.push(list);
        }
        let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
        for round in 0..longest {
            see(0.3 + 0.6 * fraction(round, longest));
            if !self.pace.profiles.may_go_on(until) {
                return Ok(());
            }
            let variants: Vec<Option<LayerSchedule>> =
                lists.iter().map(|list| list.get(round % list.len().max(1)).cloned()).collect();
            self.profile(layers, &variants, survey)?;
        }
        let mut together = |bits: i64, from: &dyn Fn(usize) -> f64, to: &dyn Fn(usize) -> f64| {
            let variant = |(index, layer)| {
                let mut variant = combined(layer, bits, from(index))?;
                variant.sparsity = to(index);
                Some(variant)
            };
            let variants: Vec<Option<LayerSchedule>> =
                survey.layers.iter().enumerate().map(variant).collect();
            if variants.iter().any(Option::is_some) && self.pace.profiles.may_go_on(until) {
                self.profile(layers, &variants, survey)?;
            }
            Ok::<(), SessionError>(())
        };
        for bits in SCHEDULE_BITS {
            together(bits, &|_| 0.0, &|_| 0.0)?;
        }
        // The best tunables at one sparsity are usually the best at the others.
        let mut others: Vec<f64> = first.iter().flatten().map(|variant| variant.sparsity).collect();
        others.sort_by(|left, right| order(*left).total_cmp(&order(*right)));
        others.dedup();
        for sparsity in others.into_iter().filter(|sparsity| *sparsity > 0.0) {
            together(32, &|index| if tuned[index] > 0.0 { tuned[index] } else { -1.0 }, &|_| {
                sparsity
            })?;
        }
        see(1.0);
        Ok(())
    }

    /// Selects the backend that is fastest under default schedules, because the survey measures
    /// whole networks on one backend. The cost of a device's transfers is small in comparison. Also
    /// finds the best partitions between two backends.
    fn choose_backend(
        &mut self,
        layers: &[LayerInfo],
        survey: &mut Survey,
    ) -> Result<(), SessionError> {
        let backends: Vec<String> = self
            .domain(BACKEND)
            .iter()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect();
        let (both, backends): (Vec<String>, Vec<String>) =
            backends.into_iter().partition(|backend| Partition::read(backend).is_some());
        if backends.len() < 2 {
            return Ok(());
        }
        let mut seen: HashMap<String, Vec<ScheduleTime>> = HashMap::new();
        let mut fastest = f64::INFINITY;
        let mut chosen = survey.backend.clone();
        for backend in &backends {
            let mut trial =
                Survey { backend: backend.clone(), other_seconds: 0.0, ..survey.clone() };
            let variants: Vec<Option<LayerSchedule>> = layers
                .iter()
                .map(|layer| {
                    let defaults = self.defaults(layer, backend);
                    defaults
                        .into_iter()
                        .find(|schedule| schedule.bits == 32 && schedule.sparsity == 0.0)
                })
                .collect();
            self.profile(layers, &variants, &mut trial)?;
            let times =
                trial.layers.iter().filter_map(|layer| Some(layer.schedules.last()?.seconds));
            let seconds = trial.other_seconds + times.sum::<f64>();
            let whole = trial.layers.iter().all(|layer| !layer.schedules.is_empty());
            if whole {
                let defaults =
                    trial.layers.iter().filter_map(|layer| layer.schedules.last().cloned());
                seen.insert(backend.clone(), defaults.collect());
            }
            if whole && seconds < fastest {
                fastest = seconds;
                chosen.clone_from(backend);
            }
        }
        survey.backend = chosen;
        survey.other_seconds = 0.0;
        let both: Vec<Partition<'_>> =
            both.iter().filter_map(|backend| Partition::read(backend)).collect();
        survey.mixed = change_places(&both, &seen);
        Ok(())
    }

    /// Lists the default schedules that the space offers for a layer on a backend. Sparse
    /// algorithms have one per sparsity.
    fn defaults(&self, layer: &LayerInfo, backend: &str) -> Vec<LayerSchedule> {
        let device = backend != "cpu";
        let numbers = offered(self.space, &layer.step);
        let has = |wanted: &LayerSchedule| {
            numbers.iter().any(|&numbers| wanted.serves(numbers, wanted.sparsity))
        };
        let sparsities = self.domain(&layer_parameter(&layer.step, SPARSITY));
        let sparsities: Vec<f64> = sparsities.iter().filter_map(Value::as_f64).collect();
        let names = self.domain(&layer_parameter(&layer.step, ALGORITHM));
        let mut defaults = Vec::new();
        for name in names.iter().filter_map(Value::as_str) {
            let Some(info) = registry::info(name) else { continue };
            let integer = info.is_integer();
            let bits = match integer {
                true => 8,
                false if info.executes(WeightFormat::F32) || needs_zeros(name) => 32,
                false => 16,
            };
            if !has(&LayerSchedule::default_of(bits, 0.0, name.into()))
                || (info.backend() == BackendKind::OpenCl) != device
            {
                continue;
            }
            if needs_zeros(name) {
                // Losses are known for unstructured zeros only.
                if !info.executes(WeightFormat::SPARSE_F32) {
                    continue;
                }
                let zeros = sparsities.iter().filter(|sparsity| **sparsity > 0.0);
                defaults.extend(
                    zeros.map(|sparsity| LayerSchedule::default_of(bits, *sparsity, name.into())),
                );
            } else {
                defaults.push(LayerSchedule::default_of(bits, 0.0, name.into()));
            }
        }
        defaults
    }

    /// Lists the names and values of the tunables of each layer's algorithms.
    fn tunables<'l>(&self, layers: &'l [LayerInfo]) -> Tunables<'l> {
        let mut all = Tunables::new();
        for layer in layers {
            for algorithm in registry::algorithms().map(registry::AlgorithmInfo::name) {
                let prefix = format!("{}.{algorithm}.", layer.step);
                for parameter in self.space.parameters() {
                    let Some(tunable) = parameter.name.strip_prefix(&prefix) else { continue };
                    let values =
                        parameter.domain.values().iter().filter_map(tunable_value).collect();
                    let key = (layer.step.as_str(), algorithm);
                    all.entry(key).or_default().push((tunable.to_owned(), values));
                }
            }
        }
        all
    }

    /// Times every layer under its variant, unless the store knows all of them.
    fn profile(
        &mut self,
        layers: &[LayerInfo],
        variants: &[Option<LayerSchedule>],
        survey: &mut Survey,
    ) -> Result<(), SessionError> {
        self.pace.profiles.done += 1;
        let mut wanted = Configuration::new();
        wanted.insert(THREADS, Value::Int(survey.threads));
        wanted.insert(BACKEND, Value::Text(survey.backend.clone()));
        for (layer, variant) in layers.iter().zip(variants) {
            let Some(variant) = variant else { continue };
            variant.write(&layer.step, &mut wanted);
        }
        let configuration = self.space.decode(&self.space.closest(&wanted));
        // The space may have changed the requested schedules, so the actual ones are read back.
        let schedules: Vec<Option<LayerSchedule>> =
            layers.iter().map(|layer| LayerSchedule::read(&configuration, &layer.step)).collect();
        let keys: Vec<Option<KeyParts>> = layers
            .iter()
            .zip(&schedules)
            .map(|(layer, schedule)| Some(self.layer_key(layer, schedule.as_ref()?, survey)))
            .collect();
        let mut times: Vec<Option<f64>> = Vec::new();
        for key in &keys {
            let record = match key {
                Some(key) => self.runner.store.get(&key.key())?,
                None => None,
            };
            times.push(record.and_then(|record| record.value("seconds")));
        }
        let unknown = times.iter().zip(&keys).any(|(time, key)| time.is_none() && key.is_some());
        if unknown || survey.other_seconds <= 0.0 {
            let request = Request::Profile { configuration, seconds: PROFILE_SECONDS };
            if let Some(Reply::Profiled { steps }) = self.ask(&request)? {
                let by_name: HashMap<&str, f64> =
                    steps.iter().map(|(name, seconds)| (name.as_str(), *seconds)).collect();
                for index in 0..layers.len() {
                    let Some(key) = keys[index].as_ref().filter(|_| times[index].is_none()) else {
                        continue;
                    };
                    // Layers with equal shapes share one measurement.
                    let alike: Vec<usize> = (index..layers.len())
                        .filter(|other| keys[*other].as_ref() == Some(key))
                        .collect();
                    let seen: Vec<f64> = alike
                        .iter()
                        .filter_map(|other| by_name.get(layers[*other].step.as_str()).copied())
                        .collect();
                    if !seen.is_empty() {
                        #[expect(clippy::cast_precision_loss, reason = "a handful of layers")]
                        let seconds = seen.iter().sum::<f64>() / seen.len() as f64;
                        let values = BTreeMap::from([("seconds".to_owned(), seconds)]);
                        let record =
                            Record::measured(key.clone(), values, &[], env!("CARGO_PKG_VERSION"));
                        self.runner.store.put(&record)?;
                        alike.into_iter().for_each(|other| times[other] = Some(seconds));
                    }
                }
                if survey.other_seconds <= 0.0 {
                    let is_layer = |name: &str| layers.iter().any(|layer| layer.step == name);
                    survey.other_seconds = steps
                        .iter()
                        .filter(|(name, _)| !is_layer(name))
                        .map(|(_, seconds)| seconds)
                        .sum();
                }
            }
        }
        for ((layer, schedule), time) in survey.layers.iter_mut().zip(schedules).zip(times) {
            let (Some(schedule), Some(seconds)) = (schedule, time) else { continue };
            if !layer.schedules.iter().any(|known| known.schedule == schedule) {
                layer.schedules.push(ScheduleTime { schedule, seconds });
            }
        }
        Ok(())
    }

    /// Returns the store key of a layer's time. It contains the layer's shape, but not the network.
    fn layer_key(&self, layer: &LayerInfo, schedule: &LayerSchedule, survey: &Survey) -> KeyParts {
        let place = match survey.backend.as_str() {
            "cpu" => survey.threads.to_string(),
            device => device.to_owned(),
        };
        let key = SpeedKey {
            hardware: &self.runner.hardware,
            problem: &layer.problem,
            bits: schedule.bits,
            sparsity: schedule.sparsity,
            place: &place,
            algorithm: &schedule.algorithm,
            tunables: &schedule.tunables,
        };
        key.parts()
    }
}

/// Kind of the records of layer times.
pub const SPEED: &str = "layer-speed";

/// Parts of the store key of a layer's time: the layer's shape, but not the network.
pub struct SpeedKey<'k> {
    /// Identity of the hardware that was measured.
    pub hardware: &'k str,
    /// Shape of the layer's convolution.
    pub problem: &'k ConvProblem,
    /// Bits of the schedule: 8, 16 or 32.
    pub bits: i64,
    /// Sparsity of the weights for sparse algorithms, else 0.
    pub sparsity: f64,
    /// Number of CPU threads, or a device's name.
    pub place: &'k str,
    /// Name of the algorithm that computes the layer.
    pub algorithm: &'k str,
    /// Values of all its tunables.
    pub tunables: &'k BTreeMap<String, TunableValue>,
}

impl SpeedKey<'_> {
    /// Builds the key of the store, with the tunables as JSON.
    #[must_use]
    pub fn parts(&self) -> KeyParts {
        KeyParts::new(SPEED)
            .with("protocol", PROTOCOL_VERSION)
            .with("program", env!("CARGO_PKG_VERSION"))
            .with("kernels", registry::source_hash())
            .with("hardware", self.hardware)
            .with("problem", format!("{:?}", self.problem))
            .with("bits", self.bits)
            .with("sparsity", self.sparsity)
            .with("threads", self.place)
            .with("algorithm", self.algorithm)
            .with("tunables", serde_json::to_string(self.tunables).unwrap_or_default())
    }
}

type Tunables<'l> = HashMap<(&'l str, &'static str), Vec<(String, Vec<TunableValue>)>>;

/// Returns a rank of sparsities for the order of measurement: dense first, then those nearest to
/// [`TUNED_SPARSITY`].
fn order(sparsity: f64) -> f64 {
    if sparsity <= 0.0 { -1.0 } else { (sparsity - TUNED_SPARSITY).abs() }
}

/// Finds the fastest partitions with one and with two cut points for each order of backends, judged
/// by the measured times of each layer on each backend.
fn change_places(both: &[Partition<'_>], times: &HashMap<String, Vec<ScheduleTime>>) -> Vec<Mixed> {
    let mut best: BTreeMap<(&str, &str, bool), (f64, Mixed)> = BTreeMap::new();
    for partition in both {
        let (Some(first), Some(second)) = (times.get(partition.first), times.get(partition.second))
        else {
            continue;
        };
        let layers = first.iter().zip(second).enumerate();
        let chosen: Vec<&ScheduleTime> = layers
            .map(
                |(number, (first, second))| {
                    if partition.is_second(number) { second } else { first }
                },
            )
            .collect();
        let seconds = chosen.iter().map(|time| time.seconds).sum::<f64>();
        let kind = (partition.first, partition.second, partition.back.is_some());
        if best.get(&kind).is_none_or(|(least, _)| seconds < *least) {
            let schedules = chosen.into_iter().map(|time| time.schedule.clone()).collect();
            best.insert(kind, (seconds, Mixed { backend: partition.to_string(), schedules }));
        }
    }
    best.into_values().map(|(_, mixed)| mixed).collect()
}

/// Returns the sparsity at which a layer is tuned; 0 without sparse algorithms.
fn tuned_sparsity(defaults: &[LayerSchedule]) -> f64 {
    let sparsities =
        defaults.iter().map(|variant| variant.sparsity).filter(|sparsity| *sparsity > 0.0);
    sparsities.min_by(|left, right| order(*left).total_cmp(&order(*right))).unwrap_or(0.0)
}

/// Lists the tiles that `algorithm` offers for `problem` on this machine's processor.
fn tiles(problem: &ConvProblem, algorithm: &str) -> Vec<[(String, TunableValue); 2]> {
    let offers = Target::Cpu(Isa::detect()).offers(problem);
    let Some(offer) = offers.iter().find(|offer| offer.info.name() == algorithm) else {
        return Vec::new();
    };
    let side = |name: &str| offer.tunables.iter().find(|tunable| tunable.name == name);
    let (Some(first), Some(second)) = (side(TILE[0]), side(TILE[1])) else { return Vec::new() };
    let beside = |value: TunableValue| {
        let first = (first.name.to_owned(), value);
        let others = second.values_beside(&[first.clone()].into());
        others.into_iter().map(move |other| [first.clone(), (second.name.to_owned(), other)])
    };
    first.values().into_iter().flat_map(beside).collect()
}

/// Combines the best values of the best algorithm's tunables at this sparsity, each tunable by
/// itself.
fn combined(layer: &LayerSurvey, bits: i64, sparsity: f64) -> Option<LayerSchedule> {
    let alike =
        |time: &&ScheduleTime| time.schedule.bits == bits && time.schedule.sparsity == sparsity;
    let of_bits = || layer.schedules.iter().filter(alike);
    let best = of_bits().min_by(|left, right| left.seconds.total_cmp(&right.seconds))?;
    let same: Vec<&ScheduleTime> =
        of_bits().filter(|time| time.schedule.algorithm == best.schedule.algorithm).collect();
    let default = same.first()?;
    let mut variant = LayerSchedule::default_of(bits, sparsity, best.schedule.algorithm.clone());
    for name in best.schedule.tunables.keys() {
        let name = name.as_str();
        let group = if TILE.contains(&name) { TILE } else { [name; 2] };
        let differs_here_only = |time: &&&ScheduleTime| {
            time.schedule.tunables.iter().all(|(other, value)| {
                group.contains(&other.as_str())
                    || default.schedule.tunables.get(other) == Some(value)
            })
        };
        let fastest =
            same.iter().filter(differs_here_only).min_by(|a, b| a.seconds.total_cmp(&b.seconds));
        if let Some(value) = fastest.and_then(|time| time.schedule.tunables.get(name)) {
            variant.tunables.insert(name.to_owned(), *value);
        }
    }
    Some(variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_change_places_where_the_other_is_faster() {
        let times = |algorithm: &str, seconds: [f64; 4]| -> Vec<ScheduleTime> {
            let schedule = LayerSchedule::default_of(32, 0.0, algorithm.to_owned());
            seconds.map(|seconds| ScheduleTime { schedule: schedule.clone(), seconds }).into()
        };
        let known = HashMap::from([
            ("here".to_owned(), times("a", [1.0, 5.0, 5.0, 1.0])),
            ("there".to_owned(), times("b", [3.0, 2.0, 2.0, 3.0])),
        ]);
        let offered = ["here then there at 1", "here then there at 2", "here then there at 1 to 3"];
        let offered: Vec<Partition<'_>> =
            offered.iter().filter_map(|text| Partition::read(text)).collect();
        let found = change_places(&offered, &known);
        let backends: Vec<&str> = found.iter().map(|mixed| mixed.backend.as_str()).collect();
        assert_eq!(backends, [offered[0].to_string(), offered[2].to_string()]);
        let algorithms: Vec<&str> =
            found[1].schedules.iter().map(|schedule| schedule.algorithm.as_str()).collect();
        assert_eq!(algorithms, ["a", "b", "b", "a"]);
    }

    #[test]
    fn the_best_values_of_all_tunables_come_together() {
        let time = |tile: u64, panel: u64, seconds: f64| ScheduleTime {
            schedule: LayerSchedule {
                bits: 32,
                sparsity: 0.0,
                algorithm: "a".into(),
                tunables: BTreeMap::from([
                    ("tile_m".to_owned(), TunableValue::Size(tile)),
                    ("panel".to_owned(), TunableValue::Size(panel)),
                ]),
            },
            seconds,
        };
        let layer = LayerSurvey {
            schedules: vec![time(1, 1, 3.0), time(2, 1, 2.0), time(4, 1, 4.0), time(1, 2, 2.5)],
            ..LayerSurvey::default()
        };
        let best = combined(&layer, 32, 0.0).map(|variant| variant.tunables);
        assert_eq!(
            best,
            Some(BTreeMap::from([
                ("tile_m".to_owned(), 2_u64.into()),
                ("panel".to_owned(), 2_u64.into())
            ]))
        );
        assert_eq!(combined(&layer, 8, 0.0), None);
    }
}
