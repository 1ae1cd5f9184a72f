//! Finds the fastest single-precision schedule of every distinct layer of a network.
//!
//! Layers are timed in place: the whole network is built with the next schedule of every layer that tries one, and its
//! steps are timed one by one, so that caches are as full as they are in earnest. A shape that occurs six times tries
//! six schedules at once. Which shapes try something is decided by [`share`]; places that try nothing run the best
//! that is known, which so becomes better known. In the end, the best few of every layer and the default are timed
//! again, in turns.
//!
//! Everything that is measured goes to the store ([`known`]) at once. Whether the whole network gained is left to
//! whoever asked: it takes fresh processes.

mod attribute;
mod known;
mod layer;
mod share;

use std::time::{Duration, Instant};

use paretune_db::{Store, StoreError};
use paretune_kernels::bundle::Preprocessing;
use paretune_kernels::hardware::{SpeedProbe, ThreadCeilings, ceilings};
use paretune_kernels::operator::Operator;
use paretune_kernels::schedule::Schedule;
use paretune_kernels::{Executor, ExecutorOptions, KernelError, Plan, ValueSpec};
use paretune_search::ProblemError;
use paretune_spaces::{ParseError, SpaceError};

pub use known::{Place, Schedules, Source, best_known, conclude_network};

use crate::evaluate::inspect::least_seconds;
use crate::evaluate::protocol::FastestProbes;
use crate::evaluate::repeat::noise;
use crate::evaluate::timing::profile;
use attribute::attribute;
use layer::{Layer, layouts};
use share::Shares;

/// Strategy of the search within a layer.
pub const STRATEGY: &str = "auto";
/// Seconds for which one network is timed, besides its first run.
const PROFILE_SECONDS: f64 = 0.02;
/// Part of the time that is spent on trying schedules; the rest is for timing the best ones again.
const TRYING: f64 = 0.7;
/// Schedules of a layer that are timed again in the end, besides the default.
const FINALISTS: usize = 4;
/// Turns that the finalists are timed in at least, and at most.
const TURNS: [usize; 2] = [3, 25];
/// Schedules that earlier measurements say are best, which are measured again.
const AGAIN: usize = 6;

/// Why a network could not be tuned.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// The network cannot be run at all.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer is not in single precision without zeros.
    #[error("layer `{0}` is compressed; what is tuned are networks in single precision")]
    Compressed(String),
    /// A formula of this program cannot be understood by this program.
    #[error(transparent)]
    Formula(#[from] ParseError),
    /// A layer's space has no schedule.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// The search refuses.
    #[error(transparent)]
    Search(#[from] ProblemError),
}

/// How to tune.
#[derive(Clone, Debug, PartialEq)]
pub struct TuneOptions {
    /// For what hardware, threads and batch.
    pub place: Place,
    /// For how long.
    pub seconds: f64,
    /// Name of the strategy that proposes schedules.
    pub strategy: String,
    /// Same seed, same times: same proposals.
    pub seed: u64,
}

/// How far a tuning has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// 0 to 1, of the time.
    pub share: f64,
    /// Schedules measured so far, of all layers.
    pub tried: usize,
    /// Sum of the best times of all layers so far, by that of the default schedules.
    pub gained: f64,
    /// Whether the best ones are being timed again.
    pub finals: bool,
}

/// What became of layers of one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct TunedLayer {
    /// Names of the steps.
    pub names: Vec<String>,
    /// What runs them when nobody chooses.
    pub default: Schedule,
    /// Its seconds, once.
    pub default_seconds: f64,
    /// The chosen schedule.
    pub schedule: Schedule,
    /// Its seconds, timed in turns with the default.
    pub seconds: f64,
    /// The time that the hardware needs at least, by the chosen schedule's; multiply-adds that Winograd saves are counted
    /// all the same.
    pub ceiling_share: Option<f64>,
    /// Schedules that were measured.
    pub tried: usize,
}

/// What came of a tuning.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuned {
    /// In execution order of their first steps.
    pub layers: Vec<TunedLayer>,
    /// The chosen schedules, where they are not the default ones.
    pub schedules: Schedules,
    /// The same without those that work in another order of numbers than the default; `None` where there are none.
    pub same_layouts: Option<Schedules>,
    /// Networks that were built and timed.
    pub runs: usize,
    /// Fastest probes seen.
    pub probes: FastestProbes,
}

/// Tunes `plan`, a network in single precision on the processor. `None` where it was interrupted; what was measured until
/// then is in `store`.
///
/// # Errors
/// Where the network cannot be run or the store cannot be used.
pub fn tune(
    plan: &Plan,
    preprocessing: &Preprocessing,
    store: &Store,
    options: &TuneOptions,
    probes: FastestProbes,
    see: &mut dyn FnMut(&Progress),
    interrupted: &dyn Fn() -> bool,
) -> Result<Option<Tuned>, TuneError> {
    let Place { threads, batch, isa, .. } = options.place;
    let begun = Instant::now();
    let mut layers = Layer::of(plan, batch, isa, &options.strategy, options.seed)?;
    let known = known::measured(store, &options.place)?;
    for layer in &mut layers {
        if let Some(known) = known.get(&format!("{:?}", layer.problem)) {
            layer.know(known.clone(), AGAIN)?;
        }
    }
    let mut tuner = Tuner {
        plan: plan.clone(),
        input: noise(plan, preprocessing, batch),
        outputs: batch * plan.values.get(plan.output).map_or(0, ValueSpec::len),
        probe: SpeedProbe::new(threads, isa)?,
        probes,
        options,
        store,
        runs: 0,
    };
    let limits = ceilings(&[threads])?.threads.into_iter().next();
    tuner.bound(&mut layers, limits.as_ref())?;
    let until = |share: f64| begun + Duration::from_secs_f64(share * options.seconds);
    let mut progress = |layers: &[Layer], finals: bool| {
        see(&Progress {
            share: (begun.elapsed().as_secs_f64() / options.seconds).min(1.0),
            tried: layers.iter().map(|layer| layer.tried.len()).sum(),
            gained: gained(layers),
            finals,
        });
    };
    let mut shares = Shares::default();
    while !layers.is_empty() && Instant::now() < until(TRYING) {
        if interrupted() {
            return Ok(None);
        }
        let prospects: Vec<_> = layers.iter().map(Layer::prospect).collect();
        let tries = shares.next(&prospects);
        if tries.iter().all(|count| *count == 0) {
            break;
        }
        tuner.round(&mut layers, &tries)?;
        progress(&layers, false);
    }
    let mut chosen = Vec::new();
    if !layers.is_empty() {
        let Some(finals) = tuner.finals(&mut layers, until(1.0), &mut progress, interrupted)? else {
            return Ok(None);
        };
        chosen = finals;
    }
    tuner.conclude(layers, chosen).map(Some)
}

/// How much faster the layers' best schedules are than the default ones, together, as far as that is known.
fn gained(layers: &[Layer]) -> f64 {
    let mut sums = [0.0, 0.0];
    for layer in layers {
        let default = layer.tried.iter().find(|tried| tried.schedule == layer.default);
        let (Some(default), Some(best)) = (default, layer.ranked().first().copied()) else { continue };
        #[expect(clippy::cast_precision_loss, reason = "a handful of layers")]
        let places = layer.steps.len() as f64;
        sums[0] += places * default.estimate();
        sums[1] += places * best.estimate();
    }
    if sums[1] > 0.0 { sums[0] / sums[1] } else { 1.0 }
}

/// A layer's choice: the schedule, its seconds, those of the default.
struct Chosen {
    schedule: Schedule,
    seconds: f64,
    default_seconds: f64,
}

/// What builds and times networks.
struct Tuner<'t> {
    /// The network; its schedules change from run to run.
    plan: Plan,
    input: Vec<f32>,
    outputs: usize,
    probe: SpeedProbe,
    probes: FastestProbes,
    options: &'t TuneOptions,
    store: &'t Store,
    runs: usize,
}

/// Gives the steps of `plan` these schedules, each named by its place in the plan.
pub fn apply<'a>(plan: &mut Plan, schedules: impl IntoIterator<Item = (usize, &'a Schedule)>) {
    for (index, schedule) in schedules {
        if let Some(Operator::Conv(conv)) = plan.steps.get_mut(index).map(|step| &mut step.operator) {
            conv.schedule.clone_from(schedule);
        }
    }
}

impl Tuner<'_> {
    fn load(&mut self, schedules: &[(usize, Schedule)]) -> Result<Executor, KernelError> {
        apply(&mut self.plan, schedules.iter().map(|(index, schedule)| (*index, schedule)));
        let Place { threads, batch, isa, .. } = self.options.place;
        Executor::new(&self.plan, &ExecutorOptions { batch, threads, isa })
    }

    /// Seconds of each step of the plan, conversions included.
    fn time(
        &mut self,
        executor: &mut Executor,
        schedules: &[(usize, Schedule)],
    ) -> Result<Vec<f64>, KernelError> {
        let threads = self.options.place.threads;
        let known = self.probes.get(threads);
        let (seconds, probe) =
            profile(executor, &self.input, self.outputs, &self.probe, known, PROFILE_SECONDS)?;
        self.probes.set(threads, probe);
        self.runs += 1;
        let isa = self.options.place.isa;
        let orders = |index: usize| {
            let schedule = schedules.iter().find(|(known, _)| *known == index);
            schedule.and_then(|(_, schedule)| layouts(schedule, isa))
        };
        Ok(attribute(&self.plan, executor.steps(), &seconds, &orders))
    }

    /// What the hardware needs at least for every layer.
    fn bound(&mut self, layers: &mut [Layer], limits: Option<&ThreadCeilings>) -> Result<(), KernelError> {
        let defaults: Vec<(usize, Schedule)> = layers
            .iter()
            .flat_map(|layer| layer.steps.iter().map(|step| (*step, layer.default.clone())))
            .collect();
        let executor = self.load(&defaults)?;
        for layer in layers {
            let name = &self.plan.steps[layer.steps[0]].name;
            let info = executor.steps().iter().find(|info| info.name == *name);
            layer.least = info.zip(limits).map_or(0.0, |(info, limits)| least_seconds(info, limits));
        }
        Ok(())
    }

    /// One run of the network in which layers try as many schedules as `tries` says.
    fn round(&mut self, layers: &mut [Layer], tries: &[usize]) -> Result<(), TuneError> {
        let mut schedules: Vec<(usize, Schedule)> = Vec::new();
        let mut fresh: Vec<(usize, Schedule)> = Vec::new();
        for (layer, tries) in layers.iter_mut().zip(tries) {
            let hold = layer.hold().clone();
            let asked = layer.ask(*tries);
            for (place, step) in layer.steps.iter().enumerate() {
                schedules.push((*step, asked.get(place).unwrap_or(&hold).clone()));
                fresh.extend(asked.get(place).map(|schedule| (*step, schedule.clone())));
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
        self.note(layers, &schedules, &seconds)
    }

    /// Finds out which of `fresh` cannot be built, and tells so; the others are measured alone.
    fn one_by_one(&mut self, layers: &mut [Layer], fresh: &[(usize, Schedule)]) -> Result<(), TuneError> {
        for (step, schedule) in fresh {
            let mut schedules: Vec<(usize, Schedule)> = layers
                .iter()
                .flat_map(|layer| layer.steps.iter().map(|step| (*step, layer.default.clone())))
                .collect();
            if let Some(place) = schedules.iter_mut().find(|(known, _)| known == step) {
                place.1.clone_from(schedule);
            }
            match self.load(&schedules) {
                Ok(mut executor) => {
                    let seconds = self.time(&mut executor, &schedules)?;
                    self.note(layers, &[(*step, schedule.clone())], &seconds)?;
                }
                Err(error) => {
                    tracing::info!("{}: {error}", schedule.algorithm);
                    if let Some(layer) = layers.iter_mut().find(|layer| layer.steps.contains(step)) {
                        layer.tell(schedule, None)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes what a run said of the schedules in it, in every layer and in the store; places of one layer that have the
    /// same schedule are one measurement.
    fn note(
        &self,
        layers: &mut [Layer],
        schedules: &[(usize, Schedule)],
        seconds: &[f64],
    ) -> Result<(), TuneError> {
        for layer in layers {
            let mut seen: Vec<(&Schedule, Vec<f64>)> = Vec::new();
            for (step, schedule) in schedules.iter().filter(|(step, _)| layer.steps.contains(step)) {
                match seen.iter_mut().find(|(known, _)| *known == schedule) {
                    Some((_, times)) => times.push(seconds[*step]),
                    None => seen.push((schedule, vec![seconds[*step]])),
                }
            }
            for (schedule, times) in seen {
                #[expect(clippy::cast_precision_loss, reason = "a handful of places")]
                let mean = times.iter().sum::<f64>() / times.len() as f64;
                if mean <= 0.0 {
                    continue;
                }
                layer.tell(schedule, Some(mean))?;
                let tried = layer.tried.iter().find(|tried| tried.schedule == *schedule);
                let seconds = tried.map_or(mean, layer::Tried::estimate);
                known::remember(self.store, &self.options.place, &layer.problem, schedule, seconds)?;
            }
        }
        Ok(())
    }

    /// Times the best schedules of every layer and the default in turns, in networks that are built afresh now and then.
    fn finals(
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
            // Where memory happens to lie should not decide.
            if turn % 4 == 0 {
                executors.clear();
                for variant in 0..most {
                    let schedules: Vec<(usize, Schedule)> = layers
                        .iter()
                        .zip(&finalists)
                        .flat_map(|(layer, list)| {
                            layer.steps.iter().map(|step| (*step, list[variant % list.len()].clone()))
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
                    #[expect(clippy::cast_precision_loss, reason = "a handful of places")]
                    let mean =
                        layer.steps.iter().map(|step| seconds[*step]).sum::<f64>() / layer.steps.len() as f64;
                    times[variant % list.len()].push(mean);
                }
            }
            progress(layers, true);
        }
        let mut chosen = Vec::new();
        for ((layer, list), times) in layers.iter().zip(finalists).zip(times) {
            let seconds: Vec<f64> = times.into_iter().map(median).collect();
            let best = (0..list.len()).min_by(|a, b| seconds[*a].total_cmp(&seconds[*b])).unwrap_or(0);
            for (schedule, seconds) in list.iter().zip(&seconds) {
                known::remember(self.store, &self.options.place, &layer.problem, schedule, *seconds)?;
            }
            chosen.push(Chosen {
                schedule: list[best].clone(),
                seconds: seconds[best],
                default_seconds: seconds[0],
            });
        }
        Ok(Some(chosen))
    }

    fn conclude(self, layers: Vec<Layer>, chosen: Vec<Chosen>) -> Result<Tuned, TuneError> {
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
            known::conclude_layer(
                self.store,
                &self.options.place,
                &layer.problem,
                &chosen.schedule,
                seconds,
            )?;
            if chosen.schedule != layer.default {
                for step in &layer.steps {
                    tuned.schedules.insert(*step, chosen.schedule.clone());
                    let [new, old] = [&chosen.schedule, &layer.default];
                    let isa = self.options.place.isa;
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
