//! Parser of the expression language by recursive descent. Errors carry the position.

use super::token::{Failure, Token, tokenize};
use super::{Comparison, Expression, Operation};
use crate::Value;

/// Depth of nesting beyond which a formula is refused, to protect the stack.
const MAX_DEPTH: usize = 100;

/// Error of a formula that cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column} of `{text}`: {message}")]
pub struct ParseError {
    /// Text of the whole formula.
    pub text: String,
    /// Position of the error in characters, counted from 1.
    pub column: usize,
    /// Description of the expected text.
    pub message: String,
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
}

pub(super) fn parse(text: &str) -> Result<Expression, ParseError> {
    let run = || {
        let mut parser = Parser { tokens: tokenize(text)?, at: 0, depth: 0 };
        let expression = parser.or()?;
        match parser.peek() {
            Token::End => Ok(expression),
            _ => Err(parser.error("an operator or the end")),
        }
    };
    run().map_err(|(column, message): Failure| ParseError {
        text: text.to_owned(),
        column,
        message,
    })
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].1
    }

    fn error(&self, expected: &str) -> Failure {
        let (column, token) = &self.tokens[self.at];
        let found = match token {
            Token::End => "the end".to_owned(),
            Token::Integer(n) => format!("`{n}`"),
            Token::Real(r) => format!("`{r:?}`"),
            Token::Text(s) => format!("'{s}'"),
            Token::Name(s) => format!("`{s}`"),
            Token::Symbol(s) => format!("`{s}`"),
        };
        (*column, format!("expected {expected}, found {found}"))
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Token::Symbol(s) if *s == symbol);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Token::Name(s) if s == word);
        self.at += usize::from(found);
        found
    }

    fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, Failure> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err((self.tokens[self.at].0, "nested too deeply".to_owned()));
        }
        let result = f(self);
        self.depth -= 1;
        result
    }

    fn or(&mut self) -> Result<Expression, Failure> {
        let first = self.and()?;
        let mut any = vec![first];
        while self.word("or") {
            any.push(self.and()?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Expression::Or(any) })
    }

    fn and(&mut self) -> Result<Expression, Failure> {
        let first = self.not()?;
        let mut all = vec![first];
        while self.word("and") {
            all.push(self.not()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::And(all) })
    }

    fn not(&mut self) -> Result<Expression, Failure> {
        if self.word("not") {
            return self.nested(|p| Ok(Expression::Not(Box::new(p.not()?))));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expression, Failure> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let op = match self.peek() {
                Token::Symbol("==") => Comparison::Equal,
                Token::Symbol("!=") => Comparison::NotEqual,
                Token::Symbol("<") => Comparison::Less,
                Token::Symbol("<=") => Comparison::LessEqual,
                Token::Symbol(">") => Comparison::Greater,
                Token::Symbol(">=") => Comparison::GreaterEqual,
                Token::Name(word) if (word == "in" || word == "not") && rest.is_empty() => {
                    let negated = self.word("not");
                    if !self.word("in") {
                        return Err(self.error("`in`"));
                    }
                    return Ok(Expression::In(Box::new(first), self.list()?, negated));
                }
                _ => break,
            };
            self.at += 1;
            rest.push((op, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expression::Compare(Box::new(first), rest) })
    }

    fn list(&mut self) -> Result<Vec<Expression>, Failure> {
        let close = if self.symbol("[") {
            "]"
        } else if self.symbol("(") {
            ")"
        } else {
            return Err(self.error("`[` or `(` and a list of values"));
        };
        let mut values = Vec::new();
        while !self.symbol(close) {
            values.push(self.nested(Self::or)?);
            if !self.symbol(",") && !matches!(self.peek(), Token::Symbol(s) if *s == close) {
                return Err(self.error(&format!("`,` or `{close}`")));
            }
        }
        Ok(values)
    }

    fn sum(&mut self) -> Result<Expression, Failure> {
        let mut left = self.product()?;
        loop {
            let op = match self.peek() {
                Token::Symbol("+") => Operation::Add,
                Token::Symbol("-") => Operation::Subtract,
                _ => return Ok(left),
            };
            self.at += 1;
            left = left.arithmetic(op, self.product()?);
        }
    }

    fn product(&mut self) -> Result<Expression, Failure> {
        let mut left = self.sign()?;
        loop {
            let op = match self.peek() {
                Token::Symbol("*") => Operation::Multiply,
                Token::Symbol("/") => Operation::Divide,
                Token::Symbol("//") => Operation::FloorDivide,
                Token::Symbol("%") => Operation::Modulo,
                _ => return Ok(left),
            };
            self.at += 1;
            left = left.arithmetic(op, self.sign()?);
        }
    }

    fn sign(&mut self) -> Result<Expression, Failure> {
        if self.symbol("+") {
            return self.nested(Self::sign);
        }
        if !self.symbol("-") {
            return self.atom();
        }
        match *self.peek() {
            Token::Integer(n) => {
                let n = self.integer(-n)?;
                self.at += 1;
                Ok(Expression::Literal(n))
            }
            Token::Real(r) => {
                self.at += 1;
                Ok(Expression::literal(-r))
            }
            _ => self.nested(|p| Ok(Expression::Negate(Box::new(p.sign()?)))),
        }
    }

    fn integer(&self, n: i128) -> Result<Value, Failure> {
        i64::try_from(n)
            .map(Value::Int)
            .map_err(|_| (self.tokens[self.at].0, format!("`{n}` is beyond 64 bits")))
    }

    fn atom(&mut self) -> Result<Expression, Failure> {
        let expression = match self.peek().clone() {
            Token::Integer(n) => Expression::Literal(self.integer(n)?),
            Token::Real(r) => Expression::literal(r),
            Token::Text(s) => Expression::Literal(Value::Text(s)),
            Token::Name(s) => match s.as_str() {
                "True" | "true" => Expression::literal(true),
                "False" | "false" => Expression::literal(false),
                "and" | "or" | "not" | "in" => return Err(self.error("a value")),
                _ => Expression::Name(s),
            },
            Token::Symbol("(") => {
                self.at += 1;
                let inner = self.nested(Self::or)?;
                if !matches!(self.peek(), Token::Symbol(")")) {
                    return Err(self.error("`)`"));
                }
                inner
            }
            _ => return Err(self.error("a value")),
        };
        self.at += 1;
        Ok(expression)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Value {
        let lookup = |name: &str| match name {
            "x" => Some(Value::Int(16)),
            "conv1.tile" => Some(Value::Int(3)),
            "algo" => Some(Value::from("direct")),
            _ => None,
        };
        text.parse::<Expression>().unwrap().evaluate(&lookup).unwrap().unwrap()
    }

    #[test]
    fn reads_what_tuners_write() {
        for (text, expected) in [
            ("use_shmem == 1 or ((x*2+(15-1))*(x*1+(15-1))) < 12*1024", true),
            ("32 <= x * 4 <= 1024", true),
            ("32 <= x <= 1024", false),
            ("not x == 16 or algo in ['direct', \"gemm\"]", true),
            ("algo not in ('direct',)", false),
            ("x / 32 == 0.5 and x // 32 == 0 and -x % 5 == 4", true),
            ("conv1.tile != 3", false),
            ("missing > 3 or x > 3", true),
            ("1e1 == 10 and .5 < 1. and True", true),
        ] {
            assert_eq!(value(text), Value::Bool(expected), "{text}");
        }
        assert_eq!(value("2 - -9223372036854775808 // 4096"), Value::Int(2 + (1 << 51)));
    }

    #[test]
    fn errors_say_where() {
        for (text, column) in [
            ("x <", 4),
            ("(x == 1", 8),
            ("x ? 1", 3),
            ("'abc", 1),
            ("x in 3", 6),
            ("99999999999999999999 == x", 1),
            ("x == 1 y", 8),
            ("", 1),
        ] {
            assert_eq!(text.parse::<Expression>().unwrap_err().column, column, "{text}");
        }
        assert!("(".repeat(1000).parse::<Expression>().unwrap_err().message.contains("deep"));
    }

    fn expressions() -> impl Strategy<Value = Expression> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Expression::literal),
            (-1e9f64..1e9).prop_map(Expression::literal),
            any::<bool>().prop_map(Expression::literal),
            "[a-z'\\\\ ]{0,4}".prop_map(|s| Expression::Literal(Value::Text(s))),
            "x[a-z0-9_]{0,3}(\\.y)?".prop_map(Expression::Name),
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            let some = prop::collection::vec(inner.clone(), 2..4);
            prop_oneof![
                inner.clone().prop_map(Expression::negated),
                inner.clone().prop_map(|e| Expression::Negate(Box::new(e))),
                (inner.clone(), inner.clone())
                    .prop_map(|(a, b)| a.arithmetic(Operation::Subtract, b)),
                (inner.clone(), inner.clone())
                    .prop_map(|(a, b)| a.arithmetic(Operation::FloorDivide, b)),
                (inner.clone(), inner.clone())
                    .prop_map(|(a, b)| a.compare(Comparison::LessEqual, b)),
                (inner.clone(), inner).prop_map(|(a, b)| Expression::In(
                    Box::new(a),
                    vec![b],
                    true
                )),
                some.clone().prop_map(Expression::And),
                some.prop_map(Expression::Or),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn what_is_written_reads_the_same(e in expressions()) {
            let text = e.to_string();
            prop_assert_eq!(text.parse::<Expression>().unwrap(), e, "{}", text);
        }

        #[test]
        fn nonsense_never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Expression>();
        }
    }
}
