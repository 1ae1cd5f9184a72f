//! Monotone transformations that shorten the long tail of bad values, so that a few outliers do not
//! hide the differences among good values from a model.

/// Transformation `t = sign(z) ln(1 + c |z|) / c` of `z`, the distance from the best value in units
/// of the median's distance. It is the identity of `z` for `c = 0`. Smaller is better on both
/// sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warp {
    best: f64,
    unit: f64,
    strength: f64,
}

/// Candidates for the strength `c`.
const STRENGTHS: [f64; 6] = [0.0, 0.5, 1.0, 2.0, 4.0, 8.0];

impl Warp {
    /// Chooses the strength after which the values are least skewed.
    #[must_use]
    pub fn fit(values: &[f64]) -> Warp {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let best = sorted.first().copied().unwrap_or(0.0);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(best);
        let worst = sorted.last().copied().unwrap_or(best);
        let unit = [median - best, worst - best]
            .into_iter()
            .find(|u| *u > 0.0 && u.is_normal())
            .unwrap_or(1.0);
        let mut chosen = Warp { best, unit, strength: 0.0 };
        let mut least = f64::INFINITY;
        for strength in STRENGTHS {
            let warp = Warp { best, unit, strength };
            let skew = skewness(values.iter().map(|v| warp.apply(*v))).abs();
            if skew < least - 1e-9 {
                (chosen, least) = (warp, skew);
            }
        }
        chosen
    }

    /// Transforms a value to the model's scale.
    #[must_use]
    pub fn apply(&self, value: f64) -> f64 {
        let z = (value - self.best) / self.unit;
        if self.strength == 0.0 {
            z
        } else {
            z.signum() * (self.strength * z.abs()).ln_1p() / self.strength
        }
    }

    /// Transforms a value back from the model's scale.
    #[must_use]
    pub fn invert(&self, warped: f64) -> f64 {
        let z = if self.strength == 0.0 {
            warped
        } else {
            warped.signum() * (self.strength * warped.abs()).min(60.0).exp_m1() / self.strength
        };
        self.best + z * self.unit
    }
}

fn skewness(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let moment = |power: i32| values.clone().map(|v| (v - mean).powi(power)).sum::<f64>() / n;
    let deviation = moment(2).sqrt();
    if deviation > 0.0 { moment(3) / deviation.powi(3) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_shortened_and_order_is_kept() {
        let values: Vec<f64> = (0..50).map(|i| 10.0 + (f64::from(i) / 6.0).exp()).collect();
        let warp = Warp::fit(&values);
        assert!(warp.strength > 0.0);
        for pair in values.windows(2) {
            assert!(warp.apply(pair[0]) < warp.apply(pair[1]));
            assert!((warp.invert(warp.apply(pair[1])) - pair[1]).abs() < 1e-6 * pair[1]);
        }
        assert!((warp.invert(warp.apply(5.0)) - 5.0).abs() < 1e-9);
        let even = Warp::fit(&[1.0, 2.0, 3.0]);
        assert_eq!(even.strength, 0.0);
        assert_eq!(Warp::fit(&[4.0]).apply(4.0), 0.0);
    }
}
