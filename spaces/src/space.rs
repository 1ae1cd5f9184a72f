//! Description of a space: parameters with domains and conditions, and constraints over them.

use std::collections::{BTreeMap, BTreeSet};

use crate::expression::{EvaluationError, Expression, ParseError};
use crate::{CompiledSpace, Domain, Value};

/// Parameter of a space: one thing to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Unique name of letters, digits, `_` and `.`, not starting with a digit or dot.
    pub name: String,
    /// Values that the parameter may take.
    pub domain: Domain,
    /// Condition under which the parameter exists; `None` means always.
    pub condition: Option<Expression>,
    /// Index of the value that is used without a search.
    pub default: usize,
    /// Description of one sentence; may be empty.
    pub about: String,
}

impl Parameter {
    /// Creates a parameter that is always active and whose default is the first value.
    pub fn new(name: impl Into<String>, domain: Domain) -> Parameter {
        Parameter { name: name.into(), domain, condition: None, default: 0, about: String::new() }
    }

    /// Restricts the parameter to configurations in which `condition` holds, in addition to earlier
    /// conditions.
    #[must_use]
    pub fn when(mut self, condition: Expression) -> Parameter {
        self.condition = Some(match self.condition.take() {
            Some(before) => before.and(condition),
            None => condition,
        });
        self
    }

    /// Sets the default to `value`. A value outside the domain changes nothing.
    #[must_use]
    pub fn with_default(mut self, value: impl Into<Value>) -> Parameter {
        if let Some(index) = self.domain.index_of(&value.into()) {
            self.default = index;
        }
        self
    }

    /// Sets the description of one sentence.
    #[must_use]
    pub fn about(mut self, about: impl Into<String>) -> Parameter {
        self.about = about.into();
        self
    }
}

/// Parameters and constraints. [`Space::compile`] prepares them for searching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Parameters in the order in which people read them.
    pub parameters: Vec<Parameter>,
    /// Constraints, all of which must be met.
    pub constraints: Vec<Expression>,
}

/// Error in the description of a space.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpaceError {
    /// Formulas cannot refer to the name of a parameter.
    #[error(
        "parameter `{0}`: a name consists of letters, digits, `_` and `.`, and starts with a \
         letter or `_`"
    )]
    Name(String),
    /// Two parameters have the same name.
    #[error("parameter `{0}` is declared twice")]
    Twice(String),
    /// A domain has no values, too many, duplicates, or values that do not fit its kind.
    #[error("parameter `{name}`: {problem}")]
    Domain {
        /// Name of the parameter with the wrong domain.
        name: String,
        /// Description of the error in the domain.
        problem: String,
    },
    /// A formula names a parameter that does not exist.
    #[error("{place} names `{name}`, which is no parameter of this space")]
    Unknown {
        /// Description of the formula's place.
        place: String,
        /// Name that no parameter has.
        name: String,
    },
    /// Conditions depend on each other in a cycle.
    #[error("the conditions of these parameters depend on each other: {}", .0.join(", "))]
    Cycle(Vec<String>),
    /// A formula has no value under some assignment that it can meet.
    #[error("{place}: {error}")]
    Evaluation {
        /// Description of the formula's place.
        place: String,
        /// Error that the evaluation of an expression ended with.
        error: EvaluationError,
    },
    /// A formula cannot be parsed.
    #[error("{place}: {error}")]
    Parse {
        /// Description of the formula's place.
        place: String,
        /// Error with its position in the text.
        error: ParseError,
    },
    /// No configuration meets the constraints.
    #[error("no configuration meets all constraints{0}")]
    Empty(String),
    /// The constraints couple more parameters than can be solved in memory.
    #[error(
        "the constraints couple too many parameters ({0} states and more); split or simplify them"
    )]
    TooLarge(usize),
    /// An entry of a file is wrong.
    #[error("{entry}: {problem}")]
    Entry {
        /// Path of the entry in the file.
        entry: String,
        /// Description of the error and of a right entry.
        problem: String,
    },
}

/// Returns whether formulas can refer to `name`.
pub(crate) fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
        && !matches!(name, "and" | "or" | "not" | "in" | "True" | "False" | "true" | "false")
}

impl Space {
    /// Creates a space without parameters, which has one configuration: the empty one.
    #[must_use]
    pub fn new() -> Space {
        Space::default()
    }

    /// Returns the parameter called `name`, if there is one.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.name == name)
    }

    /// Solves conditions and constraints, so that valid configurations can be counted, sampled and
    /// varied without ever trying an invalid one.
    ///
    /// # Errors
    /// Returns an error if the description is inconsistent, has no configuration, or couples too
    /// many parameters.
    pub fn compile(&self) -> Result<CompiledSpace, SpaceError> {
        CompiledSpace::new(self.clone())
    }

    /// Checks everything that can be checked without solving the constraints.
    pub(crate) fn check(&self) -> Result<(), SpaceError> {
        let mut names = BTreeSet::new();
        for p in &self.parameters {
            if !is_name(&p.name) {
                return Err(SpaceError::Name(p.name.clone()));
            }
            if !names.insert(p.name.as_str()) {
                return Err(SpaceError::Twice(p.name.clone()));
            }
            p.check()?;
        }
        if self.parameters.len() >= usize::from(u16::MAX) {
            return Err(SpaceError::TooLarge(self.parameters.len()));
        }
        let places =
            self.parameters.iter().filter_map(|p| Some((place_of(p), p.condition.as_ref()?)));
        let constraints = self.constraints.iter().map(|c| (format!("constraint `{c}`"), c));
        for (place, expression) in places.chain(constraints) {
            if let Some(name) = expression.names().into_iter().find(|n| !names.contains(n)) {
                return Err(SpaceError::Unknown { place, name: name.to_owned() });
            }
        }
        self.check_cycles()
    }

    fn check_cycles(&self) -> Result<(), SpaceError> {
        let mut open: BTreeMap<&str, BTreeSet<&str>> = self
            .parameters
            .iter()
            .map(|p| {
                (p.name.as_str(), p.condition.as_ref().map(Expression::names).unwrap_or_default())
            })
            .collect();
        loop {
            let ready: Vec<&str> =
                open.iter().filter(|(_, on)| on.is_empty()).map(|(n, _)| *n).collect();
            if ready.is_empty() {
                break;
            }
            for name in &ready {
                open.remove(name);
            }
            for on in open.values_mut() {
                ready.iter().for_each(|name| {
                    on.remove(name);
                });
            }
        }
        if open.is_empty() {
            Ok(())
        } else {
            Err(SpaceError::Cycle(open.keys().map(|n| (*n).to_owned()).collect()))
        }
    }
}

/// Returns the name of the condition of `p` in error messages.
pub(crate) fn place_of(p: &Parameter) -> String {
    format!("the condition of `{}`", p.name)
}

impl Parameter {
    fn check(&self) -> Result<(), SpaceError> {
        let wrong = |problem: String| Err(SpaceError::Domain { name: self.name.clone(), problem });
        self.domain.check().or_else(&wrong)?;
        let values = self.domain.values();
        if self.default >= values.len() {
            return wrong(format!("its default is value {} of {}", self.default, values.len()));
        }
        Ok(())
    }
}
