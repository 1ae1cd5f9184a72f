//! Quantities that are measured of a configuration.
//!
//! A new metric is a variant of [`Metric`] and a row of [`ROWS`]. Everything else asks the row: the
//! search for the direction, the archive for the scale and the tolerance, screens for the unit and
//! the words.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A quantity that is measured of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// Top-1 accuracy, or agreement with the baseline if the images have no labels.
    Accuracy,
    /// Accuracy lost against the baseline.
    AccuracyDrop,
    /// Median latency of one inference at batch 1.
    Latency,
    /// Size of the exported bundle.
    Size,
    /// Peak memory of weights, activations and workspaces during a run.
    Memory,
}

/// Direction in which a metric improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Larger values are better, as of accuracy.
    Maximize,
    /// Smaller values are better, as of latency.
    Minimize,
}

/// Physical quantity of a metric. Values are in its SI unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// A fraction, without a unit.
    Fraction,
    /// A duration, kept in seconds.
    Seconds,
    /// An amount of memory in bytes.
    Bytes,
}

impl Quantity {
    /// Returns the sign of the SI unit; empty for fractions.
    #[must_use]
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Fraction => "",
            Self::Seconds => "s",
            Self::Bytes => "B",
        }
    }
}

/// Largest difference between two values that count as equal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// In the unit of the metric.
    Absolute(f64),
    /// A fraction of the value itself.
    Relative(f64),
}

/// Words with which values of a metric are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// Predicate of a better value: `faster`.
    pub better: &'static str,
    /// Predicate of a worse value: `slower`.
    pub worse: &'static str,
    /// Predicate of the best value: `the fastest`.
    pub best: &'static str,
}

/// Row of the table of metrics: all that is known of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// The metric that the row describes.
    pub metric: Metric,
    /// Name on the command line, in files and on screens.
    pub name: &'static str,
    /// Name for narrow columns of tables.
    pub short_name: &'static str,
    /// Physical quantity, which decides the units.
    pub quantity: Quantity,
    /// Direction in which it improves.
    pub direction: Direction,
    /// Whether ratios of values count rather than differences.
    pub log_scale: bool,
    /// Largest difference that cannot be resolved, or that is of no use.
    pub tolerance: Tolerance,
    /// Whether it can be an objective of a search.
    pub is_objective: bool,
    /// Whether it is uncertain, so that its interval is shown.
    pub is_uncertain: bool,
    /// Words that compare two values for people.
    pub words: Words,
}

const SMALLER: Words = Words { better: "smaller", worse: "larger", best: "the smallest" };

/// Properties of all metrics, in the order of [`Metric`].
pub const ROWS: [Row; Metric::COUNT] = [
    Row {
        metric: Metric::Accuracy,
        name: "accuracy",
        short_name: "accuracy",
        quantity: Quantity::Fraction,
        direction: Direction::Maximize,
        log_scale: false,
        // A smaller difference cannot be resolved by an affordable number of images.
        tolerance: Tolerance::Absolute(0.001),
        is_objective: true,
        is_uncertain: true,
        words: Words { better: "more accurate", worse: "less accurate", best: "the most accurate" },
    },
    Row {
        metric: Metric::AccuracyDrop,
        name: "accuracy-drop",
        short_name: "drop",
        quantity: Quantity::Fraction,
        direction: Direction::Minimize,
        log_scale: false,
        tolerance: Tolerance::Absolute(0.001),
        is_objective: false,
        is_uncertain: true,
        words: SMALLER,
    },
    Row {
        metric: Metric::Latency,
        name: "latency",
        short_name: "latency",
        quantity: Quantity::Seconds,
        direction: Direction::Minimize,
        log_scale: true,
        // Timing is no more precise.
        tolerance: Tolerance::Relative(0.01),
        is_objective: true,
        is_uncertain: true,
        words: Words { better: "faster", worse: "slower", best: "the fastest" },
    },
    Row {
        metric: Metric::Size,
        name: "size",
        short_name: "size",
        quantity: Quantity::Bytes,
        direction: Direction::Minimize,
        log_scale: true,
        // Sizes are exact, but a smaller saving is of no use.
        tolerance: Tolerance::Relative(0.002),
        is_objective: true,
        is_uncertain: false,
        words: Words { best: "the smallest on disk", ..SMALLER },
    },
    Row {
        metric: Metric::Memory,
        name: "memory",
        short_name: "memory",
        quantity: Quantity::Bytes,
        direction: Direction::Minimize,
        log_scale: true,
        tolerance: Tolerance::Relative(0.01),
        is_objective: true,
        is_uncertain: false,
        words: Words { best: "the smallest in memory", ..SMALLER },
    },
];

impl Metric {
    /// Number of metrics in [`Metric::ALL`].
    pub const COUNT: usize = 5;

    /// All metrics, in the order in which they are shown.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Accuracy, Self::AccuracyDrop, Self::Latency, Self::Size, Self::Memory];

    /// Lists the metrics that can be objectives of a search, in the order in which they are shown.
    pub fn objectives() -> impl DoubleEndedIterator<Item = Self> + Clone {
        Self::ALL.into_iter().filter(|metric| metric.row().is_objective)
    }

    /// Returns the properties of the metric.
    #[must_use]
    pub const fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Returns the name on the command line, in files and on screens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Returns the position in [`Metric::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the quantity that the metric measures.
    #[must_use]
    pub const fn quantity(self) -> Quantity {
        self.row().quantity
    }

    /// Returns whether more is better.
    #[must_use]
    pub const fn is_maximized(self) -> bool {
        matches!(self.row().direction, Direction::Maximize)
    }

    /// Returns whether ratios of values count rather than differences.
    #[must_use]
    pub const fn is_logarithmic(self) -> bool {
        self.row().log_scale
    }

    /// Converts a value to a cost, of which less is always better.
    #[must_use]
    pub fn cost(self, value: f64) -> f64 {
        if self.is_maximized() { -value } else { value }
    }

    /// Converts a value to a cost on the scale of the metric: logarithmic where ratios count.
    #[must_use]
    pub fn scaled_cost(self, value: f64) -> f64 {
        if self.is_logarithmic() {
            self.cost(value.max(f64::MIN_POSITIVE).ln())
        } else {
            self.cost(value)
        }
    }

    /// Returns whether `left` is as good as `right` within the tolerance of the metric.
    #[must_use]
    pub fn is_as_good(self, left: f64, right: f64) -> bool {
        let slack = match self.row().tolerance {
            Tolerance::Absolute(slack) => slack,
            Tolerance::Relative(fraction) => right.abs() * fraction,
        };
        self.cost(left) <= self.cost(right) + slack
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no metric.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no metric: there are {names}", names = names())]
pub struct UnknownMetric(pub String);

fn names() -> String {
    Metric::ALL.map(Metric::name).join(", ")
}

impl FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(text: &str) -> Result<Self, UnknownMetric> {
        let found = Self::ALL.into_iter().find(|metric| metric.name() == text);
        found.ok_or_else(|| UnknownMetric(text.to_owned()))
    }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl Visitor<'_> for Names {
            type Value = Metric;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a metric")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Metric, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Names)
    }
}

/// Values of the metrics that are known of one configuration, in SI units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Metrics([Option<f64>; Metric::COUNT]);

impl Metrics {
    /// Returns the value of `metric`, if it is known.
    #[must_use]
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0[metric as usize]
    }

    /// Replaces the value of `metric`.
    pub fn set(&mut self, metric: Metric, value: impl Into<Option<f64>>) {
        self.0[metric as usize] = value.into();
    }

    /// Returns a copy with another value of `metric`.
    #[must_use]
    pub fn with(mut self, metric: Metric, value: impl Into<Option<f64>>) -> Self {
        self.set(metric, value);
        self
    }

    /// Returns the value of `metric`. The accuracy drop is that against `baseline`.
    #[must_use]
    pub fn against(&self, metric: Metric, baseline: Option<&Self>) -> Option<f64> {
        match (metric, baseline) {
            (Metric::AccuracyDrop, Some(baseline)) => {
                Some(baseline.get(Metric::Accuracy)? - self.get(Metric::Accuracy)?)
            }
            _ => self.get(metric),
        }
    }

    /// Lists the known values in the order in which metrics are shown.
    pub fn iter(&self) -> impl Iterator<Item = (Metric, f64)> + '_ {
        Metric::ALL.into_iter().filter_map(|metric| Some((metric, self.get(metric)?)))
    }
}

impl FromIterator<(Metric, f64)> for Metrics {
    fn from_iter<I: IntoIterator<Item = (Metric, f64)>>(values: I) -> Self {
        let mut metrics = Self::default();
        for (metric, value) in values {
            metrics.set(metric, value);
        }
        metrics
    }
}

impl<const N: usize> From<[(Metric, f64); N]> for Metrics {
    fn from(values: [(Metric, f64); N]) -> Self {
        values.into_iter().collect()
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (metric, value) in self.iter() {
            map.serialize_entry(&metric, &value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Metrics {
    /// Reads an object of values by name. Names of metrics that this program does not know are left
    /// out, so that files of later versions can be read.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Metrics;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of metrics by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metrics, A::Error> {
                let mut metrics = Metrics::default();
                while let Some((name, value)) = map.next_entry::<String, Option<f64>>()? {
                    if let Ok(metric) = name.parse() {
                        metrics.set(metric, value);
                    }
                }
                Ok(metrics)
            }
        }
        deserializer.deserialize_map(Values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_the_order_of_the_variants() {
        for (index, row) in ROWS.iter().enumerate() {
            assert_eq!((row.metric as usize, Metric::ALL[index]), (index, row.metric));
            assert_eq!(row.name.parse(), Ok(row.metric));
        }
        assert!("speed".parse::<Metric>().unwrap_err().to_string().contains("accuracy-drop"));
    }

    #[test]
    fn metrics_are_an_object_of_the_known_values_by_name() {
        let metrics = Metrics::from([(Metric::Accuracy, 0.905), (Metric::Latency, 0.00071)]);
        let text = serde_json::to_string(&metrics).unwrap();
        assert_eq!(text, r#"{"accuracy":0.905,"latency":0.00071}"#);
        assert_eq!(serde_json::from_str::<Metrics>(&text).unwrap(), metrics);
        let later = r#"{"accuracy":0.905,"latency":0.00071,"size":null,"sound":3.0}"#;
        assert_eq!(serde_json::from_str::<Metrics>(later).unwrap(), metrics);
        assert!(serde_json::from_str::<Metrics>(r#"{"accuracy":"much"}"#).is_err());
    }

    #[test]
    fn the_drop_is_that_against_the_baseline() {
        let [before, after] =
            [0.75, 0.5].map(|accuracy| Metrics::from([(Metric::Accuracy, accuracy)]));
        assert_eq!(after.against(Metric::AccuracyDrop, Some(&before)), Some(0.25));
        assert_eq!(after.against(Metric::AccuracyDrop, None), None);
        assert_eq!(Metrics::default().against(Metric::AccuracyDrop, Some(&before)), None);
    }

    #[test]
    fn costs_and_tolerances_follow_the_direction() {
        assert!(Metric::Accuracy.cost(0.9) < Metric::Accuracy.cost(0.8));
        assert!(Metric::Latency.scaled_cost(1e-3) < Metric::Latency.scaled_cost(1e-2));
        assert!(
            Metric::Accuracy.is_as_good(0.8995, 0.9) && !Metric::Accuracy.is_as_good(0.89, 0.9)
        );
        assert!(Metric::Latency.is_as_good(1.005, 1.0) && !Metric::Latency.is_as_good(1.02, 1.0));
    }
}
