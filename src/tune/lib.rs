//! Finds the fastest single-precision schedule of every distinct layer of a network.
//!
//! Layers are timed in place: the whole network is built with the next schedule of every layer that
//! tries one, and its steps are timed one by one, so that the caches are as full as in real use. A
//! shape that occurs six times tries six schedules at once. The module `share` decides which
//! shapes try a schedule. Places that try none run the best known one, which improves its estimate.
//! At the end, the best few schedules of every layer and the default are timed again, in turns.
//!
//! Every measurement goes to the store at once (`known`). The caller checks in fresh processes
//! whether the whole network has become faster.

mod attribute;
mod known;
mod layer;
mod share;

use std::time::{Duration, Instant};

pub use known::{Place, Schedules, Source, best_known, conclude_network};

use attribute::attribute;
use layer::{Layer, layouts};
use paretune_db::{Store, StoreError};
use paretune_evaluate::inspect::least_seconds;
use paretune_evaluate::protocol::FastestProbes;
use paretune_evaluate::repeat::noise;
use paretune_evaluate::timing::profile;
use paretune_kernels::bundle::Preprocessing;
use paretune_kernels::hardware::{SpeedProbe, ThreadCeilings, ceilings};
use paretune_kernels::operator::Operator;
use paretune_kernels::schedule::Schedule;
use paretune_kernels::{Executor, ExecutorOptions, KernelError, Plan, ValueSpec};
use paretune_search::ProblemError;
use paretune_spaces::{ParseError, SpaceError};
use share::Shares;

/// Search strategy within a layer.
pub const STRATEGY: &str = "auto";
/// Seconds for which one network is timed, besides its first run.
const PROFILE_SECONDS: f64 = 0.02;
/// Fraction of the time that is spent on trying schedules. The rest times the best ones again.
const TRYING: f64 = 0.7;
/// Number of schedules of a layer that are timed again at the end, besides the default.
const FINALISTS: usize = 4;
/// Smallest and largest number of turns in which the finalists are timed.
const TURNS: [usize; 2] = [3, 25];
/// Number of the fastest known schedules that are measured again.
const AGAIN: usize = 6;

/// Reason why a network could not be tuned.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// The network cannot be run.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The result store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer is not in single precision, or has zeros.
    #[error("layer `{0}` is compressed; what is tuned are networks in single precision")]
    Compressed(String),
    /// An expression that this program built does not parse.
    #[error(transparent)]
    Formula(#[from] ParseError),
    /// A layer's space has no schedule.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// The search rejected a result or a strategy.
    #[error(transparent)]
    Search(#[from] ProblemError),
}

/// Settings of the tuning of one network.
#[derive(Clone, Debug, PartialEq)]
pub struct TuneOptions {
    /// Hardware, threads and batch to tune for.
    pub place: Place,
    /// Limit on the time in seconds.
    pub seconds: f64,
    /// Name of the strategy that proposes schedules.
    pub strategy: String,
    /// Seed of the random generator.
    pub seed: u64,
}

/// Progress of the tuning of one network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Fraction of the time that has passed, from 0 to 1.
    pub share: f64,
    /// Number of schedules measured so far, over all layers.
    pub tried: usize,
    /// Time of the default schedules, divided by the best times so far, over all layers.
    pub gained: f64,
    /// Whether the best schedules are being timed again.
    pub finals: bool,
}

/// Tuning result of the layers of one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct TunedLayer {
    /// Names of the steps with this shape.
    pub names: Vec<String>,
    /// The default schedule of the layer.
    pub default: Schedule,
    /// Seconds of one step with the default schedule.
    pub default_seconds: f64,
    /// The chosen schedule of the layer.
    pub schedule: Schedule,
    /// Seconds of one step with the chosen schedule, timed in turns with the default.
    pub seconds: f64,
    /// Lower bound of the time by the hardware's ceilings, divided by the chosen schedule's time.
    /// The bound counts all multiply-adds, also for Winograd.
    pub ceiling_share: Option<f64>,
    /// Number of schedules measured for these layers.
    pub tried: usize,
}

/// Result of the tuning of one network.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuned {
    /// Layers in the order of their first steps.
    pub layers: Vec<TunedLayer>,
    /// The chosen schedules that differ from the default ones.
    pub schedules: Schedules,
    /// The chosen schedules that keep the tensor format of the default; `None` if all do.
    pub same_layouts: Option<Schedules>,
    /// Number of networks that were built and timed.
    pub runs: usize,
    /// Fastest observed speeds of the cores.
    pub probes: FastestProbes,
}

/// Tunes `plan`, a network in single precision on the processor. Returns `None` if it was
/// interrupted; the measurements so far are in `store`.
///
/// # Errors
/// Fails if the network cannot be run or the store cannot be used.
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
        let Some(finals) = tuner.finals(&mut layers, until(1.0), &mut progress, interrupted)?
        else {
            return Ok(None);
        };
        chosen = finals;
    }
    tuner.conclude(layers, chosen).map(Some)
}

/// Returns the time of the default schedules divided by that of the best ones, over all layers with
/// measurements.
fn gained(layers: &[Layer]) -> f64 {
    let mut sums = [0.0, 0.0];
    for layer in layers {
        let default = layer.tried.iter().find(|tried| tried.schedule == layer.default);
        let (Some(default), Some(best)) = (default, layer.ranked().first().copied()) else {
            continue;
        };
        #[expect(clippy::cast_precision_loss, reason = "a handful of layers")]
        let places = layer.steps.len() as f64;
        sums[0] += places * default.estimate();
        sums[1] += places * best.estimate();
    }
    if sums[1] > 0.0 { sums[0] / sums[1] } else { 1.0 }
}

/// The chosen schedule of a layer, its seconds and those of the default.
struct Chosen {
    schedule: Schedule,
    seconds: f64,
    default_seconds: f64,
}

/// Builds and times networks with given schedules.
struct Tuner<'t> {
    /// The network. Its schedules change from run to run.
    plan: Plan,
    input: Vec<f32>,
    outputs: usize,
    probe: SpeedProbe,
    probes: FastestProbes,
    options: &'t TuneOptions,
    store: &'t Store,
    runs: usize,
}

/// Sets the schedules of steps of `plan`, each given by its index in the plan.
pub fn apply<'a>(plan: &mut Plan, schedules: impl IntoIterator<Item = (usize, &'a Schedule)>) {
    for (index, schedule) in schedules {
        if let Some(Operator::Conv(conv)) = plan.steps.get_mut(index).map(|step| &mut step.operator)
        {
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

    /// Returns the seconds of each step of the plan, conversions included.
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

    /// Sets the lower bound of every layer's time by the hardware's ceilings.
    fn bound(
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
    fn note(
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
                #[expect(clippy::cast_precision_loss, reason = "a handful of places")]
                let mean = times.iter().sum::<f64>() / times.len() as f64;
                if mean <= 0.0 {
                    continue;
                }
                layer.tell(schedule, Some(mean))?;
                let tried = layer.tried.iter().find(|tried| tried.schedule == *schedule);
                let seconds = tried.map_or(mean, layer::Tried::estimate);
                known::remember(
                    self.store,
                    &self.options.place,
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
                    #[expect(clippy::cast_precision_loss, reason = "a handful of places")]
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
                known::remember(
                    self.store,
                    &self.options.place,
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
