//! Uniform sampling of valid configurations: the baseline for all other strategies.

use rand::Rng;

use crate::history::{History, Trial};
use crate::strategy::{Strategy, Suggestion};

/// Strategy that draws configurations without regard to answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomSearch;

impl Strategy for RandomSearch {
    fn name(&self) -> &str {
        "random"
    }

    fn ask(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Suggestion> {
        let point = history.unknown_evenly(rng)?;
        Some(Suggestion { point, origin: self.name().to_owned() })
    }

    fn tell(&mut self, _: &History, _: &Trial) {}
}
