//! From a point of an archive to something that runs without the study ([`bundle`], [`onnx_file`]), and from a study to
//! what other tools read ([`t4()`], [`optuna()`]).

mod optuna;
mod record;
mod t4;

use std::path::Path;

use paretune_kernels::KernelError;
use paretune_kernels::bundle::{Bundle, PackedBytes};
use paretune_kernels::hardware::Isa;

use crate::evaluate::realize::{RealizeError, realize};
use crate::evaluate::subject::{Subject, SubjectError};
use crate::model::{ModelError, onnx};
use crate::study::front::{Front, FrontPoint};
use crate::study::request::{RequestError, StudyFile};

pub use optuna::optuna;
pub use record::{Record, RecordedTrial, timestamp};
pub use t4::t4;

/// Why nothing could be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no such point.
    #[error("{0}")]
    Pick(String),
    /// `study.toml`.
    #[error(transparent)]
    Study(#[from] RequestError),
    /// Artefacts of the study.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// The point's configuration.
    #[error("the point cannot be built again: {0}")]
    Realize(#[from] RealizeError),
    /// The bundle.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The ONNX file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The journal.
    #[error("`{path}`: {problem}")]
    Journal {
        /// Where it lies.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The disk refused.
    #[error("cannot write `{path}`: {problem}")]
    Write {
        /// What was to be written.
        path: String,
        /// Why it was not.
        problem: String,
    },
}

/// The point whose id begins with `pick`; without one the best, or else the nearest miss.
///
/// # Errors
/// Where no point, or more than one, is meant.
pub fn chosen<'f>(front: &'f Front, pick: Option<&str>) -> Result<&'f FrontPoint, ExportError> {
    let Some(pick) = pick else {
        return front
            .points
            .iter()
            .find(|point| point.best)
            .or(front.nearest_miss.as_ref())
            .ok_or_else(|| ExportError::Pick("the archive is empty: there is nothing to export".into()));
    };
    let mut ids: Vec<&FrontPoint> =
        front.points.iter().chain(&front.nearest_miss).filter(|point| point.id.starts_with(pick)).collect();
    ids.dedup_by(|left, right| left.id == right.id);
    match ids[..] {
        [point] => Ok(point),
        [] => Err(ExportError::Pick(format!("no point of the archive has an id that begins with `{pick}`"))),
        _ => Err(ExportError::Pick(format!(
            "`{pick}` begins the ids of {} points; give more of it",
            ids.len()
        ))),
    }
}

/// Builds `point` of the study in `folder` again.
///
/// # Errors
/// Where the study is damaged.
pub fn build(folder: &Path, point: &FrontPoint) -> Result<Bundle, ExportError> {
    let study = StudyFile::read(folder)?;
    let isa = Isa::detect();
    let mut progress = |task: &str, share: f64| tracing::info!("{task}: {:.0} %", share * 100.0);
    let subject = Subject::open(&study.subject(folder), isa, &mut progress)?;
    let plan = realize(&subject, &point.config, isa, &mut progress)?;
    Ok(subject.bundle(plan, &point.id))
}

/// Builds `point` of the study in `folder` again and writes it as a bundle to `path`; returns its bytes.
///
/// # Errors
/// Where the study is damaged or the disk refuses.
pub fn bundle(folder: &Path, point: &FrontPoint, path: &Path) -> Result<u64, ExportError> {
    let bundle = build(folder, point)?;
    bundle.write(path)?;
    Ok(bundle.bytes())
}

/// [`bundle`] with weights as this machine's kernels pack them, and the coded ones behind them, so that it loads fast here
/// and runs elsewhere; returns the bytes of each part.
///
/// # Errors
/// As there, and where the point does not run on the processor.
pub fn packed_bundle(folder: &Path, point: &FrontPoint, path: &Path) -> Result<PackedBytes, ExportError> {
    Ok(build(folder, point)?.write_packed(path, Isa::detect())?)
}

/// Builds `point` of the study in `folder` again and writes it as an ONNX file to `path`; returns its bytes.
///
/// # Errors
/// Where the study is damaged, the network has no ONNX form, or the disk refuses.
pub fn onnx_file(folder: &Path, point: &FrontPoint, path: &Path) -> Result<u64, ExportError> {
    write(path, &onnx::export_bundle(&build(folder, point)?)?)
}

/// Writes `point` as JSON to `path`; returns its bytes.
///
/// # Errors
/// Where the disk refuses.
pub fn json_file(point: &FrontPoint, path: &Path) -> Result<u64, ExportError> {
    let text = serde_json::to_string_pretty(point).unwrap_or_default() + "\n";
    write(path, text.as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<u64, ExportError> {
    crate::evaluate::artefact::write_whole(path, bytes).map_err(|error| ExportError::Write {
        path: path.display().to_string(),
        problem: error.to_string(),
    })?;
    Ok(bytes.len() as u64)
}
