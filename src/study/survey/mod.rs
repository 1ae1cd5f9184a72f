//! Survey of a network for the default strategy: the time of each layer under each schedule, and
//! the change of the network's output distribution when one layer or one channel group alone is
//! compressed.
//!
//! The schedules of all layers are measured at once: a whole network is built in which every layer
//! has the next schedule of its list, and its steps are timed one by one, in place. The results go
//! to the store. Layer times are stored under the layer's shape, so that every later network with
//! such a layer finds them. The module [`super::compose`] draws the conclusions.

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

/// Results of the survey of a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// Number of threads that schedules were timed on.
    pub threads: i64,
    /// Backend that schedules were timed on: the fastest of the offered ones.
    #[serde(default)]
    pub backend: String,
    /// Seconds of all steps that belong to no layer.
    pub other_seconds: f64,
    /// Layers of the network in execution order.
    pub layers: Vec<LayerSurvey>,
    /// Channel groups in execution order.
    pub groups: Vec<GroupSurvey>,
    /// Networks with a fraction of the work, pruned by one threshold over all channels.
    #[serde(default)]
    pub thinned: Vec<Thinned>,
    /// The best partitions of the network between two backends, judged by default schedules without
    /// transfers.
    #[serde(default)]
    pub mixed: Vec<Mixed>,
}

/// A network that is partitioned between two backends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mixed {
    /// Value of the parameter that names both backends.
    pub backend: String,
    /// Schedule of each layer on the backend that runs it.
    pub schedules: Vec<LayerSchedule>,
}

impl Survey {
    /// Returns whether the loss of some reconstructed layer is known, which implies that others can
    /// be reconstructed soon.
    #[must_use]
    pub fn has_reconstructed(&self) -> bool {
        let losses = self.layers.iter().flat_map(|layer| &layer.losses);
        losses.into_iter().any(|loss| loss.sparsity > 0.0 || loss.numbers.bits() < 8.0)
    }
}

/// A network whose channels were all pruned by one threshold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Thinned {
    /// Approximate fraction of the multiply-adds that is left.
    pub work: f64,
    /// Kept fraction of the channels by group; groups that are not listed keep all.
    pub shares: BTreeMap<String, f64>,
}

/// Fractions of the work to which networks are pruned.
const WORK: [f64; 4] = [0.75, 0.5, 0.875, 0.35];

/// Results of the survey of one layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerSurvey {
    /// Name of the layer's step in the plan.
    pub name: String,
    /// Number of weights in the layer.
    pub weights: usize,
    /// Number of output channels of the layer.
    pub outputs: usize,
    /// Number of input values of the layer.
    pub inputs: usize,
    /// Whether each output channel is computed from one input channel (depthwise).
    pub depthwise: bool,
    /// Index of the channel group that it reads, if that can be pruned.
    pub reads: Option<usize>,
    /// Index of the channel group that it writes, if that can be pruned.
    pub writes: Option<usize>,
    /// Measured schedules of the layer.
    pub schedules: Vec<ScheduleTime>,
    /// Losses by number type and sparsity. Combinations that are not listed are not worth trying.
    pub losses: Vec<LayerLoss>,
}

impl LayerSurvey {
    /// Returns the indices of up to `count` schedules that run such weights, fastest first.
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

/// Algorithm and tunables of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerSchedule {
    /// 8 for algorithms on integers of any number of bits, 16 for algorithms on 16-bit weights,
    /// else 32.
    pub bits: i64,
    /// Fraction of the weights that is zero, for sparse algorithms. It is 0 for dense algorithms,
    /// whose time does not depend on it.
    #[serde(default)]
    pub sparsity: f64,
    /// Name of the algorithm that computes the layer.
    pub algorithm: String,
    /// Values of its tunables. Tunables that a request does not name have their defaults.
    pub tunables: BTreeMap<String, i64>,
}

impl LayerSchedule {
    fn default_of(bits: i64, sparsity: f64, algorithm: String) -> Self {
        Self { bits, sparsity, algorithm, tunables: BTreeMap::new() }
    }

    /// Returns whether this schedule runs weights of this number type and sparsity in its measured
    /// time.
    #[must_use]
    pub fn serves(&self, numbers: Numbers, sparsity: f64) -> bool {
        let widest = widest(&self.algorithm, self.bits);
        self.bits == schedule_bits(numbers)
            && (self.sparsity <= 0.0 || self.sparsity == sparsity)
            && if numbers.is_integer() { numbers.bits() <= widest.bits() } else { numbers == widest }
    }

    /// Reads the schedule that `configuration` chooses for `layer`.
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

    /// Writes this schedule for `layer` into `wanted`.
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

/// All values that [`schedule_bits`] returns.
pub const SCHEDULE_BITS: [i64; 3] = [8, 16, 32];

/// Returns the bits of the schedules that run such weights.
#[must_use]
pub fn schedule_bits(numbers: Numbers) -> i64 {
    match numbers {
        Numbers::Integer(_) => 8,
        Numbers::Bf16 | Numbers::Fp16 => 16,
        Numbers::F32 => 32,
    }
}

/// Returns the widest number type that an algorithm executes, among integers or among
/// floating-point types.
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

/// Returns whether an algorithm executes only sparse weights, so that its time falls with the
/// sparsity.
fn needs_zeros(algorithm: &str) -> bool {
    let numbers = Numbers::all();
    let dense = |numbers| WeightFormat { numbers, pattern: Pattern::Dense };
    offer::is_integer(algorithm).is_some()
        && !numbers.into_iter().any(|numbers| offer::executes(algorithm, dense(numbers)))
}

/// A schedule with its measured time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleTime {
    /// The schedule with all its tunables.
    #[serde(flatten)]
    pub schedule: LayerSchedule,
    /// Seconds of the layer with all its channels.
    pub seconds: f64,
}

/// Loss of a layer under one compression.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerLoss {
    /// Number type of the weights.
    #[serde(rename = "bits", with = "numbers::named")]
    pub numbers: Numbers,
    /// Fraction of the weights that is zero.
    pub sparsity: f64,
    /// Loss in nats per image.
    pub loss: f64,
}

/// Results of the survey of one channel group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupSurvey {
    /// Name of the group in the space.
    pub name: String,
    /// Number of channels in the group.
    pub width: usize,
    /// Kept fractions in ascending order, each with its loss in nats per image. The last one keeps
    /// all channels.
    pub shares: Vec<(f64, f64)>,
}

/// Context that a survey works in.
pub struct Surveyor<'s, 'b> {
    /// The result store and its keys.
    pub bench: &'s mut Bench<'b>,
    /// The worker process that measures.
    pub host: &'s mut Host,
    /// The joint space of the network.
    pub space: &'s CompiledSpace,
    /// The network that is surveyed.
    pub network: &'s Network,
    /// Time limit in seconds. If the store knows the extent of an equal survey with the same limit,
    /// this one measures just as much, so that recorded measurements lead to the same search.
    pub seconds: f64,
    /// Number of steps that the two parts have made.
    pub pace: Pace,
    /// Returns whether to stop at once.
    pub interrupted: &'s dyn Fn() -> bool,
}

/// Number of steps that a survey has made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    profiles: Steps,
    losses: Steps,
    /// Whether reconstructed layers were measured, which needs enough time.
    reconstructs: Option<bool>,
}

/// Number of steps of one part of a survey.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Steps {
    done: u64,
    /// Number of steps that an earlier equal survey made.
    before: Option<u64>,
}

impl Steps {
    /// Returns whether another step may be made: until the time is over, or until the earlier
    /// survey's number of steps.
    fn may_go_on(&self, until: Instant) -> bool {
        self.before.map_or_else(|| Instant::now() < until, |before| self.done < before)
    }
}

impl Surveyor<'_, '_> {
    /// Returns the first backend of the space.
    fn first_backend(&self) -> String {
        let backends = self.domain(BACKEND);
        backends.first().and_then(Value::as_str).unwrap_or("cpu").to_owned()
    }

    /// Measures as much as the time allows. `see` receives the progress from 0 to 1.
    ///
    /// # Errors
    /// Fails if the store or the worker cannot be used at all.
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

    /// Times schedules only: compresses no layer and does not record the extent of the survey.
    ///
    /// # Errors
    /// Fails under the conditions of [`Surveyor::survey`].
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

    /// Returns the store key of a survey of this network and space with this time limit.
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

    /// Asks the worker. Returns `None` if it fails, which costs only this measurement.
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
