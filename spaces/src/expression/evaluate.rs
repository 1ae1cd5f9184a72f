//! Evaluation of formulas under an assignment.

use super::{Comparison, Expression, arithmetic, compare, negate, truth};
use crate::Value;

/// Reason for which a formula has no value under some assignment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum EvaluationError {
    /// Text is used as a number, or text and number are ordered.
    #[error("`{0}` needs numbers (or, for comparisons, operands of one kind)")]
    Kind(&'static str),
    /// The divisor of a division or remainder is zero.
    #[error("division by zero")]
    DivisionByZero,
    /// The result exceeds 64-bit integers or finite reals.
    #[error("number too large")]
    Overflow,
}

impl Expression {
    /// Returns the value under an assignment; `Ok(None)` if an inactive parameter leaves it
    /// undefined. A parameter is inactive if `lookup` does not know it.
    ///
    /// # Errors
    /// Returns an error if the formula has no meaning for the values. `and` and `or` evaluate every
    /// operand: an error matters only if no other operand decides.
    pub fn evaluate(
        &self,
        lookup: &dyn Fn(&str) -> Option<Value>,
    ) -> Result<Option<Value>, EvaluationError> {
        let two =
            |x: &Expression, y: &Expression| -> Result<Option<(Value, Value)>, EvaluationError> {
                Ok(x.evaluate(lookup)?.zip(y.evaluate(lookup)?))
            };
        match self {
            Expression::Literal(value) => Ok(Some(value.clone())),
            Expression::Name(name) => Ok(lookup(name)),
            Expression::Not(x) => Ok(x.evaluate(lookup)?.map(|v| Value::Bool(!truth(&v)))),
            Expression::Negate(x) => x.evaluate(lookup)?.map(|v| negate(&v)).transpose(),
            Expression::Arithmetic(op, x, y) => {
                two(x, y)?.map(|(a, b)| arithmetic(*op, &a, &b)).transpose()
            }
            Expression::Compare(first, rest) => {
                let mut left: &Expression = first;
                decide(
                    rest.iter().map(|(op, right)| {
                        let result = two(left, right)?
                            .map(|(a, b)| compare(*op, &a, &b).map(Value::Bool))
                            .transpose();
                        left = right;
                        result
                    }),
                    false,
                )
            }
            Expression::In(x, list, negated) => {
                let found = decide(
                    list.iter().map(|y| {
                        two(x, y)?
                            .map(|(a, b)| compare(Comparison::Equal, &a, &b).map(Value::Bool))
                            .transpose()
                    }),
                    true,
                )?;
                Ok(found.map(|v| Value::Bool(truth(&v) != *negated)))
            }
            Expression::And(all) => decide(all.iter().map(|x| x.evaluate(lookup)), false),
            Expression::Or(any) => decide(any.iter().map(|x| x.evaluate(lookup)), true),
        }
    }

    /// Returns whether the formula holds as a condition: an undefined formula does not hold.
    ///
    /// # Errors
    /// Returns the errors of [`Expression::evaluate`].
    pub fn holds(&self, lookup: &dyn Fn(&str) -> Option<Value>) -> Result<bool, EvaluationError> {
        Ok(self.evaluate(lookup)?.is_some_and(|v| truth(&v)))
    }

    /// Returns whether the formula is met as a constraint: an undefined formula is met.
    ///
    /// # Errors
    /// Returns the errors of [`Expression::evaluate`].
    pub fn met(&self, lookup: &dyn Fn(&str) -> Option<Value>) -> Result<bool, EvaluationError> {
        Ok(self.evaluate(lookup)?.is_none_or(|v| truth(&v)))
    }
}

/// Evaluates Kleene's `or` (`decisive` is true) or `and` (`decisive` is false).
fn decide(
    sides: impl Iterator<Item = Result<Option<Value>, EvaluationError>>,
    decisive: bool,
) -> Result<Option<Value>, EvaluationError> {
    let mut undefined = false;
    let mut error = None;
    for side in sides {
        match side {
            Ok(Some(v)) if truth(&v) == decisive => return Ok(Some(Value::Bool(decisive))),
            Ok(Some(_)) => {}
            Ok(None) => undefined = true,
            Err(e) => {
                error.get_or_insert(e);
            }
        }
    }
    match error {
        Some(e) => Err(e),
        None if undefined => Ok(None),
        None => Ok(Some(Value::Bool(!decisive))),
    }
}
