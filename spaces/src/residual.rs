//! Formulas that are solved piece by piece. Each distinct subformula exists once, and substituting
//! a value for a parameter yields the simplified formula that remains.
//!
//! The remaining formula decides whether two partial assignments have the same completions, so it
//! serves the solver as a cache key: `a * b <= 64` leaves the same formula for `a = 8, b = 4` and
//! `a = 4, b = 8`.

use std::collections::HashMap;
use std::rc::Rc;

use crate::Value;
use crate::expression::{self, Comparison, EvaluationError, Expression, Operation};

/// Index of a formula in [`Formulas`].
pub(crate) type Id = u32;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Constant {
    Value(Value),
    Undefined,
    Error(EvaluationError),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Formula {
    Constant(Constant),
    Variable(u32),
    Not(Id),
    Negate(Id),
    Arithmetic(Operation, Id, Id),
    /// Sum of an integer and at least one other term. Integers may be added in any order.
    Sum(i64, Box<[Id]>),
    Product(i64, Box<[Id]>),
    Compare(Comparison, Id, Id),
    And(Box<[Id]>),
    Or(Box<[Id]>),
}

/// Arena in which each distinct formula exists once.
#[derive(Default)]
pub(crate) struct Formulas {
    formulas: Vec<Formula>,
    variables: Vec<Rc<[u32]>>,
    known: HashMap<Formula, Id>,
    substituted: HashMap<(Id, u32, u16), Id>,
    /// Per variable, whether it has only integer values, so that its sums and products may be
    /// reordered.
    whole: Vec<bool>,
}

impl Formulas {
    /// Creates an empty arena. `whole[v]` says that variable `v` has only integer values, small
    /// enough for their sums and products to be reordered without an overflow that one order alone
    /// would see.
    pub(crate) fn new(whole: Vec<bool>) -> Self {
        Formulas { whole, ..Formulas::default() }
    }

    pub(crate) fn constant(&self, id: Id) -> Option<&Constant> {
        match &self.formulas[id as usize] {
            Formula::Constant(c) => Some(c),
            _ => None,
        }
    }

    /// Returns the variables of a formula in ascending order.
    pub(crate) fn variables(&self, id: Id) -> &Rc<[u32]> {
        &self.variables[id as usize]
    }

    /// Returns the number of distinct formulas.
    pub(crate) fn len(&self) -> usize {
        self.formulas.len()
    }

    /// Returns the operands of a conjunction, or the formula itself.
    pub(crate) fn conjuncts(&self, id: Id) -> Vec<Id> {
        match &self.formulas[id as usize] {
            Formula::And(sides) => sides.to_vec(),
            _ => vec![id],
        }
    }

    pub(crate) fn truth(&mut self, b: bool) -> Id {
        self.value(Value::Bool(b))
    }

    fn value(&mut self, value: Value) -> Id {
        self.intern(Formula::Constant(Constant::Value(value)))
    }

    fn intern(&mut self, formula: Formula) -> Id {
        if let Some(id) = self.known.get(&formula) {
            return *id;
        }
        let mut variables: Vec<u32> = match &formula {
            Formula::Constant(_) => Vec::new(),
            Formula::Variable(v) => vec![*v],
            Formula::Not(x) | Formula::Negate(x) => self.variables(*x).to_vec(),
            Formula::Arithmetic(_, x, y) | Formula::Compare(_, x, y) => {
                [&self.variables(*x)[..], &self.variables(*y)[..]].concat()
            }
            Formula::Sum(_, terms)
            | Formula::Product(_, terms)
            | Formula::And(terms)
            | Formula::Or(terms) => {
                terms.iter().flat_map(|t| self.variables(*t).iter().copied()).collect()
            }
        };
        variables.sort_unstable();
        variables.dedup();
        let id = self.formulas.len() as Id;
        self.formulas.push(formula.clone());
        self.variables.push(variables.into());
        self.known.insert(formula, id);
        id
    }

    /// Adds an expression. The function `variable` maps a name to its index.
    pub(crate) fn add(&mut self, e: &Expression, variable: &dyn Fn(&str) -> u32) -> Id {
        match e {
            Expression::Literal(v) => self.value(v.clone()),
            Expression::Name(name) => self.intern(Formula::Variable(variable(name))),
            Expression::Not(x) => {
                let x = self.add(x, variable);
                self.not(x)
            }
            Expression::Negate(x) => {
                let x = self.add(x, variable);
                self.negate(x)
            }
            Expression::Arithmetic(op, x, y) => {
                let (x, y) = (self.add(x, variable), self.add(y, variable));
                self.arithmetic(*op, x, y)
            }
            Expression::Compare(first, rest) => {
                let mut left = self.add(first, variable);
                let mut all = Vec::with_capacity(rest.len());
                for (op, right) in rest {
                    let right = self.add(right, variable);
                    all.push(self.compare(*op, left, right));
                    left = right;
                }
                self.connect(all, false)
            }
            Expression::In(x, list, negated) => {
                let x = self.add(x, variable);
                let any = list
                    .iter()
                    .map(|y| {
                        let y = self.add(y, variable);
                        self.compare(Comparison::Equal, x, y)
                    })
                    .collect();
                let found = self.connect(any, true);
                if *negated { self.not(found) } else { found }
            }
            Expression::And(all) => {
                let all = all.iter().map(|x| self.add(x, variable)).collect();
                self.connect(all, false)
            }
            Expression::Or(any) => {
                let any = any.iter().map(|x| self.add(x, variable)).collect();
                self.connect(any, true)
            }
        }
    }

    /// Returns the formula that remains of `id` once `variable` has its value number `index`, where
    /// `u16::MAX` means inactive.
    pub(crate) fn substitute(&mut self, id: Id, variable: u32, index: u16, value: &Constant) -> Id {
        if self.variables(id).binary_search(&variable).is_err() {
            return id;
        }
        if let Some(known) = self.substituted.get(&(id, variable, index)) {
            return *known;
        }
        let formula = self.formulas[id as usize].clone();
        let put = |this: &mut Self, x: Id| this.substitute(x, variable, index, value);
        let result = match formula {
            Formula::Constant(_) => id,
            Formula::Variable(_) => self.intern(Formula::Constant(value.clone())),
            Formula::Not(x) => {
                let x = put(self, x);
                self.not(x)
            }
            Formula::Negate(x) => {
                let x = put(self, x);
                self.negate(x)
            }
            Formula::Arithmetic(op, x, y) => {
                let (x, y) = (put(self, x), put(self, y));
                self.arithmetic(op, x, y)
            }
            Formula::Compare(op, x, y) => {
                let (x, y) = (put(self, x), put(self, y));
                self.compare(op, x, y)
            }
            Formula::Sum(constant, terms) => {
                let terms = terms.iter().map(|t| put(self, *t)).collect();
                self.fold(Operation::Add, constant, terms)
            }
            Formula::Product(constant, terms) => {
                let terms = terms.iter().map(|t| put(self, *t)).collect();
                self.fold(Operation::Multiply, constant, terms)
            }
            Formula::And(sides) => {
                let sides = sides.iter().map(|s| put(self, *s)).collect();
                self.connect(sides, false)
            }
            Formula::Or(sides) => {
                let sides = sides.iter().map(|s| put(self, *s)).collect();
                self.connect(sides, true)
            }
        };
        self.substituted.insert((id, variable, index), result);
        result
    }

    fn not(&mut self, x: Id) -> Id {
        match self.constant(x) {
            Some(Constant::Value(v)) => {
                let b = !expression::truth(v);
                self.truth(b)
            }
            Some(_) => x,
            None => self.intern(Formula::Not(x)),
        }
    }

    fn negate(&mut self, x: Id) -> Id {
        match self.constant(x) {
            Some(Constant::Value(v)) => {
                let result = expression::negate(v);
                self.result(result)
            }
            Some(_) => x,
            None => self.intern(Formula::Negate(x)),
        }
    }

    fn result(&mut self, result: Result<Value, EvaluationError>) -> Id {
        let constant = match result {
            Ok(v) => Constant::Value(v),
            Err(e) => Constant::Error(e),
        };
        self.intern(Formula::Constant(constant))
    }

    /// Returns both values of settled operands, or the constant (undefined or error) that the
    /// operation yields.
    fn operands(&self, x: Id, y: Id) -> Option<Result<(Value, Value), Id>> {
        match (self.constant(x), self.constant(y)) {
            (Some(Constant::Value(a)), Some(Constant::Value(b))) => {
                Some(Ok((a.clone(), b.clone())))
            }
            (Some(Constant::Error(_)), _) => Some(Err(x)),
            (_, Some(Constant::Error(_))) => Some(Err(y)),
            (Some(Constant::Undefined), _) => Some(Err(x)),
            (_, Some(Constant::Undefined)) => Some(Err(y)),
            _ => None,
        }
    }

    fn arithmetic(&mut self, op: Operation, x: Id, y: Id) -> Id {
        match self.operands(x, y) {
            Some(Err(id)) => return id,
            Some(Ok((a, b))) => {
                let result = expression::arithmetic(op, &a, &b);
                return self.result(result);
            }
            None => {}
        }
        let neutral = match op {
            Operation::Add => 0,
            Operation::Multiply => 1,
            _ => return self.intern(Formula::Arithmetic(op, x, y)),
        };
        if self.is_whole(x) && self.is_whole(y) {
            return self.fold(op, neutral, vec![x, y]);
        }
        self.intern(Formula::Arithmetic(op, x, y))
    }

    /// Returns whether a formula certainly has integer (or undefined) values that are small enough
    /// to be reordered.
    fn is_whole(&self, id: Id) -> bool {
        match &self.formulas[id as usize] {
            Formula::Constant(Constant::Value(v)) => {
                v.as_i64().is_some_and(|i| i.unsigned_abs() < 1 << 40)
            }
            Formula::Constant(_) => true,
            Formula::Variable(v) => self.whole[*v as usize],
            Formula::Sum(..) | Formula::Product(..) => true,
            _ => false,
        }
    }

    /// Builds a sum or product of integer terms with all constants combined.
    fn fold(&mut self, op: Operation, mut constant: i64, terms: Vec<Id>) -> Id {
        let mut rest = Vec::with_capacity(terms.len());
        let mut open = terms;
        open.reverse();
        while let Some(term) = open.pop() {
            let inner = match (&self.formulas[term as usize], op) {
                (Formula::Constant(Constant::Value(v)), _) => v.as_i64().map(|i| (i, &[][..])),
                (Formula::Constant(_), _) => return term,
                (Formula::Sum(c, inner), Operation::Add)
                | (Formula::Product(c, inner), Operation::Multiply) => Some((*c, &inner[..])),
                _ => None,
            };
            match inner {
                Some((c, inner)) => {
                    let sum = if op == Operation::Add {
                        constant.checked_add(c)
                    } else {
                        constant.checked_mul(c)
                    };
                    let Some(sum) = sum else {
                        return self
                            .intern(Formula::Constant(Constant::Error(EvaluationError::Overflow)));
                    };
                    constant = sum;
                    rest.extend_from_slice(inner);
                }
                None => rest.push(term),
            }
        }
        rest.sort_unstable();
        let neutral = i64::from(op == Operation::Multiply);
        match rest.as_slice() {
            [] => self.value(Value::Int(constant)),
            [one] if constant == neutral => *one,
            _ if op == Operation::Add => self.intern(Formula::Sum(constant, rest.into())),
            _ => self.intern(Formula::Product(constant, rest.into())),
        }
    }

    fn compare(&mut self, op: Comparison, x: Id, y: Id) -> Id {
        match self.operands(x, y) {
            Some(Err(id)) => id,
            Some(Ok((a, b))) => {
                let result = expression::compare(op, &a, &b).map(Value::Bool);
                self.result(result)
            }
            None => self.intern(Formula::Compare(op, x, y)),
        }
    }

    /// Builds Kleene's `or` (`decisive` is true) or `and` (`decisive` is false).
    fn connect(&mut self, sides: Vec<Id>, decisive: bool) -> Id {
        let mut rest = Vec::with_capacity(sides.len());
        let mut settled: Option<Id> = None;
        let mut open = sides;
        open.reverse();
        while let Some(side) = open.pop() {
            match (&self.formulas[side as usize], decisive) {
                (Formula::Constant(Constant::Value(v)), _) => {
                    if expression::truth(v) == decisive {
                        return self.truth(decisive);
                    }
                }
                (Formula::Constant(Constant::Undefined), _) => {
                    settled.get_or_insert(side);
                }
                // An error outweighs an undefined operand, as in `Expression::evaluate`.
                (Formula::Constant(Constant::Error(_)), _) => {
                    match settled.and_then(|s| self.constant(s)) {
                        Some(Constant::Error(_)) => {}
                        _ => settled = Some(side),
                    }
                }
                (Formula::And(inner), false) | (Formula::Or(inner), true) => {
                    open.extend(inner.iter().rev())
                }
                _ => rest.push(side),
            }
        }
        if rest.is_empty() {
            return match settled {
                Some(id) => id,
                None => self.truth(!decisive),
            };
        }
        rest.extend(settled);
        rest.sort_unstable();
        rest.dedup();
        // A single operand that is no truth value by itself must still become one.
        match rest.as_slice() {
            [one]
                if matches!(
                    self.formulas[*one as usize],
                    Formula::Compare(..) | Formula::Not(_)
                ) =>
            {
                *one
            }
            _ if decisive => self.intern(Formula::Or(rest.into())),
            _ => self.intern(Formula::And(rest.into())),
        }
    }
}
