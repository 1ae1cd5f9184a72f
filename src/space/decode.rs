//! Configurations in the terms of the rooms that carry them out. See [`paretune_names`] for the
//! names.

use std::collections::{BTreeMap, BTreeSet};

use crate::tunables::tunable_value;
use paretune_compress::{LayerRecipe, Recipe};
use paretune_kernels::registry::{self, Numerics};
use paretune_kernels::schedule::{TunableValue, changes_numerics};
use paretune_kernels::weights::Numbers;
use paretune_kernels::{Backend, Schedule};
use paretune_names::{BACKEND, LayerPart, Name, Partition, layers_of, tunable_parameter};
use paretune_spaces::{Configuration, Value};

/// Longest time of fine-tuning in seconds.
const MAX_FINETUNE_SECONDS: u64 = 24 * 3600;

/// Configuration of one layer: what its weights become, and how it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerConfig {
    /// Compression of the weights, which determines the layer's outputs.
    pub recipe: LayerRecipe,
    /// Algorithm and tunables, which determine the speed; `None` takes the machine's default.
    pub schedule: Option<Schedule>,
}

/// A decoded configuration: layers, widths, threads and backends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidate {
    /// Configuration of each layer that differs from the default, by name of the step.
    pub layers: BTreeMap<String, LayerConfig>,
    /// Fraction of the channels that is kept, by name of the channel group.
    pub channels: BTreeMap<String, f64>,
    /// Number of CPU threads that run it.
    pub threads: usize,
    /// Seconds of fine-tuning after compression.
    pub finetune: u64,
    /// Backend of the network, or of its first layers.
    pub backend: Backend,
    /// Cut points: layer numbers in ascending order, each with the backend that runs the layers
    /// from there on.
    pub switches: Vec<(usize, Backend)>,
}

/// A configuration that does not follow the grammar.
#[derive(Debug, thiserror::Error)]
#[error("parameter `{parameter}`: {problem}")]
pub struct CandidateError {
    /// Name of the invalid parameter.
    pub parameter: String,
    /// Description of the problem for the user.
    pub problem: String,
}

impl CandidateError {
    fn new(parameter: &str, problem: impl Into<String>) -> Self {
        Self { parameter: parameter.into(), problem: problem.into() }
    }
}

impl Candidate {
    /// Decodes `configuration` for a network with these `layers`. Absent parameters keep their
    /// defaults: no compression, default schedules, one thread.
    ///
    /// # Errors
    /// Fails if a name is unknown or if a value has the wrong type or range.
    pub fn decode<'a>(
        configuration: &Configuration,
        layers: impl Iterator<Item = &'a str>,
    ) -> Result<Self, CandidateError> {
        let layers: BTreeSet<&str> = layers.collect();
        let mut candidate = Self { threads: 1, ..Self::default() };
        let mut tunables: Vec<(&str, &str, &str, TunableValue)> = Vec::new();
        (candidate.backend, candidate.switches) = backends(configuration, layers.len())?;
        for (name, value) in configuration.iter() {
            let wrong = |problem: &str| CandidateError::new(name, problem);
            let parsed = match Name::parse(name, &layers) {
                Some(parsed) => parsed,
                None if layers.iter().any(|layer| is_below(name, layer)) => {
                    return Err(wrong("a layer has no parameter of that name"));
                }
                None => return Err(wrong("the network has no layer of that name")),
            };
            match parsed {
                Name::Backend => {}
                Name::Threads => {
                    let threads =
                        integer(name, value).ok().and_then(|threads| usize::try_from(threads).ok());
                    candidate.threads = threads
                        .filter(|threads| (1..=1024).contains(threads))
                        .ok_or_else(|| wrong("expected a whole number from 1 to 1024"))?;
                }
                Name::Finetune => {
                    let seconds =
                        integer(name, value).ok().and_then(|seconds| u64::try_from(seconds).ok());
                    candidate.finetune = seconds
                        .filter(|&seconds| seconds <= MAX_FINETUNE_SECONDS)
                        .ok_or_else(|| wrong("expected whole seconds, a day at most"))?;
                }
                Name::Channels(group) => {
                    candidate.channels.insert(group.to_owned(), real(name, value)?);
                }
                Name::Layer(layer, LayerPart::Tunable { algorithm, tunable }) => {
                    let value =
                        tunable_value(value).ok_or_else(|| wrong("no tunable has such a value"))?;
                    tunables.push((layer, algorithm, tunable, value));
                }
                Name::Layer(layer, LayerPart::Algorithm) => {
                    let algorithm =
                        value.as_str().ok_or_else(|| wrong("expected the name of an algorithm"))?;
                    let config = candidate.layers.entry(layer.to_owned()).or_default();
                    config.schedule = Some(Schedule::of(algorithm));
                }
                Name::Layer(layer, part) => {
                    let config = candidate.layers.entry(layer.to_owned()).or_default();
                    compression(&mut config.recipe, part, name, value)?;
                }
            }
        }
        for (layer, algorithm, tunable, value) in tunables {
            let config = candidate.layers.get_mut(layer);
            match config.and_then(|config| config.schedule.as_mut()) {
                Some(schedule) if schedule.algorithm == algorithm => {
                    schedule.tunables.insert(tunable.to_owned(), value);
                }
                _ => {
                    return Err(CandidateError::new(
                        &tunable_parameter(layer, algorithm, tunable),
                        format!("is inactive: the layer's algorithm is not `{algorithm}`"),
                    ));
                }
            }
        }
        Ok(candidate)
    }

    /// Returns the compression of the whole network, by the default method.
    #[must_use]
    pub fn recipe(&self) -> Recipe {
        let layers = self.layers.iter().map(|(layer, config)| (layer.clone(), config.recipe));
        Recipe { channels: self.channels.clone(), layers: layers.collect(), ..Recipe::default() }
    }

    /// Returns the schedule of the layer `step`, or `None` if it takes the default.
    #[must_use]
    pub fn schedule(&self, step: &str) -> Option<&Schedule> {
        self.layers.get(step)?.schedule.as_ref()
    }
}

/// Returns the backend of the first layer and the cut points of a network with this many layers.
fn backends(
    configuration: &Configuration,
    layers: usize,
) -> Result<(Backend, Vec<(usize, Backend)>), CandidateError> {
    let named = |text: &str| {
        text.parse::<Backend>().map_err(|problem: String| CandidateError::new(BACKEND, problem))
    };
    let Some(value) = configuration.get(BACKEND) else { return Ok((Backend::Cpu, Vec::new())) };
    let text = value.as_str().unwrap_or_default();
    let Some(partition) = Partition::read(text) else { return Ok((named(text)?, Vec::new())) };
    let (first, second) = (named(partition.first)?, named(partition.second)?);
    let back = partition.back.unwrap_or(layers);
    if partition.at == 0 || partition.at >= back || back > layers {
        let problem = format!("`{text}`: there are layers 0 to {}", layers.saturating_sub(1));
        return Err(CandidateError::new(BACKEND, problem));
    }
    let mut switches = vec![(partition.at, second)];
    if back < layers {
        switches.push((back, first.clone()));
    }
    Ok((first, switches))
}

/// Reads a part of the compression of a layer.
fn compression(
    recipe: &mut LayerRecipe,
    part: LayerPart<'_>,
    name: &str,
    value: &Value,
) -> Result<(), CandidateError> {
    let wrong = |problem: String| CandidateError::new(name, problem);
    match part {
        LayerPart::Bits => {
            let bits = real(name, value)?;
            let numbers = Numbers::of_bits(bits);
            recipe.numbers =
                numbers.ok_or_else(|| wrong(format!("{bits} bits are not offered")))?;
        }
        // Names are sorted, so `bits` was decoded before `half`.
        LayerPart::Half => {
            let numbers = value.as_str().and_then(Numbers::of_half);
            let numbers = numbers.ok_or_else(|| wrong("expected `bf16` or `fp16`".into()))?;
            if recipe.numbers.half().is_none() {
                return Err(wrong("is inactive: weights do not have 16 bits".into()));
            }
            recipe.numbers = numbers;
        }
        LayerPart::Pattern => {
            let pattern =
                value.as_str().ok_or_else(|| wrong("expected the name of a pattern".into()))?;
            recipe.pattern = pattern.parse().map_err(|error| wrong(format!("{error}")))?;
        }
        LayerPart::Sparsity => recipe.sparsity = real(name, value)?,
        LayerPart::Algorithm | LayerPart::Tunable { .. } => {}
    }
    Ok(())
}

/// Returns the part of a configuration that determines the network's outputs, and so its accuracy
/// and its size. An algorithm belongs to it only if it rounds differently enough to matter
/// (Winograd, and operands of reduced precision).
#[must_use]
pub fn numerics(configuration: &Configuration) -> Configuration {
    let layers = layers_of(configuration.iter().map(|(name, _)| name.as_str()));
    let matters = |name: &str, value: &Value| match Name::parse(name, &layers) {
        Some(Name::Finetune | Name::Channels(_)) => true,
        Some(Name::Backend | Name::Threads) | None => false,
        Some(Name::Layer(_, LayerPart::Algorithm)) => {
            value.as_str().is_some_and(rounds_differently)
        }
        Some(Name::Layer(_, LayerPart::Tunable { tunable, .. })) => changes_numerics(tunable),
        Some(Name::Layer(_, part)) => part.is_compression(),
    };
    let mut numerics = Configuration::default();
    for (name, value) in configuration.iter().filter(|(name, value)| matters(name, value)) {
        numerics.insert(name.clone(), value.clone());
    }
    numerics
}

/// Returns whether an algorithm rounds differently enough from the reference to change answers.
fn rounds_differently(algorithm: &str) -> bool {
    registry::numerics(algorithm) != Numerics::Exact
}

/// Returns whether `name` is a dotted name below `layer`.
fn is_below(name: &str, layer: &str) -> bool {
    name.strip_prefix(layer).is_some_and(|rest| rest.starts_with('.'))
}

fn integer(name: &str, value: &Value) -> Result<i64, CandidateError> {
    match value {
        Value::Int(number) => Ok(*number),
        other => Err(CandidateError::new(name, format!("expected a whole number, not {other}"))),
    }
}

fn real(name: &str, value: &Value) -> Result<f64, CandidateError> {
    match value {
        Value::Real(number) => Ok(*number),
        #[expect(
            clippy::cast_precision_loss,
            reason = "shares are 0 or 1 when written as whole numbers"
        )]
        Value::Int(number) => Ok(*number as f64),
        other => Err(CandidateError::new(name, format!("expected a number, not {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use paretune_kernels::weights::Grid;

    use super::*;

    fn configuration(entries: &[(&str, Value)]) -> Configuration {
        let mut configuration = Configuration::default();
        for (name, value) in entries {
            configuration.insert((*name).to_owned(), value.clone());
        }
        configuration
    }

    #[test]
    fn longest_layer_name_wins() {
        let layers = ["a", "a.bits2", "a.b"];
        let decoded = Candidate::decode(
            &configuration(&[
                ("a.b.algorithm", Value::Text("direct_nchw".into())),
                ("a.b.direct_nchw.tile", Value::Int(4)),
                ("a.bits", Value::Int(8)),
                ("threads", Value::Int(2)),
            ]),
            layers.into_iter(),
        )
        .unwrap();
        assert_eq!(decoded.threads, 2);
        assert_eq!(decoded.schedule("a.b").unwrap().tunables["tile"], TunableValue::Size(4));
        assert_eq!(decoded.recipe().layers["a"].numbers, Numbers::Integer(Grid::Bits8));
    }

    #[test]
    fn inactive_and_unknown_parameters_are_named() {
        let inactive = configuration(&[("a.direct.tile", Value::Int(4))]);
        let error = Candidate::decode(&inactive, ["a"].into_iter()).unwrap_err().to_string();
        assert!(error.contains("a.direct.tile") && error.contains("inactive"), "{error}");
        let unknown = configuration(&[("b.bits", Value::Int(8))]);
        let error = Candidate::decode(&unknown, ["a"].into_iter()).unwrap_err().to_string();
        assert!(error.contains("b.bits"), "{error}");
    }

    #[test]
    fn networks_that_change_sides_say_where() {
        let layers = ["a", "b", "c"];
        let read = |backend: &str| {
            let entries = [(BACKEND, Value::Text(backend.to_owned()))];
            Candidate::decode(&configuration(&entries), layers.into_iter())
        };
        let device = Backend::OpenCl { device: String::new() };
        let there = read("cpu then opencl at 1").unwrap();
        assert_eq!((there.backend, there.switches), (Backend::Cpu, vec![(1, device.clone())]));
        let back = read("opencl then cpu at 1 to 2").unwrap();
        assert_eq!(back.switches, [(1, Backend::Cpu), (2, device.clone())]);
        assert_eq!(back.backend, device);
        for text in ["cpu then opencl at 4", "opencl:A/B at C then cpu at 4 to 7"] {
            assert_eq!(
                Partition::read(text).map(|partition| partition.to_string()).as_deref(),
                Some(text)
            );
        }
        for backend in [
            "cpu then opencl",
            "cpu then opencl at 0",
            "cpu then opencl at 3",
            "cpu then opencl at 2 to 2",
            "cpu then opencl at 1 to 4",
            "cpu then gpu at 1",
            "cpu then opencl at -1",
        ] {
            assert!(read(backend).is_err(), "{backend}");
        }
    }

    #[test]
    fn schedules_do_not_change_the_numerics() {
        let plain = configuration(&[("a.bits", Value::Int(8))]);
        let scheduled = configuration(&[
            ("a.bits", Value::Int(8)),
            ("a.algorithm", Value::Text("direct_nchw".into())),
            ("threads", Value::Int(2)),
        ]);
        assert_eq!(numerics(&plain), numerics(&scheduled));
        let mut winograd = configuration(&[
            ("a.algorithm", Value::Text("winograd".into())),
            ("a.winograd.output_tile", Value::Int(4)),
        ]);
        let rounds = numerics(&winograd);
        assert_eq!(rounds, winograd);
        winograd.insert("a.winograd.tile_m", Value::Int(6));
        assert_eq!(numerics(&winograd), rounds);
    }
}
