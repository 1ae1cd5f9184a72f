//! Covariance of configurations: effects of single parameters, of pairs, and of all parameters
//! together, each a Matérn function of weighted distances per parameter.

use paretune_spaces::Point;

use crate::model::Features;

const SQRT5: f64 = 2.236_067_977_499_79;

/// Logarithms of the kernel's weights and variances, which the likelihood decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyperparameters {
    /// Weight of each term of the distance.
    pub(super) terms: Vec<f64>,
    /// Variances of the effects of single parameters and of pairs, relative to that of all
    /// together.
    pub(super) orders: [f64; 2],
    /// Variance of the noise, relative to that of the signal.
    pub(super) noise: f64,
}

/// Term of the distance between two configurations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    pub(super) parameter: usize,
    pub(super) aspect: Aspect,
}

/// Respect in which two values of a parameter differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aspect {
    /// The values are not equal.
    Identity,
    /// The squared difference of their positions on a scale.
    Position,
    /// The difference of the powers of two that divide them.
    FactorsOfTwo,
}

/// Terms of the distance, which depend on the space alone.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub(super) features: Features,
    pub(super) terms: Vec<Term>,
}

impl Kernel {
    /// Creates the kernel for the features of a space.
    #[must_use]
    pub fn new(features: Features) -> Kernel {
        let mut terms = Vec::new();
        for p in &features.relevant {
            terms.push(Term { parameter: *p, aspect: Aspect::Identity });
            if features.has_distances(*p) {
                terms.push(Term { parameter: *p, aspect: Aspect::Position });
            }
            if !features.factors_of_two[*p].is_empty() {
                terms.push(Term { parameter: *p, aspect: Aspect::FactorsOfTwo });
            }
        }
        Kernel { features, terms }
    }

    pub(super) fn distance(&self, term: Term, a: usize, b: usize) -> f64 {
        let size = usize::from(self.features.sizes[term.parameter]);
        if a == b {
            return 0.0;
        }
        if a == size || b == size {
            return 1.0;
        }
        match term.aspect {
            Aspect::Identity => 1.0,
            Aspect::Position => {
                let positions = &self.features.positions[term.parameter];
                (positions[a] - positions[b]).powi(2)
            }
            Aspect::FactorsOfTwo => {
                let factors_of_two = &self.features.factors_of_two[term.parameter];
                ((factors_of_two[a] - factors_of_two[b]).abs() / 4.0).min(1.0)
            }
        }
    }

    /// Returns the center of the prior, at which the search for hyperparameters starts.
    #[must_use]
    pub fn prior(&self) -> Hyperparameters {
        let count = self.features.relevant.len().max(1) as f64;
        let terms = self
            .terms
            .iter()
            .map(|t| {
                let base = match t.aspect {
                    Aspect::Identity => IDENTITY,
                    Aspect::Position => POSITION,
                    Aspect::FactorsOfTwo => FACTORS_OF_TWO,
                };
                (base * 2.0 / count.max(2.0)).ln()
            })
            .collect();
        Hyperparameters {
            terms,
            orders: [FIRST_ORDER.ln(), SECOND_ORDER.ln()],
            noise: 1e-3f64.ln(),
        }
    }

    pub(super) fn tables(&self, hyperparameters: &Hyperparameters) -> Tables {
        let mut tables = Vec::with_capacity(self.features.relevant.len());
        // The prior shrinks distances with the number of parameters, since their sum goes through
        // Matérn's function. The distance of a single parameter goes through it alone.
        let unshrunk = 0.5 * self.features.relevant.len() as f64;
        for p in &self.features.relevant {
            let slots = usize::from(self.features.sizes[*p]) + 1;
            let mut table = vec![0.0; slots * slots];
            for (term, weight) in
                self.terms.iter().zip(&hyperparameters.terms).filter(|(t, _)| t.parameter == *p)
            {
                for a in 0..slots {
                    for b in 0..slots {
                        table[a * slots + b] += weight.exp() * self.distance(*term, a, b);
                    }
                }
            }
            let alone = table.iter().map(|squared| matern(unshrunk * squared)).collect();
            let derivative = table
                .iter()
                .map(|squared| unshrunk * matern_derivative(unshrunk * squared))
                .collect();
            tables.push(Table { slots, table, alone, derivative });
        }
        let orders = hyperparameters.orders.map(f64::exp);
        Tables { tables, orders, total: 1.0 + orders.iter().sum::<f64>() }
    }

    pub(super) fn slots(&self, point: &Point) -> Vec<u16> {
        self.features.relevant.iter().map(|p| self.features.slot(point, *p) as u16).collect()
    }
}

/// Distances and correlations of one parameter by pairs of values.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) slots: usize,
    /// Weighted squared distance of each pair of values.
    table: Vec<f64>,
    /// Correlations of the effects of this parameter alone.
    alone: Vec<f64>,
    /// Derivatives of the correlations by the squared distance.
    derivative: Vec<f64>,
}

/// Tables from which the correlation of two configurations is computed.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    /// Table of each relevant parameter.
    pub(super) tables: Vec<Table>,
    /// Variances of the effects of single parameters and of pairs.
    orders: [f64; 2],
    /// Sum of the variances of all effects.
    total: f64,
}

/// Correlation of two configurations, with the quantities that its derivatives need.
pub(super) struct Correlation {
    /// Weighted squared distance of the configurations.
    squared: f64,
    /// Sum of the correlations of single parameters.
    sum: f64,
    /// Mean of the correlations of single parameters, and mean of their products in pairs.
    means: [f64; 2],
    /// Correlation of the whole process.
    pub(super) correlation: f64,
}

impl Tables {
    /// Computes the correlation of two configurations as that of three processes, weighted by their
    /// variances: a sum of functions of one parameter each, a sum of functions of two, and a
    /// function of all (Duvenaud, Nickisch and Rasmussen, 2011). An effect that is learned in one
    /// corner of the space then counts in all others, as far as the data support it.
    pub(super) fn correlate(&self, a: &[u16], b: &[u16]) -> Correlation {
        let (mut squared, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for (table, (x, y)) in self.tables.iter().zip(a.iter().zip(b)) {
            let at = usize::from(*x) * table.slots + usize::from(*y);
            squared += table.table[at];
            sum += table.alone[at];
            squares += table.alone[at] * table.alone[at];
        }
        let count = self.tables.len() as f64;
        // Sums over pairs follow from sums over single parameters (Newton's identity).
        let means = match self.tables.len() {
            0 => [1.0, 1.0],
            1 => [sum, 1.0],
            _ => [sum / count, (sum * sum - squares) / (count * (count - 1.0))],
        };
        let [first, second] = self.orders;
        let correlation = (matern(squared) + first * means[0] + second * means[1]) / self.total;
        Correlation { squared, sum, means, correlation }
    }

    /// Adds `pull` times the derivatives of a correlation: those by the distances to `sums`, each
    /// at its pair of values, and those by the logarithms of the effects' variances to `orders`.
    pub(super) fn add_gradient(
        &self,
        (a, b): (&[u16], &[u16]),
        pull: f64,
        sums: &mut [Vec<f64>],
        orders: &mut [f64; 2],
    ) {
        let correlate = self.correlate(a, b);
        for ((sum, variance), mean) in orders.iter_mut().zip(&self.orders).zip(&correlate.means) {
            *sum += pull * variance * (mean - correlate.correlation) / self.total;
        }
        let count = self.tables.len() as f64;
        let together = matern_derivative(correlate.squared);
        let alone = self.orders[0] / count;
        let pairs = if count > 1.0 { 2.0 * self.orders[1] / (count * (count - 1.0)) } else { 0.0 };
        for ((sum, table), (x, y)) in sums.iter_mut().zip(&self.tables).zip(a.iter().zip(b)) {
            if x != y {
                let at = usize::from(*x) * table.slots + usize::from(*y);
                let others = correlate.sum - table.alone[at];
                sum[at] += pull * (together + (alone + pairs * others) * table.derivative[at])
                    / self.total;
            }
        }
    }
}

/// Returns the Matérn 5/2 function of a squared distance.
fn matern(squared: f64) -> f64 {
    let r = SQRT5 * squared.sqrt();
    (1.0 + r + r * r / 3.0) * (-r).exp()
}

/// Returns the derivative of [`matern`] by the squared distance.
fn matern_derivative(squared: f64) -> f64 {
    let r = SQRT5 * squared.sqrt();
    -5.0 / 6.0 * (1.0 + r) * (-r).exp()
}

/// Prior weight of unequal values, to be divided by the number of parameters.
const IDENTITY: f64 = 0.6;
/// Prior weight of the squared difference of positions, to be divided by the number of parameters.
const POSITION: f64 = 1.5;
/// Prior weight of the difference in factors of two, to be divided by the number of parameters.
const FACTORS_OF_TWO: f64 = 0.3;
/// Prior variance of the effects of single parameters, relative to that of all together.
const FIRST_ORDER: f64 = 1.0;
/// Prior variance of the effects of pairs of parameters, relative to that of all together.
const SECOND_ORDER: f64 = std::f64::consts::E;
/// Prior variance of the logarithms of weights.
pub(super) const PRIOR_VARIANCE: f64 = 3.0;
/// Prior variance of the logarithm of the noise.
pub(super) const NOISE_VARIANCE: f64 = 6.0;
