//! Which weights the data speak for: the most likely ones, and draws from their posterior.

use std::cell::RefCell;

use argmin::core::{CostFunction, Error, Executor, Gradient};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use paretune_spaces::Point;
use rand::{Rng, RngExt};

use super::kernel::{Kernel, NOISE_VARIANCE, PRIOR_VARIANCE, Tables, Weights};
use super::{Gaussian, standardize};
use crate::model::cholesky::{Factor, dot};

impl Gaussian {
    /// Climbs the posterior density of the weights from `start`, looking at it `looks` times at most.
    #[must_use]
    pub fn learn(
        kernel: &Kernel,
        start: &Weights,
        points: &[&Point],
        values: &[f64],
        looks: usize,
    ) -> Weights {
        if points.len() < 3 || kernel.terms.is_empty() {
            return start.clone();
        }
        let posterior = Posterior {
            kernel,
            prior: kernel.prior(),
            rows: points.iter().map(|p| kernel.slots(p)).collect(),
            values: standardize(values).values,
            seen: RefCell::new(Seen { left: looks, last: None, best: None }),
        };
        let solver = LBFGS::new(MoreThuenteLineSearch::new(), HISTORY);
        let numbers = start.numbers();
        let run = Executor::new(&posterior, solver)
            .configure(|state| state.param(numbers).max_iters(looks as u64))
            .timer(false)
            .run();
        // It ends with an error as a rule: looks have run out, or a line search cannot go on. The best that was seen counts.
        drop(run);
        let best = posterior.seen.into_inner().best;
        best.map_or_else(|| start.clone(), |(_, weights)| weights)
    }

    /// `count` draws from the posterior of the weights, by elliptical slice sampling (Murray, Adams and MacKay, 2010): the
    /// prior of the logarithms is normal, which is all that it asks for. `start` begins the chain.
    #[must_use]
    pub fn sample(
        kernel: &Kernel,
        start: &Weights,
        points: &[&Point],
        values: &[f64],
        count: usize,
        rng: &mut dyn Rng,
    ) -> Vec<Weights> {
        if count == 0 {
            return Vec::new();
        }
        let rows: Vec<Vec<u16>> = points.iter().map(|p| kernel.slots(p)).collect();
        let values = standardize(values).values;
        let center = kernel.prior().numbers();
        let look = |numbers: &[f64]| {
            let weights = Weights::of(numbers);
            Some(Conditioned::on(&kernel.tables(&weights), &weights, &rows, &values)?.likelihood)
        };
        let mut at = start.numbers();
        let Some(mut height) = look(&at) else { return vec![start.clone(); count] };
        let mut draws = Vec::with_capacity(count);
        for step in 1..=count * BETWEEN {
            let last = at.len() - 1;
            let deviation = |i: usize| if i == last { NOISE_VARIANCE.sqrt() } else { PRIOR_VARIANCE.sqrt() };
            let ellipse: Vec<f64> = (0..at.len()).map(|i| deviation(i) * normal(rng)).collect();
            let floor = height + rng.random_range(f64::MIN_POSITIVE..1.0).ln();
            let mut angle = rng.random_range(0.0..std::f64::consts::TAU);
            let (mut low, mut high) = (angle - std::f64::consts::TAU, angle);
            for _ in 0..SHRINKS {
                let (sin, cos) = angle.sin_cos();
                let moved: Vec<f64> = at
                    .iter()
                    .zip(&center)
                    .zip(&ellipse)
                    .map(|((a, c), e)| c + (a - c) * cos + e * sin)
                    .collect();
                if let Some(here) = look(&moved).filter(|here| *here > floor) {
                    (at, height) = (moved, here);
                    break;
                }
                if angle < 0.0 {
                    low = angle
                } else {
                    high = angle
                }
                angle = rng.random_range(low..high);
            }
            if step % BETWEEN == 0 {
                draws.push(Weights::of(&at));
            }
        }
        draws
    }
}

/// Steps of the chain from one draw to the next.
const BETWEEN: usize = 12;

/// How often a slice is narrowed before the chain stays where it is.
const SHRINKS: usize = 24;

/// A standard normal number (Box and Muller, 1958).
fn normal(rng: &mut dyn Rng) -> f64 {
    let radius = (-2.0 * rng.random_range(f64::MIN_POSITIVE..1.0).ln()).sqrt();
    radius * rng.random_range(0.0..std::f64::consts::TAU).cos()
}

/// Values conditioned on weights.
struct Conditioned {
    factor: Factor,
    /// Values, whitened.
    half: Vec<f64>,
    /// Of the signal: integrated out.
    variance: f64,
    /// Logarithm of the marginal likelihood, up to a constant.
    likelihood: f64,
}

impl Conditioned {
    /// `None` where the covariance cannot be factored.
    fn on(tables: &Tables, weights: &Weights, rows: &[Vec<u16>], values: &[f64]) -> Option<Conditioned> {
        let n = rows.len();
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..i {
                matrix[i * n + j] = tables.common(&rows[i], &rows[j]).correlation;
            }
            matrix[i * n + i] = 1.0 + weights.noise.exp() + 1e-9;
        }
        let factor = Factor::of(&matrix, n)?;
        let mut half = values.to_vec();
        factor.forward(&mut half);
        let variance = (dot(&half, &half) + 2.0) / (n as f64 + 2.0);
        let likelihood = -0.5 * (n as f64 + 2.0) * variance.ln() - factor.half_log_determinant();
        likelihood.is_finite().then_some(Conditioned { factor, half, variance, likelihood })
    }
}

/// Steps that the quasi-Newton method remembers.
const HISTORY: usize = 6;

/// The posterior density of the weights, as `argmin` wants to see it: the negative logarithm, per point.
struct Posterior<'k> {
    kernel: &'k Kernel,
    prior: Weights,
    rows: Vec<Vec<u16>>,
    values: Vec<f64>,
    seen: RefCell<Seen>,
}

/// What was looked at. Densities and slopes come together but are asked for one after the other.
struct Seen {
    left: usize,
    last: Option<(Vec<f64>, f64, Vec<f64>)>,
    best: Option<(f64, Weights)>,
}

impl Posterior<'_> {
    fn look(&self, numbers: &[f64]) -> Result<(f64, Vec<f64>), Error> {
        let mut seen = self.seen.borrow_mut();
        if let Some((at, cost, gradient)) = &seen.last
            && at == numbers
        {
            return Ok((*cost, gradient.clone()));
        }
        seen.left = seen.left.checked_sub(1).ok_or_else(|| Error::msg("has looked often enough"))?;
        let weights = Weights::of(numbers);
        let (density, gradient) = slope(self.kernel, &weights, &self.prior, &self.rows, &self.values)
            .ok_or_else(|| Error::msg("the covariance cannot be factored"))?;
        if seen.best.as_ref().is_none_or(|(best, _)| density > *best) {
            seen.best = Some((density, weights));
        }
        let scale = -1.0 / self.rows.len() as f64;
        let gradient: Vec<f64> = gradient.into_iter().map(|g| g * scale).collect();
        seen.last = Some((numbers.to_vec(), density * scale, gradient.clone()));
        Ok((density * scale, gradient))
    }
}

impl CostFunction for &Posterior<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, numbers: &Vec<f64>) -> Result<f64, Error> {
        Ok(self.look(numbers)?.0)
    }
}

impl Gradient for &Posterior<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, numbers: &Vec<f64>) -> Result<Vec<f64>, Error> {
        Ok(self.look(numbers)?.1)
    }
}

impl Weights {
    /// All logarithms: terms, parts, the noise.
    fn numbers(&self) -> Vec<f64> {
        self.terms.iter().chain(&self.parts).copied().chain([self.noise]).collect()
    }

    /// From logarithms, kept where exponentials are harmless.
    fn of(numbers: &[f64]) -> Weights {
        let (terms, [alone, pairs, noise]) = numbers.split_last_chunk().unwrap_or((numbers, &[0.0; 3]));
        let terms = terms.iter().map(|w| w.clamp(-14.0, 5.0)).collect();
        let parts = [alone, pairs].map(|w| w.clamp(-8.0, 5.0));
        Weights { terms, parts, noise: noise.clamp(-14.0, 0.0) }
    }
}

/// Log posterior density of weights (up to a constant), and its gradient: terms, parts, noise.
fn slope(
    kernel: &Kernel,
    weights: &Weights,
    prior: &Weights,
    rows: &[Vec<u16>],
    values: &[f64],
) -> Option<(f64, Vec<f64>)> {
    let n = rows.len();
    let tables = kernel.tables(weights);
    let Conditioned { factor, half: mut alpha, variance, likelihood: mut density } =
        Conditioned::on(&tables, weights, rows, values)?;
    factor.backward(&mut alpha);
    let inverse = factor.inverse();
    // Sums over pairs, by parameter and pair of values, so that each pair is looked at once.
    let relevant = &kernel.shape.relevant;
    let mut sums: Vec<Vec<f64>> = tables.tables.iter().map(|t| vec![0.0; t.slots * t.slots]).collect();
    let mut parts = [0.0; 2];
    for i in 0..n {
        for j in 0..i {
            let pull = alpha[i] * alpha[j] / variance - inverse[i * n + j];
            tables.add_slopes((&rows[i], &rows[j]), pull, &mut sums, &mut parts);
        }
    }
    let mut gradient = Vec::with_capacity(kernel.terms.len() + 3);
    for (number, term) in kernel.terms.iter().enumerate() {
        let at = relevant.binary_search(&term.parameter).unwrap_or(0);
        let slots = tables.tables[at].slots;
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
    for (number, sum) in parts.into_iter().enumerate() {
        let off = weights.parts[number] - prior.parts[number];
        density -= 0.5 * off * off / PRIOR_VARIANCE;
        gradient.push(sum - off / PRIOR_VARIANCE);
    }
    let trace: f64 = (0..n).map(|i| alpha[i] * alpha[i] / variance - inverse[i * n + i]).sum();
    let off = weights.noise - prior.noise;
    density -= 0.5 * off * off / NOISE_VARIANCE;
    gradient.push(0.5 * trace * weights.noise.exp() - off / NOISE_VARIANCE);
    density.is_finite().then_some((density, gradient))
}

#[cfg(test)]
mod tests {
    use paretune_spaces::{Domain, Parameter, Space};
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;
    use crate::model::{Model, Shape};

    fn setting() -> (Kernel, Vec<Point>, Vec<f64>) {
        let mut space = Space::new();
        for i in 0..3 {
            space.parameters.push(Parameter::new(format!("x{i}"), Domain::sizes(0..8)));
        }
        space.parameters.push(Parameter::new("kind", Domain::choice(["a", "b", "c"])));
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
        weights.parts = [-0.4, 0.2];
        let of = |w: &Weights| slope(&kernel, w, &prior, &rows, &standard.values).unwrap();
        let gradient = of(&weights).1;
        assert_eq!(gradient.len(), weights.numbers().len());
        for (i, exact) in gradient.iter().enumerate() {
            let moved = |step: f64| {
                let mut numbers = weights.numbers();
                numbers[i] += step;
                of(&Weights::of(&numbers)).0
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

    /// Few points, far from all combinations: what parameters do alone must be put together.
    #[test]
    fn sums_are_told_from_their_parts() {
        let mut space = Space::new();
        for i in 0..5 {
            space.parameters.push(Parameter::new(format!("x{i}"), Domain::choice(0..5)));
        }
        let space = space.compile().unwrap();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(9);
        let points: Vec<Point> = (0..260).map(|_| space.sample(&mut rng)).collect();
        // No order to follow, and nothing but a sum.
        let value = |p: &Point| -> f64 { p.iter().map(|v| f64::from((v * v + 2 * v) % 5)).sum() };
        let values: Vec<f64> = points.iter().map(value).collect();
        let kernel = Kernel::new(Shape::of(&space));
        let train: Vec<&Point> = points[..60].iter().collect();
        let likely = Gaussian::learn(&kernel, &kernel.prior(), &train, &values[..60], 40);
        let model = Gaussian::fit(&kernel, &likely, &train, &values[..60]).unwrap();
        let error: f64 =
            points[60..].iter().zip(&values[60..]).map(|(p, v)| (model.predict(p).mean - v).abs()).sum();
        let error = error / 200.0;
        assert!(likely.parts[0] > kernel.prior().parts[0], "{likely:?}");
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let spread = values.iter().map(|v| (v - mean).abs()).sum::<f64>() / values.len() as f64;
        assert!(error < 0.2 * spread, "{error} of {spread}");
    }

    #[test]
    fn draws_spread_around_the_likely_weights() {
        let (kernel, points, values) = setting();
        let train: Vec<&Point> = points[..40].iter().collect();
        let likely = Gaussian::learn(&kernel, &kernel.prior(), &train, &values[..40], 60);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
        let draws = Gaussian::sample(&kernel, &likely, &train, &values[..40], 30, &mut rng);
        assert_eq!(draws.len(), 30);
        let rows: Vec<Vec<u16>> = train.iter().map(|p| kernel.slots(p)).collect();
        let standard = standardize(&values[..40]);
        let density = |weights: &Weights| {
            slope(&kernel, weights, &kernel.prior(), &rows, &standard.values).expect("can be factored").0
        };
        let best = density(&likely);
        let below: Vec<f64> = draws.iter().map(|draw| best - density(draw)).collect();
        // A posterior of d dimensions lies some d/2 below its peak; the prior alone far deeper.
        let mean = below.iter().sum::<f64>() / 30.0;
        let dimensions = likely.numbers().len() as f64;
        assert!(mean > 0.1 * dimensions && mean < 2.0 * dimensions, "{mean}");
        let spread = |number: usize| {
            let all: Vec<f64> = draws.iter().map(|draw| draw.terms[number]).collect();
            let mean = all.iter().sum::<f64>() / 30.0;
            (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 30.0).sqrt()
        };
        // What does not matter is as uncertain as before, what does is not.
        let idle = kernel.terms.iter().position(|t| t.parameter == 2).expect("is there");
        assert!(spread(idle) > 0.5 && spread(idle) < 4.0, "{}", spread(idle));
        let again = Gaussian::sample(
            &kernel,
            &likely,
            &train,
            &values[..40],
            30,
            &mut Xoshiro256PlusPlus::seed_from_u64(5),
        );
        assert_eq!(draws, again);
    }
}
