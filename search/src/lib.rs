//! Ask/tell search over [`paretune_spaces`]: one to four objectives, limits, failures, and an
//! archive of all points that are not dominated.
//!
//! A [`Problem`] describes the metrics and the wishes; a [`Search`] proposes configurations and
//! learns from answers. This crate does not know how configurations are measured.

#![forbid(unsafe_code)]

pub mod acquisition;
pub mod archive;
pub mod dominance;
pub mod engine;
pub mod history;
pub mod hypervolume;
pub mod limit;
pub mod model;
pub mod objective;
pub mod problem;
pub mod replay;
pub mod strategies;
pub mod strategy;

pub use archive::{Archive, Entry};
pub use engine::{Proposal, Search, Told};
pub use history::{History, Trial};
pub use limit::{Limit, Relation};
pub use objective::{Direction, Objective, Scale};
pub use problem::{Judgement, Normalization, Outcome, Problem, ProblemError};
pub use strategies::registry::{Description, STRATEGIES, strategy};
pub use strategy::{Strategy, Suggestion};
