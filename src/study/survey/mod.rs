//! What the default strategy finds out about a network before it composes whole configurations: how long
//! each layer takes under each schedule, and how much of the network's opinion is lost when one layer or
//! one group of channels alone is compressed.
//!
//! Schedules are measured for all layers at once: a whole network is built in which every layer has the
//! next schedule of its list, and its steps are timed one by one, in place. What was measured is kept in
//! the store, layer times under the layer's shape, so that every later network with such a layer knows
//! them already. What is concluded from a survey is left to [`super::compose`].

mod losses;
mod schedules;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use paretune_db::{KeyParts, Record};
use paretune_kernels::weights::{Grid, Numbers, Pattern, WeightFormat};
use paretune_kernels::{conv, offer};
use paretune_spaces::{CompiledSpace, Configuration, Value};
use serde::{Deserialize, Serialize};

pub use schedules::{SPEED, SpeedKey};

use super::session::SessionError;
use super::trial::Bench;
use crate::compress::{self, ChannelGroup};
use crate::evaluate::candidate::{BACKEND, THREADS, layer_parameter, tunable_parameter};
use crate::evaluate::host::{Host, HostError, blame};
use crate::evaluate::numbers;
use crate::evaluate::protocol::{Reply, Request};
use crate::model::Network;

/// Everything that was found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// Threads that schedules were timed on.
    pub threads: i64,
    /// Backend that schedules were timed on: the fastest of those that there are to choose from.
    #[serde(default)]
    pub backend: String,
    /// Seconds of everything that belongs to no layer.
    pub other_seconds: f64,
    /// In execution order.
    pub layers: Vec<LayerSurvey>,
    /// In execution order.
    pub groups: Vec<GroupSurvey>,
    /// Networks that do a part of the work, thinned by one threshold over all channels.
    #[serde(default)]
    pub thinned: Vec<Thinned>,
    /// Where two backends had better change places, as far as default schedules and no transfers tell.
    #[serde(default)]
    pub mixed: Vec<Mixed>,
}

/// A network that changes sides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mixed {
    /// Value of the parameter that names both backends.
    pub backend: String,
    /// Of each layer, on the backend that runs it.
    pub schedules: Vec<LayerSchedule>,
}

impl Survey {
    /// Whether it knows what some reconstructed layer loses, so that the others are not far.
    #[must_use]
    pub fn has_reconstructed(&self) -> bool {
        let losses = self.layers.iter().flat_map(|layer| &layer.losses);
        losses.into_iter().any(|loss| loss.sparsity > 0.0 || loss.numbers.bits() < 8.0)
    }
}

/// How many channels of each group stay when all of them are held to one threshold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Thinned {
    /// Share of the multiply-adds that is left, about.
    pub work: f64,
    /// By group: the share of its channels that is kept; all where it is not listed.
    pub shares: BTreeMap<String, f64>,
}

/// Shares of the work at which networks are thinned.
const WORK: [f64; 4] = [0.75, 0.5, 0.875, 0.35];

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

impl LayerSurvey {
    /// Up to `count` of its schedules for such weights, as indices, fastest first.
    #[must_use]
    pub fn fastest(&self, numbers: Numbers, sparsity: f64, count: usize) -> Vec<usize> {
        let schedules = &self.schedules;
        let serves = |index: &usize| schedules[*index].schedule.serves(numbers, sparsity);
        let mut serving: Vec<usize> = (0..schedules.len()).filter(serves).collect();
        serving.sort_by(|a, b| schedules[*a].seconds.total_cmp(&schedules[*b].seconds));
        serving.truncate(count);
        serving
    }
}

/// How a layer is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerSchedule {
    /// 8 where it computes on integers, of however many bits; 16 where it is made for weights of so many, else 32.
    pub bits: i64,
    /// Share of the weights that is zero, for algorithms that leave zeros out; the others take as long whatever it is,
    /// and have 0 here.
    #[serde(default)]
    pub sparsity: f64,
    /// Algorithm.
    pub algorithm: String,
    /// Its tunables; of a wish, those that are not named have their defaults.
    pub tunables: BTreeMap<String, i64>,
}

impl LayerSchedule {
    fn default_of(bits: i64, sparsity: f64, algorithm: String) -> Self {
        Self { bits, sparsity, algorithm, tunables: BTreeMap::new() }
    }

    /// Whether such weights with so many zeros, anywhere, can take this schedule and then have its time.
    #[must_use]
    pub fn serves(&self, numbers: Numbers, sparsity: f64) -> bool {
        let widest = widest(&self.algorithm, self.bits);
        self.bits == schedule_bits(numbers)
            && (self.sparsity <= 0.0 || self.sparsity == sparsity)
            && if numbers.is_integer() { numbers.bits() <= widest.bits() } else { numbers == widest }
    }

    /// What `configuration` chooses for `layer`.
    #[must_use]
    pub fn read(configuration: &Configuration, layer: &str) -> Option<Self> {
        let bits = schedule_bits(numbers::chosen(configuration, layer)?);
        let algorithm = configuration.get(&layer_parameter(layer, "algorithm"))?.as_str()?.to_owned();
        let prefix = tunable_parameter(layer, &algorithm, "");
        let tunables = configuration
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?.to_owned(), value.as_i64()?)))
            .collect();
        let sparsity = if needs_zeros(&algorithm) {
            configuration.get(&layer_parameter(layer, "sparsity")).and_then(Value::as_f64).unwrap_or(0.0)
        } else {
            0.0
        };
        Some(Self { bits, sparsity, algorithm, tunables })
    }

    /// Chooses this for `layer`.
    pub fn write(&self, layer: &str, wanted: &mut Configuration) {
        numbers::choose(widest(&self.algorithm, self.bits), layer, wanted);
        wanted.insert(layer_parameter(layer, "algorithm"), Value::Text(self.algorithm.clone()));
        if self.sparsity > 0.0 {
            wanted.insert(layer_parameter(layer, "sparsity"), Value::Real(self.sparsity));
        }
        for (name, value) in &self.tunables {
            wanted.insert(tunable_parameter(layer, &self.algorithm, name), Value::Int(*value));
        }
    }
}

/// [`schedule_bits`] of all weights.
pub const SCHEDULE_BITS: [i64; 3] = [8, 16, 32];

/// Bits of the schedules that serve such weights.
#[must_use]
pub fn schedule_bits(numbers: Numbers) -> i64 {
    match numbers {
        Numbers::Integer(_) => 8,
        Numbers::Bf16 | Numbers::Fp16 => 16,
        Numbers::F32 => 32,
    }
}

/// The widest numbers that an algorithm executes, of integers or not.
fn widest(algorithm: &str, bits: i64) -> Numbers {
    if bits == 32 {
        return Numbers::F32;
    }
    let known = conv::algorithm(algorithm);
    let executes = |numbers| {
        let patterns = [Pattern::Dense, Pattern::Unstructured];
        known.is_none_or(|known| {
            patterns.into_iter().any(|pattern| known.executes(WeightFormat { numbers, pattern }))
        })
    };
    if bits == 16 {
        return Numbers::HALVES.into_iter().find(|numbers| executes(*numbers)).unwrap_or(Numbers::Bf16);
    }
    let grids = Grid::ALL.into_iter().rev().map(Numbers::Integer);
    grids.into_iter().find(|numbers| executes(*numbers)).unwrap_or(Numbers::Integer(Grid::Bits8))
}

/// Whether an algorithm executes no dense weights, and takes the less time the more zeros there are.
fn needs_zeros(algorithm: &str) -> bool {
    let numbers = Numbers::all();
    let dense = |numbers| WeightFormat { numbers, pattern: Pattern::Dense };
    offer::is_integer(algorithm).is_some()
        && !numbers.into_iter().any(|numbers| offer::executes(algorithm, dense(numbers)))
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
    /// What the weights are.
    #[serde(rename = "bits", with = "numbers::named")]
    pub numbers: Numbers,
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
    /// How far the two parts came.
    pub pace: Pace,
    /// Whether to stop at once.
    pub interrupted: &'s dyn Fn() -> bool,
}

/// How far a survey came.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    profiles: Steps,
    losses: Steps,
    /// Whether reconstructed layers were looked at, for which there has to be time.
    reconstructs: Option<bool>,
}

/// Steps of one part of a survey.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Steps {
    done: u64,
    /// How many an earlier survey of the same made in the same time.
    before: Option<u64>,
}

impl Steps {
    /// Whether another step may be made: as long as there is time, or as far as the earlier survey came.
    fn may_go_on(&self, until: Instant) -> bool {
        self.before.map_or_else(|| Instant::now() < until, |before| self.done < before)
    }
}

impl Surveyor<'_, '_> {
    /// The first backend to choose from.
    fn first_backend(&self) -> String {
        let backends = self.domain(BACKEND);
        backends.first().and_then(Value::as_str).unwrap_or("cpu").to_owned()
    }

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
            backend: self.first_backend(),
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
            thinned: Vec::new(),
            mixed: Vec::new(),
        };
        for work in WORK {
            if let Some(Reply::Thinned { shares }) = self.ask(&Request::Thin { work })? {
                survey.thinned.push(Thinned { work, shares });
            }
        }
        let key = self.pace_key();
        if let Some(record) = self.bench.store.get(&key.key())? {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of steps")]
            let count = |name: &str| record.value(name).map(|value| value as u64);
            (self.pace.profiles.before, self.pace.losses.before) = (count("profiles"), count("losses"));
            self.pace.reconstructs = record.value("reconstructs").map(|yes| yes > 0.5);
            survey.other_seconds = record.value("other-seconds").unwrap_or(0.0);
        }
        let begun = Instant::now();
        let until = |share: f64| begun + Duration::from_secs_f64(share * self.seconds);
        let (for_schedules, for_all) = (until(0.4), until(1.0));
        let mut rough = |share: f64| see(0.4 * share);
        self.schedules(&layers, &mut survey, for_schedules, &mut rough)?;
        self.losses(&mut survey, for_all, &mut |share| see(0.4 + 0.6 * share))?;
        if self.pace.profiles.before.is_none() {
            #[expect(clippy::cast_precision_loss, reason = "counts of steps")]
            let values = BTreeMap::from([
                ("profiles".to_owned(), self.pace.profiles.done as f64),
                ("losses".to_owned(), self.pace.losses.done as f64),
                ("reconstructs".to_owned(), f64::from(u8::from(self.pace.reconstructs == Some(true)))),
                ("other-seconds".to_owned(), survey.other_seconds),
            ]);
            self.bench.store.put(&Record::measured(key, values, &[], env!("CARGO_PKG_VERSION")))?;
        }
        see(1.0);
        Ok(survey)
    }

    /// Times schedules only: no layer is compressed, and the pace of surveys is not touched.
    ///
    /// # Errors
    /// As for [`Surveyor::survey`].
    pub fn fastest_schedules(&mut self, see: &mut dyn FnMut(f64)) -> Result<Survey, SessionError> {
        let layers = compress::layers(&self.network.plan).map_err(unfit)?;
        let threads = self.domain(THREADS).iter().filter_map(Value::as_i64).max().unwrap_or(1);
        let empty =
            |layer: &compress::LayerInfo| LayerSurvey { name: layer.step.clone(), ..LayerSurvey::default() };
        let mut survey = Survey { threads, layers: layers.iter().map(empty).collect(), ..Survey::default() };
        let until = Instant::now() + Duration::from_secs_f64(self.seconds);
        self.schedules(&layers, &mut survey, until, see)?;
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

    fn domain(&self, parameter: &str) -> Vec<Value> {
        self.space
            .parameters()
            .iter()
            .find(|known| known.name == parameter)
            .map(|known| known.domain.values().to_vec())
            .unwrap_or_default()
    }

    /// The worker's answer; `None` where it has none, which costs this one measurement only.
    fn ask(&mut self, request: &Request) -> Result<Option<Reply>, SessionError> {
        self.host.probes.clone_from(&self.bench.probes);
        self.host.ready(&mut |_| {}, self.interrupted).map_err(SessionError::Worker)?;
        match self.host.ask(request, self.bench.deadline, &mut |_| {}, self.interrupted) {
            Ok(reply) => Ok(Some(reply)),
            Err(error) => match blame(self.host.command(), &self.bench.devices, error, self.interrupted) {
                error @ (HostError::Start(_) | HostError::Interrupted | HostError::DeviceLost { .. }) => {
                    Err(SessionError::Worker(error))
                }
                error => {
                    tracing::info!("a part of the survey has no answer: {error}");
                    Ok(None)
                }
            },
        }
    }
}

fn unfit(error: compress::CompressError) -> SessionError {
    SessionError::Prepare(super::space::JointSpaceError::from(error).into())
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
            sparsity: 0.0,
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
}
