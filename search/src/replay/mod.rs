//! Replay: strategies against a recorded table instead of hardware, and how close they come to the best.

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

/// After how many evaluations scores are taken.
pub const CHECKPOINTS: [usize; 5] = [25, 50, 100, 200, 400];

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayOptions {
    /// Names of strategies.
    pub strategies: Vec<String>,
    /// Evaluations per run.
    pub budget: usize,
    /// Runs per strategy, with seeds `seed`, `seed + 1`, ...
    pub seeds: usize,
    /// The first seed.
    pub seed: u64,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        ReplayOptions { strategies: vec!["auto".to_owned()], budget: 200, seeds: 20, seed: 0 }
    }
}

/// What scores mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Score {
    /// One objective: best found over optimum (or its inverse where less is better), 1 at best, 0 while nothing
    /// usable is found. Where some values are not positive: the share of the range between worst and best.
    Ratio,
    /// Several objectives: share of the true front's hypervolume, objectives scaled to 0..1 over usable rows, the
    /// reference at 1. With limits only what meets them counts, on both sides.
    Hypervolume,
    /// One objective with limits: how far the best point that meets them is from the best possible, in the
    /// objective's unit; 0 at best. While none is found, the distance of the worst usable row.
    Regret,
}

/// Results of a replay; serializes as the command prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplayReport {
    /// What the scores are.
    pub score: Score,
    /// Rows of the table.
    pub rows: usize,
    /// Rows that are usable.
    pub usable: usize,
    /// Evaluations per run.
    pub budget: usize,
    /// Runs per strategy.
    pub seeds: usize,
    /// By strategy.
    pub strategies: BTreeMap<String, StrategyReport>,
}

/// Results of one strategy.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StrategyReport {
    /// By number of evaluations the mean score over seeds.
    pub mean: BTreeMap<usize, f64>,
    /// By number of evaluations the standard deviation over seeds (of the sample).
    pub sd: BTreeMap<usize, f64>,
    /// Seconds per run that the strategy took, on average.
    pub seconds: f64,
    /// Evaluations per run that hit unusable rows, on average.
    pub invalid: f64,
}

/// One strategy with one seed.
struct Run {
    /// By number of evaluations.
    scores: BTreeMap<usize, f64>,
    /// That the strategy took.
    seconds: f64,
    /// Evaluations of unusable rows.
    invalid: usize,
}

/// How runs are judged: the best that the table has.
struct Judge<'a> {
    table: &'a Table,
    score: Score,
    normalization: Normalization,
    /// Canonical best, and the worst of all usable rows.
    best: f64,
    worst: f64,
    volume: f64,
}

impl<'a> Judge<'a> {
    fn new(table: &'a Table) -> Result<Judge<'a>, ProblemError> {
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
        let reference = high.iter().zip(&low).map(|(h, l)| if h > l { *h } else { l + 1.0 }).collect();
        let normalization = Normalization { ideal: low, reference };
        let scaled: Vec<Vec<f64>> = feasible.iter().map(|p| normalization.apply(p)).collect();
        let volume = if score == Score::Hypervolume { hypervolume(&scaled, &vec![1.0; count]) } else { 0.0 };
        let best = feasible.iter().map(|p| p[0]).fold(f64::INFINITY, f64::min);
        Ok(Judge { table, score, worst: high[0], best, volume, normalization })
    }

    /// The objective in its own unit.
    fn plain(&self, canonical: f64) -> f64 {
        let objective = &self.table.problem.objectives()[0];
        let signed = if objective.direction == Direction::Maximize { -canonical } else { canonical };
        if objective.scale == crate::Scale::Log { signed.exp() } else { signed }
    }

    /// The score of a run whose best feasible canonical value of the first objective is `best`.
    fn single(&self, best: f64) -> f64 {
        if self.score == Score::Regret {
            let found = if best.is_finite() { best } else { self.worst };
            return if self.best.is_finite() {
                (self.plain(found) - self.plain(self.best)).abs()
            } else {
                f64::NAN
            };
        }
        if !best.is_finite() {
            return 0.0;
        }
        let (found, optimum, worst) = (self.plain(best), self.plain(self.best), self.plain(self.worst));
        if optimum > 0.0 && worst > 0.0 {
            if found > optimum { optimum / found } else { found / optimum }
        } else if worst == optimum {
            1.0
        } else {
            (found - worst) / (optimum - worst)
        }
    }

    /// One strategy with one seed.
    fn run(&self, name: &str, seed: u64, budget: usize) -> Result<Run, ProblemError> {
        let mut search = Search::with_strategy(self.table.problem.clone(), strategy(name)?, seed);
        let reference = vec![1.0; self.normalization.ideal.len()];
        let mut scores = BTreeMap::new();
        let (mut seconds, mut invalid) = (0.0, 0);
        let (mut best, mut volume, mut front) = (f64::INFINITY, 0.0, Vec::<Vec<f64>>::new());
        let last =
            CHECKPOINTS.iter().copied().chain([budget]).filter(|c| *c <= budget).max().unwrap_or(budget);
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
/// Where a strategy is unknown, or values of the table do not fit the objectives (not positive on a logarithmic
/// scale).
pub fn replay(table: &Table, options: &ReplayOptions) -> Result<ReplayReport, ProblemError> {
    for name in &options.strategies {
        strategy(name)?;
    }
    let judge = Judge::new(table)?;
    let jobs: Vec<(&String, u64)> = options
        .strategies
        .iter()
        .flat_map(|name| (0..options.seeds as u64).map(move |s| (name, options.seed.wrapping_add(s))))
        .collect();
    let results = Mutex::new(BTreeMap::new());
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((name, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = judge.run(name, *seed, options.budget);
            if let Ok(mut results) = results.lock() {
                results.insert((*name, *seed), result);
            }
        }
    };
    let threads =
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(jobs.len().max(1));
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
        score: judge.score,
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
    for checkpoint in runs.first().map(|r| r.scores.keys().copied().collect::<Vec<_>>()).unwrap_or_default() {
        let values: Vec<f64> = runs.iter().filter_map(|r| r.scores.get(&checkpoint).copied()).collect();
        let mean = values.iter().sum::<f64>() / n;
        let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        report.mean.insert(checkpoint, mean);
        report.sd.insert(checkpoint, if n > 1.0 { (square / (n - 1.0)).sqrt() } else { 0.0 });
    }
    report
}
