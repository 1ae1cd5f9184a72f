//! Builds the programs of all launches of a plan.

use std::collections::HashMap;
use std::sync::Arc;

use paretune_base::error::KernelError;
use paretune_base::execution::StepInfo;

use super::api::Program;
use super::device::Device;
use super::layout::PreparedStep;
use super::source::OPTIONS;

/// Builds the programs of all launches, keyed by their source. Several programs are built by
/// several threads.
///
/// # Errors
/// Fails if a program does not build; the message names the step.
pub(super) fn build(
    device: &Device,
    steps: &[(StepInfo, PreparedStep)],
) -> Result<HashMap<String, Arc<Program>>, KernelError> {
    let mut texts: HashMap<String, &str> = HashMap::new();
    for (info, step) in steps {
        for launch in &step.prepared.launches {
            texts.entry(launch.text()).or_insert(&info.name);
        }
    }
    let todo: Vec<(&String, &&str)> = texts.iter().collect();
    // Compilers that run on the device itself gain nothing from company.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let builders = if device.limits.cpu { 1 } else { cores.min(todo.len()).max(1) };
    let share = todo.len().div_ceil(builders).max(1);
    let built = std::thread::scope(|scope| {
        let builders: Vec<_> = todo
            .chunks(share)
            .map(|part| {
                scope.spawn(move || {
                    part.iter()
                        .map(|(text, step)| {
                            let program =
                                device.programs.get((&device.context, device.id), text, OPTIONS);
                            let program = program
                                .map_err(|error| KernelError::plan(**step, error.to_string()))?;
                            Ok(((*text).clone(), program))
                        })
                        .collect::<Result<Vec<_>, KernelError>>()
                })
            })
            .collect();
        let lost = || KernelError::System("a thread that builds kernels died".to_owned());
        builders
            .into_iter()
            .map(|builder| builder.join().map_err(|_| lost())?)
            .collect::<Result<Vec<_>, _>>()
    })?;
    Ok(built.into_iter().flatten().collect())
}
