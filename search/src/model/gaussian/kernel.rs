//! The covariance of configurations: a weighted sum of per-parameter distances, through Matérn's function. What the
//! weights should be is left to [`super::posterior`].

use paretune_spaces::Point;

use crate::model::Shape;

const SQRT5: f64 = 2.236_067_977_499_79;

/// Weights of the distances, and the noise: what the likelihood decides. Logarithms.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Per term of the distance.
    pub(super) terms: Vec<f64>,
    /// Variance of the noise, relative to the signal's.
    pub(super) noise: f64,
}

/// One summand of the distance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    pub(super) parameter: usize,
    pub(super) aspect: Aspect,
}

/// In which respect two values of a parameter differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aspect {
    /// At all.
    Identity,
    /// In their positions, squared.
    Position,
    /// In the powers of two that they are multiples of.
    Halvings,
}

/// Which distances there are; depends on the space alone.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub(super) shape: Shape,
    pub(super) terms: Vec<Term>,
}

impl Kernel {
    /// The kernel for a space.
    #[must_use]
    pub fn new(shape: Shape) -> Kernel {
        let mut terms = Vec::new();
        for p in &shape.relevant {
            terms.push(Term { parameter: *p, aspect: Aspect::Identity });
            if shape.ordered[*p] {
                terms.push(Term { parameter: *p, aspect: Aspect::Position });
            }
            if !shape.halvings[*p].is_empty() {
                terms.push(Term { parameter: *p, aspect: Aspect::Halvings });
            }
        }
        Kernel { shape, terms }
    }

    pub(super) fn distance(&self, term: Term, a: usize, b: usize) -> f64 {
        let size = usize::from(self.shape.sizes[term.parameter]);
        if a == b {
            return 0.0;
        }
        if a == size || b == size {
            return 1.0;
        }
        match term.aspect {
            Aspect::Identity => 1.0,
            Aspect::Position => {
                let positions = &self.shape.positions[term.parameter];
                (positions[a] - positions[b]).powi(2)
            }
            Aspect::Halvings => {
                let halvings = &self.shape.halvings[term.parameter];
                ((halvings[a] - halvings[b]).abs() / 4.0).min(1.0)
            }
        }
    }

    /// Where the search for weights starts, and the center of their prior.
    #[must_use]
    pub fn prior(&self) -> Weights {
        let count = self.shape.relevant.len().max(1) as f64;
        let terms = self
            .terms
            .iter()
            .map(|t| {
                let base = match t.aspect {
                    Aspect::Identity => IDENTITY,
                    Aspect::Position => POSITION,
                    Aspect::Halvings => HALVINGS,
                };
                (base * 2.0 / count.max(2.0)).ln()
            })
            .collect();
        Weights { terms, noise: 1e-3f64.ln() }
    }

    pub(super) fn tables(&self, weights: &Weights) -> Tables {
        let mut tables = Vec::with_capacity(self.shape.relevant.len());
        for p in &self.shape.relevant {
            let slots = usize::from(self.shape.sizes[*p]) + 1;
            let mut table = vec![0.0; slots * slots];
            for (term, weight) in self.terms.iter().zip(&weights.terms).filter(|(t, _)| t.parameter == *p) {
                for a in 0..slots {
                    for b in 0..slots {
                        table[a * slots + b] += weight.exp() * self.distance(*term, a, b);
                    }
                }
            }
            tables.push(Table { slots, table });
        }
        Tables(tables)
    }

    pub(super) fn slots(&self, point: &Point) -> Vec<u16> {
        self.shape.relevant.iter().map(|p| self.shape.slot(point, *p) as u16).collect()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) slots: usize,
    pub(super) table: Vec<f64>,
}

/// Weighted distances per parameter, by pairs of values.
#[derive(Clone, Debug)]
pub(super) struct Tables(pub(super) Vec<Table>);

impl Tables {
    pub(super) fn squared(&self, a: &[u16], b: &[u16]) -> f64 {
        let pairs = a.iter().zip(b);
        self.0.iter().zip(pairs).map(|(t, (x, y))| t.table[usize::from(*x) * t.slots + usize::from(*y)]).sum()
    }
}

/// Matérn 5/2 of a squared distance.
pub(super) fn matern(squared: f64) -> f64 {
    let r = SQRT5 * squared.sqrt();
    (1.0 + r + r * r / 3.0) * (-r).exp()
}

/// Its derivative by the squared distance.
pub(super) fn matern_slope(squared: f64) -> f64 {
    let r = SQRT5 * squared.sqrt();
    -5.0 / 6.0 * (1.0 + r) * (-r).exp()
}

/// Prior weights, to be divided by the number of parameters.
const IDENTITY: f64 = 0.6;
const POSITION: f64 = 1.5;
const HALVINGS: f64 = 0.3;
/// Of the logarithms of weights.
pub(super) const PRIOR_VARIANCE: f64 = 3.0;
/// Of the logarithm of the noise.
pub(super) const NOISE_VARIANCE: f64 = 6.0;
