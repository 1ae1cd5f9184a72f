//! Resolves the schedule of a step to an algorithm of this backend with a value for each tunable.

use super::conv;
use super::conv::Algorithm;
use crate::limits::Limits;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::{Conv, ConvProblem};
use paretune_base::plan::schedule::Schedule;
use paretune_base::plan::weights::WeightFormat;

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

/// Decides the algorithm and all tunables of a step. An empty algorithm name selects the first of
/// [`conv::candidates`].
///
/// # Errors
/// Fails if the algorithm or a tunable is unknown, if a value is not offered, or if no algorithm
/// supports the problem.
pub fn resolve(
    name: &str,
    conv: &Conv,
    problem: ConvProblem,
    format: WeightFormat,
    limits: &Limits,
) -> Result<Resolved, KernelError> {
    let wanted = &conv.schedule;
    let algorithm = if wanted.algorithm.is_empty() {
        conv::candidates(&problem, format, limits).first().copied().ok_or_else(|| {
            KernelError::plan(name, format!("no OpenCL algorithm for {format:?} weights and {problem:?}"))
        })?
    } else {
        let algorithm = conv::algorithm(&wanted.algorithm).ok_or_else(|| {
            let known: Vec<_> = conv::algorithms().iter().map(|algorithm| algorithm.name()).collect();
            let known = known.join(", ");
            let wanted = &wanted.algorithm;
            KernelError::plan(name, format!("unknown OpenCL algorithm `{wanted}`; known are {known}"))
        })?;
        if !algorithm.executes(format) || !algorithm.supports(&problem, limits) {
            let algorithm = &wanted.algorithm;
            let problem =
                format!("algorithm `{algorithm}` does not run {format:?} weights and {problem:?} here");
            return Err(KernelError::plan(name, problem));
        }
        algorithm
    };
    let mut schedule = Schedule::of(algorithm.name());
    for tunable in &algorithm.tunables(&problem, limits) {
        let value = wanted.tunables.get(tunable.name).copied().unwrap_or(tunable.default);
        if !tunable.values.contains(&value) {
            let (tunable, values, algorithm) = (tunable.name, &tunable.values, algorithm.name());
            let problem =
                format!("`{tunable}` of algorithm `{algorithm}` cannot be {value}; possible are {values:?}");
            return Err(KernelError::plan(name, problem));
        }
        schedule.tunables.insert(tunable.name.to_owned(), value);
    }
    if let Some(unknown) = wanted.tunables.keys().find(|key| !schedule.tunables.contains_key(*key)) {
        let problem = format!("algorithm `{}` has no tunable `{unknown}`", algorithm.name());
        return Err(KernelError::plan(name, problem));
    }
    Ok(Resolved { problem, algorithm, schedule })
}
