//! Conversion between configurations and points.

use crate::compiled::CompiledSpace;
use crate::point::Point;
use crate::{Configuration, Value};

/// Reason for which a configuration is not part of a space.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// The space has no parameter of this name.
    #[error("there is no parameter `{0}` in this space")]
    Unknown(String),
    /// The condition of the parameter does not hold.
    #[error("`{name}` does not exist here: it needs {condition}")]
    Inactive {
        /// Name of the inactive parameter.
        name: String,
        /// Condition under which the parameter exists.
        condition: String,
    },
    /// An active parameter has no value.
    #[error("`{0}` needs a value")]
    Missing(String),
    /// The value is not in the parameter's domain.
    #[error("`{name}` cannot be {value}; its values are {allowed}")]
    Value {
        /// Name of the parameter that lacks the value.
        name: String,
        /// Value that the configuration gives.
        value: String,
        /// Values of the domain, separated by commas.
        allowed: String,
    },
    /// The configuration violates this constraint.
    #[error("this violates `{0}`")]
    Constraint(String),
    /// The space lists its configurations, and this one is not listed.
    #[error("this is not one of the {0} configurations that the space lists")]
    Unlisted(u128),
}

impl CompiledSpace {
    /// Returns the values of the active parameters by name.
    #[must_use]
    pub fn decode(&self, point: &Point) -> Configuration {
        self.parameters()
            .iter()
            .zip(point.iter())
            .filter_map(|(p, v)| {
                Some((p.name.clone(), p.domain.values().get(usize::from(*v))?.clone()))
            })
            .collect()
    }

    /// Returns the point of a configuration.
    ///
    /// # Errors
    /// Returns the reason if the configuration is not part of this space.
    pub fn encode(&self, config: &Configuration) -> Result<Point, EncodeError> {
        let parameters = self.parameters();
        if let Some((name, _)) = config.iter().find(|(n, _)| self.space().parameter(n).is_none()) {
            return Err(EncodeError::Unknown(name.clone()));
        }
        // Formulas see a value as the domain spells it.
        let mut canonical = Configuration::new();
        let mut point = self.blank();
        for (i, p) in parameters.iter().enumerate() {
            let Some(value) = config.get(&p.name) else { continue };
            let Some(index) = p.domain.index_of(value) else {
                let allowed: Vec<String> = p.domain.values().iter().map(Value::to_string).collect();
                return Err(EncodeError::Value {
                    name: p.name.clone(),
                    value: value.to_string(),
                    allowed: allowed.join(", "),
                });
            };
            point.0[i] = index as u16;
            canonical.insert(p.name.clone(), p.domain.values()[index].clone());
        }
        if self.contains(&point) {
            return Ok(point);
        }
        Err(self.explain(&canonical))
    }

    fn explain(&self, config: &Configuration) -> EncodeError {
        let lookup = |name: &str| config.get(name).cloned();
        for p in self.parameters() {
            let present = config.get(&p.name).is_some();
            match &p.condition {
                Some(condition) if present && !condition.holds(&lookup).unwrap_or(false) => {
                    return EncodeError::Inactive {
                        name: p.name.clone(),
                        condition: condition.to_string(),
                    };
                }
                Some(condition) if !present && condition.holds(&lookup).unwrap_or(false) => {
                    return EncodeError::Missing(p.name.clone());
                }
                None if !present => return EncodeError::Missing(p.name.clone()),
                _ => {}
            }
        }
        match self.space().constraints.iter().find(|c| !c.met(&lookup).unwrap_or(false)) {
            Some(constraint) => EncodeError::Constraint(constraint.to_string()),
            None => EncodeError::Unlisted(self.len().unwrap_or(u128::MAX)),
        }
    }
}
