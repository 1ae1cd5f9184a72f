//! Exports a point of an archive as JSON ([`json_file`]),
//! and a study to formats that other tools read ([`t4()`], [`optuna()`]).

#![forbid(unsafe_code)]

mod history;
mod optuna;
mod t4;

use std::path::Path;

use paretune_record::front::{Front, FrontPoint};

pub use history::{History, HistoryTrial, timestamp};
pub use optuna::optuna;
pub use t4::t4;

/// Reason why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No point matches the request.
    #[error("{0}")]
    Pick(String),
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
            .ok_or_else(|| {
                ExportError::Pick("the archive is empty: there is nothing to export".into())
            });
    };
    let mut ids: Vec<&FrontPoint> = front
        .points
        .iter()
        .chain(&front.nearest_miss)
        .filter(|point| point.id.starts_with(pick))
        .collect();
    ids.dedup_by(|left, right| left.id == right.id);
    match ids[..] {
        [point] => Ok(point),
        [] => Err(ExportError::Pick(format!(
            "no point of the archive has an id that begins with `{pick}`"
        ))),
        _ => Err(ExportError::Pick(format!(
            "the ids of {} points begin with `{pick}`; give more characters",
            ids.len()
        ))),
    }
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
    paretune_record::artefact::write_whole(path, bytes).map_err(|error| ExportError::Write {
        path: path.display().to_string(),
        problem: error.to_string(),
    })?;
    Ok(bytes.len() as u64)
}
