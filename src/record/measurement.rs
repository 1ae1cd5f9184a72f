//! The measurement of one configuration.

use serde::{Deserialize, Serialize};

use super::metric::{Metric, Metrics};
use super::score::Score;

/// A value with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Measured value, in the metric's base unit.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Estimate {
    /// Creates an estimate of a value that is exact.
    #[must_use]
    pub const fn exact(value: f64) -> Self {
        Self { value, low: value, high: value }
    }
}

/// Measurement of a configuration for which every metric is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Score over the search images.
    pub score: Score,
    /// Median latency and the ends of its 95 % interval, in seconds.
    pub latency: [f64; 3],
    /// Size of the bundle in bytes.
    pub size: f64,
    /// Peak memory of a run in bytes.
    pub memory: f64,
}

impl Measurement {
    /// Returns the estimate of `metric`; `None` if it was not measured.
    #[must_use]
    pub fn estimate(&self, metric: Metric) -> Option<Estimate> {
        Some(match metric {
            Metric::Accuracy => {
                let [low, high] = self.score.interval();
                Estimate { value: self.score.accuracy(), low, high }
            }
            Metric::AccuracyDrop => {
                let (value, [low, high]) = self.score.drop();
                Estimate { value, low, high }
            }
            Metric::Latency => {
                let [value, low, high] = self.latency;
                Estimate { value, low, high }
            }
            Metric::Size => Estimate::exact(self.size),
            Metric::Memory => Estimate::exact(self.memory),
        })
    }

    /// Lists the estimates of all measured metrics.
    pub fn estimates(&self) -> impl Iterator<Item = (Metric, Estimate)> + '_ {
        Metric::ALL.into_iter().filter_map(|metric| Some((metric, self.estimate(metric)?)))
    }

    /// Returns the values of the objectives.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metric::objectives()
            .filter_map(|metric| Some((metric, self.estimate(metric)?.value)))
            .collect()
    }
}
