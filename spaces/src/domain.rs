//! Domains: the values that a parameter may take, and how those values compare.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::Value;

/// Ratio of the largest to the smallest size from which sizes compare by ratio, not by difference.
const LOG_RATIO: f64 = 3.0;

/// Kind of a domain: the relation of its values to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Numbers whose distances mean something.
    Sizes,
    /// Names of unlike things, all equally far from each other.
    Choice,
    /// False and true: a single bit.
    Switch,
}

/// The values that a parameter may take.
///
/// ```
/// use paretune_spaces::{Domain, Kind, Value};
///
/// let tile = Domain::sizes([1, 2, 4, 64]);
/// // Between powers, ratios count: 24 is nearer to 64 than to 4.
/// assert_eq!(tile.nearest(&Value::Int(24)), Some(3));
/// assert_eq!(Domain::infer(vec![Value::Int(0), Value::Int(1)]).kind(), Kind::Switch);
/// assert_eq!(Domain::choice(["gemm", "direct"]).positions(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Numbers whose distances mean something (sizes, counts, degrees), rising or falling.
    Sizes(Vec<Value>),
    /// Names of unlike things, all equally far from each other.
    Choice(Vec<Value>),
    /// False and true, or 0 and 1 where the source spells them so; one of them in a narrowed space.
    Switch(Vec<Value>),
}

impl Domain {
    /// Builds a domain of numbers. Numbers that neither rise nor fall throughout are sorted.
    pub fn sizes<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> Domain {
        let mut values: Vec<Value> = values.into_iter().map(Into::into).collect();
        if !is_monotone(&values) {
            values.sort_by(compare_sizes);
        }
        Domain::Sizes(values)
    }

    /// Builds a domain of names.
    pub fn choice<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> Domain {
        Domain::Choice(values.into_iter().map(Into::into).collect())
    }

    /// Builds the domain of false and true.
    #[must_use]
    pub fn switch() -> Domain {
        Domain::Switch(vec![Value::Bool(false), Value::Bool(true)])
    }

    /// Builds a domain of a given kind.
    #[must_use]
    pub fn of_kind(kind: Kind, values: Vec<Value>) -> Domain {
        match kind {
            Kind::Sizes => Domain::sizes(values),
            Kind::Choice => Domain::Choice(values),
            Kind::Switch => Domain::Switch(values),
        }
    }

    /// Builds the domain whose kind the values suggest: truth values, or 0 and 1, make a switch;
    /// other numbers are sizes; everything else is a choice.
    #[must_use]
    pub fn infer(values: Vec<Value>) -> Domain {
        let is_bit = |value: &Value| matches!(value, Value::Int(0 | 1));
        let kind = if !values.is_empty()
            && values.iter().all(|value| matches!(value, Value::Bool(_)))
            || values.len() == 2 && values.iter().all(is_bit)
        {
            Kind::Switch
        } else if values.iter().all(|value| number(value).is_some()) {
            Kind::Sizes
        } else {
            Kind::Choice
        };
        Domain::of_kind(kind, values)
    }

    /// Returns the values in their order.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        match self {
            Domain::Sizes(values) | Domain::Choice(values) | Domain::Switch(values) => values,
        }
    }

    /// Returns how the values compare with each other.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Domain::Sizes(_) => Kind::Sizes,
            Domain::Choice(_) => Kind::Choice,
            Domain::Switch(_) => Kind::Switch,
        }
    }

    /// Returns the index of `value`. Numbers of different types match where they are equal, and so
    /// do 1 and true in a switch, unless another value matches better.
    #[must_use]
    pub fn index_of(&self, value: &Value) -> Option<usize> {
        let values = self.values();
        let number = |value: &Value| match self {
            Domain::Switch(_) => value.as_f64(),
            _ => number(value),
        };
        values.iter().position(|known| known == value).or_else(|| {
            let wanted = number(value)?;
            values.iter().position(|known| number(known) == Some(wanted))
        })
    }

    /// Returns the index of `value` or, if it is a number and the domain has sizes, of the size
    /// that is nearest on their scale. Of two equally near sizes the first is taken.
    #[must_use]
    pub fn nearest(&self, value: &Value) -> Option<usize> {
        self.index_of(value).or_else(|| {
            let Domain::Sizes(values) = self else { return None };
            let wanted = number(value)?;
            let numbers: Vec<f64> = values.iter().map(number).collect::<Option<_>>()?;
            let log = is_logarithmic(&numbers) && wanted > 0.0;
            let scale = |size: f64| if log { size.ln() } else { size };
            let distances = numbers.iter().map(|size| (scale(*size) - scale(wanted)).abs());
            let nearest = distances.enumerate().min_by(|left, right| left.1.total_cmp(&right.1));
            nearest.map(|(index, _)| index)
        })
    }

    /// Returns the position of each size between the smallest (0) and the largest (1): by logarithm
    /// where sizes differ by large ratios. `None` where distances between values mean nothing.
    #[must_use]
    pub fn positions(&self) -> Option<Vec<f64>> {
        let Domain::Sizes(values) = self else { return None };
        let numbers: Vec<f64> = values.iter().map(number).collect::<Option<_>>()?;
        let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if high <= low {
            return Some(vec![0.0; numbers.len()]);
        }
        let log = is_logarithmic(&numbers);
        let position = |size: f64| {
            if log { (size / low).ln() / (high / low).ln() } else { (size - low) / (high - low) }
        };
        Some(numbers.into_iter().map(position).collect())
    }

    /// Returns the domain of the same kind with the values that satisfy `keep`.
    #[must_use]
    pub fn filtered(&self, mut keep: impl FnMut(&Value) -> bool) -> Domain {
        let values = self.values().iter().filter(|value| keep(value)).cloned().collect();
        Domain::of_kind(self.kind(), values)
    }

    /// Checks the values against the rules of their kind, and says what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let values = self.values();
        if values.is_empty() {
            return Err("there is no value to choose from".into());
        }
        if values.len() >= usize::from(u16::MAX) {
            return Err(format!("{} values are too many", values.len()));
        }
        let mut seen = BTreeSet::new();
        for value in values {
            if matches!(value, Value::Real(real) if !real.is_finite()) {
                return Err(format!("{value} is not a finite number"));
            }
            if !seen.insert(value) {
                return Err(format!("the value {value} is listed twice"));
            }
        }
        match self {
            Domain::Choice(_) => Ok(()),
            Domain::Switch(values) => {
                let off_and_on =
                    |value: &Value| matches!(value, Value::Bool(_) | Value::Int(0 | 1));
                match values.iter().find(|value| !off_and_on(value)) {
                    Some(value) => {
                        Err(format!("{value} is neither false nor true, so this is no switch"))
                    }
                    None if values.len() > 2 => Err("a switch has two values".into()),
                    None => Ok(()),
                }
            }
            Domain::Sizes(values) => match values.iter().find(|value| number(value).is_none()) {
                Some(value) => Err(format!("{value} is no number, so this is no list of sizes")),
                None if !is_monotone(values) => Err("sizes must rise or fall throughout".into()),
                None => Ok(()),
            },
        }
    }
}

/// Returns the number that a value is, if it is one. Truth values are none.
fn number(value: &Value) -> Option<f64> {
    if matches!(value, Value::Bool(_)) { None } else { value.as_f64() }
}

/// Decides whether sizes compare by ratio: all are positive, and they differ by a large factor.
fn is_logarithmic(numbers: &[f64]) -> bool {
    let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    low > 0.0 && high / low > LOG_RATIO
}

fn compare_sizes(left: &Value, right: &Value) -> Ordering {
    match (number(left), number(right)) {
        (Some(left), Some(right)) => left.total_cmp(&right),
        // Values that are no numbers keep their order: checking the space reports them.
        _ => Ordering::Equal,
    }
}

fn is_monotone(values: &[Value]) -> bool {
    let all = |wanted: Ordering| {
        values
            .windows(2)
            .all(|pair| matches!(compare_sizes(&pair[0], &pair[1]), o if o == wanted || o.is_eq()))
    };
    all(Ordering::Less) || all(Ordering::Greater)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(values: &[i64]) -> Vec<Value> {
        values.iter().copied().map(Value::Int).collect()
    }

    #[test]
    fn kinds_follow_from_values() {
        let kind = |values: Vec<Value>| Domain::infer(values).kind();
        assert_eq!(kind(vec![Value::Bool(false), Value::Bool(true)]), Kind::Switch);
        assert_eq!(kind(vec![Value::Bool(true)]), Kind::Switch);
        assert_eq!(kind(ints(&[0, 1])), Kind::Switch);
        assert_eq!(kind(ints(&[1])), Kind::Sizes);
        assert_eq!(kind(ints(&[0, 1, 2])), Kind::Sizes);
        assert_eq!(kind(vec![Value::Int(1), Value::Real(2.5)]), Kind::Sizes);
        assert_eq!(kind(vec![Value::Int(1), "fast".into()]), Kind::Choice);
    }

    #[test]
    fn sizes_are_sorted_unless_they_rise_or_fall() {
        assert_eq!(Domain::sizes([32, 8, 4]), Domain::Sizes(ints(&[32, 8, 4])));
        assert_eq!(Domain::sizes([8, 32, 4]), Domain::Sizes(ints(&[4, 8, 32])));
    }

    #[test]
    fn nearest_is_measured_on_the_scale_of_the_sizes() {
        let nearest = |domain: &Domain, value: i64| domain.nearest(&Value::Int(value));
        assert_eq!(nearest(&Domain::sizes([1, 2, 4, 64]), 24), Some(3));
        assert_eq!(nearest(&Domain::sizes([20, 25, 30]), 24), Some(1));
        assert_eq!(nearest(&Domain::sizes([0, 4, 64]), 24), Some(1));
        assert_eq!(nearest(&Domain::sizes([1, 2, 4, 64]), -3), Some(0));
        assert_eq!(nearest(&Domain::choice([1, 2, 4]), 3), None);
        assert_eq!(Domain::switch().nearest(&Value::Int(1)), Some(1));
        assert_eq!(Domain::switch().nearest(&Value::Int(2)), None);
    }

    #[test]
    fn positions_exist_for_sizes_alone() {
        let close = |domain: Domain, wanted: &[f64]| {
            let positions = domain.positions().unwrap();
            positions.iter().zip(wanted).all(|(position, wanted)| (position - wanted).abs() < 1e-12)
        };
        assert!(close(Domain::sizes([1, 2, 4]), &[0.0, 0.5, 1.0]));
        assert!(close(Domain::sizes([2, 3, 6]), &[0.0, 0.25, 1.0]));
        assert!(close(Domain::sizes([4, 2, 0]), &[1.0, 0.5, 0.0]));
        assert_eq!(Domain::switch().positions(), None);
    }

    #[test]
    fn values_must_fit_their_kind() {
        assert!(Domain::sizes(["a", "b"]).check().unwrap_err().contains("no number"));
        assert!(Domain::Sizes(ints(&[1, 3, 2])).check().unwrap_err().contains("rise or fall"));
        assert!(
            Domain::Switch(ints(&[0, 2])).check().unwrap_err().contains("neither false nor true")
        );
        assert!(Domain::Switch(ints(&[0, 1])).check().is_ok());
    }
}
