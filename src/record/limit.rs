//! Limits on metrics, and their text: `latency<20ms`, `<5MB`, `accuracy-drop<1%`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::metric::{Metric, Metrics, Quantity};

pub use paretune_search::Relation;

/// A limit on a metric, in SI units.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "LimitFields", from = "LimitFields")]
pub struct Limit {
    /// The metric that is limited.
    pub metric: Metric,
    /// The side of the value on which the metric must be.
    pub relation: Relation,
    /// Value in seconds, bytes or as a fraction.
    pub value: f64,
}

impl Limit {
    /// Returns whether the limit bounds the metric from above.
    #[must_use]
    pub fn is_upper(&self) -> bool {
        self.relation == Relation::Less
    }

    /// Returns by how much `value` misses the limit, in the unit of the metric; not positive if it
    /// meets the limit.
    #[must_use]
    pub fn excess(&self, value: f64) -> f64 {
        if self.is_upper() { value - self.value } else { self.value - value }
    }
}

impl Limit {
    /// Returns the limit as it is drawn: a limit on the accuracy drop is a lower limit on the
    /// accuracy.
    #[must_use]
    pub fn drawn(&self, baseline: Option<&Metrics>) -> Self {
        let before = baseline.and_then(|baseline| baseline.get(Metric::Accuracy));
        match (self.metric, before) {
            (Metric::AccuracyDrop, Some(before)) => Self {
                metric: Metric::Accuracy,
                relation: Relation::Greater,
                value: before - self.value,
            },
            _ => *self,
        }
    }
}

/// Fields of a limit in `front.json`, `study.toml` and the journal.
#[derive(Serialize, Deserialize)]
struct LimitFields {
    metric: Metric,
    op: Cow<'static, str>,
    value: f64,
    #[serde(default)]
    unit: Cow<'static, str>,
}

impl From<Limit> for LimitFields {
    fn from(limit: Limit) -> Self {
        let op = sign(limit.relation).into();
        let unit = limit.metric.quantity().sign().into();
        Self { metric: limit.metric, op, value: limit.value, unit }
    }
}

impl From<LimitFields> for Limit {
    fn from(fields: LimitFields) -> Self {
        let relation = if fields.op.starts_with('<') { Relation::Less } else { Relation::Greater };
        Self { metric: fields.metric, relation, value: fields.value }
    }
}

/// Returns the sign of a relation: `<` or `>`.
#[must_use]
pub const fn sign(relation: Relation) -> &'static str {
    match relation {
        Relation::Less => "<",
        Relation::Greater => ">",
    }
}

/// A text that is no limit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "limit `{text}`: {problem}; write for example \"latency<20ms\", \"size<5MB\", \
     \"memory<64MB\", \"accuracy>90%\" or \
     \"accuracy-drop<1%\", or a list such as \"<20ms, <5MB\""
)]
pub struct LimitError {
    /// The text that was given.
    pub text: String,
    /// Description of the mistake in it.
    pub problem: String,
}

/// Reads one text of `--limit`, which may be a list.
///
/// # Errors
/// Fails if a part of it is no limit.
pub fn parse(text: &str) -> Result<Vec<Limit>, LimitError> {
    text.split(',').map(|part| parse_one(part.trim())).collect()
}

fn parse_one(text: &str) -> Result<Limit, LimitError> {
    let error = |problem: &str| LimitError { text: text.to_owned(), problem: problem.to_owned() };
    let at = text.find(['<', '>', '≤', '≥']).ok_or_else(|| error("has neither `<` nor `>`"))?;
    let (name, rest) = text.split_at(at);
    let mut rest = rest.chars();
    let relation = match rest.next() {
        Some('<' | '≤') => Relation::Less,
        _ => Relation::Greater,
    };
    let rest = rest.as_str();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim();
    let digits = rest
        .char_indices()
        .find(|&(at, letter)| {
            let exponent = matches!(letter, 'e' | 'E')
                && rest[at + 1..].starts_with(|next: char| next.is_ascii_digit() || next == '-');
            !(letter.is_ascii_digit() || matches!(letter, '.' | '+' | '-') || exponent)
        })
        .map_or(rest.len(), |(at, _)| at);
    let (number, unit) = (&rest[..digits], rest[digits..].trim());
    let number: f64 = number.parse().map_err(|_| error("has no number"))?;
    if !number.is_finite() || number < 0.0 {
        return Err(error("needs a number that is not negative"));
    }
    let unit = unit_of(unit).ok_or_else(|| error(&format!("does not know the unit `{unit}`")))?;
    let metric = match (name.trim(), unit) {
        ("", Some((quantity, _))) => implied(quantity, relation),
        ("", None) => return Err(error("names no objective and has no unit that tells which")),
        (name, _) => name.parse().map_err(|_| error(&format!("does not name {}", names())))?,
    };
    let value = match (metric.quantity(), unit) {
        (Quantity::Fraction, Some((Quantity::Fraction, percent))) => number / percent,
        (quantity, Some((given, factor))) if quantity == given => number * factor,
        (Quantity::Fraction, None) if number <= 1.0 => number,
        (Quantity::Seconds, _) => return Err(error("needs a unit of time: s, ms, us or ns")),
        (Quantity::Bytes, _) => {
            return Err(error("needs a unit of bytes: B, KB, MB, GB, KiB, MiB or GiB"));
        }
        (Quantity::Fraction, _) => return Err(error("needs a percentage or a fraction up to 1")),
    };
    let impossible = match metric.quantity() {
        Quantity::Fraction => value > 1.0,
        Quantity::Seconds | Quantity::Bytes => value <= 0.0,
    };
    if impossible {
        return Err(error("can never be met"));
    }
    match (metric.is_maximized(), relation) {
        (true, Relation::Less) => Err(error("must be a lower bound (`>`)")),
        (false, Relation::Greater) => Err(error("must be an upper bound (`<`)")),
        _ => Ok(Limit { metric, relation, value }),
    }
}

/// Returns the metric that a limit without a name means.
fn implied(quantity: Quantity, relation: Relation) -> Metric {
    match (quantity, relation) {
        (Quantity::Seconds, _) => Metric::Latency,
        (Quantity::Bytes, _) => Metric::Size,
        (Quantity::Fraction, Relation::Less) => Metric::AccuracyDrop,
        (Quantity::Fraction, Relation::Greater) => Metric::Accuracy,
    }
}

/// Lists the names of all metrics in a sentence.
fn names() -> String {
    let (last, rest) = Metric::ALL.split_last().expect("there are metrics");
    let rest: Vec<&str> = rest.iter().map(|metric| metric.name()).collect();
    format!("{} or {last}", rest.join(", "))
}

/// Returns the quantity of a unit and its factor to the SI unit, for percent the divisor;
/// `Some(None)` without a unit.
#[expect(clippy::option_option, reason = "a missing unit is not an unknown one")]
fn unit_of(unit: &str) -> Option<Option<(Quantity, f64)>> {
    Some(Some(match unit.to_ascii_lowercase().as_str() {
        "s" => (Quantity::Seconds, 1.0),
        "ms" => (Quantity::Seconds, 1e-3),
        "us" | "µs" | "μs" => (Quantity::Seconds, 1e-6),
        "ns" => (Quantity::Seconds, 1e-9),
        "b" => (Quantity::Bytes, 1.0),
        "kb" => (Quantity::Bytes, 1e3),
        "mb" => (Quantity::Bytes, 1e6),
        "gb" => (Quantity::Bytes, 1e9),
        "kib" => (Quantity::Bytes, 1024.0),
        "mib" => (Quantity::Bytes, 1024.0 * 1024.0),
        "gib" => (Quantity::Bytes, 1024.0 * 1024.0 * 1024.0),
        "%" => (Quantity::Fraction, 100.0),
        "" => return Some(None),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn below(metric: Metric, value: f64) -> Limit {
        Limit { metric, relation: Relation::Less, value }
    }

    const fn above(metric: Metric, value: f64) -> Limit {
        Limit { metric, relation: Relation::Greater, value }
    }

    fn read(text: &str) -> Vec<Limit> {
        parse(text).unwrap()
    }

    #[test]
    fn files_have_the_fields_of_the_contract() {
        let limit = below(Metric::Latency, 0.02);
        let text = serde_json::to_string(&limit).unwrap();
        assert_eq!(text, r#"{"metric":"latency","op":"<","value":0.02,"unit":"s"}"#);
        assert_eq!(serde_json::from_str::<Limit>(&text).unwrap(), limit);
    }

    #[test]
    fn units_name_their_objective() {
        assert_eq!(read("<20ms, <5MB"), [below(Metric::Latency, 0.02), below(Metric::Size, 5e6)]);
        assert_eq!(read("<0.5ms"), [below(Metric::Latency, 5e-4)]);
        assert_eq!(
            read("<1%, >90%"),
            [below(Metric::AccuracyDrop, 0.01), above(Metric::Accuracy, 0.9)]
        );
    }

    #[test]
    fn named_limits_and_other_spellings() {
        assert_eq!(read("memory <= 64 MiB"), [below(Metric::Memory, 67_108_864.0)]);
        assert_eq!(read("latency≤3e-4s"), [below(Metric::Latency, 3e-4)]);
        assert_eq!(read("accuracy>=0.9"), [above(Metric::Accuracy, 0.9)]);
        assert_eq!(read("accuracy-drop<2%"), [below(Metric::AccuracyDrop, 0.02)]);
    }

    #[test]
    fn mistakes_are_explained() {
        for (text, expected) in [
            ("20ms", "neither"),
            ("latency<", "no number"),
            ("<20", "names no objective"),
            ("latency<5MB", "unit of time"),
            ("size<5ms", "unit of bytes"),
            ("speed<5ms", "does not name"),
            ("<5parsec", "unit `parsec`"),
            ("latency>5ms", "upper bound"),
            ("accuracy<90%", "lower bound"),
            ("latency<-5ms", "not negative"),
            ("accuracy>nan%", "no number"),
            ("accuracy>110%", "never be met"),
            ("latency<0ms", "never be met"),
            ("size<0B", "never be met"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
