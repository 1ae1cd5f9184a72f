//! Quasi-random search: a Halton sequence over the parameters, so that few points cover the space
//! evenly.
//!
//! Every parameter has its own prime base and a random shift. Its coordinate picks among the values
//! that earlier decisions leave possible. With many parameters the larger bases cover the space no
//! better than random points, and no worse.

use paretune_spaces::Point;
use rand::{Rng, RngExt};

use crate::history::{History, Trial};
use crate::strategy::{Strategy, Suggestion};

/// Number of sequence elements that are tried before the engine takes a random point.
const MAX_ATTEMPTS: usize = 64;

/// Halton sequence with a random shift of each coordinate.
#[derive(Clone, Debug, Default)]
pub struct QuasiRandom {
    index: u64,
    bases: Vec<u64>,
    /// Random shift of each parameter's coordinate (Cranley and Patterson, 1976).
    shifts: Vec<f64>,
}

fn primes(count: usize) -> Vec<u64> {
    let mut primes: Vec<u64> = Vec::with_capacity(count);
    let mut candidate = 2;
    while primes.len() < count {
        if primes
            .iter()
            .take_while(|p| **p * **p <= candidate)
            .all(|p| !candidate.is_multiple_of(*p))
        {
            primes.push(candidate);
        }
        candidate += 1;
    }
    primes
}

impl QuasiRandom {
    fn element(&mut self, history: &History) -> Point {
        self.index += 1;
        let index = self.index;
        history.space().choose(|parameter, fractions| {
            let raw = crate::acquisition::radical_inverse(index, self.bases[parameter]);
            let coordinate = (raw + self.shifts[parameter]).fract();
            fractions.iter().position(|s| coordinate < *s).unwrap_or(fractions.len() - 1)
        })
    }
}

impl Strategy for QuasiRandom {
    fn name(&self) -> &str {
        "quasi-random"
    }

    fn ask(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Suggestion> {
        if self.bases.is_empty() {
            let count = history.space().parameters().len().max(1);
            self.bases = primes(count);
            self.shifts = (0..count).map(|_| rng.random()).collect();
        }
        let point =
            (0..MAX_ATTEMPTS).map(|_| self.element(history)).find(|p| !history.is_known(p))?;
        Some(Suggestion { point, origin: self.name().to_owned() })
    }

    fn tell(&mut self, _: &History, _: &Trial) {}
}

#[cfg(test)]
mod tests {
    #[test]
    fn first_primes() {
        assert_eq!(super::primes(7), [2, 3, 5, 7, 11, 13, 17]);
    }
}
