//! Formulas as text that Python and the parser read.

use std::fmt;

use super::{Comparison, Expression, Operation};
use crate::Value;

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

/// Returns the binding strength: or, and, not, comparison, sum, product, sign, atom, from weak to
/// strong.
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

fn write_list(
    f: &mut fmt::Formatter<'_>,
    sides: &[Expression],
    word: &str,
    needed: u8,
) -> fmt::Result {
    // A single operand, or none, has no Python spelling of its own: the neutral element makes it
    // two.
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
                if matches!(**x, Expression::Literal(_)) {
                    write!(f, "({x})")
                } else {
                    write_at(f, x, 6)
                }
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
