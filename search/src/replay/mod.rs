//! Replay of strategies against a recorded table instead of hardware, with scores that compare them
//! to the best of the table.

pub mod table;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::hypervolume::{contribution, hypervolume};
use crate::problem::{Normalization, Outcome, ProblemError};
use crate::strategies::registry::strategy;
use crate::{Direction, Search};

use table::Table;

/// Numbers of evaluations after which scores are taken.
pub const CHECKPOINTS: [usize; 5] = [25, 50, 100, 200, 400];

/// Strategies, budget and seeds of a replay.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayOptions {
    /// Names of the strategies to run.
    pub strategies: Vec<String>,
    /// Number of evaluations per run.
    pub budget: usize,
    /// Number of runs per strategy, with seeds `seed`, `seed + 1` and so on.
    pub seeds: usize,
    /// Seed of the first run.
    pub seed: u64,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        ReplayOptions { strategies: vec!["auto".to_owned()], budget: 200, seeds: 20, seed: 0 }
    }
}

/// Meaning of the scores of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Score {
    /// One objective: the best value found divided by the optimum, or the inverse if smaller is
    /// better. It is 1 at best, and 0 while nothing usable is found. If some values are not
    /// positive, it is the distance from the worst value, as a fraction of the range.
    Ratio,
    /// Several objectives: the hypervolume found as a fraction of that of the true front.
    /// Objectives are scaled to 0..1 over usable rows, with the reference at 1. With limits, only
    /// points that meet them count on both sides.
    Hypervolume,
    /// One objective with limits: the difference between the best point that meets them and the
    /// best possible one, in the objective's unit; 0 at best. While no point meets them, it is the
    /// distance of the worst usable row.
    Regret,
}

/// Result of a replay, serialized as the command prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplayReport {
    /// Meaning of the scores in this report.
    pub score: Score,
    /// Number of rows of the table.
    pub rows: usize,
    /// Number of rows that are usable.
    pub usable: usize,
    /// Number of evaluations per run.
    pub budget: usize,
    /// Number of runs per strategy.
    pub seeds: usize,
    /// Results by the name of the strategy.
    pub strategies: BTreeMap<String, StrategyReport>,
}

/// Result of one strategy over all seeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StrategyReport {
    /// Mean score over seeds by number of evaluations.
    pub mean: BTreeMap<usize, f64>,
    /// Standard deviation of the score over seeds (of the sample) by number of evaluations.
    pub sd: BTreeMap<usize, f64>,
    /// Mean time that the strategy takes per run, in seconds.
    pub seconds: f64,
    /// Mean number of evaluations per run that hit unusable rows.
    pub invalid: f64,
}

/// Run of one strategy with one seed.
struct Run {
    /// Score by number of evaluations.
    scores: BTreeMap<usize, f64>,
    /// Time that the strategy took, in seconds.
    seconds: f64,
    /// Number of evaluations of unusable rows.
    invalid: usize,
}

/// Best values of a table, by which runs are scored.
struct Scorer<'a> {
    table: &'a Table,
    score: Score,
    normalization: Normalization,
    /// Best canonical value of all rows that meet the limits.
    best: f64,
    worst: f64,
    volume: f64,
}

impl<'a> Scorer<'a> {
    fn new(table: &'a Table) -> Result<Scorer<'a>, ProblemError> {
        let problem = &table.problem;
        let mut feasible = Vec::new();
        let count = problem.objectives().len();
        let (mut low, mut high) = (vec![f64::INFINITY; count], vec![f64::NEG_INFINITY; count]);
        for values in table.answers.iter().flatten() {
            let judgement = problem.judge(&Outcome::exact(values.clone()))?;
            let objectives: Vec<f64> = judgement.objectives.into_iter().flatten().collect();
            for (i, v) in objectives.iter().enumerate() {
                (low[i], high[i]) = (low[i].min(*v), high[i].max(*v));
            }
            if judgement.violations.iter().flatten().all(|v| *v == 0.0) {
                feasible.push(objectives);
            }
        }
        let score = match (count, problem.limits().is_empty()) {
            (1, true) => Score::Ratio,
            (1, false) => Score::Regret,
            _ => Score::Hypervolume,
        };
        let reference =
            high.iter().zip(&low).map(|(h, l)| if h > l { *h } else { l + 1.0 }).collect();
        let normalization = Normalization { ideal: low, reference };
        let scaled: Vec<Vec<f64>> = feasible.iter().map(|p| normalization.apply(p)).collect();
        let volume =
            if score == Score::Hypervolume { hypervolume(&scaled, &vec![1.0; count]) } else { 0.0 };
        let best = feasible.iter().map(|p| p[0]).fold(f64::INFINITY, f64::min);
        Ok(Scorer { table, score, worst: high[0], best, volume, normalization })
    }

    /// Converts a canonical value of the first objective to its own unit.
    fn own_unit(&self, canonical: f64) -> f64 {
        let objective = &self.table.problem.objectives()[0];
        let signed =
            if objective.direction == Direction::Maximize { -canonical } else { canonical };
        if objective.scale == crate::Scale::Log { signed.exp() } else { signed }
    }

    /// Returns the score of a run with one objective, whose best feasible canonical value is
    /// `best`.
    fn single(&self, best: f64) -> f64 {
        if self.score == Score::Regret {
            let found = if best.is_finite() { best } else { self.worst };
            return if self.best.is_finite() {
                (self.own_unit(found) - self.own_unit(self.best)).abs()
            } else {
                f64::NAN
            };
        }
        if !best.is_finite() {
            return 0.0;
        }
        let (found, optimum, worst) =
            (self.own_unit(best), self.own_unit(self.best), self.own_unit(self.worst));
        if optimum > 0.0 && worst > 0.0 {
            if found > optimum { optimum / found } else { found / optimum }
        } else if worst == optimum {
            1.0
        } else {
            (found - worst) / (optimum - worst)
        }
    }

    /// Runs one strategy with one seed.
    fn run(&self, name: &str, seed: u64, budget: usize) -> Result<Run, ProblemError> {
        let mut search = Search::with_strategy(self.table.problem.clone(), strategy(name)?, seed);
        let reference = vec![1.0; self.normalization.ideal.len()];
        let mut scores = BTreeMap::new();
        let (mut seconds, mut invalid) = (0.0, 0);
        let (mut best, mut volume, mut front) = (f64::INFINITY, 0.0, Vec::<Vec<f64>>::new());
        let last = CHECKPOINTS
            .iter()
            .copied()
            .chain([budget])
            .filter(|c| *c <= budget)
            .max()
            .unwrap_or(budget);
        for evaluation in 1..=last {
            let start = Instant::now();
            if let Some(proposal) = search.ask(1).pop() {
                let answer = self.table.answer(&proposal.point);
                let outcome = match answer {
                    Some(values) => Outcome::exact(values.to_vec()),
                    None => Outcome::Failed { reason: "not usable in the table".to_owned() },
                };
                search.tell(&proposal.point, outcome)?;
                seconds += start.elapsed().as_secs_f64();
                let standing = search.history().trials().last().and_then(|t| t.standing.as_ref());
                invalid += usize::from(standing.is_none());
                if let Some(standing) = standing.filter(|s| s.violation == 0.0) {
                    best = best.min(standing.objectives[0]);
                    if self.score == Score::Hypervolume {
                        let scaled = self.normalization.apply(&standing.objectives);
                        volume += contribution(&front, &scaled, &reference);
                        front.retain(|p| !p.iter().zip(&scaled).all(|(a, b)| b <= a));
                        front.push(scaled);
                    }
                }
            }
            if CHECKPOINTS.contains(&evaluation) || evaluation == budget {
                let score = match self.score {
                    Score::Hypervolume if self.volume > 0.0 => volume / self.volume,
                    Score::Hypervolume => 0.0,
                    _ => self.single(best),
                };
                scores.insert(evaluation, score);
            }
        }
        Ok(Run { scores, seconds, invalid })
    }
}

/// Runs strategies against a table, several seeds each, on all cores.
///
/// # Errors
/// Returns an error if a strategy is unknown, or if values of the table do not fit the objectives
/// (not positive on a logarithmic scale).
pub fn replay(table: &Table, options: &ReplayOptions) -> Result<ReplayReport, ProblemError> {
    for name in &options.strategies {
        strategy(name)?;
    }
    let scorer = Scorer::new(table)?;
    let jobs: Vec<(&String, u64)> = options
        .strategies
        .iter()
        .flat_map(|name| {
            (0..options.seeds as u64).map(move |s| (name, options.seed.wrapping_add(s)))
        })
        .collect();
    let results = Mutex::new(BTreeMap::new());
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((name, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = scorer.run(name, *seed, options.budget);
            if let Ok(mut results) = results.lock() {
                results.insert((*name, *seed), result);
            }
        }
    };
    let threads = std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(jobs.len().max(1));
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| {
            scope.spawn(work);
        });
        work();
    });
    let mut runs: BTreeMap<&String, Vec<Run>> = BTreeMap::new();
    for ((name, _), result) in results.into_inner().unwrap_or_default() {
        runs.entry(name).or_default().push(result?);
    }
    Ok(ReplayReport {
        score: scorer.score,
        rows: table.answers.len(),
        usable: table.answers.iter().flatten().count(),
        budget: options.budget,
        seeds: options.seeds,
        strategies: runs.into_iter().map(|(name, runs)| (name.clone(), summarize(&runs))).collect(),
    })
}

fn summarize(runs: &[Run]) -> StrategyReport {
    let n = runs.len() as f64;
    let mut report = StrategyReport {
        seconds: runs.iter().map(|r| r.seconds).sum::<f64>() / n,
        invalid: runs.iter().map(|r| r.invalid as f64).sum::<f64>() / n,
        ..StrategyReport::default()
    };
    for checkpoint in
        runs.first().map(|r| r.scores.keys().copied().collect::<Vec<_>>()).unwrap_or_default()
    {
        let values: Vec<f64> =
            runs.iter().filter_map(|r| r.scores.get(&checkpoint).copied()).collect();
        let mean = values.iter().sum::<f64>() / n;
        let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        report.mean.insert(checkpoint, mean);
        report.sd.insert(checkpoint, if n > 1.0 { (square / (n - 1.0)).sqrt() } else { 0.0 });
    }
    report
}
