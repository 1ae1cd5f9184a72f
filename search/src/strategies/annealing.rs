//! Simulated annealing, by `argmin`.
//!
//! `argmin` calls a cost function, but here answers arrive from outside, so its solver is stepped
//! by hand. A candidate is drawn when the strategy is asked. When its answer comes, one iteration
//! runs on a problem whose move is that candidate and whose cost is that answer. Several objectives
//! are weighted, with new weights for every chain.

use argmin::core::{CostFunction, Error, IterState, Problem, Solver, State};
use argmin::solver::simulatedannealing::{Anneal, SATempFunc, SimulatedAnnealing};
use paretune_spaces::Point;
use rand::{Rng, RngExt};
use rand_xoshiro_07::Xoshiro256PlusPlus;
use rand_xoshiro_07::rand_core::SeedableRng;

use super::candidates::leaders;
use crate::dominance::Standing;
use crate::history::{History, Trial};
use crate::strategy::{Strategy, Suggestion};

/// Number of random points before the first chain.
const INITIAL_POINTS: usize = 8;
/// Number of steps of a chain.
const CHAIN_STEPS: usize = 120;
/// Number of moves that are tried to find an unknown point.
const MAX_ATTEMPTS: usize = 24;
/// Cost of a failure: worse than every measured point, but finite.
const FAILURE_COST: f64 = 1e6;

type Iteration = IterState<Point, (), (), (), (), f64>;

/// Problem of one iteration, whose move and cost are known in advance.
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

/// Cost function of a chain: weighted distances from the best values, in units of their spread when
/// the chain began.
#[derive(Clone, Debug)]
struct ChainCost {
    weights: Vec<f64>,
    low: Vec<f64>,
    spread: Vec<f64>,
}

impl ChainCost {
    fn new(history: &History, rng: &mut dyn Rng) -> Option<ChainCost> {
        let standings: Vec<&Standing> =
            history.trials().iter().filter_map(|t| t.standing.as_ref()).collect();
        let count = standings.first()?.objectives.len();
        let mut chain_cost = ChainCost { weights: Vec::new(), low: Vec::new(), spread: Vec::new() };
        for i in 0..count {
            let mut values: Vec<f64> = standings.iter().map(|s| s.objectives[i]).collect();
            values.sort_by(f64::total_cmp);
            // The median is used, not the worst value, which could be an outlier that flattens all
            // others.
            let (low, middle) = (values[0], values[values.len() / 2]);
            chain_cost.low.push(low);
            chain_cost.spread.push(if middle > low { middle - low } else { low.abs().max(1e-9) });
            chain_cost.weights.push(if count == 1 { 1.0 } else { rng.random_range(0.05..1.0) });
        }
        Some(chain_cost)
    }

    fn cost(&self, standing: Option<&Standing>) -> f64 {
        let Some(standing) = standing else { return FAILURE_COST };
        let total: f64 = self.weights.iter().sum();
        let parts = self.weights.iter().zip(&self.low).zip(&self.spread).zip(&standing.objectives);
        let weighted: f64 =
            parts.map(|(((w, low), spread), v)| w / total * (v - low) / spread).sum();
        (weighted + 10.0 * standing.violation).min(FAILURE_COST)
    }
}

struct Chain {
    solver: SimulatedAnnealing<f64, Xoshiro256PlusPlus>,
    state: Iteration,
    chain_cost: ChainCost,
    steps: usize,
}

/// Simulated annealing by chains, one after the other.
#[derive(Default)]
pub struct Annealing {
    chain: Option<Chain>,
    /// Candidates of the chain that wait for answers.
    open: Vec<Point>,
}

impl Annealing {
    fn begin(&mut self, history: &History, rng: &mut dyn Rng) -> Option<()> {
        let chain_cost = ChainCost::new(history, rng)?;
        let leaders = leaders(history, 6);
        let start = leaders.get(rng.random_range(0..leaders.len().max(1)))?.clone();
        let cost = chain_cost.cost(history.trial_of(&start)?.standing.as_ref());
        let generator = Xoshiro256PlusPlus::seed_from_u64(rng.random());
        let mut solver = SimulatedAnnealing::new_with_rng(0.25, generator)
            .ok()?
            .with_temp_func(SATempFunc::Exponential(0.97));
        let mut problem = Problem::new(Step { candidate: start.clone(), cost });
        let (state, _) =
            solver.init(&mut problem, Iteration::new().param(start).cost(cost)).ok()?;
        self.open.clear();
        self.chain = Some(Chain { solver, state, chain_cost, steps: 0 });
        Some(())
    }
}

impl Strategy for Annealing {
    fn name(&self) -> &str {
        "annealing"
    }

    fn ask(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Suggestion> {
        let origin = self.name().to_owned();
        if history.known() < INITIAL_POINTS {
            return Some(Suggestion { point: history.unknown(rng)?, origin });
        }
        if self.chain.as_ref().is_none_or(|c| c.steps >= CHAIN_STEPS) {
            self.begin(history, rng)?;
        }
        let current = self.chain.as_ref()?.state.get_param()?.clone();
        for attempt in 0..MAX_ATTEMPTS {
            let point =
                history.space().mutate(&current, rng, attempt as f64 / (2 * MAX_ATTEMPTS) as f64);
            if !history.is_known(&point) {
                self.open.push(point.clone());
                return Some(Suggestion { point, origin });
            }
        }
        // All points near the current one are known: the chain is frozen.
        self.chain = None;
        None
    }

    fn tell(&mut self, _: &History, trial: &Trial) {
        let Some(at) = self.open.iter().position(|p| *p == trial.point) else { return };
        self.open.remove(at);
        let Some(Chain { mut solver, state, chain_cost, steps }) = self.chain.take() else {
            return;
        };
        let cost = chain_cost.cost(trial.standing.as_ref());
        let mut problem = Problem::new(Step { candidate: trial.point.clone(), cost });
        // A solver error ends the chain; the next question starts another.
        if let Ok((state, _)) = solver.next_iter(&mut problem, state) {
            self.chain = Some(Chain { solver, state, chain_cost, steps: steps + 1 });
        }
    }
}
