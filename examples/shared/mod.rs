//! Shared parts of the programs that search schedules of OpenCL layers: the space of a layer's
//! schedules, and the mapping between schedules and its configurations.

use paretune_joint_space::tunables::{space_value, tunable_value};
use paretune_kernels::opencl::conv::Algorithm;
use paretune_kernels::opencl::{self, Limits};
use paretune_kernels::operator::ConvProblem;
use paretune_kernels::schedule::{TunableDomain, TunableValue};
use paretune_kernels::{Plan, Schedule};
use paretune_spaces::{Configuration, Domain, Expression, Parameter, Space, Value};

/// Builds the space of the algorithms `offered` for `problem`, with their tunables named
/// `ALGORITHM.TUNABLE`. Tunables in `fixed` have only the value given there, if they support it.
pub fn space_of(
    offered: &[&'static dyn Algorithm],
    problem: &ConvProblem,
    limits: &Limits,
    fixed: &[(String, TunableValue)],
) -> anyhow::Result<Space> {
    let mut space = Space::new();
    let names: Vec<&str> = offered.iter().map(|algorithm| algorithm.name()).collect();
    space.parameters.push(Parameter::new("algorithm", Domain::choice(names)));
    for algorithm in offered {
        let active: Expression = format!("algorithm == '{}'", algorithm.name()).parse()?;
        for mut tunable in algorithm.tunables(problem, limits) {
            let wanted = fixed.iter().find(|(name, _)| name == tunable.name);
            let mut values = tunable.values();
            if let Some((_, value)) = wanted.filter(|(_, value)| values.contains(value)) {
                (values, tunable.default) = (vec![*value], *value);
            }
            let name = format!("{}.{}", algorithm.name(), tunable.name);
            let values: Vec<Value> = values.into_iter().map(space_value).collect();
            let domain = match tunable.domain {
                TunableDomain::Sizes(_) => Domain::Sizes(values),
                TunableDomain::Choice(_) => Domain::Choice(values),
                TunableDomain::Switch { .. } => Domain::Switch(values),
            };
            let parameter = Parameter::new(name, domain).with_default(space_value(tunable.default));
            space.parameters.push(parameter.when(active.clone()));
        }
        for constraint in algorithm.constraints(problem, limits) {
            let holds =
                constraint.parse::<Expression>()?.prefixed(&format!("{}.", algorithm.name()));
            space.constraints.push(active.clone().negated().or(holds));
        }
    }
    Ok(space)
}

/// Converts a schedule to a configuration of [`space_of`]; missing tunables are left open.
pub fn configuration_of(schedule: &Schedule) -> Configuration {
    let mut configuration = Configuration::new();
    configuration.insert("algorithm", Value::Text(schedule.algorithm.clone()));
    for (name, value) in &schedule.tunables {
        configuration.insert(format!("{}.{name}", schedule.algorithm), space_value(*value));
    }
    configuration
}

/// Converts a configuration of [`space_of`] to a schedule.
pub fn schedule_of(configuration: &Configuration) -> Schedule {
    let algorithm = configuration.get("algorithm").and_then(Value::as_str).unwrap_or_default();
    let prefix = format!("{algorithm}.");
    let tunables = configuration
        .iter()
        .filter_map(|(name, value)| {
            Some((name.strip_prefix(&prefix)?.to_owned(), tunable_value(value)?))
        })
        .collect();
    Schedule { algorithm: algorithm.to_owned(), tunables }
}

/// Formats the tunables of a schedule for people.
pub fn described(schedule: &Schedule) -> String {
    let tunables = schedule.tunables.iter().map(|(name, value)| format!("{name} {value}"));
    tunables.collect::<Vec<_>>().join(", ")
}

/// Returns the median seconds of a few calls of `run`. Schedules faster than `limit` are verified
/// before they count, and timed longer; `counts` are the numbers of calls for both.
pub fn time_verified(
    mut run: impl FnMut() -> anyhow::Result<f64>,
    plan: &Plan,
    batch: usize,
    limit: f64,
    counts: [usize; 2],
) -> anyhow::Result<f64> {
    let mut measure = |count: usize| -> anyhow::Result<f64> {
        let mut seconds = (0..count).map(|_| run()).collect::<anyhow::Result<Vec<f64>>>()?;
        Ok(median(&mut seconds))
    };
    let seconds = measure(counts[0])?;
    if seconds > 1.1 * limit {
        return Ok(seconds);
    }
    opencl::verify(plan, batch)?;
    measure(counts[1])
}

/// Returns the median of `numbers`, or 0 if there are none.
pub fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

/// Pseudo-random numbers from 0 to 1 (a linear congruential generator with Knuth's MMIX constants).
pub struct Noise(u64);

impl Noise {
    /// Creates the generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1_u64 << 24) as f32
    }
}

/// Returns inputs like those of a layer within a network: about half of them zero, as after a ReLU,
/// the rest up to 1.
pub fn activations(count: usize) -> Vec<f32> {
    let mut noise = Noise::new(3);
    (0..count).map(|_| (2.0 * noise.next() - 1.0).max(0.0)).collect()
}
