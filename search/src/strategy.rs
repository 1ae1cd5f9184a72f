//! What a strategy is, and the one place that lists them all.

use paretune_spaces::Point;
use rand::Rng;

use crate::history::{History, Trial};
use crate::problem::ProblemError;
use crate::strategies::annealing::Annealing;
use crate::strategies::evolve::Evolve;
use crate::strategies::local::LocalSearch;
use crate::strategies::nsga2::Nsga2;
use crate::strategies::portfolio::Portfolio;
use crate::strategies::quasi_random::QuasiRandom;
use crate::strategies::random::RandomSearch;
use crate::strategies::surrogate::{Kind, Surrogate};

/// A configuration worth trying.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggestion {
    /// The configuration.
    pub point: Point,
    /// Who proposes it: the strategy's name, or a part of it.
    pub origin: String,
}

/// Decides what to try next. Its state follows from its seed and from what it was asked and told, nothing else.
pub trait Strategy: Send {
    /// A short name, as users write it.
    fn name(&self) -> &str;

    /// The next point, which should not be known to the history; `None` where the strategy has no idea, and a
    /// random unknown point will do.
    fn ask(&mut self, history: &History, rng: &mut dyn Rng) -> Option<Suggestion>;

    /// An answer: the last trial of the history, proposed by this strategy or by anybody else.
    fn tell(&mut self, history: &History, trial: &Trial);
}

type Constructor = fn() -> Box<dyn Strategy>;

/// A strategy that users can name.
pub struct Description {
    /// As users write it.
    pub name: &'static str,
    /// One line for help texts.
    pub about: &'static str,
    make: Constructor,
}

/// All strategies.
pub const STRATEGIES: &[Description] = &[
    Description {
        name: "auto",
        about: "networks: composed from a survey of layers and channels, then verified; else a team of the others",
        make: || {
            let gaussian: Box<dyn Strategy> = Box::new(Surrogate::new(Kind::Gaussian));
            Box::new(Portfolio::new(
                "auto",
                // On recorded spaces nobody else earned more than the process as long as so little was known.
                200,
                vec![
                    (gaussian, 2.0),
                    (Box::new(Surrogate::new(Kind::Forest)), 1.0),
                    (Box::new(LocalSearch::default()), 0.5),
                ],
            ))
        },
    },
    Description {
        name: "quasi-random",
        about: "a scrambled Halton sequence: covers the space more evenly than chance",
        make: || Box::new(QuasiRandom::default()),
    },
    Description {
        name: "annealing",
        about: "simulated annealing, chain after chain",
        make: || Box::new(Annealing::default()),
    },
    Description {
        name: "local",
        about: "iterated local search; Pareto local search for several objectives",
        make: || Box::new(LocalSearch::default()),
    },
    Description {
        name: "random",
        about: "every valid configuration with the same probability",
        make: || Box::new(RandomSearch),
    },
    Description {
        name: "nsga2",
        about: "evolution of a small population: non-dominated sorting and crowding",
        make: || Box::new(Nsga2::default()),
    },
    Description {
        name: "evolve",
        about: "small steps from the front and from what was tried first: hundreds of parameters, good first points",
        make: || Box::new(Evolve),
    },
    Description {
        name: "gaussian",
        about: "Gaussian processes choose where the expected gain is largest: few parameters, costly trials",
        make: || Box::new(Surrogate::new(Kind::Gaussian)),
    },
    Description {
        name: "forest",
        about: "the same with randomized trees, for many parameters",
        make: || Box::new(Surrogate::new(Kind::Forest)),
    },
];

/// The strategy called `name`.
///
/// # Errors
/// Where there is none; the message lists all.
pub fn strategy(name: &str) -> Result<Box<dyn Strategy>, ProblemError> {
    match STRATEGIES.iter().find(|d| d.name == name) {
        Some(description) => Ok((description.make)()),
        None => {
            let known: Vec<&str> = STRATEGIES.iter().map(|d| d.name).collect();
            Err(ProblemError::UnknownStrategy { name: name.to_owned(), known: known.join(", ") })
        }
    }
}
