//! What is searched for: metrics, objectives, limits, and how an answer is judged.

use std::fmt;
use std::sync::Arc;

use paretune_spaces::CompiledSpace;
use serde::{Deserialize, Serialize};

/// Whether less or more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Less is better.
    Minimize,
    /// More is better.
    Maximize,
}

/// On which scale differences of an objective are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Differences count.
    Linear,
    /// Ratios count; values must be positive.
    Log,
}

/// One thing to be good at.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// A measured metric.
    pub name: String,
    /// Whether less or more is better.
    pub direction: Direction,
    /// How differences are compared.
    pub scale: Scale,
}

impl Objective {
    /// Less of `name` is better.
    pub fn minimize(name: impl Into<String>) -> Objective {
        Objective { name: name.into(), direction: Direction::Minimize, scale: Scale::Linear }
    }

    /// More of `name` is better.
    pub fn maximize(name: impl Into<String>) -> Objective {
        Objective { name: name.into(), direction: Direction::Maximize, scale: Scale::Linear }
    }

    /// The same on a logarithmic scale.
    #[must_use]
    pub fn log(mut self) -> Objective {
        self.scale = Scale::Log;
        self
    }

    /// The value as the search sees it: less is better, differences count. `None` where the value is not
    /// finite, or not positive on a logarithmic scale.
    #[must_use]
    pub fn canonical(&self, value: f64) -> Option<f64> {
        let scaled = match self.scale {
            Scale::Linear => value,
            Scale::Log if value > 0.0 => value.ln(),
            Scale::Log => return None,
        };
        let signed = if self.direction == Direction::Minimize { scaled } else { -scaled };
        signed.is_finite().then_some(signed)
    }
}

/// How a metric must relate to a limit.
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

/// A limit on a metric, which need not be an objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// A measured metric.
    pub metric: String,
    /// The side of the limit that is allowed.
    pub relation: Relation,
    /// In the metric's unit.
    pub value: f64,
}

impl Limit {
    /// By how much a metric misses this limit, relative to the limit (absolute, where that is zero); 0 where it is met.
    /// `low` and `high` bound what the metric may truly be: the bad end counts.
    #[must_use]
    pub fn violation(&self, low: f64, high: f64) -> f64 {
        let end = self.relation.bad_end(low, high);
        if self.relation.holds(end, self.value) {
            return 0.0;
        }
        let unit = if self.value == 0.0 { 1.0 } else { self.value.abs() };
        // A value right at the limit is not inside, by however little.
        ((end - self.value).abs() / unit).max(f64::EPSILON)
    }
}

/// The answer to a proposal.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Everything was measured.
    Measured {
        /// Per metric of the problem.
        values: Vec<f64>,
        /// Per metric a lower bound of what it may truly be.
        low: Vec<f64>,
        /// Per metric an upper bound.
        high: Vec<f64>,
    },
    /// It cannot be measured: does not build, crashes, is wrong.
    Failed {
        /// For people.
        reason: String,
    },
    /// Given up because it was surely not going to enter the archive; what was seen until then.
    Dropped {
        /// Per metric, where known.
        values: Vec<Option<f64>>,
    },
}

impl Outcome {
    /// Values without uncertainty.
    #[must_use]
    pub fn exact(values: Vec<f64>) -> Outcome {
        Outcome::Measured { low: values.clone(), high: values.clone(), values }
    }
}

/// How objectives are brought to one scale for the hypervolume: 0 at `ideal`, 1 at `reference`, in canonical
/// units (see [`Objective::canonical`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// Per objective what counts as 0.
    pub ideal: Vec<f64>,
    /// Per objective what counts as 1; worse is not seen.
    pub reference: Vec<f64>,
}

impl Normalization {
    /// A canonical vector between 0 (ideal) and 1 (reference); beyond either end where it is.
    pub fn apply(&self, canonical: &[f64]) -> Vec<f64> {
        let ends = self.ideal.iter().zip(&self.reference);
        canonical.iter().zip(ends).map(|(v, (i, r))| (v - i) / (r - i)).collect()
    }
}

/// What is wrong with a problem or an answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProblemError {
    /// An objective or limit names something that is not measured.
    #[error("`{0}` is not a measured metric")]
    UnknownMetric(String),
    /// There must be one to four objectives, each once.
    #[error("one to four different objectives are possible, not {0}")]
    Objectives(usize),
    /// A number that is not finite, or not positive where a logarithm is to be taken.
    #[error("{what} cannot be {value}")]
    Number {
        /// Which number.
        what: String,
        /// What it is.
        value: f64,
    },
    /// A list does not fit the metrics.
    #[error("{found} values were told for {expected} metrics")]
    Length {
        /// Told.
        found: usize,
        /// Needed.
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
        /// What was asked for.
        name: String,
        /// All of them.
        known: String,
    },
}

/// A space, what is measured of each of its configurations, and what is wanted of it.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Where to search.
    pub space: Arc<CompiledSpace>,
    metrics: Vec<String>,
    objectives: Vec<Objective>,
    limits: Vec<Limit>,
    /// Per objective its metric.
    objective_metric: Vec<usize>,
    /// Per limit its metric.
    limit_metric: Vec<usize>,
    normalization: Option<Normalization>,
}

/// A judged answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Canonical objectives, where known: less is better.
    pub objectives: Vec<Option<f64>>,
    /// Per limit by how much it is missed, where known; 0 where met.
    pub violations: Vec<Option<f64>>,
}

impl Problem {
    /// Objectives and limits over `metrics`, the names of what is measured.
    ///
    /// # Errors
    /// Where a name is unknown, a limit is not finite, or the number of objectives is not 1 to 4.
    pub fn new(
        space: Arc<CompiledSpace>,
        metrics: Vec<String>,
        objectives: Vec<Objective>,
        limits: Vec<Limit>,
    ) -> Result<Problem, ProblemError> {
        let find = |name: &str| {
            metrics.iter().position(|m| m == name).ok_or_else(|| ProblemError::UnknownMetric(name.to_owned()))
        };
        let objective_metric = objectives.iter().map(|o| find(&o.name)).collect::<Result<Vec<_>, _>>()?;
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

    /// With a fixed scale for the hypervolume instead of one that follows what has been seen.
    ///
    /// # Errors
    /// Where the ends are not finite, or reference is not above ideal.
    pub fn with_normalization(mut self, normalization: Normalization) -> Result<Problem, ProblemError> {
        let count = self.objectives.len();
        for ends in [&normalization.ideal, &normalization.reference] {
            if ends.len() != count {
                return Err(ProblemError::Length { found: ends.len(), expected: count });
            }
        }
        for (ideal, reference) in normalization.ideal.iter().zip(&normalization.reference) {
            if !ideal.is_finite() || !reference.is_finite() || ideal >= reference {
                return Err(ProblemError::Number { what: "the reference".to_owned(), value: *reference });
            }
        }
        self.normalization = Some(normalization);
        Ok(self)
    }

    /// Names of what is measured.
    #[must_use]
    pub fn metrics(&self) -> &[String] {
        &self.metrics
    }

    /// What to be good at.
    #[must_use]
    pub fn objectives(&self) -> &[Objective] {
        &self.objectives
    }

    /// What must be met.
    #[must_use]
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// The fixed scale of the hypervolume, if there is one.
    #[must_use]
    pub fn normalization(&self) -> Option<&Normalization> {
        self.normalization.as_ref()
    }

    /// Checks and judges an answer.
    ///
    /// # Errors
    /// Where numbers are missing, not finite, or not positive for a logarithmic objective.
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
                Some(value) => Some(
                    objective
                        .canonical(value)
                        .ok_or_else(|| ProblemError::Number { what: objective.name.clone(), value })?,
                ),
            });
        }
        let limits = self.limits.iter().zip(&self.limit_metric);
        let violations = limits.map(|(l, m)| Some(l.violation(low[*m]?, high[*m]?))).collect();
        Ok(Judgement { objectives, violations })
    }

    /// The metric that objective number `objective` is about.
    #[must_use]
    pub fn metric_of_objective(&self, objective: usize) -> usize {
        self.objective_metric[objective]
    }

    /// The metric that limit number `limit` is about.
    #[must_use]
    pub fn metric_of_limit(&self, limit: usize) -> usize {
        self.limit_metric[limit]
    }
}
