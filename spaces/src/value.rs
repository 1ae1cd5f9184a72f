//! Values, configurations, and the content hash that identifies a configuration on every machine.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Iter;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

/// Value of a parameter.
///
/// Equality, order and hash are those of the canonical form: types never mix (`1`, `1.0` and `true`
/// differ), and both zeros of a real are equal. Reals are finite in every compiled space.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// Truth value, true or false.
    Bool(bool),
    /// Signed integer of 64 bits.
    Int(i64),
    /// Real number in double precision.
    Real(f64),
    /// Text, such as the name of an algorithm.
    Text(String),
}

/// Maps both zeros to one, so that equal reals have equal bits.
fn canonical(real: f64) -> f64 {
    if real == 0.0 { 0.0 } else { real }
}

impl Value {
    fn rank(&self) -> u8 {
        match self {
            Value::Bool(_) => 0,
            Value::Int(_) => 1,
            Value::Real(_) => 2,
            Value::Text(_) => 3,
        }
    }

    /// Returns the value as a number, where `true` is 1. Text has none.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Bool(b) => Some(f64::from(u8::from(*b))),
            Value::Int(i) => Some(*i as f64),
            Value::Real(r) => Some(*r),
            Value::Text(_) => None,
        }
    }

    /// Returns the integer, if the value is one.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// Returns the text, if the value is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(s) => Some(s),
            _ => None,
        }
    }

    /// Returns the truth value, if the value is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// Parses a value as people and tables write it: `true`, `12`, `0.5`, else text. Surrounding
    /// space is ignored.
    #[must_use]
    pub fn parse(text: &str) -> Value {
        let text = text.trim();
        match text {
            "true" | "True" => return Value::Bool(true),
            "false" | "False" => return Value::Bool(false),
            _ => {}
        }
        if let Ok(i) = text.parse::<i64>() {
            return Value::Int(i);
        }
        match text.parse::<f64>() {
            Ok(r) if r.is_finite() => Value::Real(canonical(r)),
            _ => Value::Text(text.to_owned()),
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Real(a), Value::Real(b)) => canonical(*a).total_cmp(&canonical(*b)),
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
        match self {
            Value::Bool(b) => b.hash(state),
            Value::Int(i) => i.hash(state),
            Value::Real(r) => canonical(*r).to_bits().hash(state),
            Value::Text(s) => s.hash(state),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int(i) => write!(f, "{i}"),
            Value::Real(r) => write!(f, "{r:?}"),
            Value::Text(s) => f.write_str(s),
        }
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Value::Bool(b)
    }
}

impl From<i64> for Value {
    fn from(i: i64) -> Self {
        Value::Int(i)
    }
}

impl From<i32> for Value {
    fn from(i: i32) -> Self {
        Value::Int(i64::from(i))
    }
}

impl From<f64> for Value {
    fn from(r: f64) -> Self {
        Value::Real(canonical(r))
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Value::Text(s.to_owned())
    }
}

impl From<String> for Value {
    fn from(s: String) -> Self {
        Value::Text(s)
    }
}

/// Values of the active parameters by name. Inactive parameters are absent, so equal choices are
/// equal maps and have equal ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Configuration(pub BTreeMap<String, Value>);

impl Configuration {
    /// Creates a configuration in which no parameter is active.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the value of the parameter called `name`, if it is active.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Sets a parameter and returns its previous value.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        self.0.insert(name.into(), value.into())
    }

    /// Iterates over the parameters in the order of their names.
    pub fn iter(&self) -> Iter<'_, String, Value> {
        self.0.iter()
    }

    /// Returns the number of active parameters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether no parameter is active.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the configuration of the parameters whose names satisfy `keep`.
    #[must_use]
    pub fn part(&self, mut keep: impl FnMut(&str) -> bool) -> Configuration {
        self.0.iter().filter(|(name, _)| keep(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    /// Returns the content hash, 32 hexadecimal characters. Equal configurations have equal ids on
    /// every machine.
    ///
    /// The hash is the first half of BLAKE3 over name and value of each parameter in the order of
    /// names. Every string is preceded by its length and every value by its type; numbers are
    /// little-endian.
    #[must_use]
    pub fn id(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let text = |hasher: &mut blake3::Hasher, s: &str| {
            hasher.update(&(s.len() as u64).to_le_bytes());
            hasher.update(s.as_bytes());
        };
        for (name, value) in &self.0 {
            text(&mut hasher, name);
            hasher.update(&[value.rank()]);
            match value {
                Value::Bool(b) => {
                    hasher.update(&[u8::from(*b)]);
                }
                Value::Int(i) => {
                    hasher.update(&i.to_le_bytes());
                }
                Value::Real(r) => {
                    hasher.update(&canonical(*r).to_bits().to_le_bytes());
                }
                Value::Text(s) => text(&mut hasher, s),
            }
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

impl FromIterator<(String, Value)> for Configuration {
    fn from_iter<T: IntoIterator<Item = (String, Value)>>(iter: T) -> Self {
        Configuration(iter.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a Configuration {
    type Item = (&'a String, &'a Value);
    type IntoIter = Iter<'a, String, Value>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_differ_and_zeros_do_not() {
        assert_ne!(Value::Int(1), Value::Real(1.0));
        assert_ne!(Value::Int(1), Value::Bool(true));
        assert_eq!(Value::Real(0.0), Value::Real(-0.0));
    }

    #[test]
    fn id_is_the_documented_hash() {
        let mut config = Configuration::new();
        config.insert("b", 2);
        config.insert("a", "x");
        let bytes = [
            1u64.to_le_bytes().as_slice(),
            b"a",
            &[3],
            &1u64.to_le_bytes(),
            b"x",
            &1u64.to_le_bytes(),
            b"b",
            &[1],
            &2i64.to_le_bytes(),
        ]
        .concat();
        assert_eq!(config.id(), blake3::hash(&bytes).to_hex()[..32]);
        assert_eq!(config.part(|n| n == "a").len(), 1);
        let zero: Configuration = [("z".to_owned(), Value::Real(-0.0))].into_iter().collect();
        let other: Configuration = [("z".to_owned(), Value::Real(0.0))].into_iter().collect();
        assert_eq!(zero.id(), other.id());
    }

    #[test]
    fn json_keeps_kinds() {
        let text = r#"{"a":1,"b":1.0,"c":true,"d":"1"}"#;
        let config: Configuration = serde_json::from_str(text).unwrap();
        assert_eq!(config.get("a"), Some(&Value::Int(1)));
        assert_eq!(config.get("b"), Some(&Value::Real(1.0)));
        assert_eq!(config.get("c"), Some(&Value::Bool(true)));
        assert_eq!(serde_json::to_string(&config).unwrap(), text);
    }
}
