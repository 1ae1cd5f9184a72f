//! One distinct layer of a network: the space of its single-precision schedules and their
//! measurements.

use std::collections::BTreeMap;
use std::sync::Arc;

use paretune_joint_space::tunables::{add_tunables, space_value, tunable_value};
use paretune_kernels::Plan;
use paretune_kernels::conv;
use paretune_kernels::executor::conv_problem;
use paretune_kernels::hardware::Isa;
use paretune_kernels::operator::{ConvProblem, Operator};
use paretune_kernels::plan::layout::Layout;
use paretune_kernels::registry::{Numerics, Offer, Target};
use paretune_kernels::schedule::Schedule;
use paretune_kernels::schedule::TunableValue;
use paretune_kernels::weights::{Numbers, Pattern, WeightFormat};
use paretune_search::{Objective, Outcome, Problem, Search};
use paretune_spaces::{
    CompiledSpace, Configuration, Domain, Expression, Parameter, Point, Space, Value,
};

use super::TuneError;
use super::allocation::Prospect;

/// Name of the search's metric.
const SECONDS: &str = "seconds";
/// Name of the parameter that selects the algorithm.
const ALGORITHM: &str = "algorithm";
/// Factor by which the smaller Winograd tile reduces the multiply-adds.
const WINOGRAD: f64 = 2.25;
/// Weight format of the tuned layers.
const DENSE: WeightFormat = WeightFormat { numbers: Numbers::F32, pattern: Pattern::Dense };

/// A schedule and its measured times, each the median of many runs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tried {
    pub schedule: Schedule,
    pub seconds: Vec<f64>,
}

impl Tried {
    /// Returns the median of the measured times.
    pub fn estimate(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::INFINITY)
    }
}

/// All layers of a network with one shape.
pub(super) struct Layer {
    /// Shape of the layer's convolution.
    pub problem: ConvProblem,
    /// Indices of the steps in the plan, in execution order.
    pub steps: Vec<usize>,
    /// The default schedule with all its tunables.
    pub default: Schedule,
    /// Lower bound of the time by the hardware's ceilings, in seconds.
    pub least: f64,
    /// Measured schedules of this tuning; the default comes first.
    pub tried: Vec<Tried>,
    search: Search,
    space: Arc<CompiledSpace>,
    in_vain: usize,
    best: f64,
    exhausted: bool,
    /// Whether Winograd is offered, which needs fewer multiply-adds than the direct algorithm.
    saves: bool,
}

impl Layer {
    /// Lists the distinct layers of `plan` for `batch` images at a time, in the order of their
    /// first steps.
    pub fn of(
        plan: &Plan,
        batch: usize,
        isa: Isa,
        strategy: &str,
        seed: u64,
    ) -> Result<Vec<Self>, TuneError> {
        let mut found: Vec<(ConvProblem, Vec<usize>)> = Vec::new();
        for (index, step) in plan.steps.iter().enumerate() {
            let Some(problem) = conv_problem(plan, step, batch) else { continue };
            if let Operator::Conv(conv) = &step.operator
                && plan.weights[conv.weights].format() != DENSE
            {
                return Err(TuneError::Compressed(step.name.clone()));
            }
            match found.iter_mut().find(|(known, _)| *known == problem) {
                Some((_, steps)) => steps.push(index),
                None => found.push((problem, vec![index])),
            }
        }
        let target = Target::Cpu(isa);
        found
            .into_iter()
            .map(|(problem, steps)| Self::new(problem, steps, &target, strategy, seed))
            .collect()
    }

    fn new(
        problem: ConvProblem,
        steps: Vec<usize>,
        target: &Target,
        strategy: &str,
        seed: u64,
    ) -> Result<Self, TuneError> {
        let offers: Vec<Offer> = target
            .offers(&problem)
            .into_iter()
            .filter(|offer| offer.info.executes(DENSE))
            .collect();
        let space = Arc::new(space_of(&offers)?.compile()?);
        let objectives = vec![Objective::minimize(SECONDS).log()];
        let judged =
            Problem::new(Arc::clone(&space), vec![SECONDS.to_owned()], objectives, Vec::new())?;
        let mut search = Search::new(judged, strategy, seed)?;
        let defaults = offers.iter().map(|offer| {
            let mut wanted = Configuration::new();
            wanted.insert(ALGORITHM, Value::Text(offer.info.name().to_owned()));
            (space.closest(&wanted), "default".to_owned())
        });
        search.enqueue(defaults.collect())?;
        let default = schedule_of(&space.decode(&space.default_point()));
        Ok(Self {
            problem,
            steps,
            default,
            least: 0.0,
            tried: Vec::new(),
            search,
            space,
            in_vain: 0,
            best: f64::INFINITY,
            exhausted: false,
            saves: offers.iter().any(|offer| offer.info.numerics() == Numerics::RoundsDifferently),
        })
    }

    /// Returns the point of `schedule`, if the space contains it.
    fn point(&self, schedule: &Schedule) -> Option<Point> {
        let mut configuration = Configuration::new();
        configuration.insert(ALGORITHM, Value::Text(schedule.algorithm.clone()));
        for (name, value) in &schedule.tunables {
            configuration.insert(format!("{}.{name}", schedule.algorithm), space_value(*value));
        }
        self.space.encode(&configuration).ok()
    }

    /// Adds earlier measurements: the fastest `again` schedules are queued to be measured again,
    /// the others are told to the search.
    pub fn add_known(
        &mut self,
        mut known: Vec<(Schedule, f64)>,
        again: usize,
    ) -> Result<(), TuneError> {
        known.sort_by(|left, right| left.1.total_cmp(&right.1));
        let mut points = Vec::new();
        for (index, (schedule, seconds)) in known.into_iter().enumerate() {
            let Some(point) = self.point(&schedule) else { continue };
            if index < again {
                points.push((point, "known".to_owned()));
            } else if !self.is_default_of_its_algorithm(&schedule) {
                // A repeated or invalid measurement is ignored.
                if let Err(error) = self.search.tell(&point, Outcome::exact(vec![seconds])) {
                    tracing::debug!("{}: {error}", schedule.algorithm);
                }
            }
        }
        self.search.enqueue(points)?;
        Ok(())
    }

    fn is_default_of_its_algorithm(&self, schedule: &Schedule) -> bool {
        let mut wanted = Configuration::new();
        wanted.insert(ALGORITHM, Value::Text(schedule.algorithm.clone()));
        self.point(schedule) == Some(self.space.closest(&wanted))
    }

    /// Returns up to `count` untried schedules.
    pub fn ask(&mut self, count: usize) -> Vec<Schedule> {
        let proposals = self.search.ask(count);
        self.exhausted = proposals.len() < count;
        proposals.iter().map(|proposal| schedule_of(&self.space.decode(&proposal.point))).collect()
    }

    /// Records the time of a schedule, or that it has failed.
    pub fn tell(&mut self, schedule: &Schedule, seconds: Option<f64>) -> Result<(), TuneError> {
        if let Some(seconds) = seconds
            && let Some(tried) = self.tried.iter_mut().find(|tried| tried.schedule == *schedule)
        {
            tried.seconds.push(seconds);
            return Ok(());
        }
        if let Some(seconds) = seconds {
            self.tried.push(Tried { schedule: schedule.clone(), seconds: vec![seconds] });
            // A difference within the noise is no progress.
            self.in_vain = if seconds < 0.99 * self.best { 0 } else { self.in_vain + 1 };
            self.best = self.best.min(seconds);
        }
        let Some(point) = self.point(schedule) else { return Ok(()) };
        let outcome = match seconds {
            Some(seconds) => Outcome::exact(vec![seconds]),
            None => Outcome::Failed { reason: "it could not be run".to_owned() },
        };
        self.search.tell(&point, outcome)?;
        Ok(())
    }

    /// Returns the schedule for steps that try nothing: of those within 3 % of the best, the one
    /// with the fewest measurements.
    pub fn incumbent(&self) -> &Schedule {
        let Some(best) = self.ranked().first().map(|tried| tried.estimate()) else {
            return &self.default;
        };
        let incumbents = self.tried.iter().filter(|tried| tried.estimate() <= 1.03 * best);
        incumbents
            .min_by_key(|tried| tried.seconds.len())
            .map_or(&self.default, |tried| &tried.schedule)
    }

    /// Returns the measured schedules, fastest first.
    pub fn ranked(&self) -> Vec<&Tried> {
        let mut ranked: Vec<&Tried> = self.tried.iter().collect();
        ranked.sort_by(|left, right| left.estimate().total_cmp(&right.estimate()));
        ranked
    }

    /// Describes the improvement that this layer may still bring.
    pub fn prospect(&self) -> Prospect {
        let best = self.ranked().first().map_or(f64::INFINITY, |tried| tried.estimate());
        Prospect {
            steps: self.steps.len(),
            best,
            // Winograd needs fewer multiply-adds, so the lower bound is lower as well.
            least: if self.saves { self.least / WINOGRAD } else { self.least },
            in_vain: self.in_vain,
            exhausted: self.exhausted,
        }
    }
}

/// Returns the tensor formats that a schedule's algorithm reads and writes.
pub(super) fn layouts(schedule: &Schedule, isa: Isa) -> Option<[Layout; 2]> {
    conv::algorithm(&schedule.algorithm).map(|algorithm| algorithm.layouts(schedule, isa))
}

/// Builds the space of the algorithms with their tunables and constraints.
fn space_of(offers: &[Offer]) -> Result<Space, TuneError> {
    let mut space = Space::new();
    let names = offers.iter().map(|offer| offer.info.name());
    space.parameters.push(Parameter::new(ALGORITHM, Domain::choice(names)));
    for offer in offers {
        let active: Expression = format!("{ALGORITHM} == '{}'", offer.info.name()).parse()?;
        add_tunables(&mut space, offer, &format!("{}.", offer.info.name()), &active)?;
    }
    Ok(space)
}

fn schedule_of(configuration: &Configuration) -> Schedule {
    let algorithm = configuration.get(ALGORITHM).and_then(Value::as_str).unwrap_or_default();
    let prefix = format!("{algorithm}.");
    let tunables: BTreeMap<String, TunableValue> = configuration
        .iter()
        .filter_map(|(name, value)| {
            Some((name.strip_prefix(&prefix)?.to_owned(), tunable_value(value)?))
        })
        .collect();
    Schedule { algorithm: algorithm.to_owned(), tunables }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paretune_study::prepare::load_network;

    fn layers() -> Vec<Layer> {
        Layer::of(
            &load_network(None).expect("the built-in network").plan,
            1,
            Isa::detect(),
            "local",
            0,
        )
        .expect("layers")
    }

    #[test]
    fn shapes_are_distinct_and_defaults_come_first() {
        let plan = load_network(None).expect("the built-in network").plan;
        let mut layers = layers();
        let places: usize = layers.iter().map(|layer| layer.steps.len()).sum();
        assert_eq!(
            places,
            plan.steps.iter().filter(|step| conv_problem(&plan, step, 1).is_some()).count()
        );
        for (index, layer) in layers.iter_mut().enumerate() {
            let first = layer.ask(1);
            assert_eq!(first, std::slice::from_ref(&layer.default), "layer {index}");
            layer.tell(&first[0], Some(1.0)).expect("told");
            assert_eq!(layer.incumbent(), &first[0]);
            let next = layer.ask(3);
            assert!(next.iter().all(|schedule| *schedule != first[0]), "{next:?}");
            layer.tell(&next[0], None).expect("a failure");
            layer.tell(&next[1], Some(0.5)).expect("told");
            assert_eq!(layer.ranked()[0].schedule, next[1]);
        }
    }

    #[test]
    fn the_best_known_is_measured_again_and_the_rest_is_believed() {
        let mut layer = layers().remove(0);
        let mut other = layers().remove(0);
        let mut schedules = other.ask(12);
        // The default schedules are measured in any case.
        let defaults =
            schedules.iter().filter(|schedule| other.is_default_of_its_algorithm(schedule)).count();
        schedules.drain(..defaults);
        let known: Vec<(Schedule, f64)> = schedules
            .iter()
            .enumerate()
            .map(|(index, schedule)| {
                (schedule.clone(), f64::from(u16::try_from(index).expect("few") + 1))
            })
            .collect();
        layer.add_known(known, 2).expect("known");
        let asked = layer.ask(defaults + 2);
        assert_eq!(asked[defaults..], schedules[..2]);
        let later = layer.ask(50);
        assert!(later.iter().all(|schedule| !schedules.contains(schedule)));
    }

    #[test]
    fn the_middle_measurement_counts() {
        let tried = Tried { schedule: Schedule::default(), seconds: vec![3.0, 1.0, 2.0] };
        assert_eq!(tried.estimate(), 2.0);
    }
}
