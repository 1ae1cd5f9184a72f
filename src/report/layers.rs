//! A configuration as a table with one row per layer, in execution order if that is known.

use std::collections::BTreeMap;

use paretune_names::{LayerPart, Name, PATTERN, layers_of};
use paretune_spaces::Configuration;
use serde::Serialize;

use super::setting;

/// Parameters of one layer, formatted for a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LayerRow {
    /// Name of the layer's step in the plan.
    pub name: String,
    /// Number type of the weights, as in the configuration; empty if the space leaves no choice.
    pub bits: String,
    /// Fraction of the weights that is zero.
    pub sparsity: String,
    /// Name of the algorithm that computes the layer.
    pub algorithm: String,
    /// Tunables of the algorithm: `tile=4 unroll=2`.
    pub tunables: String,
}

/// Parameters of a configuration, grouped by layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Choices {
    /// Parameters of the whole network: threads, backend.
    pub global: Vec<(String, String)>,
    /// Channel groups, each with the fraction that is kept.
    pub channels: Vec<(String, String)>,
    /// Layers in order, one row each.
    pub layers: Vec<LayerRow>,
}

/// Groups the parameters of `configuration`. `order` lists layers in execution order; other layers
/// follow by name.
#[must_use]
pub fn choices(configuration: &Configuration, order: &[String]) -> Choices {
    let layers = layers_of(configuration.iter().map(|(name, _)| name.as_str()));
    let mut choices = Choices::default();
    let mut rows: BTreeMap<&str, LayerRow> = BTreeMap::new();
    for (name, value) in configuration.iter() {
        let text = setting(value);
        let (layer, part) = match Name::parse(name, &layers) {
            Some(Name::Layer(layer, part)) => (layer, part),
            Some(Name::Channels(group)) => {
                choices.channels.push((group.to_owned(), text));
                continue;
            }
            _ => {
                choices.global.push((name.clone(), text));
                continue;
            }
        };
        let row = rows
            .entry(layer)
            .or_insert_with(|| LayerRow { name: layer.to_owned(), ..LayerRow::default() });
        match part {
            // `half` follows `bits` in the order of names and is more specific.
            LayerPart::Bits | LayerPart::Half => row.bits = text,
            LayerPart::Sparsity => row.sparsity = text,
            LayerPart::Algorithm => row.algorithm = text,
            LayerPart::Pattern => add_tunable(row, PATTERN, &text),
            LayerPart::Tunable { tunable, .. } => add_tunable(row, tunable, &text),
        }
    }
    let position = |name: &str| order.iter().position(|other| other == name).unwrap_or(usize::MAX);
    choices.layers = rows.into_values().collect();
    choices.layers.sort_by(|a, b| {
        position(&a.name).cmp(&position(&b.name)).then_with(|| natural(&a.name, &b.name))
    });
    choices
}

fn add_tunable(row: &mut LayerRow, name: &str, value: &str) {
    if !row.tunables.is_empty() {
        row.tunables.push(' ');
    }
    row.tunables += &format!("{name}={value}");
}

/// Compares names so that `conv2` comes before `conv10`.
fn natural(left: &str, right: &str) -> std::cmp::Ordering {
    let key = |text: &str| -> Vec<(String, u64)> {
        let mut parts: Vec<(String, u64)> = vec![(String::new(), 0)];
        let mut digits = false;
        for letter in text.chars() {
            if let Some(digit) = letter.to_digit(10) {
                digits = true;
                if let Some((_, number)) = parts.last_mut() {
                    *number = number.saturating_mul(10).saturating_add(u64::from(digit));
                }
            } else {
                if std::mem::take(&mut digits) {
                    parts.push((String::new(), 0));
                }
                if let Some((words, _)) = parts.last_mut() {
                    words.push(letter);
                }
            }
        }
        parts
    };
    key(left).cmp(&key(right))
}

#[cfg(test)]
mod tests {
    use paretune_spaces::Value;

    use super::*;

    #[test]
    fn parameters_find_their_layers() {
        let mut configuration = Configuration::new();
        for (name, value) in [
            ("threads", Value::Int(2)),
            ("channels.stage1", Value::Real(0.5)),
            ("conv10.algorithm", Value::Text("direct".into())),
            ("conv2.algorithm", Value::Text("csr".into())),
            ("conv2.csr.rows", Value::Int(4)),
            ("conv2.csr.columns", Value::Int(8)),
            ("conv2.bits", Value::Int(32)),
        ] {
            configuration.insert(name.to_owned(), value);
        }
        let choices = choices(&configuration, &[]);
        assert_eq!(choices.global, [("threads".to_owned(), "2".to_owned())]);
        assert_eq!(choices.channels, [("stage1".to_owned(), "0.5".to_owned())]);
        let names: Vec<&str> = choices.layers.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names, ["conv2", "conv10"]);
        assert_eq!(choices.layers[0].tunables, "columns=8 rows=4");
    }
}
