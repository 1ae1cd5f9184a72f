//! The trait that every strategy implements, and what a strategy answers.

use paretune_spaces::Point;
use rand::Rng;

use crate::history::{History, Trial};

/// Proposal of a strategy for the next trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggestion {
    /// Configuration that is worth measuring.
    pub point: Point,
    /// Name of the strategy that proposes it, or of a part of that strategy.
    pub origin: String,
}

/// Decides which configuration to measure next. A strategy's state follows from its seed, from the
/// questions that it was asked and from the answers that it was told, and from nothing else.
pub trait Strategy: Send {
    /// Returns the short name that users write.
    fn name(&self) -> &str;

    /// Proposes the next point, which should not be known to the history. `None` means that the
    /// strategy has no proposal and that a random unknown point will do.
    fn ask(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Suggestion>;

    /// Learns from the last trial of the history, whoever proposed it.
    fn tell(&mut self, history: &History, trial: &Trial);
}
