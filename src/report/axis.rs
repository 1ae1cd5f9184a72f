//! The axis of one metric in a plot: its range, scale (linear or logarithmic) and ticks. Used by
//! the SVG plot and the terminal.

use super::units::{Unit, short, unit_for};
use paretune_record::metric::Metric;

/// Ratio of the largest to the smallest value from which on the scale is logarithmic.
const MIN_LOG_RATIO: f64 = 20.0;
/// A limit that differs from all values by more than this factor is not shown.
const MAX_LIMIT_FACTOR: f64 = 10.0;
/// Fraction of the axis that stays empty at either end, so that no point lies on the frame.
const MARGIN: f64 = 0.05;

/// Maps values of a metric to positions from 0 (left, bottom) to 1 (right, top).
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Name of the metric on this axis.
    pub metric: Metric,
    /// Whether the scale is logarithmic.
    pub log: bool,
    /// Unit of the tick labels.
    pub unit: Unit,
    low: f64,
    high: f64,
}

impl Axis {
    /// Builds an axis that covers every finite value.
    #[must_use]
    pub fn new(metric: Metric, values: impl IntoIterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.into_iter().filter(|value| value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let unit = unit_for(metric, high);
        let log = metric.is_logarithmic() && low > 0.0 && high / low > MIN_LOG_RATIO;
        let (mut low, mut high) = if log { (low.ln(), high.ln()) } else { (low, high) };
        let width = if high > low { high - low } else { (high.abs() * 0.1).max(f64::MIN_POSITIVE) };
        let not_negative = !log && low >= 0.0;
        (low, high) = (low - MARGIN * width, high + MARGIN * width);
        if not_negative {
            low = low.max(0.0);
        }
        Self { metric, log, unit, low, high }
    }

    /// Builds an axis that also shows the limits, except those so far away that they would compress
    /// the values.
    #[must_use]
    pub fn with_limits(
        metric: Metric,
        values: impl IntoIterator<Item = f64>,
        limits: impl IntoIterator<Item = f64>,
    ) -> Self {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let width = high - low;
        let near = |limit: f64| {
            let by_ratio = metric.is_logarithmic()
                && limit > low / MAX_LIMIT_FACTOR
                && limit < high * MAX_LIMIT_FACTOR;
            by_ratio || (limit > low - width && limit < high + width)
        };
        values.extend(limits.into_iter().filter(|&limit| near(limit)));
        Self::new(metric, values)
    }

    /// Returns the position of a value. It is outside of [0, 1] if the value is out of range, and
    /// `None` if the scale does not contain the value.
    #[must_use]
    pub fn position(&self, value: f64) -> Option<f64> {
        let value = if self.log { (value > 0.0).then(|| value.ln())? } else { value };
        let share = (value - self.low) / (self.high - self.low);
        share.is_finite().then_some(share)
    }

    /// Returns about `count` round values with their positions and labels (without the unit).
    #[must_use]
    pub fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let count = count.max(2);
        let values = if self.log { self.log_ticks(count) } else { self.linear_ticks(count) };
        values
            .into_iter()
            .filter_map(|value| Some((self.position(value / self.unit.scale)?, short(value))))
            .filter(|(place, _)| (0.0..=1.0).contains(place))
            .collect()
    }

    /// Returns the title of the axis: `latency (ms)`.
    #[must_use]
    pub fn title(&self) -> String {
        let log = if self.log { ", log scale" } else { "" };
        match self.unit.sign {
            "" => format!("{}{log}", self.metric),
            sign => format!("{} ({sign}{log})", self.metric),
        }
    }

    fn linear_ticks(&self, count: usize) -> Vec<f64> {
        let (low, high) = (self.low * self.unit.scale, self.high * self.unit.scale);
        let rough = (high - low) / count as f64;
        let decade = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|s| s * decade).into_iter().find(|&s| s >= rough);
        let Some(step) = step.filter(|step| step.is_finite() && *step > 0.0) else {
            return Vec::new();
        };
        let first = (low / step).ceil();
        (0..=count * 3)
            .map(|i| (first + i as f64) * step)
            .take_while(|&value| value <= high)
            .collect()
    }

    fn log_ticks(&self, count: usize) -> Vec<f64> {
        let scale = self.unit.scale.log10();
        let low = (self.low / std::f64::consts::LN_10 + scale).floor() as i32;
        let high = (self.high / std::f64::consts::LN_10 + scale).ceil() as i32;
        let decades = (high - low).max(1) as usize;
        let (factors, stride): (&[f64], usize) = match count as f64 / decades as f64 {
            room if room >= 3.0 => (&[1.0, 2.0, 5.0], 1),
            room if room >= 2.0 => (&[1.0, 3.0], 1),
            _ => (&[1.0], decades.div_ceil(count)),
        };
        (low..=high)
            .step_by(stride)
            .flat_map(|decade| factors.iter().map(move |factor| factor * 10_f64.powi(decade)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_ranges_are_linear_and_wide_ones_logarithmic() {
        let narrow = Axis::new(Metric::Latency, [0.001, 0.003]);
        assert!(!narrow.log);
        assert_eq!(narrow.title(), "latency (ms)");
        let texts: Vec<_> = narrow.ticks(4).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["1", "2", "3"]);
        let wide = Axis::new(Metric::Size, [1e5, 4e7]);
        assert!(wide.log);
        let texts: Vec<_> = wide.ticks(4).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["0.1", "1", "10"]);
    }

    #[test]
    fn odd_values_still_have_a_scale() {
        for values in
            [vec![], vec![0.0], vec![5.0, 5.0], vec![f64::NAN, 1.0], vec![-1.0, f64::INFINITY]]
        {
            for metric in [Metric::Accuracy, Metric::Latency] {
                let axis = Axis::new(metric, values.clone());
                assert!(axis.ticks(5).iter().all(|(place, _)| (0.0..=1.0).contains(place)));
                for value in values.iter().filter(|value| value.is_finite()) {
                    assert!(
                        axis.position(*value).is_some_and(|place| (0.0..=1.0).contains(&place)),
                        "{values:?}"
                    );
                }
            }
        }
    }
}
