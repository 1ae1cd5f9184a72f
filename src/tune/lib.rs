//! Finds the fastest single-precision schedule of every distinct layer of a network.
//!
//! Layers are timed in place: the whole network is built with the next schedule of every layer that
//! tries one, and its steps are timed one by one, so that the caches are as full as in real use. A
//! shape that occurs six times tries six schedules at once. The module `allocation` decides
//! which shapes try a schedule. Steps that try none run the best known one, which improves its
//! estimate.
//! At the end, the best few schedules of every layer and the default are timed again, in turns.
//!
//! Every measurement goes to the store at once (`known`). The caller checks in fresh processes
//! whether the whole network has become faster.

mod allocation;
mod attribute;
mod known;
mod layer;
mod tuner;

use std::time::{Duration, Instant};

pub use known::{Conditions, Schedules, Source, best_known, store_network};

use allocation::Allocation;
use layer::Layer;
use paretune_db::{Store, StoreError};
use paretune_evaluate::protocol::FastestProbes;
use paretune_evaluate::repeat::noise;
use paretune_kernels::bundle::Preprocessing;
use paretune_kernels::hardware::{SpeedProbe, ceilings};
use paretune_kernels::operator::Operator;
use paretune_kernels::schedule::Schedule;
use paretune_kernels::{KernelError, Plan, ValueSpec};
use paretune_search::ProblemError;
use paretune_spaces::{ParseError, SpaceError};
use tuner::Tuner;

/// Search strategy within a layer.
pub const STRATEGY: &str = "auto";
/// Fraction of the time that is spent on trying schedules. The rest times the best ones again.
const TRIAL_FRACTION: f64 = 0.7;
/// Number of the fastest known schedules that are measured again.
const REMEASURED: usize = 6;

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
    #[error("layer `{0}` is compressed; only networks in single precision can be tuned")]
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
    pub conditions: Conditions,
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
    pub fraction: f64,
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
    let Conditions { threads, batch, isa, .. } = options.conditions;
    let begun = Instant::now();
    let mut layers = Layer::of(plan, batch, isa, &options.strategy, options.seed)?;
    let known = known::measured(store, &options.conditions)?;
    for layer in &mut layers {
        if let Some(known) = known.get(&format!("{:?}", layer.problem)) {
            layer.add_known(known.clone(), REMEASURED)?;
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
    let until = |fraction: f64| begun + Duration::from_secs_f64(fraction * options.seconds);
    let mut progress = |layers: &[Layer], finals: bool| {
        see(&Progress {
            fraction: (begun.elapsed().as_secs_f64() / options.seconds).min(1.0),
            tried: layers.iter().map(|layer| layer.tried.len()).sum(),
            gained: gained(layers),
            finals,
        });
    };
    let mut allocation = Allocation::default();
    while !layers.is_empty() && Instant::now() < until(TRIAL_FRACTION) {
        if interrupted() {
            return Ok(None);
        }
        let prospects: Vec<_> = layers.iter().map(Layer::prospect).collect();
        let tries = allocation.next(&prospects);
        if tries.iter().all(|count| *count == 0) {
            break;
        }
        tuner.round(&mut layers, &tries)?;
        progress(&layers, false);
    }
    let mut chosen = Vec::new();
    if !layers.is_empty() {
        let Some(finals) =
            tuner.time_finalists(&mut layers, until(1.0), &mut progress, interrupted)?
        else {
            return Ok(None);
        };
        chosen = finals;
    }
    tuner.finish(layers, chosen).map(Some)
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
        let steps = layer.steps.len() as f64;
        sums[0] += steps * default.estimate();
        sums[1] += steps * best.estimate();
    }
    if sums[1] > 0.0 { sums[0] / sums[1] } else { 1.0 }
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
