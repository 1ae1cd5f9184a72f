//! Everything that a strategy may look at: what was asked, what was answered, and the archive.

use std::collections::HashMap;

use paretune_spaces::{CompiledSpace, Point};
use rand::Rng;

use crate::archive::Archive;
use crate::dominance::Standing;
use crate::problem::{Judgement, Outcome, Problem};

/// Random draws before a search for an unknown point goes through the space in order.
const DRAWS: usize = 48;

/// One answered proposal.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The configuration.
    pub point: Point,
    /// Who proposed it.
    pub origin: String,
    /// The answer.
    pub outcome: Outcome,
    /// The answer in canonical terms.
    pub judgement: Judgement,
    /// Objectives and total violation, where everything was measured.
    pub standing: Option<Standing>,
    /// Whether it entered the archive when it was told.
    pub entered: bool,
}

/// State of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Pending,
    Told(usize),
}

/// What a strategy sees.
pub struct History {
    problem: Problem,
    trials: Vec<Trial>,
    /// Serves for look-ups only, never for iteration: results must not depend on its order.
    known: HashMap<Point, State>,
    pending: Vec<Point>,
    archive: Archive,
}

impl History {
    pub(crate) fn new(problem: Problem) -> History {
        let archive = Archive::new(&problem);
        History { problem, trials: Vec::new(), known: HashMap::new(), pending: Vec::new(), archive }
    }

    /// What is searched for.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Where to search.
    #[must_use]
    pub fn space(&self) -> &CompiledSpace {
        &self.problem.space
    }

    /// All answers, in the order in which they were told.
    #[must_use]
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// The answer for a point, if it has been told.
    #[must_use]
    pub fn trial_of(&self, point: &Point) -> Option<&Trial> {
        match self.known.get(point) {
            Some(State::Told(number)) => Some(&self.trials[*number]),
            _ => None,
        }
    }

    /// Proposals without an answer yet, oldest first.
    #[must_use]
    pub fn pending(&self) -> &[Point] {
        &self.pending
    }

    /// The archive.
    #[must_use]
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Whether the point was told or is pending: asking for it again would be a waste.
    #[must_use]
    pub fn is_known(&self, point: &Point) -> bool {
        self.known.contains_key(point)
    }

    /// How many configurations are known.
    #[must_use]
    pub fn known(&self) -> usize {
        self.known.len()
    }

    /// Whether every configuration of the space is known.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.space().len().is_some_and(|len| len <= self.known.len() as u128)
    }

    /// A configuration that is not known, at random; `None` where all are known.
    pub fn unknown(&self, rng: &mut dyn Rng) -> Option<Point> {
        let space = self.space();
        for draw in 0..DRAWS {
            // Half of the draws see rare branches as often as crowded ones.
            let point = if draw % 2 == 0 { space.sample(rng) } else { space.sample_by_choice(rng) };
            if !self.is_known(&point) {
                return Some(point);
            }
        }
        self.unknown_evenly(rng)
    }

    /// As [`History::unknown`], but (almost) evenly over the space.
    pub fn unknown_evenly(&self, rng: &mut dyn Rng) -> Option<Point> {
        let space = self.space();
        for _ in 0..DRAWS {
            let point = space.sample(rng);
            if !self.is_known(&point) {
                return Some(point);
            }
        }
        // Nearly everything is known, so the space is small enough to be numbered: among as many successive
        // points as are known and one more, one is not known.
        let len = space.len()?;
        let start = space.index(&space.sample(rng))?;
        (0..=self.known.len() as u128)
            .take_while(|i| *i < len)
            .filter_map(|i| space.at((start + i) % len))
            .find(|p| !self.is_known(p))
    }

    pub(crate) fn expect(&mut self, point: Point) {
        self.known.insert(point.clone(), State::Pending);
        self.pending.push(point);
    }

    /// Takes back a proposal that will not be answered.
    pub(crate) fn withdraw(&mut self, point: &Point) -> bool {
        let pending = self.known.get(point) == Some(&State::Pending);
        if pending {
            self.known.remove(point);
            self.pending.retain(|p| p != point);
        }
        pending
    }

    pub(crate) fn is_told(&self, point: &Point) -> bool {
        matches!(self.known.get(point), Some(State::Told(_)))
    }

    pub(crate) fn push(&mut self, trial: Trial) {
        if self.known.insert(trial.point.clone(), State::Told(self.trials.len())) == Some(State::Pending) {
            self.pending.retain(|p| *p != trial.point);
        }
        self.trials.push(trial);
    }

    pub(crate) fn archive_mut(&mut self) -> &mut Archive {
        &mut self.archive
    }
}
