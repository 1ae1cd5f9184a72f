//! A space as people describe it: parameters with domains and conditions, and constraints over them.

use std::collections::{BTreeMap, BTreeSet};

use crate::expression::{EvaluationError, Expression, ParseError};
use crate::{CompiledSpace, Domain, Value};

/// One thing to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Unique; letters, digits, `_` and `.`, not starting with a digit or dot.
    pub name: String,
    /// What it may be.
    pub domain: Domain,
    /// When it exists; always, where there is none.
    pub condition: Option<Expression>,
    /// What one would take without searching: an index into the domain.
    pub default: usize,
    /// One sentence for people; may be empty.
    pub about: String,
}

impl Parameter {
    /// A parameter that is always active, with the first value as its default.
    pub fn new(name: impl Into<String>, domain: Domain) -> Parameter {
        Parameter { name: name.into(), domain, condition: None, default: 0, about: String::new() }
    }

    /// Exists only where `condition` holds (and with whatever was asked for before).
    #[must_use]
    pub fn when(mut self, condition: Expression) -> Parameter {
        self.condition = Some(match self.condition.take() {
            Some(before) => before.and(condition),
            None => condition,
        });
        self
    }

    /// With `value` as its default; unchanged where the domain does not have it.
    #[must_use]
    pub fn with_default(mut self, value: impl Into<Value>) -> Parameter {
        if let Some(index) = self.domain.index_of(&value.into()) {
            self.default = index;
        }
        self
    }

    /// With a sentence for people.
    #[must_use]
    pub fn about(mut self, about: impl Into<String>) -> Parameter {
        self.about = about.into();
        self
    }
}

/// Parameters and constraints; [`Space::compile`] makes it fit for searching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// In the order in which people read them.
    pub parameters: Vec<Parameter>,
    /// All must be met.
    pub constraints: Vec<Expression>,
}

/// What is wrong with a space.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpaceError {
    /// A parameter's name cannot be used in formulas.
    #[error(
        "parameter `{0}`: a name consists of letters, digits, `_` and `.`, and starts with a letter or `_`"
    )]
    Name(String),
    /// Two parameters have one name.
    #[error("parameter `{0}` is declared twice")]
    Twice(String),
    /// A domain has no values, too many, doubles, or numbers that are not finite.
    #[error("parameter `{name}`: {problem}")]
    Domain {
        /// The parameter.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A formula names something that is not a parameter.
    #[error("{place} names `{name}`, which is no parameter of this space")]
    Unknown {
        /// Which formula.
        place: String,
        /// The name.
        name: String,
    },
    /// Conditions that depend on each other.
    #[error("the conditions of these parameters depend on each other: {}", .0.join(", "))]
    Cycle(Vec<String>),
    /// A formula has no value for some assignment that it can meet.
    #[error("{place}: {error}")]
    Evaluation {
        /// Which formula.
        place: String,
        /// What is wrong.
        error: EvaluationError,
    },
    /// A formula cannot be read.
    #[error("{place}: {error}")]
    Parse {
        /// Which formula.
        place: String,
        /// Where and why.
        error: ParseError,
    },
    /// No configuration meets the constraints.
    #[error("no configuration meets all constraints{0}")]
    Empty(String),
    /// The constraints couple more than can be solved in memory.
    #[error("the constraints couple too many parameters ({0} states and more); split or simplify them")]
    TooLarge(usize),
    /// An entry of a file is wrong.
    #[error("{entry}: {problem}")]
    Entry {
        /// Which entry.
        entry: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

/// Whether formulas can refer to `name`.
pub(crate) fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
        && !matches!(name, "and" | "or" | "not" | "in" | "True" | "False" | "true" | "false")
}

impl Space {
    /// An empty space, which has one configuration: nothing chosen.
    #[must_use]
    pub fn new() -> Space {
        Space::default()
    }

    /// The parameter called `name`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.name == name)
    }

    /// Solves conditions and constraints, so that valid configurations can be counted, sampled and varied
    /// without ever trying an invalid one.
    ///
    /// # Errors
    /// Where the description is inconsistent, has no configuration, or couples too much.
    pub fn compile(&self) -> Result<CompiledSpace, SpaceError> {
        CompiledSpace::new(self.clone())
    }

    /// Everything that can be checked without solving.
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
        let places = self.parameters.iter().filter_map(|p| Some((place_of(p), p.condition.as_ref()?)));
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
            .map(|p| (p.name.as_str(), p.condition.as_ref().map(Expression::names).unwrap_or_default()))
            .collect();
        loop {
            let ready: Vec<&str> = open.iter().filter(|(_, on)| on.is_empty()).map(|(n, _)| *n).collect();
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

/// How error messages call the condition of `p`.
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
