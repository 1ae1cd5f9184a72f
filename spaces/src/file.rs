//! Space files: TOML that narrows, fixes or extends a space, or describes one from nothing.
//!
//! ```toml
//! constraints = ["tile * unroll <= 64"]   # must hold in addition to existing constraints
//!
//! [narrow]                                # restricts existing parameters; `*`, `?` match names
//! "*.bits" = [8]
//!
//! [fix]                                   # fixes existing parameters to one value
//! "conv1.algorithm" = "direct"
//!
//! [[parameter]]                           # adds a parameter
//! name = "tile"
//! # Or { from = 1, to = 64, factor = 2 }, or { from = 0, to = 9, step = 3 }.
//! values = [1, 2, 4, 8]
//! kind = "sizes"                          # or "choice", "switch"; by default as values suggest
//! when = "algorithm == 'gemm'"
//! default = 4
//! about = "rows of a tile"
//! ```
//!
//! Earlier files say `ordered = true` for sizes and `ordered = false` for a choice.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::space::{Parameter, Space, SpaceError};
use crate::{Domain, Expression, Kind, Value};

/// Number of values above which a range is refused.
const MAX_RANGE: usize = 10_000;

/// Parsed space file that has not been applied.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceFile {
    #[serde(default)]
    constraints: Vec<String>,
    #[serde(default)]
    narrow: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    fix: BTreeMap<String, Value>,
    #[serde(default, rename = "parameter")]
    parameters: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    values: Values,
    kind: Option<Kind>,
    /// Spelling of earlier files: true for sizes, false for a choice.
    ordered: Option<bool>,
    when: Option<String>,
    default: Option<Value>,
    #[serde(default)]
    about: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a list of values, or a table with `from`, `to` and `step` or `factor`"
)]
enum Values {
    List(Vec<Value>),
    Range(Range),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    from: i64,
    to: i64,
    step: Option<i64>,
    factor: Option<i64>,
}

fn wrong<T>(entry: impl Into<String>, problem: impl Into<String>) -> Result<T, SpaceError> {
    Err(SpaceError::Entry { entry: entry.into(), problem: problem.into() })
}

fn listed(values: &[Value]) -> String {
    let words: Vec<String> = values.iter().take(20).map(Value::to_string).collect();
    if values.len() > 20 { format!("{}, ...", words.join(", ")) } else { words.join(", ") }
}

impl SpaceFile {
    /// Parses the text of a space file.
    ///
    /// # Errors
    /// Returns an error with line and column if the text is not TOML or has unknown entries.
    pub fn parse(text: &str) -> Result<SpaceFile, SpaceError> {
        toml::from_str(text).or_else(|e| wrong("space file", e.to_string().trim_end()))
    }

    /// Changes `space`: new parameters and constraints first, then restrictions.
    ///
    /// # Errors
    /// Returns an error that names the entry which does not fit the space. `space` is unchanged
    /// then.
    pub fn apply(&self, space: &mut Space) -> Result<(), SpaceError> {
        let mut changed = space.clone();
        for entry in &self.parameters {
            changed.parameters.push(entry.parameter()?);
        }
        for text in &self.constraints {
            changed.constraints.push(expression(&format!("constraints: `{text}`"), text)?);
        }
        for (pattern, values) in &self.narrow {
            restrict(&mut changed, &format!("narrow.{pattern:?}"), pattern, values)?;
        }
        for (pattern, value) in &self.fix {
            restrict(
                &mut changed,
                &format!("fix.{pattern:?}"),
                pattern,
                std::slice::from_ref(value),
            )?;
        }
        changed.check()?;
        *space = changed;
        Ok(())
    }

    /// Returns the space that the file alone describes.
    ///
    /// # Errors
    /// Returns the errors of [`SpaceFile::apply`], and an error if there are no parameters.
    pub fn space(&self) -> Result<Space, SpaceError> {
        let mut space = Space::new();
        self.apply(&mut space)?;
        if space.parameters.is_empty() {
            wrong("space file", "there is no [[parameter]]")
        } else {
            Ok(space)
        }
    }
}

fn expression(entry: &str, text: &str) -> Result<Expression, SpaceError> {
    text.parse().map_err(|error| SpaceError::Parse { place: entry.to_owned(), error })
}

impl Entry {
    fn parameter(&self) -> Result<Parameter, SpaceError> {
        let entry = format!("parameter {:?}", self.name);
        let values = match &self.values {
            Values::List(values) => values.clone(),
            Values::Range(range) => range.values(&entry)?,
        };
        let first = values.first().cloned();
        let domain = match (self.kind, self.ordered) {
            (Some(_), Some(_)) => {
                return wrong(entry, "`ordered` is the old word for `kind`: give one of them");
            }
            (Some(kind), None) => Domain::of_kind(kind, values),
            (None, Some(false)) => Domain::Choice(values),
            // Words have no distances, so nothing is lost when ordered words become a choice.
            (None, Some(true) | None) => Domain::infer(values),
        };
        let mut parameter = Parameter::new(&self.name, domain).about(&self.about);
        if let Some(first) = first {
            parameter = parameter.with_default(first);
        }
        if let Some(text) = &self.when {
            parameter = parameter.when(expression(&format!("{entry}, `when`"), text)?);
        }
        if let Some(value) = &self.default {
            parameter.default = match parameter.domain.index_of(value) {
                Some(index) => index,
                None => {
                    let values = listed(parameter.domain.values());
                    return wrong(entry, format!("the default {value} is not one of {values}"));
                }
            };
        }
        Ok(parameter)
    }
}

impl Range {
    fn values(&self, entry: &str) -> Result<Vec<Value>, SpaceError> {
        type Next = Box<dyn Fn(i64) -> Option<i64>>;
        let next: Next = match (self.step, self.factor) {
            (step, None) if step.unwrap_or(1) > 0 => {
                let step = step.unwrap_or(1);
                Box::new(move |v| v.checked_add(step))
            }
            (None, Some(factor)) if factor > 1 && self.from > 0 => {
                Box::new(move |v| v.checked_mul(factor))
            }
            _ => {
                let problem =
                    "a range needs a positive `step`, or a `factor` above 1 and `from` above 0";
                return wrong(entry, problem);
            }
        };
        let mut values = Vec::new();
        let mut value = Some(self.from);
        while let Some(v) = value.filter(|v| *v <= self.to) {
            if values.len() == MAX_RANGE {
                return wrong(
                    entry,
                    format!("a range of more than {MAX_RANGE} values is too long"),
                );
            }
            values.push(Value::Int(v));
            value = next(v);
        }
        Ok(values)
    }
}

/// Keeps only the values `wanted` in all parameters whose names match the pattern.
fn restrict(
    space: &mut Space,
    entry: &str,
    pattern: &str,
    wanted: &[Value],
) -> Result<(), SpaceError> {
    let mut used = vec![false; wanted.len()];
    let mut matched = false;
    for parameter in space.parameters.iter_mut().filter(|p| matches(pattern, &p.name)) {
        matched = true;
        let mut keep = vec![false; parameter.domain.values().len()];
        for (value, used) in wanted.iter().zip(&mut used) {
            if let Some(index) = parameter.domain.index_of(value) {
                (keep[index], *used) = (true, true);
            }
        }
        if !keep.contains(&true) {
            let values = listed(parameter.domain.values());
            return wrong(
                entry,
                format!("`{}` has none of these values; it has {values}", parameter.name),
            );
        }
        let default = parameter.domain.values()[parameter.default].clone();
        let mut position = keep.iter();
        parameter.domain = parameter.domain.filtered(|_| position.next().copied().unwrap_or(false));
        parameter.default =
            parameter.domain.values().iter().position(|v| *v == default).unwrap_or(0);
    }
    if !matched {
        return wrong(entry, "no parameter of this space has such a name");
    }
    match used.iter().position(|u| !u) {
        Some(at) => wrong(entry, format!("no parameter that matches has the value {}", wanted[at])),
        None => Ok(()),
    }
}

/// Returns whether `name` matches a pattern, in which `*` stands for any text and `?` for any one
/// character.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    // Greedy matching with one point of return: the last star can always take one more character.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Space {
        let mut space = Space::new();
        for layer in ["conv1", "conv2"] {
            let bits =
                Parameter::new(format!("{layer}.bits"), Domain::sizes([32, 8, 4])).with_default(32);
            space.parameters.push(bits);
            let algorithm = Domain::choice(["direct", "gemm"]);
            space.parameters.push(Parameter::new(format!("{layer}.algorithm"), algorithm));
        }
        space
    }

    fn apply(text: &str) -> Result<Space, SpaceError> {
        let mut space = base();
        SpaceFile::parse(text)?.apply(&mut space)?;
        Ok(space)
    }

    #[test]
    fn narrows_fixes_and_extends() {
        let space = apply(
            r#"
            constraints = ["tile == 1 or conv1.bits == 8"]
            [narrow]
            "*.bits" = [8, 4.0]
            [fix]
            "conv1.algorithm" = "gemm"
            [[parameter]]
            name = "tile"
            values = { from = 1, to = 8, factor = 2 }
            when = "conv1.algorithm == 'gemm'"
            default = 4
            "#,
        )
        .unwrap();
        assert_eq!(space.parameters[0].domain, Domain::sizes([8, 4]));
        assert_eq!(space.parameters[0].default, 0);
        assert_eq!(space.parameters[4].domain, Domain::sizes([1, 2, 4, 8]));
        assert_eq!(space.parameters[4].default, 2);
        assert_eq!(space.compile().unwrap().len(), Some((4 + 1) * 2 * 2));
    }

    #[test]
    fn kinds_are_named_inferred_and_read_in_old_words() {
        let kind = |entry: &str| {
            let text = format!("[[parameter]]\nname = 't'\n{entry}");
            SpaceFile::parse(&text).unwrap().space().map(|space| space.parameters[0].domain.kind())
        };
        for (entry, expected) in [
            ("values = [1, 2, 4]", Kind::Sizes),
            ("values = ['a', 'b']", Kind::Choice),
            ("values = [false, true]", Kind::Switch),
            ("values = [0, 1]", Kind::Switch),
            ("values = [0, 1]\nkind = 'sizes'", Kind::Sizes),
            ("values = [1, 2, 4]\nkind = 'choice'", Kind::Choice),
            ("values = [1, 2, 4]\nordered = false", Kind::Choice),
            ("values = [1, 2, 4]\nordered = true", Kind::Sizes),
            ("values = ['a', 'b']\nordered = true", Kind::Choice),
        ] {
            assert_eq!(kind(entry).unwrap(), expected, "{entry}");
        }
        assert!(
            kind("values = ['a']\nkind = 'sizes'").unwrap_err().to_string().contains("no number")
        );
        assert!(kind("values = [1]\nkind = 'sizes'\nordered = true").is_err());
        let unsorted = SpaceFile::parse("[[parameter]]\nname = 't'\nvalues = [8, 32, 4]").unwrap();
        let parameter = &unsorted.space().unwrap().parameters[0];
        assert_eq!(parameter.domain.values()[parameter.default], Value::Int(8));
    }

    #[test]
    fn errors_name_the_entry() {
        for (text, words) in [
            ("[narrow]\n'*.bitz' = [8]", vec!["narrow.\"*.bitz\"", "no parameter"]),
            ("[narrow]\n'*.bits' = [8, 5]", vec!["narrow.\"*.bits\"", "value 5"]),
            ("[fix]\n'conv1.algorithm' = 'fft'", vec!["conv1.algorithm", "direct, gemm"]),
            ("constraints = ['a b']", vec!["constraints", "column 3"]),
            ("constraints = ['nothing == 1']", vec!["nothing == 1", "`nothing`"]),
            ("[[parameter]]\nname = 't'\nvalues = [1]\ndefault = 2", vec!["\"t\"", "default 2"]),
            ("[[parameter]]\nname = 't'\nvalues = []", vec!["`t`", "no value"]),
            (
                "[[parameter]]\nname = 't'\nvalues = {from = 0, to = 9, factor = 2}",
                vec!["\"t\"", "factor"],
            ),
            (
                "[[parameter]]\nname = 't'\nvalues = {from = 0, to = 99999999}",
                vec!["\"t\"", "too long"],
            ),
            ("[[parameter]]\nname = 'conv1.bits'\nvalues = [1]", vec!["conv1.bits", "twice"]),
            ("[[parameter]]\nname = 't'\nvalues = [1.0, nan]", vec!["`t`", "finite"]),
            ("[narow]\n'*' = [1]", vec!["narow", "line 1"]),
        ] {
            let message = apply(text).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{text}: {message}");
            }
        }
    }

    #[test]
    fn a_file_alone_is_a_space() {
        let file = SpaceFile::parse("[[parameter]]\nname = 'a'\nvalues = ['x', 'y']").unwrap();
        assert_eq!(file.space().unwrap().parameters[0].domain, Domain::choice(["x", "y"]));
        assert!(SpaceFile::parse("").unwrap().space().is_err());
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*.bits", "a.b.bits", true),
            ("conv?.bits", "conv1.bits", true),
            ("conv?.bits", "conv12.bits", false),
            ("a*b*c", "aXbbXc", true),
            ("a*b*c", "aXbbX", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
