//! Acquisition functions: the value of measuring a configuration, given a model's prediction.

use crate::model::{Prediction, normal_cdf, normal_pdf};

/// Number of directions that stand for all preferences in three and more dimensions.
const DIRECTIONS: usize = 96;

/// Returns the logarithm of the probability that a standard normal number is below `x`, also far in
/// the tail.
#[must_use]
pub fn log_cdf(x: f64) -> f64 {
    if x > -5.0 {
        normal_cdf(x).ln()
    } else {
        -0.5 * x * x - (-x * (2.0 * std::f64::consts::PI).sqrt()).ln() - 1.0 / (x * x)
    }
}

/// Returns the logarithm of the expected improvement below `best`.
#[must_use]
pub fn log_expected_improvement(prediction: Prediction, best: f64) -> f64 {
    let z = (best - prediction.mean) / prediction.deviation;
    let unit = if z > -5.0 {
        (z * normal_cdf(z) + normal_pdf(z)).max(f64::MIN_POSITIVE).ln()
    } else {
        -0.5 * z * z - 0.5 * (2.0 * std::f64::consts::PI).ln() - 2.0 * (-z).ln()
    };
    unit + prediction.deviation.ln()
}

/// Returns quasi-random standard normal vectors, equal for all candidates so that they compare
/// fairly.
#[must_use]
pub fn normal_draws(count: usize, dimensions: usize) -> Vec<Vec<f64>> {
    (0..count)
        .map(|i| {
            (0..dimensions)
                .map(|d| quantile(radical_inverse(i as u64 + 1, PRIMES[d % PRIMES.len()])))
                .collect()
        })
        .collect()
}

const PRIMES: [u64; 8] = [2, 3, 5, 7, 11, 13, 17, 19];

/// Returns an element of van der Corput's sequence.
#[must_use]
pub fn radical_inverse(mut index: u64, base: u64) -> f64 {
    let (mut result, mut digit) = (0.0, 1.0 / base as f64);
    while index > 0 {
        result += (index % base) as f64 * digit;
        index /= base;
        digit /= base as f64;
    }
    result
}

/// Computes the standard normal quantile by bisection of the distribution function. It serves for a
/// few numbers only.
fn quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-6.0, 6.0);
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// Hypervolume that a point would add to a front. All coordinates are scaled so that the reference
/// is 1.
///
/// It is exact in one and two dimensions. In more, it is the average over directions of the front's
/// progress along each, to the power of the dimension (Shang, Ishibuchi and Ni's R2 view of the
/// hypervolume; Deng and Zhang, 2019), whose cost does not depend on the number of points.
#[derive(Clone, Debug)]
pub struct Improvement {
    dimensions: usize,
    /// Front in two dimensions: first coordinates ascend and second ones descend.
    stairs: Vec<[f64; 2]>,
    /// Reciprocal directions, each with the reach of the front from the reference, to the power of
    /// the dimension.
    directions: Vec<(Vec<f64>, f64)>,
}

impl Improvement {
    /// Prepares a front in normalized coordinates.
    #[must_use]
    pub fn new(front: &[Vec<f64>], dimensions: usize) -> Improvement {
        let mut improvement =
            Improvement { dimensions, stairs: Vec::new(), directions: Vec::new() };
        if dimensions <= 2 {
            let second = |p: &Vec<f64>| if dimensions == 2 { p[1] } else { 0.0 };
            let mut stairs: Vec<[f64; 2]> = front.iter().map(|p| [p[0], second(p)]).collect();
            stairs.retain(|p| p[0] < 1.0 && p[1] < 1.0);
            stairs.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
            let mut height = f64::INFINITY;
            stairs.retain(|p| {
                let keep = p[1] < height;
                height = height.min(p[1]);
                keep
            });
            improvement.stairs = stairs;
            return improvement;
        }
        for draw in normal_draws(DIRECTIONS, dimensions) {
            let length = draw.iter().map(|x| x * x).sum::<f64>().sqrt();
            let inverse: Vec<f64> = draw.iter().map(|x| length / x.abs().max(1e-9)).collect();
            let reach = front.iter().map(|p| reach(p, &inverse)).fold(0.0, f64::max);
            improvement.directions.push((inverse, reach.powi(dimensions as i32)));
        }
        improvement
    }

    /// Returns the volume that `point` would add.
    #[must_use]
    pub fn of(&self, point: &[f64]) -> f64 {
        if self.dimensions <= 2 {
            return self.area(point[0], if self.dimensions == 2 { point[1] } else { 0.0 });
        }
        let power = self.dimensions as i32;
        let gain = |(inverse, before): &(Vec<f64>, f64)| {
            (reach(point, inverse).powi(power) - before).max(0.0)
        };
        self.directions.iter().map(gain).sum::<f64>() / self.directions.len() as f64
    }

    fn area(&self, x: f64, y: f64) -> f64 {
        if x >= 1.0 || y >= 1.0 {
            return 0.0;
        }
        let first = self.stairs.partition_point(|p| p[0] <= x);
        let mut height = if first == 0 { 1.0 } else { self.stairs[first - 1][1] };
        let (mut from, mut area) = (x, 0.0);
        for step in &self.stairs[first..] {
            if height <= y {
                return area;
            }
            area += (step[0] - from) * (height - y);
            (from, height) = (step[0], step[1]);
        }
        area + (1.0 - from) * (height - y).max(0.0)
    }
}

/// Returns the reach of a point from the reference along a direction, given by its reciprocal.
fn reach(point: &[f64], inverse: &[f64]) -> f64 {
    point.iter().zip(inverse).map(|(p, i)| (1.0 - p) * i).fold(f64::INFINITY, f64::min).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervolume::contribution;

    #[test]
    fn expected_improvement_has_no_cliffs() {
        let at = |mean: f64| log_expected_improvement(Prediction { mean, deviation: 1.0 }, 0.0);
        assert!((at(0.0) - 0.398_942_28f64.ln()).abs() < 1e-6);
        assert!((at(5.0 - 1e-6) - at(5.0 + 1e-6)).abs() < 0.2);
        assert!(at(40.0).is_finite() && at(40.0) < at(39.0));
        assert!((log_cdf(-5.0 + 1e-9) - log_cdf(-5.0 - 1e-9)).abs() < 0.02);
    }

    #[test]
    fn two_dimensions_are_exact() {
        let front = vec![vec![0.1, 0.8], vec![0.4, 0.4], vec![0.7, 0.1]];
        let improvement = Improvement::new(&front, 2);
        for x in 0..12 {
            for y in 0..12 {
                let p = [f64::from(x) / 10.0, f64::from(y) / 10.0];
                let exact = contribution(&front, &p, &[1.0, 1.0]);
                assert!((improvement.of(&p) - exact).abs() < 1e-12, "{p:?}");
            }
        }
    }

    #[test]
    fn three_dimensions_rank_alike() {
        let front = vec![vec![0.2, 0.5, 0.5], vec![0.5, 0.2, 0.5], vec![0.5, 0.5, 0.2]];
        let improvement = Improvement::new(&front, 3);
        let better = [0.3, 0.3, 0.3];
        let worse = [0.45, 0.45, 0.45];
        assert!(improvement.of(&better) > improvement.of(&worse) && improvement.of(&worse) > 0.0);
        assert_eq!(improvement.of(&[0.6, 0.6, 0.6]), 0.0);
    }
}
