//! Criterion by which the best point is chosen.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::metric::Metric;

/// Criterion by which the best feasible point is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// The best value of a metric; ties are broken by the other objectives in order.
    Metric(Metric),
    /// The best compromise: the point farthest below the plane through the extremes.
    Knee,
}

const KNEE: &str = "knee";

impl Preference {
    /// Lists all preferences: the objectives in the order in which they are shown, then the knee.
    pub fn all() -> impl Iterator<Item = Self> + Clone {
        Metric::objectives().map(Self::Metric).chain([Self::Knee])
    }

    /// Returns the name on the command line and in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metric(metric) => metric.name(),
            Self::Knee => KNEE,
        }
    }

    /// Returns the metric that improves along the preference. The knee has none of its own; its
    /// points are compared by accuracy.
    #[must_use]
    pub fn metric(self) -> Metric {
        match self {
            Self::Metric(metric) => metric,
            Self::Knee => Metric::Accuracy,
        }
    }
}

impl Default for Preference {
    fn default() -> Self {
        Self::Metric(Metric::Accuracy)
    }
}

impl fmt::Display for Preference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no preference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no objective, and not `knee`")]
pub struct UnknownPreference(pub String);

impl FromStr for Preference {
    type Err = UnknownPreference;

    fn from_str(text: &str) -> Result<Self, UnknownPreference> {
        Self::all()
            .find(|each| each.name() == text)
            .ok_or_else(|| UnknownPreference(text.to_owned()))
    }
}

impl Serialize for Preference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Preference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
