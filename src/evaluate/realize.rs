//! From a configuration to a plan that can be loaded: compression, then schedules.

use paretune_kernels::conv;
use paretune_kernels::hardware::Isa;
use paretune_kernels::operator::{ConvProblem, Operator};
use paretune_kernels::{Plan, Schedule};
use paretune_spaces::Configuration;

use super::candidate::{Candidate, CandidateError};
use super::subject::{Progress, Subject, SubjectError};
use crate::compress::{self, CompressError, Recipe};

/// Why a configuration could not be turned into a plan.
#[derive(Debug, thiserror::Error)]
pub enum RealizeError {
    /// It does not follow the grammar of this network.
    #[error(transparent)]
    Candidate(#[from] CandidateError),
    /// Compression failed.
    #[error("compression: {0}")]
    Compress(#[from] CompressError),
    /// Training failed.
    #[error("fine-tuning: {0}")]
    Finetune(#[from] SubjectError),
    /// A step's algorithm does not exist.
    #[error("layer `{layer}`: there is no algorithm `{algorithm}`")]
    Algorithm {
        /// The layer.
        layer: String,
        /// What was asked for.
        algorithm: String,
    },
}

/// Builds the plan of `configuration`. `progress` hears of what takes long: training, where it is asked for.
///
/// # Errors
/// Where the configuration does not fit the network.
pub fn realize(
    subject: &Subject,
    configuration: &Configuration,
    isa: Isa,
    progress: Progress<'_>,
) -> Result<Plan, RealizeError> {
    let candidate = decode(subject, configuration)?;
    let mut plan = if candidate.finetune > 0 {
        subject.finetuned(&candidate.recipe, candidate.finetune, progress)?
    } else {
        subject.compressed(&candidate.recipe)?
    };
    plan.threads = candidate.threads;
    for layer in compress::layers(&plan)? {
        let Some(schedule) = candidate.schedules.get(&layer.step) else { continue };
        if let Operator::Conv(conv) = &mut plan.steps[layer.index].operator {
            conv.schedule = fitted(schedule, &layer.problem, isa).ok_or_else(|| RealizeError::Algorithm {
                layer: layer.step,
                algorithm: schedule.algorithm.clone(),
            })?;
        }
    }
    Ok(plan)
}

/// What `configuration` does to the network's numbers.
///
/// # Errors
/// Where the configuration does not fit the network.
pub fn recipe_of(subject: &Subject, configuration: &Configuration) -> Result<Recipe, RealizeError> {
    Ok(decode(subject, configuration)?.recipe)
}

fn decode(subject: &Subject, configuration: &Configuration) -> Result<Candidate, RealizeError> {
    let layers = compress::layers(&subject.network.plan)?;
    Ok(Candidate::decode(configuration, layers.iter().map(|layer| layer.step.as_str()))?)
}

/// `schedule` with every tunable moved to the nearest value that the algorithm offers for `problem`: the
/// space is built for the untouched widths, and pruned channels leave fewer tiles to choose from.
fn fitted(schedule: &Schedule, problem: &ConvProblem, isa: Isa) -> Option<Schedule> {
    let algorithm = conv::algorithm(&schedule.algorithm)?;
    let mut fitted = Schedule::of(schedule.algorithm.clone());
    for tunable in algorithm.tunables(problem, isa) {
        let wanted = schedule.tunables.get(tunable.name).copied().unwrap_or(tunable.default);
        let nearest = tunable.values.iter().copied().min_by_key(|value| value.abs_diff(wanted));
        fitted.tunables.insert(tunable.name.to_owned(), nearest.unwrap_or(tunable.default));
    }
    Some(fitted)
}
