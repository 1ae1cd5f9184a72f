//! The joint space of a network on this machine: what can be chosen, when, and what must hold.
//!
//! See [`crate::evaluate::candidate`] for the grammar of the names.

use paretune_kernels::conv;
use paretune_kernels::hardware::Isa;
use paretune_kernels::weights::WeightFormat;
use paretune_spaces::{Domain, Expression, Parameter, ParseError, Space, Value};

use crate::compress::{self, CompressError};
use crate::evaluate::candidate::{BACKEND, CHANNELS, THREADS, layer_parameter, tunable_parameter};
use crate::model::Network;

/// Shares of zero weights that are offered.
pub const SPARSITIES: [f64; 7] = [0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95];
/// Shares of kept channels that are offered.
pub const CHANNEL_SHARES: [f64; 8] = [0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.9375, 1.0];

/// Why the space of a network could not be built.
#[derive(Debug, thiserror::Error)]
pub enum JointSpaceError {
    /// The network's layers and channels cannot be made out.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// A formula of this program cannot be understood by this program.
    #[error(transparent)]
    Formula(#[from] ParseError),
}

/// Builds the space of `network` with `threads` to choose from.
///
/// # Errors
/// Where the network's shapes do not fit together, or a constraint cannot be expressed.
pub fn joint_space(network: &Network, threads: &[usize], isa: Isa) -> Result<Space, JointSpaceError> {
    let plan = &network.plan;
    let mut space = Space::default();
    space.parameters.push(unordered(BACKEND, &["cpu"], "which device runs the network"));
    let counts: Vec<Value> =
        threads.iter().map(|&count| Value::Int(i64::try_from(count).unwrap_or(1))).collect();
    let last = counts.len().saturating_sub(1);
    space.parameters.push(ordered(THREADS, counts, last, "workers of the whole network"));
    for group in compress::channel_groups(plan)?.iter().filter(|group| group.prunable()) {
        // Shares that keep equally many channels are one choice, called what it is.
        let mut kept: Vec<usize> = CHANNEL_SHARES.iter().map(|share| group.kept(*share)).collect();
        kept.dedup();
        #[expect(clippy::cast_precision_loss, reason = "a number of channels")]
        let shares: Vec<f64> = kept.iter().map(|kept| *kept as f64 / group.width as f64).collect();
        let default = shares.len() - 1;
        let name = format!("{CHANNELS}{}", group.name);
        let values = shares.into_iter().map(Value::Real).collect();
        space.parameters.push(ordered(&name, values, default, "share of these channels that is kept"));
    }
    for layer in compress::layers(plan)? {
        layer_parameters(&mut space, &layer, isa)?;
    }
    Ok(space)
}

fn layer_parameters(space: &mut Space, layer: &compress::LayerInfo, isa: Isa) -> Result<(), JointSpaceError> {
    let (name, problem) = (&layer.step, &layer.problem);
    let formats = [WeightFormat::F32, WeightFormat::SPARSE_F32, WeightFormat::I8];
    let [dense, mut sparse, mut integer] = formats.map(|format| conv::candidates(problem, format, isa));
    // Dense algorithms run whatever there is; what needs zeros is offered where there are some.
    sparse.retain(|algorithm| !algorithm.executes(WeightFormat::F32));
    if !layer.sparse {
        sparse.clear();
    }
    if !layer.int8 {
        integer.clear();
    }
    let bits = if integer.is_empty() { vec![Value::Int(32)] } else { vec![Value::Int(8), Value::Int(32)] };
    let bits_default = bits.len() - 1;
    let bits_name = layer_parameter(name, "bits");
    space.parameters.push(ordered(&bits_name, bits, bits_default, "bits of weights and activations"));
    let sparsity_name = layer_parameter(name, "sparsity");
    if layer.sparse {
        let values = SPARSITIES.map(Value::Real).to_vec();
        space.parameters.push(ordered(&sparsity_name, values, 0, "share of the weights that is zero"));
    }
    let algorithm_name = layer_parameter(name, "algorithm");
    let algorithms: Vec<&str> =
        dense.iter().chain(&sparse).chain(&integer).map(|algorithm| algorithm.name()).collect();
    space.parameters.push(unordered(&algorithm_name, &algorithms, "how the layer is computed"));

    let mut cases = vec![format!("{bits_name} == 32 and {algorithm_name} in {}", list(&dense))];
    if !sparse.is_empty() {
        cases.push(format!(
            "{bits_name} == 32 and {sparsity_name} > 0 and {algorithm_name} in {}",
            list(&sparse)
        ));
    }
    if !integer.is_empty() {
        cases.push(format!("{bits_name} == 8 and {algorithm_name} in {}", list(&integer)));
    }
    space.constraints.push(cases.join(" or ").parse()?);

    for algorithm in dense.iter().chain(&sparse).chain(&integer) {
        let active = format!("{algorithm_name} == '{}'", algorithm.name()).parse::<Expression>()?;
        let tunables = algorithm.tunables(problem, isa);
        for tunable in &tunables {
            let values: Vec<Value> = tunable.values.iter().map(|&value| Value::Int(value)).collect();
            let default = tunable.values.iter().position(|&value| value == tunable.default).unwrap_or(0);
            let parameter = tunable_parameter(name, algorithm.name(), tunable.name);
            let mut parameter = ordered(&parameter, values, default, tunable.about);
            parameter.condition = Some(active.clone());
            space.parameters.push(parameter);
        }
        for constraint in algorithm.constraints() {
            let prefix = format!("{name}.{}.", algorithm.name());
            let holds = constraint.parse::<Expression>()?.prefixed(&prefix);
            space.constraints.push(active.clone().negated().or(holds));
        }
    }
    Ok(())
}

fn list(algorithms: &[&dyn conv::Algorithm]) -> String {
    let names: Vec<String> = algorithms.iter().map(|algorithm| format!("'{}'", algorithm.name())).collect();
    format!("[{}]", names.join(", "))
}

fn ordered(name: &str, values: Vec<Value>, default: usize, about: &str) -> Parameter {
    Parameter {
        name: name.to_owned(),
        domain: Domain::Ordered(values),
        condition: None,
        default,
        about: about.to_owned(),
    }
}

fn unordered(name: &str, values: &[&str], about: &str) -> Parameter {
    Parameter {
        name: name.to_owned(),
        domain: Domain::Unordered(values.iter().map(|&value| Value::Text(value.to_owned())).collect()),
        condition: None,
        default: 0,
        about: about.to_owned(),
    }
}
