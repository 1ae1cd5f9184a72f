//! Number type of a layer's weights in a configuration: `LAYER.bits`, and `LAYER.half` to
//! distinguish the two 16-bit types.

use paretune_kernels::weights::Numbers;
use paretune_spaces::{CompiledSpace, Configuration, Parameter, Value};

use crate::layer_parameter;

/// Last part of the name of the parameter that selects the number of bits.
pub const BITS: &str = "bits";
/// Last part of the name of the parameter that selects the 16-bit type.
pub const HALF: &str = "half";

/// Returns the number of bits as a value of its parameter: an integer if possible.
#[must_use]
pub fn bits_value(numbers: Numbers) -> Value {
    let bits = numbers.bits();
    #[expect(clippy::cast_possible_truncation, reason = "at most 32")]
    if bits.fract() == 0.0 { Value::Int(bits as i64) } else { Value::Real(bits) }
}

/// Returns the number type of the weights of `layer`; `None` if the configuration gives no valid
/// one.
#[must_use]
pub fn chosen(configuration: &Configuration, layer: &str) -> Option<Numbers> {
    let bits = configuration.get(&layer_parameter(layer, BITS))?.as_f64()?;
    let numbers = Numbers::of_bits(bits)?;
    match configuration.get(&layer_parameter(layer, HALF)) {
        Some(half) if numbers.half().is_some() => Numbers::of_half(half.as_str()?),
        _ => Some(numbers),
    }
}

/// Writes the number type `numbers` for `layer` into `wanted`.
pub fn choose(numbers: Numbers, layer: &str, wanted: &mut Configuration) {
    wanted.insert(layer_parameter(layer, BITS), bits_value(numbers));
    if let Some(half) = numbers.half() {
        wanted.insert(layer_parameter(layer, HALF), Value::Text(half.to_owned()));
    }
}

/// Lists the number types that `space` offers for `layer`, smallest number of bits first.
#[must_use]
pub fn offered(space: &CompiledSpace, layer: &str) -> Vec<Numbers> {
    let values = |name: &str| {
        let name = layer_parameter(layer, name);
        let found = space.parameters().iter().find(|parameter: &&Parameter| parameter.name == name);
        found.map(|parameter| parameter.domain.values()).unwrap_or_default()
    };
    let (bits, halves) = (values(BITS), values(HALF));
    let offers = |numbers: &Numbers| {
        bits.iter().any(|value| value.as_f64() == Some(numbers.bits()))
            && numbers
                .half()
                .is_none_or(|half| halves.iter().any(|value| value.as_str() == Some(half)))
    };
    Numbers::all().filter(offers).collect()
}

/// Serialization of [`Numbers`] for files that people read: the number of bits, or a name if the
/// bits are ambiguous.
pub mod named {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use super::{Numbers, Value};

    /// Serializes the number of bits, or the name of half precision.
    ///
    /// # Errors
    /// Fails if the serializer fails.
    pub fn serialize<S: Serializer>(numbers: &Numbers, serializer: S) -> Result<S::Ok, S::Error> {
        match numbers {
            Numbers::Fp16 => "fp16".serialize(serializer),
            others => others.bits().serialize(serializer),
        }
    }

    /// Deserializes the output of [`serialize`].
    ///
    /// # Errors
    /// Fails if there is no such number type.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Numbers, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let numbers = match &value {
            Value::Text(name) => Numbers::of_half(name),
            number => number.as_f64().and_then(Numbers::of_bits),
        };
        numbers.ok_or_else(|| de::Error::custom(format!("there are no numbers of {value} bits")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Line {
        #[serde(rename = "bits", with = "named")]
        numbers: Numbers,
    }

    #[test]
    fn what_is_chosen_and_what_is_written_is_read_back() {
        for numbers in Numbers::all() {
            let mut configuration = Configuration::new();
            choose(numbers, "a", &mut configuration);
            assert_eq!(chosen(&configuration, "a"), Some(numbers));
            assert_eq!(chosen(&configuration, "b"), None);
            let text = serde_json::to_string(&Line { numbers }).expect("text");
            assert_eq!(serde_json::from_str::<Line>(&text).expect(&text), Line { numbers });
        }
        let mut old = Configuration::new();
        old.insert("a.bits", Value::Int(16));
        assert_eq!(chosen(&old, "a"), Some(Numbers::Bf16));
        for text in ["{\"bits\": 5}", "{\"bits\": \"fp8\"}", "{\"bits\": []}"] {
            assert!(serde_json::from_str::<Line>(text).is_err(), "{text}");
        }
    }
}
