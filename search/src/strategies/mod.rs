//! One strategy, one file. To add one: a file here, and a line in [`crate::strategy::STRATEGIES`].

pub mod nsga2;
pub mod random;
