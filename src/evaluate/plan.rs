//! Builds a plan from a configuration: compression first, then schedules.

use paretune_compress as compress;
use paretune_compress::{ChannelCriterion, CompressError, Method, Recipe};
use paretune_joint_space::decode::{Candidate, CandidateError};
use paretune_kernels::hardware::Isa;
use paretune_kernels::operator::Operator;
use paretune_kernels::registry::Target;
use paretune_kernels::{Backend, KernelError, Plan, Switch};
use paretune_spaces::Configuration;

use super::workload::{Progress, Workload, WorkloadError};

/// Reason why a configuration could not be built.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The configuration does not follow the grammar of this network.
    #[error(transparent)]
    Candidate(#[from] CandidateError),
    /// The backend does not exist here.
    #[error(transparent)]
    Backend(#[from] KernelError),
    /// The compression of a layer failed.
    #[error("compression: {0}")]
    Compress(#[from] CompressError),
    /// The training of the network failed.
    #[error("fine-tuning: {0}")]
    Finetune(#[from] WorkloadError),
    /// The algorithm of a step does not exist.
    #[error("layer `{layer}`: there is no algorithm `{algorithm}`")]
    Algorithm {
        /// Name of the layer's step in the plan.
        layer: String,
        /// Name of the requested algorithm.
        algorithm: String,
    },
}

/// Builds the plan of `configuration`. `progress` receives the progress of slow tasks, such as
/// training.
///
/// # Errors
/// Fails if the configuration does not fit the network.
pub fn build_plan(
    workload: &Workload,
    configuration: &Configuration,
    isa: Isa,
    progress: Progress<'_>,
) -> Result<Plan, PlanError> {
    let candidate = decode(workload, configuration)?;
    let plan = if candidate.finetune > 0 {
        workload.finetuned(&candidate.recipe(), candidate.finetune, progress)?
    } else {
        workload.compressed(&candidate.recipe())?
    };
    scheduled(plan, &candidate, isa)
}

/// Builds the plan of `configuration` with round-to-nearest weights: same shapes, formats and
/// zeros, and so the same speed as the candidate, but without the time for reconstruction. Use it
/// only for timing.
///
/// # Errors
/// Fails if the configuration does not fit the network.
pub fn build_plan_for_timing(
    workload: &Workload,
    configuration: &Configuration,
    isa: Isa,
) -> Result<Plan, PlanError> {
    let candidate = decode(workload, configuration)?;
    let criterion = ChannelCriterion::Magnitude;
    let recipe =
        Recipe { method: Method::OneShot, recalibrate: false, criterion, ..candidate.recipe() };
    scheduled(workload.compressed(&recipe)?, &candidate, isa)
}

/// Applies the schedules and backends of `candidate` to `plan`.
fn scheduled(mut plan: Plan, candidate: &Candidate, isa: Isa) -> Result<Plan, PlanError> {
    plan.threads = candidate.threads;
    let layers = compress::layers(&plan)?;
    let switches = candidate.switches.iter().map(|(layer, backend)| {
        let step = layers.get(*layer).map_or(plan.steps.len(), |layer| layer.index);
        Switch { step, backend: backend.clone() }
    });
    (plan.switches, plan.backend) = (switches.collect(), candidate.backend.clone());
    let used =
        std::iter::once(&plan.backend).chain(plan.switches.iter().map(|switch| &switch.backend));
    let targets: Vec<(Backend, Target)> = used
        .map(|backend| Ok((backend.clone(), Target::of(backend, isa)?)))
        .collect::<Result<_, KernelError>>()?;
    for layer in layers {
        let Some(schedule) = candidate.schedule(&layer.step) else { continue };
        let backend = plan.backend_of(layer.index);
        let Some((_, target)) = targets.iter().find(|(known, _)| known == backend) else {
            continue;
        };
        if let Operator::Conv(conv) = &mut plan.steps[layer.index].operator {
            // The space was built for the full widths. Pruned channels leave fewer valid tiles.
            conv.schedule = target.fitted(schedule, &layer.problem).ok_or_else(|| {
                PlanError::Algorithm { layer: layer.step, algorithm: schedule.algorithm.clone() }
            })?;
        }
    }
    Ok(plan)
}

/// Returns the compression recipe of `configuration`.
///
/// # Errors
/// Fails if the configuration does not fit the network.
pub fn recipe_of(workload: &Workload, configuration: &Configuration) -> Result<Recipe, PlanError> {
    Ok(decode(workload, configuration)?.recipe())
}

fn decode(workload: &Workload, configuration: &Configuration) -> Result<Candidate, PlanError> {
    let layers = compress::layers(&workload.network.plan)?;
    Ok(Candidate::decode(configuration, layers.iter().map(|layer| layer.step.as_str()))?)
}
