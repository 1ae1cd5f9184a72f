//! Tunables of algorithms as parameters of a space.

use paretune_kernels::registry;
use paretune_kernels::schedule::{TunableDomain, TunableValue};
use paretune_spaces::{Domain, Expression, Parameter, ParseError, Space, Value};

/// Returns the value of the space for a tunable's value.
#[must_use]
pub fn space_value(value: TunableValue) -> Value {
    match value {
        TunableValue::Size(size) => Value::Int(i64::try_from(size).unwrap_or(i64::MAX)),
        TunableValue::Choice(name) => Value::Text(name.to_owned()),
        TunableValue::Switch(on) => Value::Bool(on),
    }
}

/// Returns the tunable's value for a value of the space, or `None` if no tunable has such values.
#[must_use]
pub fn tunable_value(value: &Value) -> Option<TunableValue> {
    match value {
        Value::Int(size) => u64::try_from(*size).ok().map(TunableValue::Size),
        Value::Text(name) => TunableValue::named(name),
        Value::Bool(on) => Some(TunableValue::Switch(*on)),
        Value::Real(_) => None,
    }
}

/// Adds the tunables of `algorithm` and their constraints. All names begin with `prefix`, and all
/// parameters are active only if `active` holds.
///
/// # Errors
/// Fails if a constraint of the algorithm does not parse.
pub fn add_tunables(
    space: &mut Space,
    algorithm: &registry::Offer,
    prefix: &str,
    active: &Expression,
) -> Result<(), ParseError> {
    for tunable in &algorithm.tunables {
        let values: Vec<Value> = tunable.values().into_iter().map(space_value).collect();
        let domain = match tunable.domain {
            TunableDomain::Sizes(_) => Domain::Sizes(values),
            TunableDomain::Choice(_) => Domain::Choice(values),
            TunableDomain::Switch { .. } => Domain::Switch(values),
        };
        let parameter = Parameter::new(format!("{prefix}{}", tunable.name), domain);
        let parameter = parameter.with_default(space_value(tunable.default)).about(tunable.about);
        space.parameters.push(parameter.when(active.clone()));
    }
    for constraint in &algorithm.constraints {
        let holds = constraint.parse::<Expression>()?.prefixed(prefix);
        space.constraints.push(active.clone().negated().or(holds));
    }
    Ok(())
}
