//! History of a search: all proposals and answers, and the archive.

use std::collections::HashMap;

use paretune_spaces::{CompiledSpace, Point};
use rand::Rng;

use crate::archive::Archive;
use crate::dominance::Standing;
use crate::problem::{Judgement, Outcome, Problem};

/// Number of random draws before the space is searched in order for an unknown point.
const MAX_DRAWS: usize = 48;

/// Proposal together with its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Configuration that the strategy proposed.
    pub point: Point,
    /// Name of the strategy that proposed it.
    pub origin: String,
    /// Answer as it was told.
    pub outcome: Outcome,
    /// Answer in canonical values, as the problem judges it.
    pub judgement: Judgement,
    /// Objectives and total violation, if everything was measured.
    pub standing: Option<Standing>,
    /// Whether it entered the archive when it was told.
    pub entered: bool,
}

/// State of a known configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Pending,
    Told(usize),
}

/// All that a strategy may see of a search.
pub struct History {
    problem: Problem,
    trials: Vec<Trial>,
    /// Serves for look-ups only and is never iterated, so that results do not depend on its order.
    known: HashMap<Point, State>,
    pending: Vec<Point>,
    archive: Archive,
}

impl History {
    pub(crate) fn new(problem: Problem) -> History {
        let archive = Archive::new(&problem);
        History { problem, trials: Vec::new(), known: HashMap::new(), pending: Vec::new(), archive }
    }

    /// Returns the problem that is searched.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Returns the space that is searched.
    #[must_use]
    pub fn space(&self) -> &CompiledSpace {
        &self.problem.space
    }

    /// Returns all answers in the order in which they were told.
    #[must_use]
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// Returns the trial of a point, if it has been told.
    #[must_use]
    pub fn trial_of(&self, point: &Point) -> Option<&Trial> {
        match self.known.get(point) {
            Some(State::Told(number)) => Some(&self.trials[*number]),
            _ => None,
        }
    }

    /// Returns the proposals without an answer, oldest first.
    #[must_use]
    pub fn pending(&self) -> &[Point] {
        &self.pending
    }

    /// Returns the archive of the best points.
    #[must_use]
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Returns whether the point was told or is pending, so that it should not be proposed again.
    #[must_use]
    pub fn is_known(&self, point: &Point) -> bool {
        self.known.contains_key(point)
    }

    /// Returns the number of configurations that were told or are pending.
    #[must_use]
    pub fn known(&self) -> usize {
        self.known.len()
    }

    /// Returns whether every configuration of the space is known.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.space().len().is_some_and(|len| len <= self.known.len() as u128)
    }

    /// Draws a configuration that is not known; `None` if all are known.
    pub fn unknown(&self, rng: &mut dyn Rng) -> Option<Point> {
        let space = self.space();
        for draw in 0..MAX_DRAWS {
            // Half of the draws visit rare branches as often as crowded ones.
            let point = if draw % 2 == 0 { space.sample(rng) } else { space.sample_by_choice(rng) };
            if !self.is_known(&point) {
                return Some(point);
            }
        }
        self.unknown_evenly(rng)
    }

    /// Draws a configuration that is not known, almost evenly over the space; `None` if all are
    /// known.
    pub fn unknown_evenly(&self, rng: &mut dyn Rng) -> Option<Point> {
        let space = self.space();
        for _ in 0..MAX_DRAWS {
            let point = space.sample(rng);
            if !self.is_known(&point) {
                return Some(point);
            }
        }
        // Nearly everything is known, so the space is small enough to be numbered. Of more
        // successive points than are known, at least one is unknown.
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

    /// Withdraws a proposal that will not be answered. Returns whether it was pending.
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
        if self.known.insert(trial.point.clone(), State::Told(self.trials.len()))
            == Some(State::Pending)
        {
            self.pending.retain(|p| *p != trial.point);
        }
        self.trials.push(trial);
    }

    pub(crate) fn archive_mut(&mut self) -> &mut Archive {
        &mut self.archive
    }
}
