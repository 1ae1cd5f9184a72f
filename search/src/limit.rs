//! Limits on metrics, and how far a metric violates them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Required relation of a metric to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Relation {
    /// The metric must be less than the limit.
    #[serde(rename = "<", alias = "<=")]
    Less,
    /// The metric must be greater than the limit.
    #[serde(rename = ">", alias = ">=")]
    Greater,
}

impl Relation {
    /// Returns the sign that people and files write.
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Relation::Less => "<",
            Relation::Greater => ">",
        }
    }

    /// Returns whether `value` is strictly on the allowed side of `limit`.
    #[must_use]
    pub fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Relation::Less => value < limit,
            Relation::Greater => value > limit,
        }
    }

    /// Returns the end of the interval from `low` to `high` that is worse for the limit.
    #[must_use]
    pub fn bad_end(self, low: f64, high: f64) -> f64 {
        match self {
            Relation::Less => high,
            Relation::Greater => low,
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sign())
    }
}

/// Limit on a metric, which need not be an objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Name of a measured metric.
    pub metric: String,
    /// Side of the limit that is allowed.
    pub relation: Relation,
    /// Value of the limit in the metric's unit.
    pub value: f64,
}

impl Limit {
    /// Returns the violation of the limit, relative to its value (absolute if that is zero); 0 if
    /// it is met. The true value lies between `low` and `high`, and the worse end counts.
    #[must_use]
    pub fn violation(&self, low: f64, high: f64) -> f64 {
        let end = self.relation.bad_end(low, high);
        if self.relation.holds(end, self.value) {
            return 0.0;
        }
        let unit = if self.value == 0.0 { 1.0 } else { self.value.abs() };
        // A value that equals the limit violates it, by the smallest amount.
        ((end - self.value).abs() / unit).max(f64::EPSILON)
    }
}
