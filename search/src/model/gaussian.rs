//! Gaussian process regression over mixed, conditional parameters.
//!
//! The kernel is Matérn 5/2 over a weighted sum of per-parameter distances: for every parameter whether the values
//! differ, for ordered ones also how far apart they are, squared. What is inactive differs from everything active.
//! Weights follow from the marginal likelihood with a log-normal prior whose mean shrinks with the number of parameters
//! (Hvarfner, Hellsten and Nardi, 2024: that alone makes the process fit for many parameters). The signal's
//! variance is integrated out in closed form.

use paretune_spaces::Point;

use super::cholesky::{Factor, dot};
use super::{Model, Prediction, Shape};

const SQRT5: f64 = 2.236_067_977_499_79;

/// Weights of the distances, and the noise: what the likelihood decides. Logarithms.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Per term of the distance.
    terms: Vec<f64>,
    /// Variance of the noise, relative to the signal's.
    noise: f64,
}

/// One summand of the distance.
#[derive(Clone, Copy, Debug)]
struct Term {
    parameter: usize,
    aspect: Aspect,
}

/// In which respect two values of a parameter differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aspect {
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
    shape: Shape,
    terms: Vec<Term>,
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

    fn distance(&self, term: Term, a: usize, b: usize) -> f64 {
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

    fn tables(&self, weights: &Weights) -> Tables {
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

    fn slots(&self, point: &Point) -> Vec<u16> {
        self.shape.relevant.iter().map(|p| self.shape.slot(point, *p) as u16).collect()
    }
}

#[derive(Clone, Debug)]
struct Table {
    slots: usize,
    table: Vec<f64>,
}

/// Weighted distances per parameter, by pairs of values.
#[derive(Clone, Debug)]
struct Tables(Vec<Table>);

impl Tables {
    fn squared(&self, a: &[u16], b: &[u16]) -> f64 {
        let pairs = a.iter().zip(b);
        self.0.iter().zip(pairs).map(|(t, (x, y))| t.table[usize::from(*x) * t.slots + usize::from(*y)]).sum()
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

/// A fitted process.
#[derive(Clone, Debug)]
pub struct Gaussian {
    kernel: Kernel,
    tables: Tables,
    points: Vec<Vec<u16>>,
    factor: Factor,
    alpha: Vec<f64>,
    center: f64,
    /// Variance of the signal.
    variance: f64,
}

/// Data brought to mean 0 and deviation 1.
struct Standard {
    center: f64,
    scale: f64,
    values: Vec<f64>,
}

fn standardize(values: &[f64]) -> Standard {
    let n = values.len() as f64;
    let center = values.iter().sum::<f64>() / n;
    let square = values.iter().map(|v| (v - center).powi(2)).sum::<f64>() / n;
    let scale = if square > 0.0 && square.sqrt().is_normal() { square.sqrt() } else { 1.0 };
    Standard { center, scale, values: values.iter().map(|v| (v - center) / scale).collect() }
}

impl Gaussian {
    /// Conditions the process with these weights on data. `None` without data, or where the matrix is beyond
    /// repair.
    #[must_use]
    pub fn fit(kernel: &Kernel, weights: &Weights, points: &[&Point], values: &[f64]) -> Option<Gaussian> {
        if points.is_empty() {
            return None;
        }
        let standard = standardize(values);
        let rows: Vec<Vec<u16>> = points.iter().map(|p| kernel.slots(p)).collect();
        let tables = kernel.tables(weights);
        let n = rows.len();
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                matrix[i * n + j] = matern(tables.squared(&rows[i], &rows[j]));
            }
        }
        let mut noise = weights.noise.exp();
        let factor = loop {
            for i in 0..n {
                matrix[i * n + i] = 1.0 + noise;
            }
            match Factor::of(&matrix, n) {
                Some(factor) => break factor,
                None if noise < 1.0 => noise *= 10.0,
                None => return None,
            }
        };
        let mut half = standard.values.clone();
        factor.forward(&mut half);
        // A weak prior keeps the variance sensible for a handful of points.
        let variance = (dot(&half, &half) + 2.0) / (n as f64 + 2.0) * standard.scale * standard.scale;
        let mut alpha = half;
        factor.backward(&mut alpha);
        alpha.iter_mut().for_each(|a| *a *= standard.scale);
        Some(Gaussian {
            kernel: kernel.clone(),
            tables,
            points: rows,
            factor,
            alpha,
            center: standard.center,
            variance,
        })
    }

    /// Climbs the posterior density of the weights by `steps` steps of resilient propagation from `start`.
    #[must_use]
    pub fn learn(
        kernel: &Kernel,
        start: &Weights,
        points: &[&Point],
        values: &[f64],
        steps: usize,
    ) -> Weights {
        if points.len() < 3 || kernel.terms.is_empty() {
            return start.clone();
        }
        let rows: Vec<Vec<u16>> = points.iter().map(|p| kernel.slots(p)).collect();
        let standard = standardize(values);
        let prior = kernel.prior();
        let evaluate = |weights: &Weights| slope(kernel, weights, &prior, &rows, &standard.values);
        let mut weights = start.clone();
        let mut best: Option<(f64, Weights)> = None;
        let mut size = vec![0.2; weights.terms.len() + 1];
        let mut last = vec![0.0; size.len()];
        for _ in 0..=steps {
            let Some((density, gradient)) = evaluate(&weights) else { break };
            if best.as_ref().is_none_or(|(d, _)| density > *d) {
                best = Some((density, weights.clone()));
            }
            let numbers = weights.terms.iter_mut().chain([&mut weights.noise]);
            for (((number, g), size), last) in numbers.zip(&gradient).zip(&mut size).zip(&mut last) {
                let agreement = g * *last;
                if agreement > 0.0 {
                    *size = (*size * 1.3f64).min(1.0);
                } else if agreement < 0.0 {
                    *size = (*size * 0.5f64).max(1e-3);
                }
                *last = *g;
                if *g != 0.0 {
                    *number += g.signum() * *size;
                }
            }
            weights.terms.iter_mut().for_each(|w| *w = w.clamp(-14.0, 5.0));
            weights.noise = weights.noise.clamp(-14.0, 0.0);
        }
        best.map_or_else(|| start.clone(), |(_, weights)| weights)
    }
}

/// Log posterior density of weights (up to a constant), and its gradient: terms, then noise.
fn slope(
    kernel: &Kernel,
    weights: &Weights,
    prior: &Weights,
    rows: &[Vec<u16>],
    values: &[f64],
) -> Option<(f64, Vec<f64>)> {
    let n = rows.len();
    let tables = kernel.tables(weights);
    let noise = weights.noise.exp();
    let (mut matrix, mut derivative) = (vec![0.0; n * n], vec![0.0; n * n]);
    for i in 0..n {
        for j in 0..i {
            let squared = tables.squared(&rows[i], &rows[j]);
            matrix[i * n + j] = matern(squared);
            derivative[i * n + j] = matern_slope(squared);
        }
        matrix[i * n + i] = 1.0 + noise + 1e-9;
    }
    let factor = Factor::of(&matrix, n)?;
    let mut alpha = values.to_vec();
    factor.forward(&mut alpha);
    let variance = (dot(&alpha, &alpha) + 2.0) / (n as f64 + 2.0);
    factor.backward(&mut alpha);
    let mut density = -0.5 * (n as f64 + 2.0) * variance.ln() - factor.half_log_determinant();
    let inverse = factor.inverse();
    // Sums over pairs, by parameter and pair of values, so that each pair is looked at once.
    let relevant = &kernel.shape.relevant;
    let mut sums: Vec<Vec<f64>> = tables.0.iter().map(|t| vec![0.0; t.slots * t.slots]).collect();
    for i in 0..n {
        for j in 0..i {
            let at = i * n + j;
            let pull = (alpha[i] * alpha[j] / variance - inverse[at]) * derivative[at];
            for ((sum, table), (a, b)) in sums.iter_mut().zip(&tables.0).zip(rows[i].iter().zip(&rows[j])) {
                if a != b {
                    sum[usize::from(*a) * table.slots + usize::from(*b)] += pull;
                }
            }
        }
    }
    let mut gradient = Vec::with_capacity(kernel.terms.len() + 1);
    for (number, term) in kernel.terms.iter().enumerate() {
        let at = relevant.binary_search(&term.parameter).unwrap_or(0);
        let slots = tables.0[at].slots;
        let mut total = 0.0;
        for a in 0..slots {
            for b in 0..slots {
                if a != b {
                    total += sums[at][a * slots + b] * kernel.distance(*term, a, b);
                }
            }
        }
        // Normal priors on logarithms: wide for weights, wider for the noise.
        let off = weights.terms[number] - prior.terms[number];
        density -= 0.5 * off * off / PRIOR_VARIANCE;
        gradient.push(total * weights.terms[number].exp() - off / PRIOR_VARIANCE);
    }
    let trace: f64 = (0..n).map(|i| alpha[i] * alpha[i] / variance - inverse[i * n + i]).sum();
    let off = weights.noise - prior.noise;
    density -= 0.5 * off * off / NOISE_VARIANCE;
    gradient.push(0.5 * trace * noise - off / NOISE_VARIANCE);
    density.is_finite().then_some((density, gradient))
}

/// Prior weights, to be divided by the number of parameters.
const IDENTITY: f64 = 0.6;
const POSITION: f64 = 1.5;
const HALVINGS: f64 = 0.3;
/// Of the logarithms of weights.
const PRIOR_VARIANCE: f64 = 3.0;
/// Of the logarithm of the noise.
const NOISE_VARIANCE: f64 = 6.0;

impl Model for Gaussian {
    fn predict(&self, point: &Point) -> Prediction {
        let slots = self.kernel.slots(point);
        let mut k: Vec<f64> = self.points.iter().map(|p| matern(self.tables.squared(p, &slots))).collect();
        let mean = self.center + dot(&k, &self.alpha);
        self.factor.forward(&mut k);
        let left = (1.0 - dot(&k, &k)).max(1e-9);
        Prediction { mean, deviation: (self.variance * left).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use paretune_spaces::{Domain, Parameter, Space};
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    fn setting() -> (Kernel, Vec<Point>, Vec<f64>) {
        let mut space = Space::new();
        for i in 0..3 {
            space.parameters.push(Parameter::new(format!("x{i}"), Domain::ordered(0..8)));
        }
        space.parameters.push(Parameter::new("kind", Domain::unordered(["a", "b", "c"])));
        let space = space.compile().unwrap();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        let mut points: Vec<Point> = (0..80).map(|_| space.sample(&mut rng)).collect();
        points.sort();
        points.dedup();
        points.sort_by_key(|p| {
            p.iter().fold(7u64, |h, v| h.wrapping_mul(6_364_136_223_846_793_005) ^ u64::from(*v))
        });
        let value =
            |p: &Point| (f64::from(p[0]) / 3.0).sin() * 5.0 + if p[3] == 1 { 4.0 } else { 0.0 } + 100.0;
        let values = points.iter().map(value).collect();
        (Kernel::new(Shape::of(&space)), points, values)
    }

    #[test]
    fn gradient_is_the_densitys() {
        let (kernel, points, values) = setting();
        let rows: Vec<Vec<u16>> = points[..20].iter().map(|p| kernel.slots(p)).collect();
        let standard = standardize(&values[..20]);
        let (prior, mut weights) = (kernel.prior(), kernel.prior());
        weights.terms[0] += 0.3;
        let of = |w: &Weights| slope(&kernel, w, &prior, &rows, &standard.values).unwrap();
        let gradient = of(&weights).1;
        for (i, exact) in gradient.iter().enumerate() {
            let moved = |step: f64| {
                let mut w = weights.clone();
                match w.terms.get_mut(i) {
                    Some(t) => *t += step,
                    None => w.noise += step,
                }
                of(&w).0
            };
            let numeric = (moved(1e-4) - moved(-1e-4)) / 2e-4;
            assert!((numeric - exact).abs() < 1e-4 * (1.0 + numeric.abs()), "{i}: {numeric} {exact}");
        }
    }

    #[test]
    fn learns_what_matters_and_predicts() {
        let (kernel, points, values) = setting();
        let train: Vec<&Point> = points[..60].iter().collect();
        let weights = Gaussian::learn(&kernel, &kernel.prior(), &train, &values[..60], 60);
        let model = Gaussian::fit(&kernel, &weights, &train, &values[..60]).unwrap();
        let error: f64 =
            points[60..].iter().zip(&values[60..]).map(|(p, v)| (model.predict(p).mean - v).abs()).sum();
        assert!(error / (points.len() - 60) as f64 <= 0.2, "{error}");
        let seen = model.predict(&points[0]);
        assert!((seen.mean - values[0]).abs() < 0.1 && seen.deviation < 0.3);
        assert!(Gaussian::fit(&kernel, &weights, &[], &[]).is_none());
    }
}
