//! A study as commands that only read it see it.

use std::io::Write as _;
use std::path::Path;

use paretune_record::again::StudyRecord;
use paretune_record::front::State;

use super::usage;

/// Reads the study in `folder`, and says so on standard error if it has not ended.
pub(super) fn read_study(folder: &Path) -> anyhow::Result<StudyRecord> {
    let study = StudyRecord::read(folder).map_err(usage)?;
    let note = match study.state {
        None => return Ok(study),
        Some(State::Running) => "is running",
        Some(State::Stopped) => "was stopped before its end; the same `search` resumes it",
    };
    // Nobody may read it.
    let _ = writeln!(
        std::io::stderr(),
        "note: the study {note}. Points that are marked with ~ have the figures of the search"
    );
    Ok(study)
}
