//! The covariance of configurations: what parameters do alone, in pairs and all together, each through Matérn's function
//! of weighted per-parameter distances. What the weights should be is left to [`super::posterior`].

use paretune_spaces::Point;

use crate::model::Shape;

const SQRT5: f64 = 2.236_067_977_499_79;

/// Weights of the distances, and the noise: what the likelihood decides. Logarithms.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Per term of the distance.
    pub(super) terms: Vec<f64>,
    /// Variance of what parameters do alone, and of what they do in pairs, relative to what they do all together.
    pub(super) parts: [f64; 2],
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
            if shape.has_distances(*p) {
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
        Weights { terms, parts: [ALONE.ln(), PAIRS.ln()], noise: 1e-3f64.ln() }
    }

    pub(super) fn tables(&self, weights: &Weights) -> Tables {
        let mut tables = Vec::with_capacity(self.shape.relevant.len());
        // The prior shrinks distances with the number of parameters, whose sum goes through Matérn's function. Here
        // each goes through it alone.
        let unshrunk = 0.5 * self.shape.relevant.len() as f64;
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
            let alone = table.iter().map(|squared| matern(unshrunk * squared)).collect();
            let slope = table.iter().map(|squared| unshrunk * matern_slope(unshrunk * squared)).collect();
            tables.push(Table { slots, table, alone, slope });
        }
        let parts = weights.parts.map(f64::exp);
        Tables { tables, parts, total: 1.0 + parts.iter().sum::<f64>() }
    }

    pub(super) fn slots(&self, point: &Point) -> Vec<u16> {
        self.shape.relevant.iter().map(|p| self.shape.slot(point, *p) as u16).collect()
    }
}

/// One parameter, by pairs of values.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) slots: usize,
    /// Weighted squared distances.
    table: Vec<f64>,
    /// The correlation of what this parameter does alone.
    alone: Vec<f64>,
    /// Its derivative by the distance.
    slope: Vec<f64>,
}

/// Everything that correlations are looked up in.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    /// Per relevant parameter.
    pub(super) tables: Vec<Table>,
    /// Variance of what parameters do alone, and of what they do in pairs.
    parts: [f64; 2],
    /// All variance.
    total: f64,
}

/// What two configurations have in common.
pub(super) struct Common {
    /// The weighted squared distance.
    squared: f64,
    /// The sum of the parameters' own correlations.
    sum: f64,
    /// Their mean, and that of their products in pairs: what follows from parameters alone and in pairs.
    means: [f64; 2],
    /// The correlation.
    pub(super) correlation: f64,
}

impl Tables {
    /// Correlations of three processes, weighted by their variances: a sum of functions of one parameter each, a sum of
    /// functions of two, and a function of all (Duvenaud, Nickisch and Rasmussen, 2011). What is learnt of a parameter in
    /// one corner of the space then counts in all others as far as the data say that it does.
    pub(super) fn common(&self, a: &[u16], b: &[u16]) -> Common {
        let (mut squared, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for (table, (x, y)) in self.tables.iter().zip(a.iter().zip(b)) {
            let at = usize::from(*x) * table.slots + usize::from(*y);
            squared += table.table[at];
            sum += table.alone[at];
            squares += table.alone[at] * table.alone[at];
        }
        let count = self.tables.len() as f64;
        // Sums over pairs from sums over single ones (Newton's identity).
        let means = match self.tables.len() {
            0 => [1.0, 1.0],
            1 => [sum, 1.0],
            _ => [sum / count, (sum * sum - squares) / (count * (count - 1.0))],
        };
        let [alone, pairs] = self.parts;
        let correlation = (matern(squared) + alone * means[0] + pairs * means[1]) / self.total;
        Common { squared, sum, means, correlation }
    }

    /// Adds `pull` times the derivatives of a correlation: by the distances to `sums`, each at its pair of values, and by
    /// the logarithms of the parts' variances to `parts`.
    pub(super) fn add_slopes(
        &self,
        (a, b): (&[u16], &[u16]),
        pull: f64,
        sums: &mut [Vec<f64>],
        parts: &mut [f64; 2],
    ) {
        let common = self.common(a, b);
        for ((sum, variance), mean) in parts.iter_mut().zip(&self.parts).zip(&common.means) {
            *sum += pull * variance * (mean - common.correlation) / self.total;
        }
        let count = self.tables.len() as f64;
        let together = matern_slope(common.squared);
        let alone = self.parts[0] / count;
        let pairs = if count > 1.0 { 2.0 * self.parts[1] / (count * (count - 1.0)) } else { 0.0 };
        for ((sum, table), (x, y)) in sums.iter_mut().zip(&self.tables).zip(a.iter().zip(b)) {
            if x != y {
                let at = usize::from(*x) * table.slots + usize::from(*y);
                let others = common.sum - table.alone[at];
                sum[at] += pull * (together + (alone + pairs * others) * table.slope[at]) / self.total;
            }
        }
    }
}

/// Matérn 5/2 of a squared distance.
fn matern(squared: f64) -> f64 {
    let r = SQRT5 * squared.sqrt();
    (1.0 + r + r * r / 3.0) * (-r).exp()
}

/// Its derivative by the squared distance.
fn matern_slope(squared: f64) -> f64 {
    let r = SQRT5 * squared.sqrt();
    -5.0 / 6.0 * (1.0 + r) * (-r).exp()
}

/// Prior weights, to be divided by the number of parameters.
const IDENTITY: f64 = 0.6;
const POSITION: f64 = 1.5;
const HALVINGS: f64 = 0.3;
/// Prior variances of what parameters do alone and in pairs, relative to what they do all together.
const ALONE: f64 = 1.0;
const PAIRS: f64 = std::f64::consts::E;
/// Of the logarithms of weights.
pub(super) const PRIOR_VARIANCE: f64 = 3.0;
/// Of the logarithm of the noise.
pub(super) const NOISE_VARIANCE: f64 = 6.0;
