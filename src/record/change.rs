//! Changes that people may make while a study runs.

use std::collections::BTreeSet;

use super::budget::Budget;
use super::limit::Limit;
use super::preference::Preference;

/// A change that the user requests from a running session.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// New limits. All measured configurations are judged again.
    Limits(Vec<Limit>),
    /// A new criterion of the best point: an objective's name or `knee`.
    Prefer(Preference),
    /// A new budget for the whole study.
    Budget(Budget),
    /// Ids of the points that must be among the finalists.
    Keep(BTreeSet<String>),
    /// Time every step of a point of the front, given by id. The result is an
    /// [`Event::Inspected`](crate::event::Event::Inspected).
    Inspect(String),
}
