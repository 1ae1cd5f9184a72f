//! Model-based search: predict every objective, limit and failure from the trials so far, and
//! measure next the configuration with the largest expected gain.
//!
//! The gain is expected improvement for one objective and expected hypervolume improvement for
//! several, times the probability that limits are met and that the configuration works at all
//! (Gardner et al., 2014). While nothing feasible is known, the probabilities alone decide.
//! Configurations that fail without an error (see [`cliff`](crate::model::cliff::cliff)) count as
//! not working.

mod fit;

use std::collections::{HashSet, VecDeque};

use paretune_spaces::Point;
use rand::{Rng, RngExt};

use self::fit::Fitter;
use super::candidates::{distance, explore, some_neighbors, top};
use crate::history::{History, Trial};
use crate::model::{Features, Model};
use crate::strategy::{Strategy, Suggestion};

/// Kind of model that predicts metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Gaussian process, for few data and few parameters.
    Gaussian,
    /// Randomized trees, for many parameters.
    Forest,
}

/// Number of configurations up to which a space is scored as a whole.
const MAX_ENUMERATED_SPACE: u128 = 1_000;
/// Number of candidates from which the climb to better ones goes on.
const CLIMB_WIDTH: usize = 4;
/// Number of steps of the climb.
const CLIMB_STEPS: usize = 6;
/// Number of trials from which on, with several objectives, neighbors of the front are tried.
const FRONT_NEIGHBORS_FROM: usize = 40;
/// Number of trials from one neighbor of the front to the next.
const FRONT_NEIGHBORS_EVERY: usize = 3;

/// Strategy that asks a model which configuration to measure next.
pub struct Surrogate {
    kind: ModelKind,
    name: &'static str,
    fitter: Option<Fitter>,
    queue: VecDeque<Point>,
}

impl Surrogate {
    /// Creates a search with a model of one kind.
    #[must_use]
    pub fn new(kind: ModelKind) -> Surrogate {
        let name = match kind {
            ModelKind::Gaussian => "gaussian",
            ModelKind::Forest => "forest",
        };
        Surrogate { kind, name, fitter: None, queue: VecDeque::new() }
    }

    /// Returns the number of points that are spread over the space before a model is fitted.
    fn initial_points(features: &Features) -> usize {
        (4 + features.relevant.len() / 2).clamp(5, 16)
    }

    /// Draws an unknown point that is far from all known ones.
    fn spread(history: &History, features: &Features, rng: &mut dyn Rng) -> Option<Point> {
        let known = || history.trials().iter().map(|t| &t.point).chain(history.pending());
        let mut best: Option<(f64, Point)> = None;
        for _ in 0..24 {
            let point = history.unknown(rng)?;
            let nearest =
                known().map(|k| distance(features, k, &point)).fold(f64::INFINITY, f64::min);
            if best.as_ref().is_none_or(|(d, _)| nearest > *d) {
                best = Some((nearest, point));
            }
        }
        best.map(|(_, point)| point)
    }

    /// Draws a neighbor of a point of the front that probably works, whatever the models of the
    /// objectives predict for it: late in a search, neighbors differ by less than models can tell.
    fn front_neighbor(
        history: &History,
        validity: Option<&dyn Model>,
        rng: &mut dyn Rng,
    ) -> Option<Point> {
        let front = history.archive().front();
        if front.is_empty() {
            return None;
        }
        let leader = &front[rng.random_range(0..front.len())].point;
        let mut near = some_neighbors(history.space(), leader, 40, rng);
        near.retain(|point| {
            !history.is_known(point)
                && validity.is_none_or(|validity| validity.predict(point).mean > 0.5)
        });
        if near.is_empty() { None } else { Some(near.swap_remove(rng.random_range(0..near.len()))) }
    }

    /// Chooses the next point by the models, and queues further points late in a search.
    fn decide(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Point> {
        let fitter = self.fitter.get_or_insert_with(|| Fitter::new(self.kind, history.space()));
        let fitted = fitter.fit(history, rng)?;
        let trials = history.trials().len();
        if fitted.improvement.is_some()
            && trials >= FRONT_NEIGHBORS_FROM
            && trials.is_multiple_of(FRONT_NEIGHBORS_EVERY)
            && let Some(point) = Self::front_neighbor(history, fitted.validity.as_deref(), rng)
        {
            return Some(point);
        }
        let space = history.space();
        let mut seen: HashSet<Point> = HashSet::new();
        let mut scored: Vec<(f64, Point)> = Vec::new();
        let consider = |point: Point, seen: &mut HashSet<Point>, scored: &mut Vec<(f64, Point)>| {
            if !history.is_known(&point) && seen.insert(point.clone()) {
                scored.push((fitted.score(&point), point));
            }
        };
        match space.len() {
            // The space is small enough to score all of it.
            Some(len) if len <= MAX_ENUMERATED_SPACE => {
                (0..len)
                    .filter_map(|i| space.at(i))
                    .for_each(|p| consider(p, &mut seen, &mut scored));
            }
            _ => explore(history, rng, &mut |p| consider(p, &mut seen, &mut scored)),
        }
        // The search climbs from the most promising candidates.
        let mut frontier: Vec<Point> = top(&mut scored, CLIMB_WIDTH);
        for _ in 0..CLIMB_STEPS {
            let before = scored.len();
            for point in &frontier {
                for near in some_neighbors(space, point, 40, rng) {
                    consider(near, &mut seen, &mut scored);
                }
            }
            let next = top(&mut scored, CLIMB_WIDTH);
            if next == frontier || scored.len() == before {
                break;
            }
            frontier = next;
        }
        // Later decisions matter less one by one. Taking several at once bounds the cost of a
        // trial.
        let batch = (history.trials().len() / 150).clamp(1, 128);
        let mut chosen = top(&mut scored, batch);
        if chosen.is_empty() {
            return None;
        }
        let first = chosen.remove(0);
        self.queue.extend(chosen);
        Some(first)
    }
}

impl Strategy for Surrogate {
    fn name(&self) -> &str {
        self.name
    }

    fn ask(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Suggestion> {
        let origin = self.name().to_owned();
        let fitter = self.fitter.get_or_insert_with(|| Fitter::new(self.kind, history.space()));
        let features = &fitter.features;
        let measured = history.trials().iter().filter(|t| t.standing.is_some()).take(3).count();
        if history.known() < Self::initial_points(features) || measured < 3 {
            return Some(Suggestion { point: Self::spread(history, features, rng)?, origin });
        }
        while let Some(point) = self.queue.pop_front() {
            if !history.is_known(&point) {
                return Some(Suggestion { point, origin });
            }
        }
        let point = self.decide(history, rng)?;
        Some(Suggestion { point, origin })
    }

    fn tell(&mut self, _: &History, _: &Trial) {}
}
