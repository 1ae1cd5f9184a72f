//! The list of all strategies: a new strategy is a file beside this one and an entry here.

use super::annealing::Annealing;
use super::evolve::Evolve;
use super::local::LocalSearch;
use super::nsga2::Nsga2;
use super::portfolio::Portfolio;
use super::quasi_random::QuasiRandom;
use super::random::RandomSearch;
use super::surrogate::{ModelKind, Surrogate};
use crate::problem::ProblemError;
use crate::strategy::Strategy;

/// Trials for which the Gaussian process of `auto` decides alone. On recorded spaces, no other
/// strategy earned more than the process while fewer trials were known.
const AUTO_OPENING_TRIALS: usize = 200;

type Constructor = fn() -> Box<dyn Strategy>;

/// A strategy that users can select by name.
pub struct Description {
    /// Name that users write to select it.
    pub name: &'static str,
    /// Description of one line for help texts.
    pub about: &'static str,
    build: Constructor,
}

/// All strategies, in the order of the help text.
pub const STRATEGIES: &[Description] = &[
    Description {
        name: "auto",
        about: "networks: additive models of a survey propose, trials verify; other spaces: a \
             portfolio of the others",
        build: || {
            let gaussian: Box<dyn Strategy> = Box::new(Surrogate::new(ModelKind::Gaussian));
            Box::new(Portfolio::new(
                "auto",
                AUTO_OPENING_TRIALS,
                vec![
                    (gaussian, 2.0),
                    (Box::new(Surrogate::new(ModelKind::Forest)), 1.0),
                    (Box::new(LocalSearch::default()), 0.5),
                ],
            ))
        },
    },
    Description {
        name: "quasi-random",
        about: "a scrambled Halton sequence: covers the space more evenly than random points",
        build: || Box::new(QuasiRandom::default()),
    },
    Description {
        name: "annealing",
        about: "simulated annealing, chain after chain",
        build: || Box::new(Annealing::default()),
    },
    Description {
        name: "local",
        about: "iterated local search; Pareto local search for several objectives",
        build: || Box::new(LocalSearch::default()),
    },
    Description {
        name: "random",
        about: "every valid configuration with the same probability",
        build: || Box::new(RandomSearch),
    },
    Description {
        name: "nsga2",
        about: "evolution of a small population: non-dominated sorting and crowding",
        build: || Box::new(Nsga2::default()),
    },
    Description {
        name: "evolve",
        about: "small steps from the front and from the first points: hundreds of parameters, \
             good first points",
        build: || Box::new(Evolve),
    },
    Description {
        name: "gaussian",
        about: "Gaussian processes choose where the expected gain is largest: few parameters, \
             costly trials",
        build: || Box::new(Surrogate::new(ModelKind::Gaussian)),
    },
    Description {
        name: "forest",
        about: "randomized trees choose where the expected gain is largest: many parameters",
        build: || Box::new(Surrogate::new(ModelKind::Forest)),
    },
];

/// Builds the strategy called `name`.
///
/// # Errors
/// Returns an error that lists all names if no strategy is called `name`.
pub fn strategy(name: &str) -> Result<Box<dyn Strategy>, ProblemError> {
    match STRATEGIES.iter().find(|d| d.name == name) {
        Some(description) => Ok((description.build)()),
        None => {
            let known: Vec<&str> = STRATEGIES.iter().map(|d| d.name).collect();
            Err(ProblemError::UnknownStrategy { name: name.to_owned(), known: known.join(", ") })
        }
    }
}
