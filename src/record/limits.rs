//! Limits as users write them: `latency<20ms`, `<5MB`, `accuracy-drop<1%`.

use crate::front::FrontLimit;

/// A text that is not a limit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "limit `{text}`: {problem}; write for example \"latency<20ms\", \"size<5MB\", \"memory<64MB\", \"accuracy>90%\" or \
     \"accuracy-drop<1%\", or a list such as \"<20ms, <5MB\""
)]
pub struct LimitError {
    /// The text that was given.
    pub text: String,
    /// Description of the mistake in it.
    pub problem: String,
}

/// Parses one text of `--limit`, which may be a list.
///
/// # Errors
/// Fails if a part of the list is not a limit.
pub fn parse(text: &str) -> Result<Vec<FrontLimit>, LimitError> {
    text.split(',').map(|part| parse_one(part.trim())).collect()
}

fn parse_one(text: &str) -> Result<FrontLimit, LimitError> {
    let error = |problem: &str| LimitError { text: text.to_owned(), problem: problem.to_owned() };
    let at = text.find(['<', '>', '≤', '≥']).ok_or_else(|| error("has neither `<` nor `>`"))?;
    let (name, rest) = text.split_at(at);
    let mut rest = rest.chars();
    let op = match rest.next() {
        Some('<' | '≤') => "<",
        _ => ">",
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
    let (kind, factor) = unit_of(unit).ok_or_else(|| error(&format!("does not know the unit `{unit}`")))?;
    let metric = match (name.trim(), kind) {
        ("", Kind::Time) => "latency",
        ("", Kind::Bytes) => "size",
        ("", Kind::Share) if op == "<" => "accuracy-drop",
        ("", Kind::Share) => "accuracy",
        ("", Kind::None) => return Err(error("names no objective and has no unit that tells which")),
        (name, _) => name,
    };
    let (value, unit) = match (metric, kind) {
        ("latency", Kind::Time) => (number * factor, "s"),
        ("latency", _) => return Err(error("needs a unit of time: s, ms, us or ns")),
        ("size" | "memory", Kind::Bytes) => (number * factor, "B"),
        ("size" | "memory", _) => return Err(error("needs a unit of bytes: B, KB, MB, GB, KiB, MiB or GiB")),
        ("accuracy" | "accuracy-drop", Kind::Share) => (number / 100.0, ""),
        ("accuracy" | "accuracy-drop", Kind::None) if number <= 1.0 => (number, ""),
        ("accuracy" | "accuracy-drop", _) => return Err(error("needs a percentage or a fraction up to 1")),
        _ => return Err(error("does not name latency, size, memory, accuracy or accuracy-drop")),
    };
    let upward = metric == "accuracy";
    if upward != (op == ">") {
        return Err(error(if upward {
            "must be a lower bound (`>`)"
        } else {
            "must be an upper bound (`<`)"
        }));
    }
    Ok(FrontLimit { metric: metric.to_owned(), op: op.to_owned(), value, unit: unit.to_owned() })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Time,
    Bytes,
    Share,
    None,
}

fn unit_of(unit: &str) -> Option<(Kind, f64)> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "s" => (Kind::Time, 1.0),
        "ms" => (Kind::Time, 1e-3),
        "us" | "µs" | "μs" => (Kind::Time, 1e-6),
        "ns" => (Kind::Time, 1e-9),
        "b" => (Kind::Bytes, 1.0),
        "kb" => (Kind::Bytes, 1e3),
        "mb" => (Kind::Bytes, 1e6),
        "gb" => (Kind::Bytes, 1e9),
        "kib" => (Kind::Bytes, 1024.0),
        "mib" => (Kind::Bytes, 1024.0 * 1024.0),
        "gib" => (Kind::Bytes, 1024.0 * 1024.0 * 1024.0),
        "%" => (Kind::Share, 0.01),
        "" => (Kind::None, 1.0),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(metric: &str, op: &str, value: f64) -> (String, String, f64) {
        (metric.into(), op.into(), value)
    }

    fn read(text: &str) -> Vec<(String, String, f64)> {
        parse(text).unwrap().into_iter().map(|limit| (limit.metric, limit.op, limit.value)).collect()
    }

    #[test]
    fn units_name_their_objective() {
        assert_eq!(read("<20ms, <5MB"), [limit("latency", "<", 0.02), limit("size", "<", 5e6)]);
        assert_eq!(read("<0.5ms"), [limit("latency", "<", 5e-4)]);
        assert_eq!(read("<1%, >90%"), [limit("accuracy-drop", "<", 0.01), limit("accuracy", ">", 0.9)]);
    }

    #[test]
    fn named_limits_and_other_spellings() {
        assert_eq!(read("memory <= 64 MiB"), [limit("memory", "<", 67_108_864.0)]);
        assert_eq!(read("latency≤3e-4s"), [limit("latency", "<", 3e-4)]);
        assert_eq!(read("accuracy>=0.9"), [limit("accuracy", ">", 0.9)]);
        assert_eq!(read("accuracy-drop<2%"), [limit("accuracy-drop", "<", 0.02)]);
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
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
