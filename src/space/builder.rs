//! The joint space of a network on this machine: parameters, their conditions and constraints.
//!
//! See [`crate::decode`] for the grammar of the names.

use crate::partitions::partition_values;
use crate::tunables::add_tunables;
use paretune_compress as compress;
use paretune_compress::{CompressError, SPARSITIES};
use paretune_kernels::hardware::Isa;
use paretune_kernels::registry::{self, Target};
use paretune_kernels::weights::{FP16_MAX, Numbers, Pattern, WeightFormat};
use paretune_kernels::{Backend, KernelError};
use paretune_model::Network;
use paretune_names::numbers::{BITS, HALF, bits_value};
use paretune_names::{
    ALGORITHM, BACKEND, CHANNELS, PATTERN, Partition, SPARSITY, THREADS, layer_parameter,
    tunable_parameter,
};
use paretune_spaces::{Domain, Expression, Parameter, ParseError, Space, Value};

/// Patterns of zeros that are offered, besides unstructured ones, if an algorithm profits from
/// them.
const PATTERNS: [Pattern; 7] = [
    Pattern::Blocks { outputs: 4, inputs: 1 },
    Pattern::Blocks { outputs: 8, inputs: 1 },
    Pattern::Blocks { outputs: 16, inputs: 1 },
    Pattern::Blocks { outputs: 16, inputs: 4 },
    Pattern::Blocks { outputs: 1, inputs: 4 },
    Pattern::NofM { n: 2, m: 4 },
    Pattern::NofM { n: 1, m: 4 },
];

/// Reason why the space of a network could not be built.
#[derive(Debug, thiserror::Error)]
pub enum JointSpaceError {
    /// The network's layers or channel groups cannot be determined.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// A requested backend does not exist.
    #[error(transparent)]
    Backend(#[from] KernelError),
    /// An expression that this program built does not parse.
    #[error(transparent)]
    Formula(#[from] ParseError),
}

/// Builds the space of `network` with the given `threads` and `backends` as choices.
///
/// # Errors
/// Fails if the network's shapes do not fit together, if a backend does not exist, or if a
/// constraint cannot be expressed.
pub fn joint_space(
    network: &Network,
    threads: &[usize],
    backends: &[Backend],
    isa: Isa,
) -> Result<Space, JointSpaceError> {
    let plan = &network.plan;
    let mut space = Space::default();
    let layers = compress::layers(plan)?;
    let names: Vec<String> = backends.iter().map(ToString::to_string).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let values = partition_values(backends, &names, layers.len());
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    space.parameters.push(choice(BACKEND, &values, "which device runs the network"));
    let targets: Vec<Target> =
        backends.iter().map(|backend| Target::of(backend, isa)).collect::<Result<_, _>>()?;
    let targets: Vec<(&str, Target)> = names.into_iter().zip(targets).collect();
    let counts: Vec<Value> =
        threads.iter().map(|&count| Value::Int(i64::try_from(count).unwrap_or(1))).collect();
    let last = counts.len().saturating_sub(1);
    space.parameters.push(sizes(THREADS, counts, last, "workers of the whole network"));
    for group in compress::channel_groups(plan)?.iter().filter(|group| group.prunable()) {
        #[expect(clippy::cast_precision_loss, reason = "a number of channels")]
        let shares: Vec<f64> =
            group.choices().into_iter().map(|kept| kept as f64 / group.width as f64).collect();
        let default = shares.len() - 1;
        let name = format!("{CHANNELS}{}", group.name);
        let values = shares.into_iter().map(Value::Real).collect();
        space.parameters.push(sizes(
            &name,
            values,
            default,
            "share of these channels that is kept",
        ));
    }
    for (number, layer) in layers.iter().enumerate() {
        layer_parameters(&mut space, number, layer, &targets)?;
    }
    Ok(space)
}

/// Builds the condition that `backend` runs layer `number`; `values` is the domain of [`BACKEND`].
fn runs(backend: &str, number: usize, values: &[Value]) -> String {
    let there =
        values.iter().filter_map(Value::as_str).filter(|value| match Partition::read(value) {
            Some(partition) => {
                backend
                    == if partition.is_second(number) { partition.second } else { partition.first }
            }
            None => *value == backend,
        });
    let there: Vec<String> = there.map(|value| format!("'{value}'")).collect();
    format!("{BACKEND} in [{}]", there.join(", "))
}

/// An algorithm that can compute a layer, with the weight formats that it is offered for.
struct Offer<'b> {
    algorithm: registry::Offer,
    /// Name of the backend that offers it.
    backend: &'b str,
    /// Number types of weights that it runs with or without zeros.
    dense: Vec<Numbers>,
    /// Number types of weights that it runs only if the zeros have this pattern.
    sparse: Vec<(Pattern, Vec<Numbers>)>,
}

/// Lists the algorithms that a backend offers for a layer. Dense algorithms are offered for all
/// weights that they execute, sparse ones only for weights with zeros.
fn offers<'b>(layer: &compress::LayerInfo, backend: &'b str, target: &Target) -> Vec<Offer<'b>> {
    let offer = |algorithm: registry::Offer| {
        let executes = |numbers: Numbers, pattern| {
            // An algorithm in single precision gains nothing from 16-bit weights but bytes, and
            // integers save more of those.
            let gains = numbers.half().is_none() || !algorithm.info.executes(WeightFormat::F32);
            gains
                && (layer.int8 || numbers.is_real())
                && (numbers != Numbers::Fp16 || layer.largest_weight <= FP16_MAX)
                && algorithm.info.executes(WeightFormat { numbers, pattern })
        };
        let dense: Vec<Numbers> =
            Numbers::all().filter(|&numbers| executes(numbers, Pattern::Dense)).collect();
        let sparse = [Pattern::Unstructured].into_iter().chain(PATTERNS).filter(|_| layer.sparse);
        let sparse = sparse.map(|pattern| {
            let more = Numbers::all()
                .filter(|&numbers| !dense.contains(&numbers) && executes(numbers, pattern));
            (pattern, more.collect::<Vec<_>>())
        });
        let sparse = sparse.filter(|(_, numbers)| !numbers.is_empty()).collect();
        Offer { algorithm, backend, dense, sparse }
    };
    // A weight beyond the range of half precision would become infinite.
    let holds = |offer: &registry::Offer| layer.largest_weight <= offer.info.largest_weight();
    let able = target.offers(&layer.problem).into_iter().filter(holds);
    let mut offers: Vec<Offer<'_>> = able
        .map(offer)
        .filter(|offer| !(offer.dense.is_empty() && offer.sparse.is_empty()))
        .collect();
    // The first offer is the default: single precision without zeros, then with zeros, then
    // integers.
    offers.sort_by_key(|offer| match () {
        () if offer.dense.contains(&Numbers::F32) => 0,
        () if offer.dense.iter().any(|numbers| numbers.half().is_some()) => 3,
        () if offer.algorithm.info.is_integer() => 2,
        () => 1,
    });
    offers
}

fn layer_parameters(
    space: &mut Space,
    number: usize,
    layer: &compress::LayerInfo,
    targets: &[(&str, Target)],
) -> Result<(), JointSpaceError> {
    let name = &layer.step;
    let offers: Vec<Offer<'_>> =
        targets.iter().flat_map(|(backend, target)| offers(layer, backend, target)).collect();
    let offered = |numbers: &Numbers| offers.iter().any(|offer| offer.dense.contains(numbers));
    let numbers: Vec<Numbers> =
        Numbers::all().filter(|numbers| *numbers == Numbers::F32 || offered(numbers)).collect();
    let bits_name = layer_parameter(name, BITS);
    let mut bits: Vec<Value> = numbers.iter().map(|&numbers| bits_value(numbers)).collect();
    bits.dedup();
    let default = bits.len() - 1;
    space.parameters.push(sizes(
        &bits_name,
        bits,
        default,
        "bits of weights; below 16 integers, with 8-bit activations",
    ));
    let halves: Vec<&str> = numbers.iter().filter_map(|numbers| numbers.half()).collect();
    if !halves.is_empty() {
        let mut parameter =
            choice(&layer_parameter(name, HALF), &halves, "which numbers of 16 bits");
        parameter.condition = Some(format!("{bits_name} == 16").parse::<Expression>()?);
        space.parameters.push(parameter);
    }
    let sparsity_name = layer_parameter(name, SPARSITY);
    let pattern_name = layer_parameter(name, PATTERN);
    if layer.sparse {
        let values = [0.0].into_iter().chain(SPARSITIES).map(Value::Real).collect();
        space.parameters.push(sizes(
            &sparsity_name,
            values,
            0,
            "share of the weights that is zero",
        ));
        let mut patterns = vec![Pattern::Unstructured];
        patterns.extend(PATTERNS.into_iter().filter(|pattern| {
            // A pattern is left out if unstructured zeros serve the same algorithms as well.
            let gains = |offer: &Offer<'_>| {
                let of = |wanted: Pattern| offer.sparse.iter().find(|(known, _)| *known == wanted);
                of(*pattern).is_some() && of(Pattern::Unstructured).is_none()
            };
            offers.iter().any(gains)
        }));
        if patterns.len() > 1 {
            let names: Vec<String> = patterns.iter().map(Pattern::to_string).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut parameter = choice(&pattern_name, &names, "which weights are zero");
            parameter.condition = Some(format!("{sparsity_name} > 0").parse::<Expression>()?);
            space.parameters.push(parameter);
            // An n:m pattern fixes the fraction of zeros.
            for pattern in &patterns {
                let Pattern::NofM { n, m } = *pattern else { continue };
                let share = Value::Real(1.0 - f64::from(n) / f64::from(m.max(1)));
                if SPARSITIES.iter().any(|&level| Value::Real(level) == share) {
                    let constraint = format!(
                        "{sparsity_name} == 0 or {pattern_name} != '{pattern}' or {sparsity_name} \
                         == {share}"
                    );
                    space.constraints.push(constraint.parse()?);
                } else {
                    let constraint =
                        format!("{sparsity_name} == 0 or {pattern_name} != '{pattern}'");
                    space.constraints.push(constraint.parse()?);
                }
            }
        }
    }
    let algorithm_name = layer_parameter(name, ALGORITHM);
    let names: Vec<&str> = offers.iter().map(|offer| offer.algorithm.info.name()).collect();
    space.parameters.push(choice(&algorithm_name, &names, "how the layer is computed"));

    let has_patterns = space.parameters.iter().any(|parameter| parameter.name == pattern_name);
    let mut cases: Vec<(String, Vec<&str>)> = Vec::new();
    let mut allow = |case: String, algorithm: &'static str| match cases
        .iter_mut()
        .find(|(known, _)| *known == case)
    {
        Some((_, names)) => names.push(algorithm),
        None => cases.push((case, vec![algorithm])),
    };
    let running = space.parameters.iter().find(|parameter| parameter.name == BACKEND);
    let running = running.map(|parameter| parameter.domain.values().to_vec()).unwrap_or_default();
    for offer in &offers {
        // With only one backend, the condition need not name it.
        let on = match targets.len() {
            1 => String::new(),
            _ => format!("{} and ", runs(offer.backend, number, &running)),
        };
        if !offer.dense.is_empty() {
            allow(
                format!("{on}{}", among(name, &offer.dense, &numbers)),
                offer.algorithm.info.name(),
            );
        }
        for (pattern, sparse) in &offer.sparse {
            if !sparse.iter().any(|wanted| numbers.contains(wanted)) {
                continue;
            }
            let bits = format!("{on}{}", among(name, sparse, &numbers));
            if has_patterns {
                allow(
                    format!("{bits} and {sparsity_name} > 0 and {pattern_name} == '{pattern}'"),
                    offer.algorithm.info.name(),
                );
            } else if *pattern == Pattern::Unstructured {
                allow(format!("{bits} and {sparsity_name} > 0"), offer.algorithm.info.name());
            }
        }
    }
    let cases: Vec<String> = cases
        .into_iter()
        .map(|(case, names)| {
            let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
            format!("{case} and {algorithm_name} in [{}]", names.join(", "))
        })
        .collect();
    space.constraints.push(cases.join(" or ").parse()?);

    for Offer { algorithm, .. } in &offers {
        let active =
            format!("{algorithm_name} == '{}'", algorithm.info.name()).parse::<Expression>()?;
        add_tunables(
            space,
            algorithm,
            &tunable_parameter(name, algorithm.info.name(), ""),
            &active,
        )?;
    }
    Ok(())
}

/// Builds the condition that a layer's weights are one of `wanted`; `all` are offered.
fn among(layer: &str, wanted: &[Numbers], all: &[Numbers]) -> String {
    let [bits, half] = [BITS, HALF].map(|parameter| layer_parameter(layer, parameter));
    // Number types that their bits alone distinguish from the types that are not wanted.
    let told = |numbers: &Numbers| {
        let mut alike = all.iter().filter(|other| other.bits() == numbers.bits());
        alike.all(|other| wanted.contains(other))
    };
    let (whole, parts): (Vec<Numbers>, Vec<Numbers>) =
        all.iter().filter(|numbers| wanted.contains(numbers)).partition(|numbers| told(numbers));
    let mut values: Vec<String> =
        whole.iter().map(|&numbers| bits_value(numbers).to_string()).collect();
    values.dedup();
    let mut cases = match &values[..] {
        [] => Vec::new(),
        [one] => vec![format!("{bits} == {one}")],
        several => vec![format!("{bits} in [{}]", several.join(", "))],
    };
    cases.extend(parts.into_iter().filter_map(|numbers| {
        Some(format!("{bits} == {} and {half} == '{}'", bits_value(numbers), numbers.half()?))
    }));
    match &cases[..] {
        [one] => one.clone(),
        several => format!("({})", several.join(" or ")),
    }
}

fn sizes(name: &str, values: Vec<Value>, default: usize, about: &str) -> Parameter {
    let parameter = match values.get(default).cloned() {
        Some(default) => Parameter::new(name, Domain::sizes(values)).with_default(default),
        None => Parameter::new(name, Domain::sizes(values)),
    };
    parameter.about(about)
}

fn choice(name: &str, values: &[&str], about: &str) -> Parameter {
    Parameter::new(name, Domain::choice(values.iter().copied())).about(about)
}

#[cfg(test)]
mod tests {
    use paretune_kernels::opencl;
    use paretune_kernels::operator::Operator;
    use paretune_spaces::{CompiledSpace, Configuration};

    use super::*;
    use crate::decode::Candidate;
    use paretune_model::builtin;
    use paretune_names::numbers;

    /// Returns, for each layer of `network`, whether a device computes it.
    fn on_device(space: &CompiledSpace, network: &Network, backend: &str) -> Vec<bool> {
        let mut wanted = Configuration::new();
        wanted.insert(BACKEND, Value::Text(backend.to_owned()));
        let found = space.decode(&space.closest(&wanted));
        assert_eq!(found.get(BACKEND), wanted.get(BACKEND));
        let layers = compress::layers(&network.plan).expect("layers");
        let name = |layer: &compress::LayerInfo| layer_parameter(&layer.step, ALGORITHM);
        let chosen = layers
            .iter()
            .map(|layer| found.get(&name(layer)).and_then(Value::as_str).expect("an algorithm"));
        chosen
            .map(|name| {
                registry::info(name)
                    .is_some_and(|info| info.backend() == registry::BackendKind::OpenCl)
            })
            .collect()
    }

    #[test]
    fn layers_follow_the_backend_that_runs_them() {
        if opencl::names().is_empty() {
            eprintln!("SKIPPED: there is no OpenCL device");
            return;
        }
        let network =
            Network::from_bytes(builtin::NAME, builtin::network_bytes(), None).expect("a network");
        let device = Backend::OpenCl { device: String::new() };
        let space =
            joint_space(&network, &[1], &[Backend::Cpu, device], Isa::detect()).expect("a space");
        let space = space.compile().expect("a space that has configurations");
        let layers = compress::layers(&network.plan).expect("layers").len();
        let offered: Vec<&str> =
            space.parameters()[0].domain.values().iter().filter_map(Value::as_str).collect();
        let two_switches =
            offered.iter().find(|value| value.starts_with("opencl") && value.contains(" to "));
        for text in ["cpu then opencl at 1", two_switches.expect("there and back")] {
            let partition = Partition::read(text).expect("two backends");
            let there = |layer| partition.is_second(layer) == (partition.second == "opencl");
            assert_eq!(
                on_device(&space, &network, text),
                (0..layers).map(there).collect::<Vec<bool>>(),
                "{text}"
            );
        }
        assert_eq!(on_device(&space, &network, "cpu"), vec![false; layers]);
    }

    #[test]
    fn half_precision_is_a_choice_where_weights_fit_into_it() {
        let mut network =
            Network::from_bytes(builtin::NAME, builtin::network_bytes(), None).expect("a network");
        let found = compress::layers(&network.plan).expect("layers");
        let step = &network.plan.steps[found[1].index];
        let Operator::Conv(conv) = &step.operator else { panic!("no convolution") };
        let values = network.plan.weights[conv.weights].values.reals_mut().expect("real weights");
        *values = values.iter().map(|x| x * 1e9).collect();
        let spaces = [Isa::Portable, Isa::detect()].map(|isa| {
            let space = joint_space(&network, &[1], &[Backend::Cpu], isa).expect("a space");
            (isa, space.compile().expect("a space that has configurations"))
        });
        for (isa, space) in spaces {
            for (number, layer) in found.iter().enumerate() {
                let offered = numbers::offered(&space, &layer.step);
                let matrix = !layer.problem.is_depthwise();
                assert_eq!(
                    offered.contains(&Numbers::Fp16),
                    number != 1 && matrix,
                    "{}",
                    layer.step
                );
                for wanted in offered {
                    let mut wish = Configuration::new();
                    numbers::choose(wanted, &layer.step, &mut wish);
                    let point = space.decode(&space.closest(&wish));
                    assert_eq!(numbers::chosen(&point, &layer.step), Some(wanted), "{isa:?}");
                    let algorithm = point.get(&layer_parameter(&layer.step, ALGORITHM));
                    let algorithm = algorithm.and_then(Value::as_str).expect("an algorithm");
                    assert_eq!(algorithm == "implicit_gemm_wfp16", wanted == Numbers::Fp16);
                    assert_eq!(algorithm == "implicit_gemm_bf16", wanted == Numbers::Bf16);
                    let names = found.iter().map(|layer| layer.step.as_str());
                    let candidate = Candidate::decode(&point, names).expect("a candidate");
                    assert_eq!(candidate.layers[&layer.step].recipe.numbers, wanted);
                }
            }
        }
    }
}
