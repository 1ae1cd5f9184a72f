//! Surrogate models: predictions of metrics of unmeasured configurations, with their uncertainty.

mod cholesky;
pub mod cliff;
pub mod forest;
pub mod gaussian;
pub mod warp;

use paretune_spaces::{CompiledSpace, Domain, INACTIVE, Point, Value};

/// Prediction of a metric with its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Expected value of the metric.
    pub mean: f64,
    /// Standard deviation of the metric's possible values.
    pub deviation: f64,
}

/// Model of one metric that is fitted to data.
pub trait Model: Send {
    /// Predicts the metric at a point.
    fn predict(&self, point: &Point) -> Prediction;
}

/// Several models of one metric, none of which is certain to be right. Their disagreement is added
/// to the uncertainty of each.
pub struct Ensemble<M>(pub Vec<M>);

impl<M: Model> Model for Ensemble<M> {
    fn predict(&self, point: &Point) -> Prediction {
        let (mut mean, mut square, mut variance) = (0.0, 0.0, 0.0);
        for model in &self.0 {
            let prediction = model.predict(point);
            mean += prediction.mean;
            square += prediction.mean * prediction.mean;
            variance += prediction.deviation * prediction.deviation;
        }
        let count = self.0.len().max(1) as f64;
        mean /= count;
        let deviation = (variance / count + (square / count - mean * mean).max(0.0)).sqrt();
        Prediction { mean, deviation }
    }
}

/// Features of a space's parameters, by which models compare configurations.
#[derive(Clone, Debug)]
pub struct Features {
    /// Number of values of each parameter.
    pub sizes: Vec<u16>,
    /// Per parameter and value, the position of a size from 0 to 1 on its scale. Empty if values
    /// have no distances, or are too few to be told apart by them.
    pub positions: Vec<Vec<f64>>,
    /// Per parameter and value, the number of times that a whole number can be halved, up to a
    /// maximum. Empty if it tells nothing more than the order. Hardware favors multiples of powers
    /// of two, so sizes that share them are alike in a way that their order hides.
    pub factors_of_two: Vec<Vec<f64>>,
    /// Parameters that have more than one value or may be inactive. Only they can explain anything.
    pub relevant: Vec<usize>,
}

impl Features {
    /// Derives the features from a space.
    #[must_use]
    pub fn of(space: &CompiledSpace) -> Features {
        let parameters = space.parameters();
        let sizes: Vec<u16> = parameters.iter().map(|p| p.domain.values().len() as u16).collect();
        let positions = (0..sizes.len()).map(|p| match space.positions(p) {
            // Two sizes are equal or not, like the values of a switch.
            [] | [_] | [_, _] => Vec::new(),
            positions => positions.to_vec(),
        });
        let factors_of_two = parameters.iter().map(|p| match &p.domain {
            Domain::Sizes(values) => factors_of_two(values),
            Domain::Choice(_) | Domain::Switch(_) => Vec::new(),
        });
        let (positions, factors_of_two) = (positions.collect(), factors_of_two.collect());
        let relevant = (0..sizes.len())
            .filter(|p| sizes[*p] > 1 || parameters[*p].condition.is_some())
            .collect();
        Features { sizes, positions, factors_of_two, relevant }
    }

    /// Returns whether the values of a parameter are sizes that their distances tell apart.
    #[must_use]
    pub fn has_distances(&self, parameter: usize) -> bool {
        !self.positions[parameter].is_empty()
    }

    /// Returns the value of a parameter as a table index, in which inactive comes after the last.
    #[must_use]
    pub fn slot(&self, point: &Point, parameter: usize) -> usize {
        match point[parameter] {
            INACTIVE => usize::from(self.sizes[parameter]),
            value => usize::from(value),
        }
    }
}

/// Returns the number of times that each whole number can be halved. Empty if there are too few to
/// tell it from their order.
fn factors_of_two(values: &[Value]) -> Vec<f64> {
    let Some(numbers) = values.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>() else {
        return Vec::new();
    };
    let counts: Vec<u32> =
        numbers.iter().map(|n| if *n == 0 { 8 } else { n.trailing_zeros().min(8) }).collect();
    let rising = counts.windows(2).all(|w| w[0] < w[1]) || counts.windows(2).all(|w| w[0] == w[1]);
    if values.len() < 4 || rising {
        Vec::new()
    } else {
        counts.into_iter().map(f64::from).collect()
    }
}

/// Returns the standard normal distribution function.
#[must_use]
pub fn normal_cdf(x: f64) -> f64 {
    0.5 * erfc(-x / std::f64::consts::SQRT_2)
}

/// Returns the standard normal density.
#[must_use]
pub fn normal_pdf(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// Computes the complementary error function to 1.2e-7 (Numerical Recipes, 2nd edition, section
/// 6.2).
fn erfc(x: f64) -> f64 {
    const C: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let t = 1.0 / (1.0 + 0.5 * x.abs());
    let sum = C.iter().rev().fold(0.0, |sum, c| sum * t + c);
    let tail = t * (sum - x * x).exp();
    if x >= 0.0 { tail } else { 2.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Model that always makes one prediction.
    struct Fixed(f64, f64);

    impl Model for Fixed {
        fn predict(&self, _: &Point) -> Prediction {
            Prediction { mean: self.0, deviation: self.1 }
        }
    }

    #[test]
    fn disagreement_adds_to_doubt() {
        let prediction =
            Ensemble(vec![Fixed(1.0, 0.3), Fixed(3.0, 0.3)]).predict(&Point::new(vec![]));
        assert!((prediction.mean - 2.0).abs() < 1e-12);
        assert!((prediction.deviation - (0.09_f64 + 1.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn normal_distribution() {
        for (x, p) in [(0.0, 0.5), (1.0, 0.841_344_7), (-1.96, 0.024_997_9), (3.0, 0.998_650_1)] {
            assert!((normal_cdf(x) - p).abs() < 1e-6, "{x}");
        }
        assert!((normal_pdf(0.0) - 0.398_942_28).abs() < 1e-7);
    }
}
