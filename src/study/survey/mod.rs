//! Survey of a network for the default strategy: the time of each layer under each schedule, and
//! the change of the network's output distribution when one layer or one channel group alone is
//! compressed.
//!
//! The schedules of all layers are measured at once: a whole network is built in which every layer
//! has the next schedule of its list, and its steps are timed one by one, in place. The results go
//! to the store. Layer times are stored under the layer's shape, so that every later network with
//! such a layer finds them. The module [`super::additive`] draws the conclusions.

mod losses;
mod schedules;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use paretune_compress as compress;
use paretune_compress::ChannelGroup;
use paretune_db::{KeyParts, Record};
use paretune_evaluate::host::{Host, HostError, blame};
use paretune_evaluate::protocol::{Reply, Request};
use paretune_model::Network;
use paretune_names::{BACKEND, THREADS};
use paretune_record::survey::{GroupSurvey, LayerSurvey, Survey, Thinned};
use paretune_spaces::{CompiledSpace, Configuration, Value};

pub use schedules::{SPEED, SpeedKey};

use super::error::SessionError;
use super::trial::TrialRunner;

/// Fractions of the work to which networks are pruned.
const WORK: [f64; 4] = [0.75, 0.5, 0.875, 0.35];

/// Context that a survey works in.
pub struct Surveyor<'s, 'b> {
    /// The result store and its keys.
    pub runner: &'s mut TrialRunner<'b>,
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
                    inputs: layer.problem.in_channels
                        * layer.problem.input.iter().product::<usize>(),
                    depthwise: !layer.sparse,
                    reads: group_of(&layer.step, |group| &group.consumers),
                    writes: group_of(&layer.step, |group| &group.producers),
                    ..LayerSurvey::default()
                })
                .collect(),
            groups: groups
                .iter()
                .map(|group| GroupSurvey {
                    name: group.name.clone(),
                    width: group.width,
                    shares: Vec::new(),
                })
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
        if let Some(record) = self.runner.store.get(&key.key())? {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "counts of steps"
            )]
            let count = |name: &str| record.value(name).map(|value| value as u64);
            (self.pace.profiles.before, self.pace.losses.before) =
                (count("profiles"), count("losses"));
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
                (
                    "reconstructs".to_owned(),
                    f64::from(u8::from(self.pace.reconstructs == Some(true))),
                ),
                ("other-seconds".to_owned(), survey.other_seconds),
            ]);
            self.runner.store.put(&Record::measured(
                key,
                values,
                &[],
                env!("CARGO_PKG_VERSION"),
            ))?;
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
        let empty = |layer: &compress::LayerInfo| LayerSurvey {
            name: layer.step.clone(),
            ..LayerSurvey::default()
        };
        let mut survey =
            Survey { threads, layers: layers.iter().map(empty).collect(), ..Survey::default() };
        let until = Instant::now() + Duration::from_secs_f64(self.seconds);
        self.schedules(&layers, &mut survey, until, see)?;
        Ok(survey)
    }

    /// Returns the store key of a survey of this network and space with this time limit.
    fn pace_key(&self) -> KeyParts {
        let default = self.space.decode(&self.space.closest(&Configuration::new()));
        self.runner
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
        self.host.probes.clone_from(&self.runner.probes);
        self.host.ready(&mut |_| {}, self.interrupted).map_err(SessionError::Worker)?;
        let (deadline, devices) = (self.runner.deadline, &self.runner.devices);
        match self.host.ask_twice(request, deadline, devices, &mut |_| {}, self.interrupted) {
            Ok(reply) => Ok(Some(reply)),
            Err(error) => {
                match blame(self.host.command(), &self.runner.devices, error, self.interrupted) {
                    error @ (HostError::Start(_)
                    | HostError::Interrupted
                    | HostError::DeviceLost { .. }) => Err(SessionError::Worker(error)),
                    error => {
                        tracing::info!("a part of the survey has no answer: {error}");
                        Ok(None)
                    }
                }
            }
        }
    }
}

fn unfit(error: compress::CompressError) -> SessionError {
    SessionError::Prepare(paretune_joint_space::builder::JointSpaceError::from(error).into())
}

#[expect(clippy::cast_precision_loss, reason = "for progress bars")]
fn fraction(done: usize, all: usize) -> f64 {
    done as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use paretune_record::survey::{LayerSchedule, ScheduleTime};

    #[test]
    fn a_survey_comes_back_from_the_journal() {
        let schedule = LayerSchedule {
            bits: 8,
            sparsity: 0.0,
            algorithm: "a".into(),
            tunables: BTreeMap::from([("tile_m".to_owned(), 6_u64.into())]),
        };
        let schedules = vec![ScheduleTime { schedule, seconds: 1.25e-5 }];
        let layers = vec![LayerSurvey { schedules, ..LayerSurvey::default() }];
        let event = paretune_record::event::Event::Surveyed(Box::new(Survey {
            threads: 2,
            layers,
            ..Survey::default()
        }));
        let line = serde_json::to_string(&event).expect("JSON");
        assert_eq!(
            serde_json::from_str::<paretune_record::event::Event>(&line).expect("an event"),
            event
        );
    }
}
