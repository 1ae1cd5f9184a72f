//! Import and export of T1, the JSON description of tuning problems that auto-tuners share.
//!
//! Values are Python lists in strings, and constraints are Python expressions. Kernels, arguments
//! and everything else in a T1 file besides the space are ignored.

use serde_json::{Value as Json, json};

use crate::space::{Parameter, Space, SpaceError};
use crate::{Domain, Expression, Value};

fn wrong<T>(entry: impl Into<String>, problem: impl Into<String>) -> Result<T, SpaceError> {
    Err(SpaceError::Entry { entry: entry.into(), problem: problem.into() })
}

fn list<'a>(json: &'a Json, path: &str) -> Result<&'a [Json], SpaceError> {
    match json {
        Json::Array(items) => Ok(items),
        Json::Null => Ok(&[]),
        _ => wrong(path, "must be a list"),
    }
}

fn text<'a>(json: &'a Json, path: &str, field: &str) -> Result<&'a str, SpaceError> {
    match json[field].as_str() {
        Some(text) => Ok(text),
        None => wrong(path, format!("needs `{field}`, a string")),
    }
}

/// Parses the space of a T1 description.
///
/// # Errors
/// Returns an error that names the wrong entry if the text is not T1.
pub fn parse(input: &str) -> Result<Space, SpaceError> {
    let json: Json = serde_json::from_str(input).or_else(|e| wrong("T1 file", e.to_string()))?;
    let described = &json["ConfigurationSpace"];
    if !described.is_object() {
        return wrong("ConfigurationSpace", "is missing");
    }
    let mut space = Space::new();
    let parameters = list(&described["TuningParameters"], "ConfigurationSpace.TuningParameters")?;
    if parameters.is_empty() {
        return wrong("ConfigurationSpace.TuningParameters", "must list at least one parameter");
    }
    for (number, item) in parameters.iter().enumerate() {
        space
            .parameters
            .push(parameter(item, &format!("ConfigurationSpace.TuningParameters[{number}]"))?);
    }
    for (number, item) in
        list(&described["Conditions"], "ConfigurationSpace.Conditions")?.iter().enumerate()
    {
        let path = format!("ConfigurationSpace.Conditions[{number}]");
        let condition = text(item, &path, "Expression")?;
        let parsed = condition.parse().map_err(|error| SpaceError::Parse { place: path, error })?;
        space.constraints.push(parsed);
    }
    space.check()?;
    Ok(space)
}

fn parameter(item: &Json, path: &str) -> Result<Parameter, SpaceError> {
    let name = text(item, path, "Name")?;
    let kind = text(item, path, "Type")?;
    let values: Vec<Value> = match &item["Values"] {
        Json::String(python) => python_list(python, path)?,
        Json::Array(items) => {
            items.iter().filter_map(|v| serde_json::from_value(v.clone()).ok()).collect()
        }
        _ => return wrong(path, "needs `Values`, a Python list in a string"),
    };
    let values =
        values.into_iter().map(|v| convert(v, kind, path)).collect::<Result<Vec<_>, _>>()?;
    let first = values.first().cloned();
    let domain = match kind {
        "string" => Domain::Choice(values),
        "bool" => Domain::Switch(values),
        _ => Domain::infer(values),
    };
    let mut parameter = Parameter::new(name, domain);
    if let Some(first) = first {
        parameter = parameter.with_default(first);
    }
    if let Ok(value) = serde_json::from_value::<Value>(item["Default"].clone()) {
        // Some published files have defaults outside the domain: the first value serves then.
        parameter = parameter.with_default(value);
    }
    Ok(parameter)
}

/// Parses a list of literals in the syntax of the expression language.
fn python_list(python: &str, path: &str) -> Result<Vec<Value>, SpaceError> {
    let place = || format!("{path}.Values");
    let parsed: Expression = format!("x in {python}")
        .parse()
        .map_err(|error| SpaceError::Parse { place: place(), error })?;
    let Expression::In(_, items, _) = parsed else {
        return wrong(place(), "must be a Python list");
    };
    items
        .into_iter()
        .map(|item| match item.evaluate(&|_| None) {
            Ok(Some(value)) => Ok(value),
            _ => wrong(place(), format!("`{item}` is no value")),
        })
        .collect()
}

fn convert(value: Value, kind: &str, path: &str) -> Result<Value, SpaceError> {
    let converted = match (kind, &value) {
        ("int" | "uint", Value::Int(i)) if kind == "int" || *i >= 0 => Some(value.clone()),
        ("float", Value::Int(i)) => Some(Value::from(*i as f64)),
        ("float", Value::Real(_)) | ("bool", Value::Bool(_)) | ("string", Value::Text(_)) => {
            Some(value.clone())
        }
        ("bool", Value::Int(i @ (0 | 1))) => Some(Value::Bool(*i == 1)),
        _ => None,
    };
    match converted {
        Some(value) => Ok(value),
        None => wrong(
            path,
            format!("{value} is no value of type `{kind}` (int, uint, float, bool, string)"),
        ),
    }
}

/// Writes a T1 description of `space`. T1 has no conditional parameters: if a condition does not
/// hold, a constraint pins the parameter to its default, which keeps the number of configurations.
#[must_use]
pub fn write(space: &Space, name: &str) -> String {
    let kind = |domain: &Domain| {
        let values = domain.values();
        if values.iter().all(|v| matches!(v, Value::Bool(_))) {
            "bool"
        } else if values.iter().all(|v| matches!(v, Value::Int(_))) {
            "int"
        } else if values.iter().all(|v| matches!(v, Value::Int(_) | Value::Real(_))) {
            "float"
        } else {
            "string"
        }
    };
    let python = |v: &Value, kind: &str| {
        let v = if kind == "string" { Value::Text(v.to_string()) } else { v.clone() };
        Expression::Literal(v).to_string()
    };
    let parameters: Vec<Json> = space
        .parameters
        .iter()
        .map(|p| {
            let kind = kind(&p.domain);
            let values: Vec<String> = p.domain.values().iter().map(|v| python(v, kind)).collect();
            let default = &p.domain.values()[p.default];
            let values = format!("[{}]", values.join(", "));
            json!({"Name": p.name, "Type": kind, "Values": values, "Default": default})
        })
        .collect();
    let pinned = space.parameters.iter().filter_map(|p| {
        let default = p.domain.values()[p.default].clone();
        Some(p.condition.clone()?.or(Expression::name(&p.name).equals(default)))
    });
    let conditions: Vec<Json> = pinned
        .chain(space.constraints.iter().cloned())
        .map(|e| json!({"Expression": e.to_string(), "Parameters": e.names()}))
        .collect();
    let described = json!({"TuningParameters": parameters, "Conditions": conditions});
    let whole = json!({"General": {"BenchmarkName": name}, "ConfigurationSpace": described});
    format!("{whole:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    const SMALL: &str = r#"{"ConfigurationSpace": {"TuningParameters": [
        {"Name": "bx", "Type": "int", "Values": "[16, 32, 48]", "Default": 16},
        {"Name": "kind", "Type": "string", "Values": "['a', \"b\"]", "Default": "b"},
        {"Name": "pad", "Type": "bool", "Values": "[True, 0]"},
        {"Name": "rate", "Type": "float", "Values": "[1, 0.5]"}],
        "Conditions": [{"Expression": "pad == 0 or bx % 32 != 0", "Parameters": ["pad", "bx"]}]}}"#;

    #[test]
    fn reads_and_writes() {
        let space = parse(SMALL).unwrap();
        assert_eq!(space.parameters[1].default, 1);
        let kinds: Vec<Kind> = space.parameters.iter().map(|p| p.domain.kind()).collect();
        assert_eq!(kinds, [Kind::Sizes, Kind::Choice, Kind::Switch, Kind::Sizes]);
        assert_eq!(space.compile().unwrap().len(), Some(20));
        let again = parse(&write(&space, "small")).unwrap();
        assert_eq!(again, space);
    }

    #[test]
    fn errors_name_the_entry() {
        for (from, to, words) in [
            ("\"int\"", "\"uint8\"", "TuningParameters[0]"),
            ("[16, 32, 48]", "[16, 32", "TuningParameters[0].Values"),
            ("[16, 32, 48]", "[16, bx]", "`bx` is no value"),
            ("[16, 32, 48]", "[16, 'x']", "x is no value of type"),
            ("bx % 32", "bx %% 32", "Conditions[0]"),
            ("bx % 32", "by % 32", "`by`"),
            ("\"Name\": \"pad\"", "\"Nam\": \"pad\"", "TuningParameters[2]"),
            ("ConfigurationSpace", "Space", "ConfigurationSpace"),
            ("{", "", "T1 file"),
        ] {
            let message = parse(&SMALL.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn published_spaces_have_their_known_sizes() {
        let own = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
        let shared = std::env::var_os("PARETUNE_SHARED").map_or(own, Into::into);
        for (name, valid, all) in
            [("convolution_milo", 4_362, 10_240), ("dedispersion_milo", 11_130, 22_272)]
        {
            let Ok(text) = std::fs::read_to_string(shared.join(format!("spaces/t1/{name}.json")))
            else {
                println!("skipped: there is no {name}.json");
                continue;
            };
            let mut space = parse(&text).unwrap();
            assert_eq!(space.compile().unwrap().len(), Some(valid));
            space.constraints.clear();
            assert_eq!(space.compile().unwrap().len(), Some(all));
        }
    }
}
