//! Search problem: a space, its metrics, objectives and limits, and the judgement of answers.

use std::sync::Arc;

use paretune_spaces::CompiledSpace;

use crate::limit::Limit;
use crate::objective::Objective;

/// Answer to a proposal: measured values or the reason why there are none.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All metrics of the problem were measured.
    Measured {
        /// Value of each metric of the problem.
        values: Vec<f64>,
        /// Lower bound of each metric's true value.
        low: Vec<f64>,
        /// Upper bound of each metric's true value.
        high: Vec<f64>,
    },
    /// The configuration cannot be measured: it does not build, crashes, or gives wrong results.
    Failed {
        /// Reason for the failure, for people.
        reason: String,
    },
    /// The measurement was stopped since the configuration could no longer enter the archive.
    Dropped {
        /// Value of each metric that was known when the measurement stopped.
        values: Vec<Option<f64>>,
    },
}

impl Outcome {
    /// Creates an answer whose values are exact.
    #[must_use]
    pub fn exact(values: Vec<f64>) -> Outcome {
        Outcome::Measured { low: values.clone(), high: values.clone(), values }
    }
}

/// Scale that brings all objectives to the range of the hypervolume: 0 at `ideal` and 1 at
/// `reference`, in canonical values (see [`Objective::canonical`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// Canonical value of each objective that is mapped to 0.
    pub ideal: Vec<f64>,
    /// Canonical value of each objective that is mapped to 1. Worse values add no hypervolume.
    pub reference: Vec<f64>,
}

impl Normalization {
    /// Scales a canonical vector: 0 is ideal, 1 is the reference, and values may lie beyond either.
    pub fn apply(&self, canonical: &[f64]) -> Vec<f64> {
        let ends = self.ideal.iter().zip(&self.reference);
        canonical.iter().zip(ends).map(|(v, (i, r))| (v - i) / (r - i)).collect()
    }
}

/// Error in a problem or an answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProblemError {
    /// An objective or limit names a metric that is not measured.
    #[error("`{0}` is not a measured metric")]
    UnknownMetric(String),
    /// The number of objectives is not one to four, or an objective occurs twice.
    #[error("one to four different objectives are possible, not {0}")]
    Objectives(usize),
    /// A number is not finite, or not positive on a logarithmic scale.
    #[error("{what} cannot be {value}")]
    Number {
        /// Description of the wrong number.
        what: String,
        /// Value of the wrong number.
        value: f64,
    },
    /// A list of values does not fit the metrics.
    #[error("{found} values were told for {expected} metrics")]
    Length {
        /// Length of the list that was given.
        found: usize,
        /// Number of metrics of the problem.
        expected: usize,
    },
    /// The point is not valid in this space.
    #[error("the point is no configuration of the space")]
    Foreign,
    /// The point has been told before.
    #[error("the configuration has been told before")]
    Again,
    /// No strategy has this name.
    #[error("there is no strategy `{name}`; there are: {known}")]
    UnknownStrategy {
        /// Name that the caller requested.
        name: String,
        /// Names of all strategies, separated by commas.
        known: String,
    },
}

/// Space, the metrics that are measured of its configurations, objectives and limits.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Space in which the search looks.
    pub space: Arc<CompiledSpace>,
    metrics: Vec<String>,
    objectives: Vec<Objective>,
    limits: Vec<Limit>,
    /// Index of each objective's metric.
    objective_metric: Vec<usize>,
    /// Index of each limit's metric.
    limit_metric: Vec<usize>,
    normalization: Option<Normalization>,
}

/// Answer in canonical values, with violations of limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Canonical value of each objective, if known; smaller is better.
    pub objectives: Vec<Option<f64>>,
    /// Violation of each limit, if known; 0 if it is met.
    pub violations: Vec<Option<f64>>,
}

impl Problem {
    /// Creates a problem with objectives and limits over `metrics`, the names of all measured
    /// metrics.
    ///
    /// # Errors
    /// Returns an error if a name is unknown, a limit is not finite, or the number of objectives is
    /// not 1 to 4.
    pub fn new(
        space: Arc<CompiledSpace>,
        metrics: Vec<String>,
        objectives: Vec<Objective>,
        limits: Vec<Limit>,
    ) -> Result<Problem, ProblemError> {
        let find = |name: &str| {
            metrics
                .iter()
                .position(|m| m == name)
                .ok_or_else(|| ProblemError::UnknownMetric(name.to_owned()))
        };
        let objective_metric =
            objectives.iter().map(|o| find(&o.name)).collect::<Result<Vec<_>, _>>()?;
        let limit_metric = limits.iter().map(|l| find(&l.metric)).collect::<Result<Vec<_>, _>>()?;
        let mut distinct = objective_metric.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if !(1..=4).contains(&objectives.len()) || distinct.len() != objectives.len() {
            return Err(ProblemError::Objectives(objectives.len()));
        }
        if let Some(limit) = limits.iter().find(|l| !l.value.is_finite()) {
            let what = format!("the limit of {}", limit.metric);
            return Err(ProblemError::Number { what, value: limit.value });
        }
        Ok(Problem {
            space,
            metrics,
            objectives,
            limits,
            objective_metric,
            limit_metric,
            normalization: None,
        })
    }

    /// Fixes the scale of the hypervolume, which otherwise follows the values that have been seen.
    ///
    /// # Errors
    /// Returns an error if the ends are not finite, or the reference is not above the ideal.
    pub fn with_normalization(
        mut self,
        normalization: Normalization,
    ) -> Result<Problem, ProblemError> {
        let count = self.objectives.len();
        for ends in [&normalization.ideal, &normalization.reference] {
            if ends.len() != count {
                return Err(ProblemError::Length { found: ends.len(), expected: count });
            }
        }
        for (ideal, reference) in normalization.ideal.iter().zip(&normalization.reference) {
            if !ideal.is_finite() || !reference.is_finite() || ideal >= reference {
                return Err(ProblemError::Number {
                    what: "the reference".to_owned(),
                    value: *reference,
                });
            }
        }
        self.normalization = Some(normalization);
        Ok(self)
    }

    /// Returns the names of the measured metrics.
    #[must_use]
    pub fn metrics(&self) -> &[String] {
        &self.metrics
    }

    /// Returns the objectives of the problem.
    #[must_use]
    pub fn objectives(&self) -> &[Objective] {
        &self.objectives
    }

    /// Returns the limits of the problem.
    #[must_use]
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// Returns the fixed scale of the hypervolume, if there is one.
    #[must_use]
    pub fn normalization(&self) -> Option<&Normalization> {
        self.normalization.as_ref()
    }

    /// Checks an answer and returns it in canonical values.
    ///
    /// # Errors
    /// Returns an error if numbers are missing, not finite, or not positive for a logarithmic
    /// objective.
    pub fn judge(&self, outcome: &Outcome) -> Result<Judgement, ProblemError> {
        let unknown = Judgement {
            objectives: vec![None; self.objectives.len()],
            violations: vec![None; self.limits.len()],
        };
        match outcome {
            Outcome::Failed { .. } => Ok(unknown),
            Outcome::Measured { values, low, high } => {
                for list in [values, low, high] {
                    self.check(&list.iter().map(|v| Some(*v)).collect::<Vec<_>>())?;
                }
                let some = |list: &[f64]| list.iter().map(|v| Some(*v)).collect::<Vec<_>>();
                self.judge_parts(&some(values), &some(low), &some(high))
            }
            Outcome::Dropped { values } => {
                self.check(values)?;
                self.judge_parts(values, values, values)
            }
        }
    }

    fn check(&self, values: &[Option<f64>]) -> Result<(), ProblemError> {
        if values.len() != self.metrics.len() {
            return Err(ProblemError::Length { found: values.len(), expected: self.metrics.len() });
        }
        for (value, metric) in values.iter().zip(&self.metrics) {
            if let Some(value) = value.filter(|v| !v.is_finite()) {
                return Err(ProblemError::Number { what: metric.clone(), value });
            }
        }
        Ok(())
    }

    fn judge_parts(
        &self,
        values: &[Option<f64>],
        low: &[Option<f64>],
        high: &[Option<f64>],
    ) -> Result<Judgement, ProblemError> {
        let mut objectives = Vec::with_capacity(self.objectives.len());
        for (objective, metric) in self.objectives.iter().zip(&self.objective_metric) {
            objectives.push(match values[*metric] {
                None => None,
                Some(value) => {
                    Some(objective.canonical(value).ok_or_else(|| ProblemError::Number {
                        what: objective.name.clone(),
                        value,
                    })?)
                }
            });
        }
        let limits = self.limits.iter().zip(&self.limit_metric);
        let violations = limits.map(|(l, m)| Some(l.violation(low[*m]?, high[*m]?))).collect();
        Ok(Judgement { objectives, violations })
    }

    /// Returns the index of the metric of objective number `objective`.
    #[must_use]
    pub fn metric_of_objective(&self, objective: usize) -> usize {
        self.objective_metric[objective]
    }

    /// Returns the index of the metric of limit number `limit`.
    #[must_use]
    pub fn metric_of_limit(&self, limit: usize) -> usize {
        self.limit_metric[limit]
    }
}
