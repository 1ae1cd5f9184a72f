//! Builds a point of a study again, from what the folder of the study holds.

use std::path::Path;

use paretune_kernels::bundle::Bundle;
use paretune_kernels::hardware::Isa;
use paretune_record::front::FrontPoint;
use paretune_record::request::{RequestError, StudyFile};

use super::plan::{PlanError, build_plan};
use super::workload::{Workload, WorkloadError};

/// Why a point cannot be built again.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// `study.toml`.
    #[error(transparent)]
    Study(#[from] RequestError),
    /// Artefacts of the study.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The point's configuration.
    #[error("the point cannot be built again: {0}")]
    Realize(#[from] PlanError),
}

/// Builds `point` of the study in `folder` again.
///
/// # Errors
/// Where the study is damaged.
pub fn rebuild(folder: &Path, point: &FrontPoint) -> Result<Bundle, RebuildError> {
    let study = StudyFile::read(folder)?;
    let isa = Isa::detect();
    let mut progress =
        |task: &str, fraction: f64| tracing::info!("{task}: {:.0} %", fraction * 100.0);
    let workload = Workload::open(&study.workload(folder), isa, &mut progress)?;
    let plan = build_plan(&workload, &point.config, isa, &mut progress)?;
    Ok(workload.bundle(plan, &point.id))
}
