//! Budget of a search: `90s`, `10m`, `500trials`, or several of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bounds of a search over all sessions of a study. The first one reached ends the search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Limit on the wall-clock time in seconds.
    pub seconds: Option<f64>,
    /// Limit on the number of finished trials.
    pub trials: Option<u64>,
}

/// A text that is not a budget.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "budget `{0}`: write for example `90s`, `10m`, `2h`, `500trials`, or several: `10m,500trials`"
)]
pub struct BudgetError(String);

impl FromStr for Budget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let error = || BudgetError(text.to_owned());
        let mut budget = Self::default();
        for part in text.split(',').map(str::trim) {
            let digits =
                part.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(error)?;
            let (number, unit) = part.split_at(digits);
            let unit = unit.trim();
            if let "trials" | "trial" = unit {
                budget.trials = Some(number.parse().map_err(|_| error())?);
                continue;
            }
            let factor = match unit {
                "ms" => 1e-3,
                "s" | "sec" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3600.0,
                _ => return Err(error()),
            };
            let number: f64 = number.parse().map_err(|_| error())?;
            budget.seconds = Some(number * factor);
        }
        if budget.seconds.is_some_and(|seconds| !seconds.is_finite() || seconds <= 0.0)
            || budget.trials == Some(0)
        {
            return Err(error());
        }
        Ok(budget)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.seconds, self.trials) {
            (Some(seconds), Some(trials)) => write!(f, "{seconds}s,{trials}trials"),
            (Some(seconds), None) => write!(f, "{seconds}s"),
            (None, Some(trials)) => write!(f, "{trials}trials"),
            (None, None) => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_and_printed() {
        let budget: Budget = "10m".parse().unwrap();
        assert_eq!(budget, Budget { seconds: Some(600.0), trials: None });
        let both: Budget = "90s, 500trials".parse().unwrap();
        assert_eq!(both, Budget { seconds: Some(90.0), trials: Some(500) });
        assert_eq!(both.to_string().parse::<Budget>().unwrap(), both);
        for wrong in ["", "10", "10parsec", "0s", "0trials", "-5m", "m", "1.5trials"] {
            assert!(wrong.parse::<Budget>().is_err(), "{wrong}");
        }
    }
}
