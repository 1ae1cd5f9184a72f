//! One strategy, one file. To add one: a file here, and a line in [`crate::strategy::STRATEGIES`].

pub mod annealing;
pub mod evolve;
pub mod local;
pub mod nsga2;
pub mod portfolio;
pub mod quasi_random;
pub mod random;
pub mod surrogate;
