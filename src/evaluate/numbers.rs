//! What kind of numbers a layer's weights are, as a configuration says it: `LAYER.bits`, and `LAYER.half` where that is 16,
//! as there are two kinds of such numbers.

use paretune_kernels::weights::Numbers;
use paretune_spaces::{CompiledSpace, Configuration, Parameter, Value};

use super::candidate::layer_parameter;

/// What the parameter that chooses the bits is called in a layer.
pub const BITS: &str = "bits";
/// The same of the one that chooses between numbers of 16 bits.
pub const HALF: &str = "half";

/// The bits as a value of their parameter: whole where that can be.
#[must_use]
pub fn bits_value(numbers: Numbers) -> Value {
    let bits = numbers.bits();
    #[expect(clippy::cast_possible_truncation, reason = "at most 32")]
    if bits.fract() == 0.0 { Value::Int(bits as i64) } else { Value::Real(bits) }
}

/// The numbers of the weights of `layer`; `None` where it has no bits, or bits that nothing has.
#[must_use]
pub fn chosen(configuration: &Configuration, layer: &str) -> Option<Numbers> {
    let bits = configuration.get(&layer_parameter(layer, BITS))?.as_f64()?;
    let numbers = Numbers::of_bits(bits)?;
    match configuration.get(&layer_parameter(layer, HALF)) {
        Some(half) if numbers.half().is_some() => Numbers::of_half(half.as_str()?),
        _ => Some(numbers),
    }
}

/// Chooses `numbers` for `layer`.
pub fn choose(numbers: Numbers, layer: &str, wanted: &mut Configuration) {
    wanted.insert(layer_parameter(layer, BITS), bits_value(numbers));
    if let Some(half) = numbers.half() {
        wanted.insert(layer_parameter(layer, HALF), Value::Text(half.to_owned()));
    }
}

/// The numbers that `space` offers for `layer`, coarsest first.
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
            && numbers.half().is_none_or(|half| halves.iter().any(|value| value.as_str() == Some(half)))
    };
    Numbers::all().filter(offers).collect()
}

/// [`Numbers`] in files that people read: how many bits, or what they are called where that does not tell.
pub mod named {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use super::{Numbers, Value};

    /// As a number; half precision as a word.
    ///
    /// # Errors
    /// Where the serializer fails.
    pub fn serialize<S: Serializer>(numbers: &Numbers, serializer: S) -> Result<S::Ok, S::Error> {
        match numbers {
            Numbers::Fp16 => "fp16".serialize(serializer),
            others => others.bits().serialize(serializer),
        }
    }

    /// What [`serialize`] has written.
    ///
    /// # Errors
    /// Where there are no such numbers.
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
