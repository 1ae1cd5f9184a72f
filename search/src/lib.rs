//! Ask/tell search over [`paretune_spaces`]: one to four objectives, limits, failures, and an archive of what is
//! not dominated.
//!
//! A [`Problem`] says what is measured and wanted; [`Search`] proposes configurations and learns from answers.
//! How configurations are measured is not known here.

#![forbid(unsafe_code)]

pub mod acquisition;
pub mod archive;
pub mod dominance;
pub mod engine;
pub mod history;
pub mod hypervolume;
pub mod model;
pub mod problem;
pub mod replay;
pub mod strategies;
pub mod strategy;

pub use archive::{Archive, Entry};
pub use engine::{Proposal, Search, Told};
pub use history::{History, Trial};
pub use problem::{
    Direction, Judgement, Limit, Normalization, Objective, Outcome, Problem, ProblemError, Relation, Scale,
};
pub use strategies::registry::{Description, STRATEGIES, strategy};
pub use strategy::{Strategy, Suggestion};
