//! Ask/tell engine around a strategy. It never proposes a configuration twice, checks every answer,
//! and proposes seed points first.

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

/// Number of times that a strategy is asked again after proposing a known point, before a random
/// point is taken.
const MAX_REPEATED_ASKS: usize = 16;

/// Configuration that is to be measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Point of the space to be measured.
    pub point: Point,
    /// Name of the strategy that proposed it.
    pub origin: String,
}

/// Effect of an answer on the archive.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Whether the point is in the front now.
    pub entered: bool,
    /// Points that left the front because of the answer.
    pub displaced: Vec<Point>,
    /// Hypervolume of the front after the answer; see [`Archive::hypervolume`].
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
    /// Creates a search by the strategy called `name`. Equal problems, seeds and answers lead to
    /// equal proposals.
    ///
    /// # Errors
    /// Returns an error if no strategy has this name.
    pub fn new(problem: Problem, name: &str, seed: u64) -> Result<Search, ProblemError> {
        Ok(Search::with_strategy(problem, strategy(name)?, seed))
    }

    /// Creates a search by a strategy of the caller.
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

    /// Adds points that are proposed in this order before the strategy is asked. Points that are
    /// known when their turn comes are skipped.
    ///
    /// # Errors
    /// Returns an error if a point is not valid; no point is added then.
    pub fn enqueue(&mut self, points: Vec<(Point, String)>) -> Result<(), ProblemError> {
        if points.iter().any(|(p, _)| !self.history.space().contains(p)) {
            return Err(ProblemError::Foreign);
        }
        self.queue.extend(points.into_iter().map(|(point, origin)| Suggestion { point, origin }));
        Ok(())
    }

    /// Proposes up to `n` configurations to measure, none of which was proposed or told before.
    /// There are fewer once the space is exhausted.
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
        for _ in 0..MAX_REPEATED_ASKS {
            match self.strategy.ask(&self.history, &mut self.rng) {
                Some(s)
                    if !self.history.is_known(&s.point)
                        && self.history.space().contains(&s.point) =>
                {
                    return Some(s);
                }
                Some(_) => {}
                None => break,
            }
        }
        let point = self.history.unknown(&mut self.rng)?;
        Some(Suggestion { point, origin: "random".to_owned() })
    }

    /// Answers a proposal, or tells about a configuration that was measured elsewhere.
    ///
    /// # Errors
    /// Returns an error if the point is not valid or was told before, or if the values cannot be
    /// used (not finite, wrong count, not positive on a logarithmic scale). Nothing changes then,
    /// and the proposal stays open.
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
        let trial = Trial {
            point: point.clone(),
            origin,
            outcome,
            judgement,
            standing,
            entered: told.entered,
        };
        self.history.push(trial);
        if let Some(trial) = self.history.trials().last() {
            self.strategy.tell(&self.history, trial);
        }
        Ok(told)
    }

    /// Withdraws a proposal that will not be answered, so that it may be proposed again. Returns
    /// whether it was open.
    pub fn withdraw(&mut self, point: &Point) -> bool {
        self.origins.retain(|(p, _)| p != point);
        self.history.withdraw(point)
    }

    /// Returns the archive of the best points.
    #[must_use]
    pub fn archive(&self) -> &Archive {
        self.history.archive()
    }

    /// Returns all proposals and answers.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Returns the name of the strategy.
    #[must_use]
    pub fn strategy(&self) -> &str {
        self.strategy.name()
    }
}
