//! Configurations in the terms of the rooms that carry them out. See [`paretune_names`] for the names.

use std::collections::BTreeMap;

use paretune_compress::{LayerRecipe, Recipe};
use paretune_kernels::registry::{self, Numerics};
use paretune_kernels::weights::Numbers;
use paretune_kernels::{Backend, Schedule};
use paretune_names::numbers::{BITS, HALF};
use paretune_names::{BACKEND, CHANNELS, FINETUNE, Partition, THREADS, tunable_parameter};
use paretune_spaces::{Configuration, Value};

/// Longest time of fine-tuning in seconds.
const MOST_SECONDS: u64 = 24 * 3600;

/// A decoded configuration: compression, schedules, threads and backends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidate {
    /// Compression, which determines the network's outputs.
    pub recipe: Recipe,
    /// Schedules by step name, which determine the speed.
    pub schedules: BTreeMap<String, Schedule>,
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
        let layers: std::collections::BTreeSet<&str> = layers.collect();
        let mut candidate = Self { threads: 1, ..Self::default() };
        let mut tunables: Vec<(&str, &str, &str, i64)> = Vec::new();
        (candidate.backend, candidate.switches) = backends(configuration, layers.len())?;
        for (name, value) in configuration.iter() {
            if name == BACKEND {
                continue;
            }
            if name == THREADS {
                candidate.threads = integer(name, value)
                    .ok()
                    .and_then(|threads| usize::try_from(threads).ok())
                    .filter(|threads| (1..=1024).contains(threads))
                    .ok_or_else(|| CandidateError::new(name, "expected a whole number from 1 to 1024"))?;
            } else if name == FINETUNE {
                let seconds = integer(name, value).ok().and_then(|seconds| u64::try_from(seconds).ok());
                candidate.finetune = seconds
                    .filter(|&seconds| seconds <= MOST_SECONDS)
                    .ok_or_else(|| CandidateError::new(name, "expected whole seconds, a day at most"))?;
            } else if let Some(group) = name.strip_prefix(CHANNELS) {
                candidate.recipe.channels.insert(group.to_owned(), real(name, value)?);
            } else {
                let (layer, rest) = split_layer(name, &layers)
                    .ok_or_else(|| CandidateError::new(name, "the network has no layer of that name"))?;
                match rest.split_once('.') {
                    None if rest == BITS => {
                        let bits = real(name, value)?;
                        recipe(&mut candidate.recipe, layer).numbers =
                            Numbers::of_bits(bits).ok_or_else(|| {
                                CandidateError::new(name, format!("{bits} bits are not offered"))
                            })?;
                    }
                    // Names are sorted, so `bits` was decoded before `half`.
                    None if rest == HALF => {
                        let numbers = value
                            .as_str()
                            .and_then(Numbers::of_half)
                            .ok_or_else(|| CandidateError::new(name, "expected `bf16` or `fp16`"))?;
                        let recipe = recipe(&mut candidate.recipe, layer);
                        if recipe.numbers.half().is_none() {
                            return Err(CandidateError::new(
                                name,
                                "is inactive: weights do not have 16 bits",
                            ));
                        }
                        recipe.numbers = numbers;
                    }
                    None if rest == "pattern" => {
                        let Value::Text(pattern) = value else {
                            return Err(CandidateError::new(name, "expected the name of a pattern"));
                        };
                        recipe(&mut candidate.recipe, layer).pattern =
                            pattern.parse().map_err(|error| CandidateError::new(name, format!("{error}")))?;
                    }
                    None if rest == "sparsity" => {
                        recipe(&mut candidate.recipe, layer).sparsity = real(name, value)?;
                    }
                    None if rest == "algorithm" => match value {
                        Value::Text(algorithm) => {
                            candidate
                                .schedules
                                .entry(layer.to_owned())
                                .or_default()
                                .algorithm
                                .clone_from(algorithm);
                        }
                        _ => return Err(CandidateError::new(name, "expected the name of an algorithm")),
                    },
                    Some((algorithm, tunable)) => {
                        tunables.push((layer, algorithm, tunable, integer(name, value)?));
                    }
                    None => return Err(CandidateError::new(name, "a layer has no parameter of that name")),
                }
            }
        }
        for (layer, algorithm, tunable, value) in tunables {
            match candidate.schedules.get_mut(layer) {
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
}

/// Returns the backend of the first layer and the cut points of a network with this many layers.
fn backends(
    configuration: &Configuration,
    layers: usize,
) -> Result<(Backend, Vec<(usize, Backend)>), CandidateError> {
    let named =
        |text: &str| text.parse::<Backend>().map_err(|problem: String| CandidateError::new(BACKEND, problem));
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

/// Returns whether a parameter is a tunable that decides how an algorithm rounds: the size of
/// Winograd's tiles, and the precision that algorithms of reduced precision use.
fn changes_numerics(parameter: &str) -> bool {
    let Some((rest, tunable)) = parameter.rsplit_once('.') else { return false };
    let algorithm = rest.rsplit('.').next().unwrap_or(rest);
    match registry::numerics(algorithm) {
        Numerics::Exact => false,
        Numerics::RoundsDifferently => tunable == "output_tile",
        Numerics::Reduced => tunable == "half",
    }
}

/// Returns the part of a configuration that determines the network's outputs, and so its accuracy
/// and its size. An algorithm belongs to it only if it rounds differently enough to matter
/// (Winograd, and operands of reduced precision).
#[must_use]
pub fn numerics(configuration: &Configuration) -> Configuration {
    let mut part = Configuration::default();
    for (name, value) in configuration.iter() {
        let compression = name == FINETUNE
            || name.starts_with(CHANNELS)
            || name.ends_with(".bits")
            || name.ends_with(".half")
            || name.ends_with(".sparsity")
            || name.ends_with(".pattern");
        let changes = |algorithm: &str| registry::numerics(algorithm) != Numerics::Exact;
        let rounds =
            name.ends_with(".algorithm") && value.as_str().is_some_and(changes) || changes_numerics(name);
        if compression || rounds {
            part.insert(name.clone(), value.clone());
        }
    }
    part
}

/// Splits `name` after the longest layer name that is a dotted prefix of it.
fn split_layer<'n>(name: &'n str, layers: &std::collections::BTreeSet<&str>) -> Option<(&'n str, &'n str)> {
    name.rmatch_indices('.')
        .map(|(dot, _)| (&name[..dot], &name[dot + 1..]))
        .find(|(layer, _)| layers.contains(layer))
}

fn recipe<'r>(recipe: &'r mut Recipe, layer: &str) -> &'r mut LayerRecipe {
    recipe.layers.entry(layer.to_owned()).or_default()
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
        #[expect(clippy::cast_precision_loss, reason = "shares are 0 or 1 when written as whole numbers")]
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
                ("a.b.direct.tile", Value::Int(4)),
                ("a.bits", Value::Int(8)),
                ("threads", Value::Int(2)),
            ]),
            layers.into_iter(),
        )
        .unwrap();
        assert_eq!(decoded.threads, 2);
        assert_eq!(decoded.schedules["a.b"].tunables["tile"], 4);
        assert_eq!(decoded.recipe.layers["a"].numbers, Numbers::Integer(Grid::Bits8));
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
            assert_eq!(Partition::read(text).map(|partition| partition.to_string()).as_deref(), Some(text));
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
    }
}
