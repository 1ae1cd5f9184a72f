//! NSGA-II (Deb, Pratap, Agarwal and Meyarivan, 2002) as a steady state: every answer is put into the population
//! at once and the worst member leaves. Small, without doubles, limits by constraint-domination.

use paretune_spaces::Point;
use rand::{Rng, RngExt};

use crate::dominance::{Standing, crowding, select, sort};
use crate::history::{History, Trial};
use crate::strategy::{Strategy, Suggestion};

/// Variations that are tried before the search moves on to chance.
const ATTEMPTS: usize = 30;

#[derive(Clone, Debug)]
struct Member {
    point: Point,
    standing: Standing,
    /// Layer, then crowding: what tournaments compare.
    rank: usize,
    room: f64,
}

impl AsRef<Standing> for Member {
    fn as_ref(&self) -> &Standing {
        &self.standing
    }
}

/// A population that evolves.
#[derive(Clone, Debug)]
pub struct Nsga2 {
    size: usize,
    members: Vec<Member>,
    asked: usize,
}

impl Default for Nsga2 {
    fn default() -> Self {
        Nsga2::new(20)
    }
}

impl Nsga2 {
    /// With `size` members; the first generation is random.
    #[must_use]
    pub fn new(size: usize) -> Nsga2 {
        Nsga2 { size: size.max(2), members: Vec::new(), asked: 0 }
    }

    fn tournament(&self, rng: &mut dyn Rng) -> &Member {
        let one = &self.members[rng.random_range(0..self.members.len())];
        let two = &self.members[rng.random_range(0..self.members.len())];
        if (two.rank, -two.room) < (one.rank, -one.room) { two } else { one }
    }
}

impl Strategy for Nsga2 {
    fn name(&self) -> &str {
        "nsga2"
    }

    fn ask(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Suggestion> {
        self.asked += 1;
        let origin = self.name().to_owned();
        if self.asked <= self.size || self.members.len() < 2 {
            return Some(Suggestion { point: history.unknown(rng)?, origin });
        }
        let space = history.space();
        for attempt in 0..ATTEMPTS {
            let (a, b) = (self.tournament(rng).point.clone(), self.tournament(rng).point.clone());
            let mut child = if rng.random_bool(0.9) { space.crossover(&a, &b, rng) } else { a };
            let active = child.iter().filter(|v| **v != paretune_spaces::INACTIVE).count().max(1);
            // More of it where little variation leads only to what is known.
            let rate = (1.0 + attempt as f64 / 4.0) / active as f64;
            if rng.random_bool(0.8) || history.is_known(&child) {
                child = space.mutate(&child, rng, rate.min(0.5));
            }
            if !history.is_known(&child) {
                return Some(Suggestion { point: child, origin });
            }
        }
        None
    }

    fn tell(&mut self, _: &History, trial: &Trial) {
        let Some(standing) = trial.standing.clone() else { return };
        self.members.push(Member { point: trial.point.clone(), standing, rank: 0, room: 0.0 });
        if self.members.len() > self.size {
            let mut keep = select(&self.members, self.size);
            keep.sort_unstable();
            let mut number = 0;
            self.members.retain(|_| {
                number += 1;
                keep.binary_search(&(number - 1)).is_ok()
            });
        }
        for (rank, layer) in sort(&self.members).into_iter().enumerate() {
            let room = crowding(&self.members, &layer);
            for (at, room) in layer.into_iter().zip(room) {
                (self.members[at].rank, self.members[at].room) = (rank, room);
            }
        }
    }
}
