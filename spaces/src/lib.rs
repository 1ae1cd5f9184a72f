//! stub
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
/// A value of a parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// true or false
    Bool(bool),
    /// whole number
    Int(i64),
    /// real number
    Real(f64),
    /// word
    Text(String),
}
/// A choice of values for the active parameters, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Configuration(pub BTreeMap<String, Value>);
