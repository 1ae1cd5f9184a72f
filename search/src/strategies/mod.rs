//! One file per strategy, and the registry that lists them.

pub mod annealing;
mod candidates;
pub mod evolve;
pub mod local;
pub mod nsga2;
pub mod portfolio;
pub mod quasi_random;
pub mod random;
pub mod registry;
pub mod surrogate;
