//! Simulated annealing, by `argmin`.
//!
//! `argmin` wants to call a cost function; here answers arrive from outside. So its solver is stepped by hand: a
//! candidate is drawn when the strategy is asked, and when its answer comes, one iteration runs on a problem
//! whose move is that candidate and whose cost is that answer. Several objectives are weighted, with new weights
//! for every chain.

use argmin::core::{CostFunction, Error, IterState, Problem, Solver, State};
use argmin::solver::simulatedannealing::{Anneal, SATempFunc, SimulatedAnnealing};
use paretune_spaces::Point;
use rand::{Rng, RngExt};
use rand_xoshiro_07::Xoshiro256PlusPlus;
use rand_xoshiro_07::rand_core::SeedableRng;

use crate::dominance::Standing;
use crate::history::{History, Trial};
use crate::strategies::surrogate::leaders;
use crate::strategy::{Strategy, Suggestion};

/// Random points before the first chain.
const OPENING: usize = 8;
/// Steps of a chain.
const CHAIN: usize = 120;
/// Moves that are tried to find an unknown point.
const ATTEMPTS: usize = 24;
/// Cost of a failure: worse than anything measured, but finite.
const FAILURE: f64 = 1e6;

type Iteration = IterState<Point, (), (), (), (), f64>;

/// One iteration's move and cost, both known before it runs.
struct Step {
    candidate: Point,
    cost: f64,
}

impl CostFunction for Step {
    type Param = Point;
    type Output = f64;
    fn cost(&self, _: &Point) -> Result<f64, Error> {
        Ok(self.cost)
    }
}

impl Anneal for Step {
    type Param = Point;
    type Output = Point;
    type Float = f64;
    fn anneal(&self, _: &Point, _: f64) -> Result<Point, Error> {
        Ok(self.candidate.clone())
    }
}

/// How a chain sees a point: weighted distances from the best, in units of the spread when the chain began.
#[derive(Clone, Debug)]
struct View {
    weights: Vec<f64>,
    low: Vec<f64>,
    spread: Vec<f64>,
}

impl View {
    fn new(history: &History, rng: &mut dyn Rng) -> Option<View> {
        let standings: Vec<&Standing> = history.trials().iter().filter_map(|t| t.standing.as_ref()).collect();
        let count = standings.first()?.objectives.len();
        let mut view = View { weights: Vec::new(), low: Vec::new(), spread: Vec::new() };
        for i in 0..count {
            let mut values: Vec<f64> = standings.iter().map(|s| s.objectives[i]).collect();
            values.sort_by(f64::total_cmp);
            // The median rather than the worst: disasters must not flatten everything else.
            let (low, middle) = (values[0], values[values.len() / 2]);
            view.low.push(low);
            view.spread.push(if middle > low { middle - low } else { low.abs().max(1e-9) });
            view.weights.push(if count == 1 { 1.0 } else { rng.random_range(0.05..1.0) });
        }
        Some(view)
    }

    fn cost(&self, standing: Option<&Standing>) -> f64 {
        let Some(standing) = standing else { return FAILURE };
        let total: f64 = self.weights.iter().sum();
        let parts = self.weights.iter().zip(&self.low).zip(&self.spread).zip(&standing.objectives);
        let weighted: f64 = parts.map(|(((w, low), spread), v)| w / total * (v - low) / spread).sum();
        (weighted + 10.0 * standing.violation).min(FAILURE)
    }
}

struct Chain {
    solver: SimulatedAnnealing<f64, Xoshiro256PlusPlus>,
    state: Iteration,
    view: View,
    steps: usize,
}

/// Chains of annealing, one after the other.
#[derive(Default)]
pub struct Annealing {
    chain: Option<Chain>,
    /// Candidates of the chain that wait for answers.
    open: Vec<Point>,
}

impl Annealing {
    fn begin(&mut self, history: &History, rng: &mut dyn Rng) -> Option<()> {
        let view = View::new(history, rng)?;
        let leaders = leaders(history, 6);
        let start = leaders.get(rng.random_range(0..leaders.len().max(1)))?.clone();
        let cost = view.cost(history.trial_of(&start)?.standing.as_ref());
        let generator = Xoshiro256PlusPlus::seed_from_u64(rng.random());
        let mut solver = SimulatedAnnealing::new_with_rng(0.25, generator)
            .ok()?
            .with_temp_func(SATempFunc::Exponential(0.97));
        let mut problem = Problem::new(Step { candidate: start.clone(), cost });
        let (state, _) = solver.init(&mut problem, Iteration::new().param(start).cost(cost)).ok()?;
        self.open.clear();
        self.chain = Some(Chain { solver, state, view, steps: 0 });
        Some(())
    }
}

impl Strategy for Annealing {
    fn name(&self) -> &str {
        "annealing"
    }

    fn ask(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Suggestion> {
        let origin = self.name().to_owned();
        if history.known() < OPENING {
            return Some(Suggestion { point: history.unknown(rng)?, origin });
        }
        if self.chain.as_ref().is_none_or(|c| c.steps >= CHAIN) {
            self.begin(history, rng)?;
        }
        let current = self.chain.as_ref()?.state.get_param()?.clone();
        for attempt in 0..ATTEMPTS {
            let point = history.space().mutate(&current, rng, attempt as f64 / (2 * ATTEMPTS) as f64);
            if !history.is_known(&point) {
                self.open.push(point.clone());
                return Some(Suggestion { point, origin });
            }
        }
        // Everything around is known: the chain has frozen.
        self.chain = None;
        None
    }

    fn tell(&mut self, _: &History, trial: &Trial) {
        let Some(at) = self.open.iter().position(|p| *p == trial.point) else { return };
        self.open.remove(at);
        let Some(Chain { mut solver, state, view, steps }) = self.chain.take() else { return };
        let cost = view.cost(trial.standing.as_ref());
        let mut problem = Problem::new(Step { candidate: trial.point.clone(), cost });
        // A solver that refuses to go on ends its chain; the next question starts another.
        if let Ok((state, _)) = solver.next_iter(&mut problem, state) {
            self.chain = Some(Chain { solver, state, view, steps: steps + 1 });
        }
    }
}
