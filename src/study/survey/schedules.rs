//! How long each layer takes under each schedule.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use paretune_db::{KeyParts, Record};
use paretune_kernels::conv;
use paretune_kernels::weights::WeightFormat;
use paretune_spaces::{Configuration, Value};

use super::{LayerSchedule, LayerSurvey, ScheduleTime, Survey, Surveyor, fraction, schedule_bits};
use crate::compress::LayerInfo;
use crate::evaluate::PROTOCOL_VERSION;
use crate::evaluate::candidate::{THREADS, layer_parameter};
use crate::evaluate::protocol::{Reply, Request};
use crate::study::session::SessionError;
/// Seconds for which one network is profiled.
const PROFILE_SECONDS: f64 = 0.03;

impl Surveyor<'_, '_> {
    /// Times schedules: the default of every algorithm first, then what can be turned about those that are not
    /// far behind the fastest.
    pub(super) fn schedules(
        &mut self,
        layers: &[LayerInfo],
        survey: &mut Survey,
        until: Instant,
        see: &mut dyn FnMut(f64),
    ) -> Result<(), SessionError> {
        let tunables = self.tunables(layers);
        let mut first: Vec<Vec<LayerSchedule>> = Vec::new();
        for layer in layers {
            let algorithms = self.algorithms(layer);
            first.push(
                algorithms.into_iter().map(|(bits, name)| LayerSchedule::default_of(bits, name)).collect(),
            );
        }
        // In one network all layers have the same algorithm, as far as they can: then few layouts are converted.
        let mut kinds: Vec<(i64, String)> = Vec::new();
        for variant in first.iter().flatten() {
            let kind = (variant.bits, variant.algorithm.clone());
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        for (index, (bits, algorithm)) in kinds.iter().enumerate() {
            see(0.3 * fraction(index, kinds.len()));
            let chosen = |layer: usize| {
                let same_bits = || first[layer].iter().filter(|variant| variant.bits == *bits);
                let same = same_bits().find(|variant| variant.algorithm == *algorithm);
                same.or_else(|| same_bits().next()).or_else(|| first[layer].first()).cloned()
            };
            let variants: Vec<Option<LayerSchedule>> = (0..layers.len()).map(chosen).collect();
            if index > 1 && !self.pace.profiles.may_go_on(until) {
                return Ok(());
            }
            self.profile(layers, &variants, survey)?;
        }
        // Everything that one tunable alone changes, for the algorithms worth it.
        let mut lists: Vec<Vec<LayerSchedule>> = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let mut list = Vec::new();
            for bits in [8, 32] {
                let times = &survey.layers[index].schedules;
                let of_bits = || times.iter().filter(|time| time.schedule.bits == bits);
                let Some(best) = of_bits().map(|time| time.seconds).min_by(f64::total_cmp) else { continue };
                for time in of_bits().filter(|time| time.seconds <= 1.4 * best) {
                    let Some(known) = tunables.get(&(layer.step.as_str(), time.schedule.algorithm.as_str()))
                    else {
                        continue;
                    };
                    for (name, values) in known {
                        for value in values {
                            let mut variant =
                                LayerSchedule::default_of(bits, time.schedule.algorithm.clone());
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
        // The best values of all tunables together.
        for bits in [8, 32] {
            let variants: Vec<Option<LayerSchedule>> =
                survey.layers.iter().map(|layer| combined(layer, bits)).collect();
            if self.pace.profiles.may_go_on(until) {
                self.profile(layers, &variants, survey)?;
            }
        }
        see(1.0);
        Ok(())
    }

    /// Bits and algorithms that the space offers for a layer, dense ones only.
    fn algorithms(&self, layer: &LayerInfo) -> Vec<(i64, String)> {
        let bits = self.domain(&layer_parameter(&layer.step, "bits"));
        let has = |wanted: i64| bits.iter().any(|value| value.as_f64().map(schedule_bits) == Some(wanted));
        let names = self.domain(&layer_parameter(&layer.step, "algorithm"));
        let names = names.iter().filter_map(|name| name.as_str().map(str::to_owned));
        names
            .filter_map(|name| {
                let algorithm = conv::algorithm(&name)?;
                let runs = [(32, WeightFormat::F32), (8, WeightFormat::I8)];
                let (bits, _) = runs.into_iter().find(|&(_, format)| algorithm.executes(format))?;
                has(bits).then_some((bits, name))
            })
            .collect()
    }

    /// Names and values of the tunables of each layer's algorithms.
    fn tunables<'l>(&self, layers: &'l [LayerInfo]) -> Tunables<'l> {
        let mut all = Tunables::new();
        for layer in layers {
            for algorithm in conv::algorithms() {
                let prefix = format!("{}.{}.", layer.step, algorithm.name());
                for parameter in self.space.parameters() {
                    let Some(tunable) = parameter.name.strip_prefix(&prefix) else { continue };
                    let values = parameter.domain.values().iter().filter_map(Value::as_i64).collect();
                    let key = (layer.step.as_str(), algorithm.name());
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
        for (layer, variant) in layers.iter().zip(variants) {
            let Some(variant) = variant else { continue };
            variant.write(&layer.step, &mut wanted);
        }
        let configuration = self.space.decode(&self.space.closest(&wanted));
        // What the space made of the wish is what is measured.
        let schedules: Vec<Option<LayerSchedule>> =
            layers.iter().map(|layer| LayerSchedule::read(&configuration, &layer.step)).collect();
        let keys: Vec<Option<KeyParts>> = layers
            .iter()
            .zip(&schedules)
            .map(|(layer, schedule)| Some(self.layer_key(layer, schedule.as_ref()?, survey.threads)))
            .collect();
        let mut times: Vec<Option<f64>> = Vec::new();
        for key in &keys {
            let record = match key {
                Some(key) => self.bench.store.get(&key.key())?,
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
                    let Some(key) = keys[index].as_ref().filter(|_| times[index].is_none()) else { continue };
                    // Layers of one shape are one measurement.
                    let alike: Vec<usize> =
                        (index..layers.len()).filter(|other| keys[*other].as_ref() == Some(key)).collect();
                    let seen: Vec<f64> = alike
                        .iter()
                        .filter_map(|other| by_name.get(layers[*other].step.as_str()).copied())
                        .collect();
                    if !seen.is_empty() {
                        #[expect(clippy::cast_precision_loss, reason = "a handful of layers")]
                        let seconds = seen.iter().sum::<f64>() / seen.len() as f64;
                        let values = BTreeMap::from([("seconds".to_owned(), seconds)]);
                        let record = Record::measured(key.clone(), values, &[], env!("CARGO_PKG_VERSION"));
                        self.bench.store.put(&record)?;
                        alike.into_iter().for_each(|other| times[other] = Some(seconds));
                    }
                }
                if survey.other_seconds <= 0.0 {
                    let is_layer = |name: &str| layers.iter().any(|layer| layer.step == name);
                    survey.other_seconds =
                        steps.iter().filter(|(name, _)| !is_layer(name)).map(|(_, seconds)| seconds).sum();
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

    /// The layer's shape, not the network it is in.
    fn layer_key(&self, layer: &LayerInfo, schedule: &LayerSchedule, threads: i64) -> KeyParts {
        KeyParts::new("layer-speed")
            .with("protocol", PROTOCOL_VERSION)
            .with("program", env!("CARGO_PKG_VERSION"))
            .with("hardware", &self.bench.hardware)
            .with("problem", format!("{:?}", layer.problem))
            .with("bits", schedule.bits)
            .with("threads", threads)
            .with("algorithm", &schedule.algorithm)
            .with("tunables", format!("{:?}", schedule.tunables))
    }
}

type Tunables<'l> = HashMap<(&'l str, &'static str), Vec<(String, Vec<i64>)>>;

/// The best algorithm's best values, each tunable by itself.
fn combined(layer: &LayerSurvey, bits: i64) -> Option<LayerSchedule> {
    let of_bits = || layer.schedules.iter().filter(|time| time.schedule.bits == bits);
    let best = of_bits().min_by(|left, right| left.seconds.total_cmp(&right.seconds))?;
    let same: Vec<&ScheduleTime> =
        of_bits().filter(|time| time.schedule.algorithm == best.schedule.algorithm).collect();
    let default = same.first()?;
    let mut variant = LayerSchedule::default_of(bits, best.schedule.algorithm.clone());
    for name in best.schedule.tunables.keys() {
        let differs_here_only = |time: &&&ScheduleTime| {
            time.schedule
                .tunables
                .iter()
                .all(|(other, value)| other == name || default.schedule.tunables.get(other) == Some(value))
        };
        let fastest = same.iter().filter(differs_here_only).min_by(|a, b| a.seconds.total_cmp(&b.seconds));
        if let Some(value) = fastest.and_then(|time| time.schedule.tunables.get(name)) {
            variant.tunables.insert(name.clone(), *value);
        }
    }
    Some(variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_values_of_all_tunables_come_together() {
        let time = |tile: i64, panel: i64, seconds: f64| ScheduleTime {
            schedule: LayerSchedule {
                bits: 32,
                algorithm: "a".into(),
                tunables: BTreeMap::from([("tile".to_owned(), tile), ("panel".to_owned(), panel)]),
            },
            seconds,
        };
        let layer = LayerSurvey {
            schedules: vec![time(1, 1, 3.0), time(2, 1, 2.0), time(4, 1, 4.0), time(1, 2, 2.5)],
            ..LayerSurvey::default()
        };
        let best = combined(&layer, 32).map(|variant| variant.tunables);
        assert_eq!(best, Some(BTreeMap::from([("tile".to_owned(), 2), ("panel".to_owned(), 2)])));
        assert_eq!(combined(&layer, 8), None);
    }
}
