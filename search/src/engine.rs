//! The ask/tell engine: keeps strategies honest. No configuration is ever proposed twice, every answer is
//! checked, and seed points come first.

use std::collections::VecDeque;

use paretune_spaces::Point;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::archive::{Archive, Entry};
use crate::dominance::Standing;
use crate::history::{History, Trial};
use crate::problem::{Outcome, Problem, ProblemError};
use crate::strategies::registry::strategy;
use crate::strategy::{Strategy, Suggestion};

/// How often a strategy that proposes what is known is asked again before chance takes over.
const PATIENCE: usize = 16;

/// A configuration to be measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// The configuration.
    pub point: Point,
    /// Who proposed it.
    pub origin: String,
}

/// What an answer changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Whether the point is in the archive's front now.
    pub entered: bool,
    /// Points that left the front because of it.
    pub displaced: Vec<Point>,
    /// Hypervolume of the front now; see [`Archive::hypervolume`].
    pub hypervolume: f64,
}

/// A search in progress.
///
/// ```
/// use std::sync::Arc;
/// use paretune_search::{Objective, Outcome, Problem, Search};
/// use paretune_spaces::{Domain, Parameter, Space};
///
/// let mut space = Space::new();
/// space.parameters.push(Parameter::new("x", Domain::sizes(-10..=10)));
/// let space = Arc::new(space.compile()?);
/// let objectives = vec![Objective::minimize("square")];
/// let problem = Problem::new(space.clone(), vec!["square".into()], objectives, vec![])?;
/// let mut search = Search::new(problem, "nsga2", 0)?;
/// for _ in 0..21 {
///     for proposal in search.ask(1) {
///         let config = space.decode(&proposal.point);
///         let x = config.get("x").and_then(|v| v.as_f64()).unwrap_or(0.0);
///         search.tell(&proposal.point, Outcome::exact(vec![x * x]))?;
///     }
/// }
/// assert_eq!(search.archive().best_by(0).map(|e| e.values[0]), Some(0.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Search {
    history: History,
    strategy: Box<dyn Strategy>,
    rng: Xoshiro256PlusPlus,
    queue: VecDeque<Suggestion>,
    /// Origins of pending proposals, oldest first.
    origins: Vec<(Point, String)>,
}

impl Search {
    /// A search by the strategy called `name`. Same problem, seed and answers: same proposals.
    ///
    /// # Errors
    /// Where there is no such strategy.
    pub fn new(problem: Problem, name: &str, seed: u64) -> Result<Search, ProblemError> {
        Ok(Search::with_strategy(problem, strategy(name)?, seed))
    }

    /// A search by a strategy of one's own.
    #[must_use]
    pub fn with_strategy(problem: Problem, strategy: Box<dyn Strategy>, seed: u64) -> Search {
        Search {
            history: History::new(problem),
            strategy,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            queue: VecDeque::new(),
            origins: Vec::new(),
        }
    }

    /// Points to be proposed before the strategy is asked, in this order; known ones are skipped when their turn
    /// comes.
    ///
    /// # Errors
    /// Where a point is not valid; none is taken then.
    pub fn enqueue(&mut self, points: Vec<(Point, String)>) -> Result<(), ProblemError> {
        if points.iter().any(|(p, _)| !self.history.space().contains(p)) {
            return Err(ProblemError::Foreign);
        }
        self.queue.extend(points.into_iter().map(|(point, origin)| Suggestion { point, origin }));
        Ok(())
    }

    /// Up to `n` configurations to measure: none that was proposed or told before. Fewer where the space has no
    /// more.
    pub fn ask(&mut self, n: usize) -> Vec<Proposal> {
        let mut proposals = Vec::new();
        while proposals.len() < n {
            let Some(Suggestion { point, origin }) = self.next() else { break };
            self.history.expect(point.clone());
            self.origins.push((point.clone(), origin.clone()));
            proposals.push(Proposal { point, origin });
        }
        proposals
    }

    fn next(&mut self) -> Option<Suggestion> {
        while let Some(suggestion) = self.queue.pop_front() {
            if !self.history.is_known(&suggestion.point) {
                return Some(suggestion);
            }
        }
        if self.history.is_exhausted() {
            return None;
        }
        for _ in 0..PATIENCE {
            match self.strategy.ask(&self.history, &mut self.rng) {
                Some(s) if !self.history.is_known(&s.point) && self.history.space().contains(&s.point) => {
                    return Some(s);
                }
                Some(_) => {}
                None => break,
            }
        }
        let point = self.history.unknown(&mut self.rng)?;
        Some(Suggestion { point, origin: "random".to_owned() })
    }

    /// Answers a proposal, or tells of a configuration that is known from elsewhere.
    ///
    /// # Errors
    /// Where the point is not valid or was told before, or the numbers cannot be used (not finite, wrong count,
    /// not positive on a logarithmic scale); nothing changes then, and the proposal stays open.
    pub fn tell(&mut self, point: &Point, outcome: Outcome) -> Result<Told, ProblemError> {
        if !self.history.space().contains(point) {
            return Err(ProblemError::Foreign);
        }
        if self.history.is_told(point) {
            return Err(ProblemError::Again);
        }
        let judgement = self.history.problem().judge(&outcome)?;
        let values = match &outcome {
            Outcome::Measured { values, .. } => Some(values.clone()),
            _ => None,
        };
        let standing = values.as_ref().map(|_| Standing {
            objectives: judgement.objectives.iter().flatten().copied().collect(),
            violation: judgement.violations.iter().flatten().sum(),
        });
        let mut told = Told { entered: false, displaced: Vec::new(), hypervolume: 0.0 };
        if let (Some(values), Some(standing)) = (values, standing.clone()) {
            let violations = judgement.violations.iter().flatten().copied().collect();
            let trial = self.history.trials().len();
            let entry = Entry { trial, point: point.clone(), values, standing, violations };
            let change = self.history.archive_mut().insert(entry);
            told.entered = change.entered;
            told.displaced = change.displaced.into_iter().map(|e| e.point).collect();
        }
        told.hypervolume = self.history.archive().hypervolume();
        let origin = match self.origins.iter().position(|(p, _)| p == point) {
            Some(at) => self.origins.remove(at).1,
            None => "told".to_owned(),
        };
        let trial =
            Trial { point: point.clone(), origin, outcome, judgement, standing, entered: told.entered };
        self.history.push(trial);
        if let Some(trial) = self.history.trials().last() {
            self.strategy.tell(&self.history, trial);
        }
        Ok(told)
    }

    /// Takes back a proposal that will not be answered; it may be proposed again. Whether it was open.
    pub fn withdraw(&mut self, point: &Point) -> bool {
        self.origins.retain(|(p, _)| p != point);
        self.history.withdraw(point)
    }

    /// What was found.
    #[must_use]
    pub fn archive(&self) -> &Archive {
        self.history.archive()
    }

    /// Everything that was asked and answered.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The strategy's name.
    #[must_use]
    pub fn strategy(&self) -> &str {
        self.strategy.name()
    }
}
