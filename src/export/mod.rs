//! Exports a point of an archive to a form that runs without the study ([`bundle`], [`onnx_file`]),
//! and a study to formats that other tools read ([`t4()`], [`optuna()`]).

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

/// Reason why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No point matches the request.
    #[error("{0}")]
    Pick(String),
    /// The file `study.toml` cannot be read.
    #[error(transparent)]
    Study(#[from] RequestError),
    /// The artefacts of the study cannot be loaded.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// The configuration of the point cannot be built again.
    #[error("the point cannot be built again: {0}")]
    Realize(#[from] RealizeError),
    /// The bundle cannot be written.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The ONNX file cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The journal cannot be read.
    #[error("`{path}`: {problem}")]
    Journal {
        /// Path of the journal's file.
        path: String,
        /// Description of the problem for the user.
        problem: String,
    },
    /// The output file cannot be written.
    #[error("cannot write `{path}`: {problem}")]
    Write {
        /// Path of the output file.
        path: String,
        /// Description of the problem for the user.
        problem: String,
    },
}

/// Returns the point whose id begins with `pick`. Without `pick`, returns the best point, or else
/// the nearest miss.
///
/// # Errors
/// Fails if no point or several points match.
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
/// Fails if the study is damaged.
pub fn build(folder: &Path, point: &FrontPoint) -> Result<Bundle, ExportError> {
    let study = StudyFile::read(folder)?;
    let isa = Isa::detect();
    let mut progress = |task: &str, share: f64| tracing::info!("{task}: {:.0} %", share * 100.0);
    let subject = Subject::open(&study.subject(folder), isa, &mut progress)?;
    let plan = realize(&subject, &point.config, isa, &mut progress)?;
    Ok(subject.bundle(plan, &point.id))
}

/// Builds `point` of the study in `folder` again, writes it as a bundle to `path` and returns its
/// bytes.
///
/// # Errors
/// Fails if the study is damaged or the file cannot be written.
pub fn bundle(folder: &Path, point: &FrontPoint, path: &Path) -> Result<u64, ExportError> {
    let bundle = build(folder, point)?;
    bundle.write(path)?;
    Ok(bundle.bytes())
}

/// Writes a [`bundle`] with packed weights for this machine's kernels besides the coded ones, so
/// that it loads quickly here and still runs elsewhere. Returns the bytes of each part.
///
/// # Errors
/// Fails like [`bundle`], and if the point does not run on the processor.
pub fn packed_bundle(folder: &Path, point: &FrontPoint, path: &Path) -> Result<PackedBytes, ExportError> {
    Ok(build(folder, point)?.write_packed(path, Isa::detect())?)
}

/// Builds `point` of the study in `folder` again, writes it as an ONNX file to `path` and returns
/// its bytes.
///
/// # Errors
/// Fails if the study is damaged, if ONNX cannot express the network, or if the file cannot be
/// written.
pub fn onnx_file(folder: &Path, point: &FrontPoint, path: &Path) -> Result<u64, ExportError> {
    write(path, &onnx::export_bundle(&build(folder, point)?)?)
}

/// Writes `point` as JSON to `path` and returns its bytes.
///
/// # Errors
/// Fails if the file cannot be written.
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
