//! Small steps from good points, for spaces of hundreds of parameters. Random points are worthless
//! there, and good ones (such as recipes of an expert) were told to begin with.
//!
//! A parent is drawn from the front by a tournament on one objective, mostly the first, so that the
//! search stays where points are useful. It is changed in a few places, or first crossed with
//! another parent. While no point meets the limits, parents are the trials with the smallest
//! violation.

use paretune_spaces::{INACTIVE, Point};
use rand::{Rng, RngExt};

use crate::history::{History, Trial};
use crate::strategy::{Strategy, Suggestion};

/// Number of variations that are tried before a random point is taken.
const MAX_ATTEMPTS: usize = 40;
/// Number of points in a tournament.
const TOURNAMENT_SIZE: usize = 3;
/// Number of parents while no point meets the limits.
const INFEASIBLE_PARENTS: usize = 8;

/// Evolution whose population is the archive.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evolve;

impl Evolve {
    /// Returns the points to vary, each with its canonical objectives.
    fn parents(history: &History) -> Vec<(&Point, &[f64])> {
        let front = history.archive().front();
        if !front.is_empty() {
            return front
                .iter()
                .map(|entry| (&entry.point, entry.standing.objectives.as_slice()))
                .collect();
        }
        let mut measured: Vec<_> = history
            .trials()
            .iter()
            .filter_map(|trial| Some((trial, trial.standing.as_ref()?)))
            .collect();
        measured.sort_by(|(_, left), (_, right)| left.violation.total_cmp(&right.violation));
        measured.truncate(INFEASIBLE_PARENTS);
        measured
            .into_iter()
            .map(|(trial, standing)| (&trial.point, standing.objectives.as_slice()))
            .collect()
    }
}

impl Strategy for Evolve {
    fn name(&self) -> &str {
        "evolve"
    }

    fn ask(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Suggestion> {
        let origin = self.name().to_owned();
        let parents = Self::parents(history);
        let Some((_, first)) = parents.first() else {
            return Some(Suggestion { point: history.unknown(rng)?, origin });
        };
        let objectives = first.len();
        let space = history.space();
        let draw = |rng: &mut dyn Rng| {
            let objective = if rng.random_bool(0.7) { 0 } else { rng.random_range(0..objectives) };
            (0..TOURNAMENT_SIZE)
                .map(|_| parents[rng.random_range(0..parents.len())])
                .min_by(|(_, left), (_, right)| left[objective].total_cmp(&right[objective]))
                .map(|(point, _)| point)
        };
        for attempt in 0..MAX_ATTEMPTS {
            let parent = draw(rng)?;
            let mut child = parent.clone();
            if rng.random_bool(0.4) {
                child = space.crossover(&child, draw(rng)?, rng);
            }
            let active = child.iter().filter(|value| **value != INACTIVE).count().max(1);
            // There is one change, now and then up to sixteen, and more if small steps lead only to
            // known points.
            let changes =
                f64::from(1_u32 << rng.random_range(0..5_u32)) * (1.0 + attempt as f64 / 8.0);
            child = space.mutate(&child, rng, (changes / active as f64).min(0.5));
            if !history.is_known(&child) {
                return Some(Suggestion { point: child, origin });
            }
        }
        None
    }

    fn tell(&mut self, _: &History, _: &Trial) {}
}
