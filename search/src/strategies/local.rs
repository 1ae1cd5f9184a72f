//! Iterated local search, and Pareto local search for several objectives. All neighbors of a good
//! point are tried before the search moves on, and it restarts near the best point when nothing
//! improves. Sizes move to the next size only, while choices and switches take every other value.

use std::collections::{HashSet, VecDeque};

use paretune_spaces::{INACTIVE, Point};
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use crate::dominance::{Standing, dominates};
use crate::history::{History, Trial};
use crate::strategy::{Strategy, Suggestion};

/// Number of random points before the first descent.
const INITIAL_POINTS: usize = 5;
/// Number of perturbations that are tried to find an unknown point.
const MAX_ATTEMPTS: usize = 24;

/// Local search from points of the archive.
#[derive(Clone, Debug, Default)]
pub struct LocalSearch {
    /// Point whose neighbors are being tried.
    center: Option<(Point, Standing)>,
    /// Neighbors that are still to be tried.
    open: VecDeque<Point>,
    /// Points whose neighbors were all tried.
    done: HashSet<Point>,
}

impl LocalSearch {
    fn start(&mut self, history: &History, rng: &mut dyn Rng) -> bool {
        // With one objective the archive is the incumbent; with several, any point of the front
        // will do.
        let mut centers: Vec<(Point, Standing)> = history
            .archive()
            .front()
            .iter()
            .map(|e| (e.point.clone(), e.standing.clone()))
            .collect();
        if let Some(nearest) = history.archive().nearest_miss() {
            centers.push((nearest.point.clone(), nearest.standing.clone()));
        }
        centers.retain(|(p, _)| !self.done.contains(p));
        if centers.is_empty() {
            return false;
        }
        let center = centers.swap_remove(rng.random_range(0..centers.len()));
        self.move_to(center, history, rng);
        true
    }

    fn move_to(&mut self, center: (Point, Standing), history: &History, rng: &mut dyn Rng) {
        let mut near = history.space().adjacent(&center.0);
        near.retain(|p| !history.is_known(p));
        near.shuffle(rng);
        self.open = near.into();
        self.center = Some(center);
    }

    /// Perturbs the best point by a few steps, as the start of the next descent.
    fn perturb(&self, history: &History, rng: &mut dyn Rng) -> Option<Point> {
        let front = history.archive().front();
        let best = match history.archive().nearest_miss() {
            Some(nearest) => &nearest.point,
            None if front.is_empty() => return None,
            None => &front[rng.random_range(0..front.len())].point,
        };
        let active = best.iter().filter(|v| **v != INACTIVE).count().max(1) as f64;
        (0..MAX_ATTEMPTS).find_map(|attempt| {
            let steps = 1.5 + attempt as f64 / 8.0;
            let point = history.space().mutate(best, rng, (steps / active).min(0.7));
            (!history.is_known(&point)).then_some(point)
        })
    }
}

impl Strategy for LocalSearch {
    fn name(&self) -> &str {
        "local"
    }

    fn ask(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Suggestion> {
        let origin = self.name().to_owned();
        if history.known() < INITIAL_POINTS {
            return Some(Suggestion { point: history.unknown(rng)?, origin });
        }
        loop {
            while let Some(point) = self.open.pop_front() {
                if !history.is_known(&point) {
                    return Some(Suggestion { point, origin });
                }
            }
            if let Some((center, _)) = self.center.take() {
                self.done.insert(center);
            }
            if !self.start(history, rng) {
                return Some(Suggestion { point: self.perturb(history, rng)?, origin });
            }
        }
    }

    fn tell(&mut self, history: &History, trial: &Trial) {
        let (Some(standing), Some((_, center))) = (&trial.standing, &self.center) else { return };
        // First improvement: a neighbor that beats the center takes its place.
        let better =
            if standing.objectives.len() == 1 || standing.violation > 0.0 || center.violation > 0.0
            {
                standing.dominates(center)
            } else {
                trial.entered && dominates(&standing.objectives, &center.objectives)
            };
        if better {
            // No random numbers are available when answers come in: the order follows from the
            // points.
            let mut near = history.space().adjacent(&trial.point);
            near.retain(|p| !history.is_known(p));
            near.sort_by_key(|p| scramble(p, history.trials().len() as u64));
            self.open = near.into();
            self.center = Some((trial.point.clone(), standing.clone()));
        }
    }
}

/// Hashes a point, so that equal points and salts give equal numbers.
fn scramble(point: &Point, salt: u64) -> u64 {
    point.iter().fold(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15), |hash, v| {
        let mixed = (hash ^ u64::from(*v)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 29)
    })
}
