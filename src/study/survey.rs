//! What the default strategy finds out about a network before it composes whole configurations: how long
//! each layer takes under each schedule, and how much of the network's opinion is lost when one layer or
//! one group of channels alone is compressed.
//!
//! Schedules are measured for all layers at once: a whole network is built in which every layer has the
//! next schedule of its list, and its steps are timed one by one, in place. What was measured is kept in
//! the store, layer times under the layer's shape, so that every later network with such a layer knows
//! them already. What is concluded from a survey is left to [`super::compose`].

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use paretune_db::{KeyParts, Record};
use paretune_kernels::conv;
use paretune_kernels::weights::WeightFormat;
use paretune_spaces::{CompiledSpace, Configuration, Value};
use serde::{Deserialize, Serialize};

use super::session::SessionError;
use super::trial::Bench;
use crate::compress::{self, ChannelGroup, LayerInfo};
use crate::evaluate::PROTOCOL_VERSION;
use crate::evaluate::candidate::{CHANNELS, THREADS, layer_parameter, numerics, tunable_parameter};
use crate::evaluate::host::{Host, HostError};
use crate::evaluate::protocol::{Reply, Request};
use crate::model::Network;

/// Everything that was found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// Threads that schedules were timed on.
    pub threads: i64,
    /// Seconds of everything that belongs to no layer.
    pub other_seconds: f64,
    /// In execution order.
    pub layers: Vec<LayerSurvey>,
    /// In execution order.
    pub groups: Vec<GroupSurvey>,
}

/// What was found out about a layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerSurvey {
    /// Its name.
    pub name: String,
    /// Number of weights.
    pub weights: usize,
    /// Output channels.
    pub outputs: usize,
    /// Numbers that it reads.
    pub inputs: usize,
    /// Whether each channel is computed from itself alone.
    pub depthwise: bool,
    /// Index of the group of channels that it reads, if that can be pruned.
    pub reads: Option<usize>,
    /// Index of the group of channels that it writes, if that can be pruned.
    pub writes: Option<usize>,
    /// Its schedules, with their times.
    pub schedules: Vec<ScheduleTime>,
    /// What it loses by bits and sparsity; what is not listed is not worth trying.
    pub losses: Vec<LayerLoss>,
}

/// How a layer is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerSchedule {
    /// Bits of weights and activations.
    pub bits: i64,
    /// Algorithm.
    pub algorithm: String,
    /// Its tunables; of a wish, those that are not named have their defaults.
    pub tunables: BTreeMap<String, i64>,
}

impl LayerSchedule {
    fn default_of(bits: i64, algorithm: String) -> Self {
        Self { bits, algorithm, tunables: BTreeMap::new() }
    }

    /// What `configuration` chooses for `layer`.
    #[must_use]
    pub fn read(configuration: &Configuration, layer: &str) -> Option<Self> {
        let bits = configuration.get(&layer_parameter(layer, "bits"))?.as_i64()?;
        let algorithm = configuration.get(&layer_parameter(layer, "algorithm"))?.as_str()?.to_owned();
        let prefix = tunable_parameter(layer, &algorithm, "");
        let tunables = configuration
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?.to_owned(), value.as_i64()?)))
            .collect();
        Some(Self { bits, algorithm, tunables })
    }

    /// Chooses this for `layer`.
    pub fn write(&self, layer: &str, wanted: &mut Configuration) {
        wanted.insert(layer_parameter(layer, "bits"), Value::Int(self.bits));
        wanted.insert(layer_parameter(layer, "algorithm"), Value::Text(self.algorithm.clone()));
        for (name, value) in &self.tunables {
            wanted.insert(tunable_parameter(layer, &self.algorithm, name), Value::Int(*value));
        }
    }
}

/// A schedule and its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleTime {
    /// With all tunables.
    #[serde(flatten)]
    pub schedule: LayerSchedule,
    /// Of the layer at its full width.
    pub seconds: f64,
}

/// What a layer loses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerLoss {
    /// Bits of weights and activations.
    pub bits: i64,
    /// Share of the weights that is zero.
    pub sparsity: f64,
    /// Nats per image.
    pub loss: f64,
}

/// What was found out about a group of channels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupSurvey {
    /// Its name.
    pub name: String,
    /// How many channels it has.
    pub width: usize,
    /// Shares that can be kept, ascending, and nats per image lost; the last is all of them.
    pub shares: Vec<(f64, f64)>,
}

/// Seconds for which one network is profiled.
const PROFILE_SECONDS: f64 = 0.03;
/// Images that losses are judged on.
const LOSS_IMAGES: u64 = 96;
/// Sparsity at which layers are looked at; what other shares lose follows from it.
const SPARSITY: f64 = 0.7;
/// How losses grow with what is removed: few weights cost next to nothing, the last ones everything.
const GROWTH: f64 = 2.0;

/// What a survey works with.
pub struct Surveyor<'s, 'b> {
    /// Store and keys.
    pub bench: &'s mut Bench<'b>,
    /// The worker.
    pub host: &'s mut Host,
    /// The joint space.
    pub space: &'s CompiledSpace,
    /// The network.
    pub network: &'s Network,
    /// How long it may take. Where the store knows how far a survey of the same came in the same time, this one comes as
    /// far, so that recorded measurements lead to the same search.
    pub seconds: f64,
    /// What was done so far.
    pub pace: Pace,
    /// Whether to stop at once.
    pub interrupted: &'s dyn Fn() -> bool,
}

/// How far a survey came.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Profiles of the network.
    profiles: u64,
    /// Losses.
    losses: u64,
    /// How far an earlier one came: profiles, losses.
    before: Option<(u64, u64)>,
}

impl Surveyor<'_, '_> {
    /// Finds out what can be found out in the time. `see` is shown the share done.
    ///
    /// # Errors
    /// Where the store or the worker cannot be used at all.
    pub fn survey(&mut self, see: &mut dyn FnMut(f64)) -> Result<Survey, SessionError> {
        let layers = compress::layers(&self.network.plan).map_err(unfit)?;
        let groups: Vec<ChannelGroup> = compress::channel_groups(&self.network.plan)
            .map_err(unfit)?
            .into_iter()
            .filter(ChannelGroup::prunable)
            .collect();
        let group_of = |name: &str, members: fn(&ChannelGroup) -> &Vec<String>| {
            groups.iter().position(|group| members(group).iter().any(|member| member == name))
        };
        let threads = self.domain(THREADS).iter().filter_map(Value::as_i64).max().unwrap_or(1);
        let mut survey = Survey {
            threads,
            other_seconds: 0.0,
            layers: layers
                .iter()
                .map(|layer| LayerSurvey {
                    name: layer.step.clone(),
                    weights: layer.weights,
                    outputs: layer.dims[0],
                    inputs: layer.problem.in_channels * layer.problem.input.iter().product::<usize>(),
                    depthwise: !layer.sparse,
                    reads: group_of(&layer.step, |group| &group.consumers),
                    writes: group_of(&layer.step, |group| &group.producers),
                    ..LayerSurvey::default()
                })
                .collect(),
            groups: groups
                .iter()
                .map(|group| GroupSurvey { name: group.name.clone(), width: group.width, shares: Vec::new() })
                .collect(),
        };
        let key = self.pace_key();
        if let Some(record) = self.bench.store.get(&key.key())? {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of steps")]
            let count = |name: &str| record.value(name).map(|value| value as u64);
            self.pace.before = count("profiles").zip(count("losses"));
            survey.other_seconds = record.value("other-seconds").unwrap_or(0.0);
        }
        let begun = Instant::now();
        let until = |share: f64| begun + Duration::from_secs_f64(share * self.seconds);
        let (for_schedules, for_all) = (until(0.4), until(1.0));
        let mut rough = |share: f64| see(0.4 * share);
        self.schedules(&layers, &mut survey, for_schedules, &mut rough)?;
        self.losses(&mut survey, for_all, &mut |share| see(0.4 + 0.6 * share))?;
        if self.pace.before.is_none() {
            #[expect(clippy::cast_precision_loss, reason = "counts of steps")]
            let values = BTreeMap::from([
                ("profiles".to_owned(), self.pace.profiles as f64),
                ("losses".to_owned(), self.pace.losses as f64),
                ("other-seconds".to_owned(), survey.other_seconds),
            ]);
            self.bench.store.put(&Record::measured(key, values, &[], env!("CARGO_PKG_VERSION")))?;
        }
        see(1.0);
        Ok(survey)
    }

    /// A survey of this network in this space within this time.
    fn pace_key(&self) -> KeyParts {
        let default = self.space.decode(&self.space.closest(&Configuration::new()));
        self.bench
            .keyed("survey", &default)
            .with("parameters", self.space.parameters().len())
            .with("log10-configurations", self.space.log10_len())
            .with("seconds", self.seconds.round())
    }

    /// Whether there is time for another profile.
    fn may_profile(&self, until: Instant) -> bool {
        match self.pace.before {
            Some((profiles, _)) => self.pace.profiles < profiles,
            None => Instant::now() < until,
        }
    }

    /// Whether there is time for another loss.
    fn may_lose(&self, until: Instant) -> bool {
        match self.pace.before {
            Some((_, losses)) => self.pace.losses < losses,
            None => Instant::now() < until,
        }
    }

    fn domain(&self, parameter: &str) -> Vec<Value> {
        self.space
            .parameters()
            .iter()
            .find(|known| known.name == parameter)
            .map(|known| known.domain.values().to_vec())
            .unwrap_or_default()
    }

    /// Times schedules: the default of every algorithm first, then what can be turned about those that are not
    /// far behind the fastest.
    fn schedules(
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
            if index > 1 && !self.may_profile(until) {
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
            if !self.may_profile(until) {
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
            if self.may_profile(until) {
                self.profile(layers, &variants, survey)?;
            }
        }
        see(1.0);
        Ok(())
    }

    /// Bits and algorithms that the space offers for a layer, dense ones only.
    fn algorithms(&self, layer: &LayerInfo) -> Vec<(i64, String)> {
        let bits = self.domain(&layer_parameter(&layer.step, "bits"));
        let has = |wanted: i64| bits.iter().any(|value| value.as_i64() == Some(wanted));
        let names = self.domain(&layer_parameter(&layer.step, "algorithm"));
        let names = names.iter().filter_map(|name| name.as_str().map(str::to_owned));
        names
            .filter_map(|name| {
                let bits = match conv::algorithm(&name)?.format() {
                    WeightFormat::F32 => 32,
                    WeightFormat::I8 => 8,
                    WeightFormat::SparseF32 => return None,
                };
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
        self.pace.profiles += 1;
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

    /// What compression costs, most telling first: the rest follows from it where time runs out.
    fn losses(
        &mut self,
        survey: &mut Survey,
        until: Instant,
        see: &mut dyn FnMut(f64),
    ) -> Result<(), SessionError> {
        let mut plans: Vec<Probe> = vec![Probe::AllBits];
        let shares: Vec<Vec<f64>> = survey
            .groups
            .iter()
            .map(|group| {
                let name = format!("{CHANNELS}{}", group.name);
                let mut shares: Vec<f64> = self.domain(&name).iter().filter_map(Value::as_f64).collect();
                shares.sort_by(f64::total_cmp);
                shares
            })
            .collect();
        let near = |group: usize, wanted: f64| {
            let inside = shares[group].iter().copied().filter(|share| *share < 1.0);
            inside.min_by(|left, right| (left - wanted).abs().total_cmp(&(right - wanted).abs()))
        };
        for wanted in [0.75, 0.5] {
            let groups =
                (0..shares.len()).filter_map(|group| Some(Probe::Share(group, near(group, wanted)?)));
            plans.extend(groups);
        }
        let eight: Vec<bool> = survey
            .layers
            .iter()
            .map(|layer| layer.schedules.iter().any(|time| time.schedule.bits == 8))
            .collect();
        let sparse: Vec<bool> = survey
            .layers
            .iter()
            .map(|layer| self.domain(&layer_parameter(&layer.name, "sparsity")).len() > 1)
            .collect();
        plans.extend((0..eight.len()).filter(|layer| eight[*layer]).map(Probe::Bits));
        plans.extend((0..sparse.len()).filter(|layer| sparse[*layer]).map(Probe::Sparsity));
        plans.extend((0..shares.len()).filter_map(|group| Some(Probe::Share(group, near(group, 0.875)?))));
        plans.extend((0..shares.len()).filter_map(|group| Some(Probe::Share(group, near(group, 0.25)?))));
        let mut found: Vec<(Probe, f64)> = Vec::new();
        for (index, plan) in plans.iter().enumerate() {
            see(fraction(index, plans.len()));
            if found.iter().any(|(known, _)| known == plan) {
                continue;
            }
            // The first one is what everything falls back to.
            if index > 0 && !self.may_lose(until) {
                break;
            }
            self.pace.losses += 1;
            if let Some(loss) = self.loss(&plan.configuration(self.space, survey, &eight))? {
                found.push((*plan, loss));
            }
        }
        self.conclude(survey, &found, &shares, &eight);
        Ok(())
    }

    /// Losses of everything that can be chosen, from those that were measured.
    fn conclude(&self, survey: &mut Survey, found: &[(Probe, f64)], shares: &[Vec<f64>], eight: &[bool]) {
        let measured =
            |wanted: Probe| found.iter().find(|(probe, _)| *probe == wanted).map(|(_, loss)| *loss);
        for (index, (group, shares)) in survey.groups.iter_mut().zip(shares).enumerate() {
            let points: Vec<(f64, f64)> = found
                .iter()
                .filter_map(|(probe, loss)| match probe {
                    Probe::Share(group, share) if *group == index => Some((1.0 - share, *loss)),
                    _ => None,
                })
                .collect();
            if !points.is_empty() {
                group.shares = shares.iter().map(|share| (*share, grown(&points, 1.0 - share))).collect();
            }
        }
        let layers = eight.iter().filter(|eight| **eight).count().max(1);
        #[expect(clippy::cast_precision_loss, reason = "a handful of layers")]
        let fair = measured(Probe::AllBits).map(|loss| loss / layers as f64);
        for (index, layer) in survey.layers.iter_mut().enumerate() {
            layer.losses.push(LayerLoss { bits: 32, sparsity: 0.0, loss: 0.0 });
            if eight[index]
                && let Some(loss) = measured(Probe::Bits(index)).or(fair)
            {
                layer.losses.push(LayerLoss { bits: 8, sparsity: 0.0, loss });
            }
            if let Some(loss) = measured(Probe::Sparsity(index)) {
                let name = layer_parameter(&layer.name, "sparsity");
                for sparsity in self.domain(&name).iter().filter_map(Value::as_f64) {
                    if sparsity > 0.0 {
                        let loss = grown(&[(SPARSITY, loss)], sparsity);
                        layer.losses.push(LayerLoss { bits: 32, sparsity, loss });
                    }
                }
            }
        }
    }

    fn loss(&mut self, configuration: &Configuration) -> Result<Option<f64>, SessionError> {
        let key = self.bench.keyed("loss", &numerics(configuration)).with("loss-images", LOSS_IMAGES);
        if let Some(loss) = self.bench.store.get(&key.key())?.and_then(|record| record.value("loss")) {
            return Ok(Some(loss));
        }
        let request = Request::Loss { configuration: configuration.clone(), images: LOSS_IMAGES };
        let Some(Reply::Lost { loss }) = self.ask(&request)? else { return Ok(None) };
        let values = BTreeMap::from([("loss".to_owned(), loss)]);
        self.bench.store.put(&Record::measured(key, values, &[], env!("CARGO_PKG_VERSION")))?;
        Ok(Some(loss))
    }

    /// The worker's answer; `None` where it has none, which costs this one measurement only.
    fn ask(&mut self, request: &Request) -> Result<Option<Reply>, SessionError> {
        self.host.probes.clone_from(&self.bench.probes);
        self.host.ready(&mut |_| {}, self.interrupted).map_err(SessionError::Worker)?;
        match self.host.ask(request, self.bench.deadline, &mut |_| {}, self.interrupted) {
            Ok(reply) => Ok(Some(reply)),
            Err(error @ (HostError::Start(_) | HostError::Interrupted)) => Err(SessionError::Worker(error)),
            Err(error) => {
                tracing::info!("a part of the survey has no answer: {error}");
                Ok(None)
            }
        }
    }
}

fn unfit(error: compress::CompressError) -> SessionError {
    SessionError::Prepare(super::space::JointSpaceError::from(error).into())
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

/// One compression whose loss is measured alone.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Probe {
    /// 8 bits in every layer.
    AllBits,
    /// 8 bits in one layer.
    Bits(usize),
    /// Zeros in one layer.
    Sparsity(usize),
    /// A share of one group.
    Share(usize, f64),
}

impl Probe {
    fn configuration(self, space: &CompiledSpace, survey: &Survey, eight: &[bool]) -> Configuration {
        let mut wanted = Configuration::new();
        let name = |layer: usize, parameter: &str| layer_parameter(&survey.layers[layer].name, parameter);
        match self {
            Self::AllBits => {
                for layer in (0..eight.len()).filter(|layer| eight[*layer]) {
                    wanted.insert(name(layer, "bits"), Value::Int(8));
                }
            }
            Self::Bits(layer) => {
                wanted.insert(name(layer, "bits"), Value::Int(8));
            }
            Self::Sparsity(layer) => {
                wanted.insert(name(layer, "sparsity"), Value::Real(SPARSITY));
            }
            Self::Share(group, share) => {
                wanted.insert(format!("{CHANNELS}{}", survey.groups[group].name), Value::Real(share));
            }
        }
        space.decode(&space.closest(&wanted))
    }
}

/// Loss after `removed` of something, from what was seen at other shares: between two of them, and beyond, along a
/// power law.
fn grown(points: &[(f64, f64)], removed: f64) -> f64 {
    if removed <= 0.0 {
        return 0.0;
    }
    let nearest = points
        .iter()
        .min_by(|a, b| (a.0.ln() - removed.ln()).abs().total_cmp(&(b.0.ln() - removed.ln()).abs()));
    nearest.map_or(f64::MAX, |(seen, loss)| loss * (removed / seen).powf(GROWTH))
}

#[expect(clippy::cast_precision_loss, reason = "for progress bars")]
fn fraction(done: usize, all: usize) -> f64 {
    done as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survey_comes_back_from_the_journal() {
        let schedule = LayerSchedule {
            bits: 8,
            algorithm: "a".into(),
            tunables: BTreeMap::from([("tile".to_owned(), 6016)]),
        };
        let schedules = vec![ScheduleTime { schedule, seconds: 1.25e-5 }];
        let layers = vec![LayerSurvey { schedules, ..LayerSurvey::default() }];
        let event = crate::study::event::Event::Surveyed(Box::new(Survey {
            threads: 2,
            layers,
            ..Survey::default()
        }));
        let line = serde_json::to_string(&event).expect("JSON");
        assert_eq!(serde_json::from_str::<crate::study::event::Event>(&line).expect("an event"), event);
    }

    #[test]
    fn losses_follow_what_was_seen_nearest() {
        let points = [(0.25, 0.1), (0.5, 1.0)];
        assert_eq!(grown(&points, 0.25), 0.1);
        assert_eq!(grown(&points, 0.5), 1.0);
        assert_eq!(grown(&points, 0.0), 0.0);
        assert!((grown(&points, 0.75) - 2.25).abs() < 1e-12);
        assert!((grown(&points, 0.125) - 0.025).abs() < 1e-12);
    }

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
