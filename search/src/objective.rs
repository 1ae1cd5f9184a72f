//! Objectives of a search: metrics with a direction and a scale.

/// Direction in which an objective improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Smaller values of the metric are better.
    Minimize,
    /// Larger values of the metric are better.
    Maximize,
}

/// Scale on which the values of an objective are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Values are compared by difference.
    Linear,
    /// Values are compared by ratio and must be positive.
    Log,
}

/// Metric that a search optimizes, with its direction and scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// Name of a measured metric.
    pub name: String,
    /// Direction in which the metric improves.
    pub direction: Direction,
    /// Scale on which values are compared.
    pub scale: Scale,
}

impl Objective {
    /// Creates an objective that minimizes the metric `name` on a linear scale.
    pub fn minimize(name: impl Into<String>) -> Objective {
        Objective { name: name.into(), direction: Direction::Minimize, scale: Scale::Linear }
    }

    /// Creates an objective that maximizes the metric `name` on a linear scale.
    pub fn maximize(name: impl Into<String>) -> Objective {
        Objective { name: name.into(), direction: Direction::Maximize, scale: Scale::Linear }
    }

    /// Switches to a logarithmic scale.
    #[must_use]
    pub fn log(mut self) -> Objective {
        self.scale = Scale::Log;
        self
    }

    /// Returns the canonical value: smaller is better, and values are compared by difference.
    /// `None` if the value is not finite, or not positive on a logarithmic scale.
    #[must_use]
    pub fn canonical(&self, value: f64) -> Option<f64> {
        let scaled = match self.scale {
            Scale::Linear => value,
            Scale::Log if value > 0.0 => value.ln(),
            Scale::Log => return None,
        };
        let signed = if self.direction == Direction::Minimize { scaled } else { -scaled };
        signed.is_finite().then_some(signed)
    }
}
