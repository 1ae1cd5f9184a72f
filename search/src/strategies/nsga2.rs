//! NSGA-II (Deb, Pratap, Agarwal and Meyarivan, 2002) as a steady state: every answer joins the
//! population at once and the worst member leaves. The population is small and has no duplicates;
//! limits are met by constraint-domination.

use paretune_spaces::Point;
use rand::{Rng, RngExt};

use crate::dominance::{Standing, crowding, select, sort};
use crate::history::{History, Trial};
use crate::strategy::{Strategy, Suggestion};

/// Number of variations that are tried before a random point is taken.
const MAX_ATTEMPTS: usize = 30;

#[derive(Clone, Debug)]
struct Member {
    point: Point,
    standing: Standing,
    /// Layer and crowding distance, which tournaments compare in this order.
    rank: usize,
    crowding: f64,
}

impl AsRef<Standing> for Member {
    fn as_ref(&self) -> &Standing {
        &self.standing
    }
}

/// Population of an evolutionary search.
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
    /// Creates a population of `size` members, the first generation of which is random.
    #[must_use]
    pub fn new(size: usize) -> Nsga2 {
        Nsga2 { size: size.max(2), members: Vec::new(), asked: 0 }
    }

    fn tournament(&self, rng: &mut dyn Rng) -> &Member {
        let one = &self.members[rng.random_range(0..self.members.len())];
        let two = &self.members[rng.random_range(0..self.members.len())];
        if (two.rank, -two.crowding) < (one.rank, -one.crowding) { two } else { one }
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
        for attempt in 0..MAX_ATTEMPTS {
            let (a, b) = (self.tournament(rng).point.clone(), self.tournament(rng).point.clone());
            let mut child = if rng.random_bool(0.9) { space.crossover(&a, &b, rng) } else { a };
            let active = child.iter().filter(|v| **v != paretune_spaces::INACTIVE).count().max(1);
            // The rate rises if small variations lead only to known points.
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
        self.members.push(Member { point: trial.point.clone(), standing, rank: 0, crowding: 0.0 });
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
            let crowding = crowding(&self.members, &layer);
            for (at, crowding) in layer.into_iter().zip(crowding) {
                (self.members[at].rank, self.members[at].crowding) = (rank, crowding);
            }
        }
    }
}
