//! Resolves the schedule of a step to an algorithm with a value for each tunable.

use paretune_base::error::KernelError;
use paretune_base::plan::layout::Layout;
use paretune_base::plan::operator::{Conv, ConvProblem};
use paretune_base::plan::schedule::Schedule;
use paretune_base::plan::weights::WeightFormat;

use paretune_cpu::conv;
use paretune_cpu::conv::algorithm::Algorithm;
use paretune_simd::Isa;

/// Resolved schedule of a convolution.
#[derive(Clone)]
pub struct Resolved {
    /// Geometry and sizes of the convolution.
    pub problem: ConvProblem,
    /// Algorithm that computes the convolution.
    pub algorithm: &'static dyn Algorithm,
    /// Schedule with the algorithm's name and a value for each of its tunables.
    pub schedule: Schedule,
}

impl Resolved {
    /// Returns the layout of the input, and the layout of residual and output.
    pub(super) fn layouts(&self, isa: Isa) -> [Layout; 2] {
        self.algorithm.layouts(&self.schedule, isa)
    }
}

/// Decides the algorithm and all tunables of a step.
///
/// An empty algorithm name selects the first of [`conv::candidates`].
///
/// # Errors
/// Fails if the algorithm or a tunable is unknown, if a value is not offered, or if no algorithm
/// supports the problem.
pub fn resolve(
    name: &str,
    conv: &Conv,
    problem: ConvProblem,
    format: WeightFormat,
    isa: Isa,
) -> Result<Resolved, KernelError> {
    let wanted = &conv.schedule;
    let algorithm = if wanted.algorithm.is_empty() {
        conv::candidates(&problem, format, isa).first().copied().ok_or_else(|| {
            KernelError::plan(name, format!("no algorithm for {format:?} weights and {problem:?}"))
        })?
    } else {
        let algorithm = conv::algorithm(&wanted.algorithm).ok_or_else(|| {
            let known: Vec<_> = conv::algorithms().iter().map(|algorithm| algorithm.name()).collect();
            let known = known.join(", ");
            KernelError::plan(name, format!("unknown algorithm `{}`; known are {known}", wanted.algorithm))
        })?;
        if !algorithm.executes(format) {
            let problem = format!("algorithm `{}` does not run {format:?} weights", wanted.algorithm);
            return Err(KernelError::plan(name, problem));
        }
        if !algorithm.supports(&problem, isa) {
            let algorithm = &wanted.algorithm;
            let problem = format!("algorithm `{algorithm}` does not support {problem:?} on {isa:?}");
            return Err(KernelError::plan(name, problem));
        }
        algorithm
    };
    let mut schedule = Schedule::of(algorithm.name());
    let tunables = algorithm.tunables(&problem, isa);
    for tunable in &tunables {
        let value = wanted.tunables.get(tunable.name).copied().unwrap_or(tunable.default);
        if !tunable.values.contains(&value) {
            return Err(KernelError::plan(
                name,
                format!(
                    "`{}` of algorithm `{}` cannot be {value}; possible are {:?}",
                    tunable.name,
                    algorithm.name(),
                    tunable.values
                ),
            ));
        }
        schedule.tunables.insert(tunable.name.to_owned(), value);
    }
    if let Some(unknown) = wanted.tunables.keys().find(|key| !schedule.tunables.contains_key(*key)) {
        let problem = format!("algorithm `{}` has no tunable `{unknown}`", algorithm.name());
        return Err(KernelError::plan(name, problem));
    }
    Ok(Resolved { problem, algorithm, schedule })
}
