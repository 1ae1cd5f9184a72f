//! Conditions and constraints, in the small subset of Python that tuning tools write them in.
//!
//! Arithmetic follows Python: `/` is true division, `//` and `%` round towards minus infinity, and
//! truth values count as 0 and 1. An inactive parameter makes every formula that depends on it
//! *undefined*. `and` and `or` follow Kleene's logic: an undefined operand does not matter if the
//! other one decides. An undefined condition does not hold; an undefined constraint is met.

mod arithmetic;
mod display;
mod evaluate;
mod parse;
mod token;

use std::collections::BTreeSet;
use std::str::FromStr;

pub(crate) use arithmetic::{arithmetic, compare, negate, truth};
pub use evaluate::EvaluationError;
pub use parse::ParseError;

use crate::Value;

/// Arithmetic operation, one of `+ - * / // %`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Addition, written `+`.
    Add,
    /// Subtraction, written `-`.
    Subtract,
    /// Multiplication, written `*`.
    Multiply,
    /// Division, written `/`, whose result is always real.
    Divide,
    /// Division rounded down, written `//`.
    FloorDivide,
    /// Remainder with the sign of the divisor, written `%`.
    Modulo,
}

/// Comparison, one of `== != < <= > >=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Comparison {
    /// Equality, written `==`.
    Equal,
    /// Inequality, written `!=`.
    NotEqual,
    /// Strictly less, written `<`.
    Less,
    /// Less or equal, written `<=`.
    LessEqual,
    /// Strictly greater, written `>`.
    Greater,
    /// Greater or equal, written `>=`.
    GreaterEqual,
}

/// Formula over the parameters of a space.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expression {
    /// Constant that does not depend on parameters.
    Literal(Value),
    /// Value of the parameter with this name.
    Name(String),
    /// Logical negation of the operand, `not x`.
    Not(Box<Expression>),
    /// Arithmetic negation of the operand, `-x`.
    Negate(Box<Expression>),
    /// Arithmetic operation on two operands, such as `x + y`.
    Arithmetic(Operation, Box<Expression>, Box<Expression>),
    /// Chain of comparisons such as `x < y <= z`: every neighboring pair must hold.
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    /// Membership `x in [..]`, or `x not in [..]` if the last field is true.
    In(Box<Expression>, Vec<Expression>, bool),
    /// Conjunction of all operands; true if empty.
    And(Vec<Expression>),
    /// Disjunction of all operands; false if empty.
    Or(Vec<Expression>),
}

impl Expression {
    /// Builds a formula that is the value of the parameter called `name`.
    pub fn name(name: impl Into<String>) -> Expression {
        Expression::Name(name.into())
    }

    /// Builds a formula that is a constant.
    pub fn literal(value: impl Into<Value>) -> Expression {
        Expression::Literal(value.into())
    }

    /// Builds the comparison `self OP other`.
    #[must_use]
    pub fn compare(self, comparison: Comparison, other: Expression) -> Expression {
        Expression::Compare(Box::new(self), vec![(comparison, other)])
    }

    /// Builds the comparison `self == value`.
    #[must_use]
    pub fn equals(self, value: impl Into<Value>) -> Expression {
        self.compare(Comparison::Equal, Expression::literal(value))
    }

    /// Builds the comparison `self != value`.
    #[must_use]
    pub fn differs(self, value: impl Into<Value>) -> Expression {
        self.compare(Comparison::NotEqual, Expression::literal(value))
    }

    /// Builds the comparison `self <= other`.
    #[must_use]
    pub fn at_most(self, other: Expression) -> Expression {
        self.compare(Comparison::LessEqual, other)
    }

    /// Builds the membership `self in [values]`.
    #[must_use]
    pub fn within<V: Into<Value>>(self, values: impl IntoIterator<Item = V>) -> Expression {
        Expression::In(Box::new(self), values.into_iter().map(Expression::literal).collect(), false)
    }

    /// Builds the conjunction `self and other`.
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

    /// Builds the disjunction `self or other`.
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

    /// Builds the negation `not self`.
    #[must_use]
    pub fn negated(self) -> Expression {
        Expression::Not(Box::new(self))
    }

    /// Builds the arithmetic operation `self OP other`.
    #[must_use]
    pub fn arithmetic(self, operation: Operation, other: Expression) -> Expression {
        Expression::Arithmetic(operation, Box::new(self), Box::new(other))
    }

    /// Returns the formula with `prefix` put before the name of every parameter.
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
            Expression::In(one, among, inverted) => {
                Expression::In(boxed(one), each(among), *inverted)
            }
            Expression::And(all) => Expression::And(each(all)),
            Expression::Or(any) => Expression::Or(each(any)),
        }
    }

    /// Returns the names of the parameters in the formula.
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
}

impl FromStr for Expression {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse::parse(text)
    }
}
