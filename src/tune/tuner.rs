//! Builds and times networks with given schedules: rounds of trials, and the finalists in turns.

use std::time::Instant;

use super::attribute::attribute;
use super::layer::{Layer, Tried, layouts};
use super::{Conditions, Schedules, TuneError, TuneOptions, Tuned, TunedLayer, apply, known};
use paretune_db::Store;
use paretune_evaluate::inspect::least_seconds;
use paretune_evaluate::protocol::FastestProbes;
use paretune_evaluate::timing::profile;
use paretune_kernels::hardware::{SpeedProbe, ThreadCeilings};
use paretune_kernels::schedule::Schedule;
use paretune_kernels::{Executor, ExecutorOptions, KernelError, Plan};

/// Seconds for which one network is timed, besides its first run.
const PROFILE_SECONDS: f64 = 0.02;
/// Number of schedules of a layer that are timed again at the end, besides the default.
const FINALISTS: usize = 4;
/// Smallest and largest number of turns in which the finalists are timed.
const TURNS: [usize; 2] = [3, 25];

/// The chosen schedule of a layer, its seconds and those of the default.
pub(super) struct Chosen {
    schedule: Schedule,
    seconds: f64,
    default_seconds: f64,
}

/// Builds and times networks with given schedules.
pub(super) struct Tuner<'t> {
    /// The network. Its schedules change from run to run.
    pub(super) plan: Plan,
    pub(super) input: Vec<f32>,
    pub(super) outputs: usize,
    pub(super) probe: SpeedProbe,
    pub(super) probes: FastestProbes,
    pub(super) options: &'t TuneOptions,
    pub(super) store: &'t Store,
    pub(super) runs: usize,
}

impl Tuner<'_> {
    fn load(&mut self, schedules: &[(usize, Schedule)]) -> Result<Executor, KernelError> {
        apply(&mut self.plan, schedules.iter().map(|(index, schedule)| (*index, schedule)));
        let Conditions { threads, batch, isa, .. } = self.options.conditions;
        Executor::new(&self.plan, &ExecutorOptions { batch, threads, isa })
    }

    /// Returns the seconds of each step of the plan, conversions included.
    fn time(
        &mut self,
        executor: &mut Executor,
        schedules: &[(usize, Schedule)],
    ) -> Result<Vec<f64>, KernelError> {
        let threads = self.options.conditions.threads;
        let known = self.probes.get(threads);
        let (seconds, probe) =
            profile(executor, &self.input, self.outputs, &self.probe, known, PROFILE_SECONDS)?;
        self.probes.set(threads, probe);
        self.runs += 1;
        let isa = self.options.conditions.isa;
        let orders = |index: usize| {
            let schedule = schedules.iter().find(|(known, _)| *known == index);
            schedule.and_then(|(_, schedule)| layouts(schedule, isa))
        };
        Ok(attribute(&self.plan, executor.steps(), &seconds, &orders))
    }

    /// Sets the lower bound of every layer's time by the hardware's ceilings.
    pub(super) fn bound(
        &mut self,
        layers: &mut [Layer],
        limits: Option<&ThreadCeilings>,
    ) -> Result<(), KernelError> {
        let defaults: Vec<(usize, Schedule)> = layers
            .iter()
            .flat_map(|layer| layer.steps.iter().map(|step| (*step, layer.default.clone())))
            .collect();
        let executor = self.load(&defaults)?;
        for layer in layers {
            let name = &self.plan.steps[layer.steps[0]].name;
            let info = executor.steps().iter().find(|info| info.name == *name);
            layer.least =
                info.zip(limits).map_or(0.0, |(info, limits)| least_seconds(info, limits));
        }
        Ok(())
    }

    /// Runs the network once with up to `tries` untried schedules in each layer.
    pub(super) fn round(&mut self, layers: &mut [Layer], tries: &[usize]) -> Result<(), TuneError> {
        let mut schedules: Vec<(usize, Schedule)> = Vec::new();
        let mut fresh: Vec<(usize, Schedule)> = Vec::new();
        for (layer, tries) in layers.iter_mut().zip(tries) {
            let incumbent = layer.incumbent().clone();
            let asked = layer.ask(*tries);
            for (at, step) in layer.steps.iter().enumerate() {
                schedules.push((*step, asked.get(at).unwrap_or(&incumbent).clone()));
                fresh.extend(asked.get(at).map(|schedule| (*step, schedule.clone())));
            }
        }
        let mut executor = match self.load(&schedules) {
            Ok(executor) => executor,
            Err(error) => {
                tracing::info!("a network could not be built: {error}");
                return self.one_by_one(layers, &fresh);
            }
        };
        let seconds = self.time(&mut executor, &schedules)?;
        self.record(layers, &schedules, &seconds)
    }

    /// Builds the schedules of `fresh` one by one, to find those that fail. The others are
    /// measured.
    fn one_by_one(
        &mut self,
        layers: &mut [Layer],
        fresh: &[(usize, Schedule)],
    ) -> Result<(), TuneError> {
        for (step, schedule) in fresh {
            let mut schedules: Vec<(usize, Schedule)> = layers
                .iter()
                .flat_map(|layer| layer.steps.iter().map(|step| (*step, layer.default.clone())))
                .collect();
            if let Some(entry) = schedules.iter_mut().find(|(known, _)| known == step) {
                entry.1.clone_from(schedule);
            }
            match self.load(&schedules) {
                Ok(mut executor) => {
                    let seconds = self.time(&mut executor, &schedules)?;
                    self.record(layers, &[(*step, schedule.clone())], &seconds)?;
                }
                Err(error) => {
                    tracing::info!("{}: {error}", schedule.algorithm);
                    if let Some(layer) = layers.iter_mut().find(|layer| layer.steps.contains(step))
                    {
                        layer.tell(schedule, None)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Records the times of one run in every layer and in the store. Steps with equal shapes and
    /// schedules share one measurement.
    fn record(
        &self,
        layers: &mut [Layer],
        schedules: &[(usize, Schedule)],
        seconds: &[f64],
    ) -> Result<(), TuneError> {
        for layer in layers {
            let mut seen: Vec<(&Schedule, Vec<f64>)> = Vec::new();
            for (step, schedule) in schedules.iter().filter(|(step, _)| layer.steps.contains(step))
            {
                match seen.iter_mut().find(|(known, _)| *known == schedule) {
                    Some((_, times)) => times.push(seconds[*step]),
                    None => seen.push((schedule, vec![seconds[*step]])),
                }
            }
            for (schedule, times) in seen {
                #[expect(clippy::cast_precision_loss, reason = "a handful of steps")]
                let mean = times.iter().sum::<f64>() / times.len() as f64;
                if mean <= 0.0 {
                    continue;
                }
                layer.tell(schedule, Some(mean))?;
                let tried = layer.tried.iter().find(|tried| tried.schedule == *schedule);
                let seconds = tried.map_or(mean, Tried::estimate);
                known::store_time(
                    self.store,
                    &self.options.conditions,
                    &layer.problem,
                    schedule,
                    seconds,
                )?;
            }
        }
        Ok(())
    }

    /// Times the best schedules of every layer and the default in turns, in networks that are
    /// rebuilt from time to time.
    pub(super) fn time_finalists(
        &mut self,
        layers: &mut [Layer],
        until: Instant,
        progress: &mut dyn FnMut(&[Layer], bool),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<Chosen>>, TuneError> {
        let finalists: Vec<Vec<Schedule>> = layers
            .iter()
            .map(|layer| {
                let ranked = layer.ranked();
                let others = ranked.iter().map(|tried| &tried.schedule);
                let others = others.filter(|schedule| **schedule != layer.default).take(FINALISTS);
                std::iter::once(&layer.default).chain(others).cloned().collect()
            })
            .collect();
        let most = finalists.iter().map(Vec::len).max().unwrap_or(0);
        let mut times: Vec<Vec<Vec<f64>>> =
            finalists.iter().map(|list| vec![Vec::new(); list.len()]).collect();
        let mut executors: Vec<(Executor, Vec<(usize, Schedule)>)> = Vec::new();
        for turn in 0..TURNS[1] {
            if turn >= TURNS[0] && Instant::now() >= until {
                break;
            }
            // Networks are rebuilt, so that the placement in memory does not decide.
            if turn % 4 == 0 {
                executors.clear();
                for variant in 0..most {
                    let schedules: Vec<(usize, Schedule)> = layers
                        .iter()
                        .zip(&finalists)
                        .flat_map(|(layer, list)| {
                            layer
                                .steps
                                .iter()
                                .map(|step| (*step, list[variant % list.len()].clone()))
                        })
                        .collect();
                    executors.push((self.load(&schedules)?, schedules));
                }
            }
            for (variant, (executor, schedules)) in executors.iter_mut().enumerate() {
                if interrupted() {
                    return Ok(None);
                }
                let seconds = self.time(executor, schedules)?;
                for ((layer, list), times) in layers.iter().zip(&finalists).zip(&mut times) {
                    #[expect(clippy::cast_precision_loss, reason = "a handful of steps")]
                    let mean = layer.steps.iter().map(|step| seconds[*step]).sum::<f64>()
                        / layer.steps.len() as f64;
                    times[variant % list.len()].push(mean);
                }
            }
            progress(layers, true);
        }
        let mut chosen = Vec::new();
        for ((layer, list), times) in layers.iter().zip(finalists).zip(times) {
            let seconds: Vec<f64> = times.into_iter().map(median).collect();
            let best =
                (0..list.len()).min_by(|a, b| seconds[*a].total_cmp(&seconds[*b])).unwrap_or(0);
            for (schedule, seconds) in list.iter().zip(&seconds) {
                known::store_time(
                    self.store,
                    &self.options.conditions,
                    &layer.problem,
                    schedule,
                    *seconds,
                )?;
            }
            chosen.push(Chosen {
                schedule: list[best].clone(),
                seconds: seconds[best],
                default_seconds: seconds[0],
            });
        }
        Ok(Some(chosen))
    }

    pub(super) fn finish(
        self,
        layers: Vec<Layer>,
        chosen: Vec<Chosen>,
    ) -> Result<Tuned, TuneError> {
        let mut tuned = Tuned {
            layers: Vec::new(),
            schedules: Schedules::new(),
            same_layouts: None,
            runs: self.runs,
            probes: self.probes,
        };
        let mut same = Schedules::new();
        let mut moved = false;
        for (layer, chosen) in layers.into_iter().zip(chosen) {
            let seconds = [chosen.default_seconds, chosen.seconds];
            known::store_layer(
                self.store,
                &self.options.conditions,
                &layer.problem,
                &chosen.schedule,
                seconds,
            )?;
            if chosen.schedule != layer.default {
                for step in &layer.steps {
                    tuned.schedules.insert(*step, chosen.schedule.clone());
                    let [new, old] = [&chosen.schedule, &layer.default];
                    let isa = self.options.conditions.isa;
                    if layouts(new, isa) == layouts(old, isa) {
                        same.insert(*step, chosen.schedule.clone());
                    } else {
                        moved = true;
                    }
                }
            }
            tuned.layers.push(TunedLayer {
                names: layer.steps.iter().map(|step| self.plan.steps[*step].name.clone()).collect(),
                tried: layer.tried.len(),
                ceiling_share: (layer.least > 0.0).then(|| layer.least / chosen.seconds),
                default: layer.default,
                default_seconds: chosen.default_seconds,
                schedule: chosen.schedule,
                seconds: chosen.seconds,
            });
        }
        tuned.same_layouts = moved.then_some(same);
        Ok(tuned)
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(f64::INFINITY)
}
