//! Python's arithmetic and comparisons on [`Value`]s.

use std::cmp::Ordering;

use super::{Comparison, EvaluationError, Operation};
use crate::Value;

/// Returns the truth value that Python gives to a value.
pub(crate) fn truth(value: &Value) -> bool {
    match value {
        Value::Bool(b) => *b,
        Value::Int(i) => *i != 0,
        Value::Real(r) => *r != 0.0,
        Value::Text(s) => !s.is_empty(),
    }
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Bool(b) => Some(i64::from(*b)),
        Value::Int(i) => Some(*i),
        _ => None,
    }
}

fn finite(r: f64) -> Result<Value, EvaluationError> {
    if r.is_finite() { Ok(Value::from(r)) } else { Err(EvaluationError::Overflow) }
}

pub(crate) fn negate(value: &Value) -> Result<Value, EvaluationError> {
    match (whole(value), value) {
        (Some(i), _) => i.checked_neg().map(Value::Int).ok_or(EvaluationError::Overflow),
        (None, Value::Real(r)) => Ok(Value::from(-r)),
        _ => Err(EvaluationError::Kind("-")),
    }
}

pub(crate) fn arithmetic(op: Operation, a: &Value, b: &Value) -> Result<Value, EvaluationError> {
    if let (Some(x), Some(y)) = (whole(a), whole(b))
        && op != Operation::Divide
    {
        if matches!(op, Operation::FloorDivide | Operation::Modulo) && y == 0 {
            return Err(EvaluationError::DivisionByZero);
        }
        let result = match op {
            Operation::Add => x.checked_add(y),
            Operation::Subtract => x.checked_sub(y),
            Operation::Multiply => x.checked_mul(y),
            Operation::FloorDivide => x.checked_div_euclid(y).map(|q| {
                // Euclidean division rounds the other way if the divisor is negative and there is a
                // remainder.
                if y < 0 && x.rem_euclid(y) != 0 { q - 1 } else { q }
            }),
            Operation::Modulo => {
                x.checked_rem(y).map(|r| if r != 0 && (r < 0) != (y < 0) { r + y } else { r })
            }
            Operation::Divide => None,
        };
        return result.map(Value::Int).ok_or(EvaluationError::Overflow);
    }
    let (Some(x), Some(y)) = (a.as_f64(), b.as_f64()) else {
        return Err(EvaluationError::Kind(op.symbol()));
    };
    if y == 0.0 && matches!(op, Operation::Divide | Operation::FloorDivide | Operation::Modulo) {
        return Err(EvaluationError::DivisionByZero);
    }
    finite(match op {
        Operation::Add => x + y,
        Operation::Subtract => x - y,
        Operation::Multiply => x * y,
        Operation::Divide => x / y,
        Operation::FloorDivide => (x / y).floor(),
        Operation::Modulo => {
            let r = x % y;
            if r != 0.0 && (r < 0.0) != (y < 0.0) { r + y } else { r }
        }
    })
}

pub(crate) fn compare(op: Comparison, a: &Value, b: &Value) -> Result<bool, EvaluationError> {
    let order = match (whole(a), whole(b), a, b) {
        (Some(x), Some(y), _, _) => Some(x.cmp(&y)),
        (_, _, Value::Text(x), Value::Text(y)) => Some(x.cmp(y)),
        _ => match (a.as_f64(), b.as_f64()) {
            (Some(x), Some(y)) => x.partial_cmp(&y),
            _ => None,
        },
    };
    match (op, order) {
        (Comparison::Equal, order) => Ok(order == Some(Ordering::Equal)),
        (Comparison::NotEqual, order) => Ok(order != Some(Ordering::Equal)),
        (op, None) => Err(EvaluationError::Kind(op.symbol())),
        (Comparison::Less, Some(o)) => Ok(o.is_lt()),
        (Comparison::LessEqual, Some(o)) => Ok(o.is_le()),
        (Comparison::Greater, Some(o)) => Ok(o.is_gt()),
        (Comparison::GreaterEqual, Some(o)) => Ok(o.is_ge()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_and_modulo_are_pythons() {
        for (x, y, q, r) in
            [(7, 2, 3, 1), (-7, 2, -4, 1), (7, -2, -4, -1), (-7, -2, 3, -1), (6, -2, -3, 0)]
        {
            let (a, b) = (Value::Int(x), Value::Int(y));
            assert_eq!(arithmetic(Operation::FloorDivide, &a, &b), Ok(Value::Int(q)), "{x} // {y}");
            assert_eq!(arithmetic(Operation::Modulo, &a, &b), Ok(Value::Int(r)), "{x} % {y}");
            let (a, b) = (Value::Real(x as f64), Value::Int(y));
            assert_eq!(arithmetic(Operation::FloorDivide, &a, &b), Ok(Value::from(q as f64)));
            assert_eq!(arithmetic(Operation::Modulo, &a, &b), Ok(Value::from(r as f64)));
        }
        let (min, minus_one) = (Value::Int(i64::MIN), Value::Int(-1));
        assert_eq!(
            arithmetic(Operation::FloorDivide, &min, &minus_one),
            Err(EvaluationError::Overflow)
        );
        assert_eq!(
            arithmetic(Operation::Divide, &Value::Int(1), &Value::Int(2)),
            Ok(Value::Real(0.5))
        );
        assert_eq!(
            arithmetic(Operation::Modulo, &Value::Int(1), &Value::Int(0)),
            Err(EvaluationError::DivisionByZero)
        );
    }

    #[test]
    fn comparisons_mix_numbers_but_not_words() {
        assert_eq!(compare(Comparison::Equal, &Value::Int(1), &Value::Bool(true)), Ok(true));
        assert_eq!(compare(Comparison::Less, &Value::Int(1), &Value::Real(1.5)), Ok(true));
        assert_eq!(compare(Comparison::Equal, &Value::Int(1), &Value::from("1")), Ok(false));
        assert!(compare(Comparison::Less, &Value::Int(1), &Value::from("1")).is_err());
    }
}
