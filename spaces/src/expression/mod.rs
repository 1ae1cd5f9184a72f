//! Conditions and constraints: the small subset of Python that tuning tools write them in.
//!
//! Arithmetic follows Python: `/` is true division, `//` and `%` round towards minus infinity, truth
//! values count as 0 and 1. A parameter that is inactive makes whatever depends on it *undefined*;
//! `and` and `or` follow Kleene (an undefined side does not matter where the other decides). A condition
//! that is undefined does not hold; a constraint that is undefined is met.

mod arithmetic;
mod parse;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

pub(crate) use arithmetic::{arithmetic, compare, negate, truth};
pub use parse::ParseError;

use crate::Value;

/// `+ - * / // %`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`, always a real
    Divide,
    /// `//`, rounds down
    FloorDivide,
    /// `%`, has the sign of the divisor
    Modulo,
}

/// `== != < <= > >=`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
}

/// A formula over parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expression {
    /// A value.
    Literal(Value),
    /// The value of a parameter.
    Name(String),
    /// `not x`
    Not(Box<Expression>),
    /// `-x`
    Negate(Box<Expression>),
    /// `x + y` and the like.
    Arithmetic(Operation, Box<Expression>, Box<Expression>),
    /// `x < y <= z`: every neighboring pair must hold.
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    /// `x in [..]`, or `x not in [..]` where the last field is true.
    In(Box<Expression>, Vec<Expression>, bool),
    /// All hold; true if empty.
    And(Vec<Expression>),
    /// Any holds; false if empty.
    Or(Vec<Expression>),
}

/// Why a formula has no value for some assignment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum EvaluationError {
    /// Text where a number is needed, or an order between text and number.
    #[error("`{0}` needs numbers (or, for comparisons, operands of one kind)")]
    Kind(&'static str),
    /// Division or remainder by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// Beyond 64-bit integers or finite reals.
    #[error("number too large")]
    Overflow,
}

impl Expression {
    /// The value of the parameter called `name`.
    pub fn name(name: impl Into<String>) -> Expression {
        Expression::Name(name.into())
    }

    /// A constant.
    pub fn literal(value: impl Into<Value>) -> Expression {
        Expression::Literal(value.into())
    }

    /// `self OP other`
    #[must_use]
    pub fn compare(self, comparison: Comparison, other: Expression) -> Expression {
        Expression::Compare(Box::new(self), vec![(comparison, other)])
    }

    /// `self == value`
    #[must_use]
    pub fn equals(self, value: impl Into<Value>) -> Expression {
        self.compare(Comparison::Equal, Expression::literal(value))
    }

    /// `self != value`
    #[must_use]
    pub fn differs(self, value: impl Into<Value>) -> Expression {
        self.compare(Comparison::NotEqual, Expression::literal(value))
    }

    /// `self <= other`
    #[must_use]
    pub fn at_most(self, other: Expression) -> Expression {
        self.compare(Comparison::LessEqual, other)
    }

    /// `self in [values]`
    #[must_use]
    pub fn within<V: Into<Value>>(self, values: impl IntoIterator<Item = V>) -> Expression {
        Expression::In(Box::new(self), values.into_iter().map(Expression::literal).collect(), false)
    }

    /// `self and other`
    #[must_use]
    pub fn and(self, other: Expression) -> Expression {
        match self {
            Expression::And(mut all) => {
                all.push(other);
                Expression::And(all)
            }
            first => Expression::And(vec![first, other]),
        }
    }

    /// `self or other`
    #[must_use]
    pub fn or(self, other: Expression) -> Expression {
        match self {
            Expression::Or(mut any) => {
                any.push(other);
                Expression::Or(any)
            }
            first => Expression::Or(vec![first, other]),
        }
    }

    /// `not self`
    #[must_use]
    pub fn negated(self) -> Expression {
        Expression::Not(Box::new(self))
    }

    /// `self OP other` for numbers.
    #[must_use]
    pub fn arithmetic(self, operation: Operation, other: Expression) -> Expression {
        Expression::Arithmetic(operation, Box::new(self), Box::new(other))
    }

    /// The same formula over parameters whose names begin with `prefix`.
    #[must_use]
    pub fn prefixed(&self, prefix: &str) -> Expression {
        let each = |all: &[Expression]| all.iter().map(|one| one.prefixed(prefix)).collect();
        let boxed = |one: &Expression| Box::new(one.prefixed(prefix));
        match self {
            Expression::Literal(value) => Expression::Literal(value.clone()),
            Expression::Name(name) => Expression::Name(format!("{prefix}{name}")),
            Expression::Not(one) => Expression::Not(boxed(one)),
            Expression::Negate(one) => Expression::Negate(boxed(one)),
            Expression::Arithmetic(operation, left, right) => {
                Expression::Arithmetic(*operation, boxed(left), boxed(right))
            }
            Expression::Compare(first, rest) => Expression::Compare(
                boxed(first),
                rest.iter().map(|(comparison, one)| (*comparison, one.prefixed(prefix))).collect(),
            ),
            Expression::In(one, among, inverted) => Expression::In(boxed(one), each(among), *inverted),
            Expression::And(all) => Expression::And(each(all)),
            Expression::Or(any) => Expression::Or(each(any)),
        }
    }

    /// Parameters that are named in it.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.visit(&mut |e| {
            if let Expression::Name(name) = e {
                names.insert(name.as_str());
            }
        });
        names
    }

    fn visit<'a>(&'a self, f: &mut dyn FnMut(&'a Expression)) {
        f(self);
        match self {
            Expression::Literal(_) | Expression::Name(_) => {}
            Expression::Not(x) | Expression::Negate(x) => x.visit(f),
            Expression::Arithmetic(_, x, y) => {
                x.visit(f);
                y.visit(f);
            }
            Expression::Compare(x, rest) => {
                x.visit(f);
                rest.iter().for_each(|(_, y)| y.visit(f));
            }
            Expression::In(x, list, _) => {
                x.visit(f);
                list.iter().for_each(|y| y.visit(f));
            }
            Expression::And(all) | Expression::Or(all) => all.iter().for_each(|x| x.visit(f)),
        }
    }

    /// The value under an assignment; `Ok(None)` where an inactive parameter (one that `lookup` does not
    /// know) leaves it undefined.
    ///
    /// # Errors
    /// Where the formula has no meaning for these values. `and` and `or` look at every side: an error
    /// matters only where no other side decides.
    pub fn evaluate(&self, lookup: &dyn Fn(&str) -> Option<Value>) -> Result<Option<Value>, EvaluationError> {
        let two = |x: &Expression, y: &Expression| -> Result<Option<(Value, Value)>, EvaluationError> {
            Ok(x.evaluate(lookup)?.zip(y.evaluate(lookup)?))
        };
        match self {
            Expression::Literal(value) => Ok(Some(value.clone())),
            Expression::Name(name) => Ok(lookup(name)),
            Expression::Not(x) => Ok(x.evaluate(lookup)?.map(|v| Value::Bool(!truth(&v)))),
            Expression::Negate(x) => x.evaluate(lookup)?.map(|v| negate(&v)).transpose(),
            Expression::Arithmetic(op, x, y) => two(x, y)?.map(|(a, b)| arithmetic(*op, &a, &b)).transpose(),
            Expression::Compare(first, rest) => {
                let mut left: &Expression = first;
                decide(
                    rest.iter().map(|(op, right)| {
                        let result =
                            two(left, right)?.map(|(a, b)| compare(*op, &a, &b).map(Value::Bool)).transpose();
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

    /// Whether a condition holds; undefined is false.
    ///
    /// # Errors
    /// As [`Expression::evaluate`].
    pub fn holds(&self, lookup: &dyn Fn(&str) -> Option<Value>) -> Result<bool, EvaluationError> {
        Ok(self.evaluate(lookup)?.is_some_and(|v| truth(&v)))
    }

    /// Whether a constraint is met; undefined is true.
    ///
    /// # Errors
    /// As [`Expression::evaluate`].
    pub fn met(&self, lookup: &dyn Fn(&str) -> Option<Value>) -> Result<bool, EvaluationError> {
        Ok(self.evaluate(lookup)?.is_none_or(|v| truth(&v)))
    }
}

/// Kleene's `or` (`decisive` true) or `and` (`decisive` false).
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

impl FromStr for Expression {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse::parse(text)
    }
}

impl Operation {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Operation::Add => "+",
            Operation::Subtract => "-",
            Operation::Multiply => "*",
            Operation::Divide => "/",
            Operation::FloorDivide => "//",
            Operation::Modulo => "%",
        }
    }
}

impl Comparison {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Comparison::Equal => "==",
            Comparison::NotEqual => "!=",
            Comparison::Less => "<",
            Comparison::LessEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterEqual => ">=",
        }
    }
}

/// Binding strength, weakest first: or, and, not, comparison, sum, product, sign, atom.
fn strength(e: &Expression) -> u8 {
    match e {
        Expression::Or(_) => 0,
        Expression::And(_) => 1,
        Expression::Not(_) => 2,
        Expression::Compare(..) | Expression::In(..) => 3,
        Expression::Arithmetic(Operation::Add | Operation::Subtract, ..) => 4,
        Expression::Arithmetic(..) => 5,
        Expression::Negate(_) => 6,
        Expression::Literal(_) | Expression::Name(_) => 7,
    }
}

/// Writes `e`, in parentheses unless it binds at least as strongly as `needed`.
fn write_at(f: &mut fmt::Formatter<'_>, e: &Expression, needed: u8) -> fmt::Result {
    if strength(e) < needed { write!(f, "({e})") } else { write!(f, "{e}") }
}

fn write_list(f: &mut fmt::Formatter<'_>, sides: &[Expression], word: &str, needed: u8) -> fmt::Result {
    // One side alone, or none, has no Python spelling of its own: the neutral element makes it two.
    let neutral = Expression::Literal(Value::Bool(word == "and"));
    let padding = 2usize.saturating_sub(sides.len());
    for (i, side) in sides.iter().chain(std::iter::repeat_n(&neutral, padding)).enumerate() {
        if i > 0 {
            write!(f, " {word} ")?;
        }
        write_at(f, side, needed)?;
    }
    Ok(())
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expression::Literal(Value::Bool(b)) => f.write_str(if *b { "True" } else { "False" }),
            Expression::Literal(Value::Text(s)) => {
                f.write_str("'")?;
                for c in s.chars() {
                    match c {
                        '\\' => f.write_str("\\\\")?,
                        '\'' => f.write_str("\\'")?,
                        '\n' => f.write_str("\\n")?,
                        c => write!(f, "{c}")?,
                    }
                }
                f.write_str("'")
            }
            Expression::Literal(value) => write!(f, "{value}"),
            Expression::Name(name) => f.write_str(name),
            Expression::Not(x) => {
                f.write_str("not ")?;
                write_at(f, x, 2)
            }
            Expression::Negate(x) => {
                f.write_str("-")?;
                // A number right after the sign would be read as a negative literal.
                if matches!(**x, Expression::Literal(_)) { write!(f, "({x})") } else { write_at(f, x, 6) }
            }
            Expression::Arithmetic(op, x, y) => {
                let own = strength(self);
                write_at(f, x, own)?;
                write!(f, " {} ", op.symbol())?;
                write_at(f, y, own + 1)
            }
            Expression::Compare(first, rest) => {
                write_at(f, first, 4)?;
                for (op, y) in rest {
                    write!(f, " {} ", op.symbol())?;
                    write_at(f, y, 4)?;
                }
                Ok(())
            }
            Expression::In(x, list, negated) => {
                write_at(f, x, 4)?;
                f.write_str(if *negated { " not in [" } else { " in [" })?;
                for (i, y) in list.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{y}")?;
                }
                f.write_str("]")
            }
            Expression::And(all) => write_list(f, all, "and", 2),
            Expression::Or(any) => write_list(f, any, "or", 1),
        }
    }
}
