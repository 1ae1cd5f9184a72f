//! Default paths of the result store and the studies, in the user's data folder.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use paretune_record::journal::JOURNAL;
use paretune_record::request::STUDY;

/// Returns the program's folder in the user's data folder. `PARETUNE_HOME` overrides it.
pub fn home() -> anyhow::Result<PathBuf> {
    if let Some(home) = std::env::var_os("PARETUNE_HOME").filter(|home| !home.is_empty()) {
        return Ok(PathBuf::from(home));
    }
    directories::ProjectDirs::from("", "", "paretune")
        .map(|folders| folders.data_dir().to_owned())
        .ok_or_else(|| anyhow!("there is no home folder to keep results in; set PARETUNE_HOME"))
}

/// Checks that a study may be written to `folder`: it does not exist, is empty, or holds a study.
///
/// # Errors
/// Fails if the folder holds something else.
pub fn check_study_folder(folder: &Path) -> anyhow::Result<()> {
    let mut entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(error).with_context(|| format!("--study `{}`", folder.display()));
        }
    };
    let study = ["study.toml", "journal.jsonl"].iter().any(|name| folder.join(name).exists());
    if study || entries.next().is_none() {
        return Ok(());
    }
    Err(anyhow!(
        "--study `{}` is not empty: it has other contents and no study (no study.toml); name a new or \
         an empty folder",
        folder.display()
    ))
}

/// Returns the path of the result store: `given`, or the default.
pub fn store(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => home()?.join("db"),
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot create `{}`", parent.display()))?;
    }
    Ok(path)
}

/// Returns the default folder of studies.
pub fn studies() -> anyhow::Result<PathBuf> {
    Ok(home()?.join("studies"))
}

/// Returns the folder of the study `name`, which is a folder or the name of one in the default
/// folder. Without a name, returns the study that was changed last.
pub fn study(name: Option<&Path>) -> anyhow::Result<PathBuf> {
    let studies = studies()?;
    match name {
        Some(path) if is_study(path) => Ok(path.to_owned()),
        Some(path) if is_study(&studies.join(path)) => Ok(studies.join(path)),
        Some(path) => Err(anyhow!(
            "there is no study in `{}` (no study.toml), and none of that name in `{}`",
            path.display(),
            studies.display()
        )),
        None => latest(&studies).ok_or_else(|| {
            anyhow!("there is no study yet in `{}`; `paretune search` makes one", studies.display())
        }),
    }
}

/// Returns whether `folder` has what the study in it can be read from.
fn is_study(folder: &Path) -> bool {
    folder.join(STUDY).is_file() || folder.join(JOURNAL).is_file()
}

/// Lists the folders of studies in `studies`, each with the time of its last change, latest first.
pub fn all(studies: &Path) -> Vec<(SystemTime, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(studies) else { return Vec::new() };
    let changed = |folder: &Path| {
        let times = [STUDY, JOURNAL].map(|name| folder.join(name).metadata().ok()?.modified().ok());
        times.into_iter().flatten().max()
    };
    let mut all: Vec<(SystemTime, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((changed(&path)?, path))
        })
        .collect();
    all.sort_by(|left, right| right.cmp(left));
    all
}

fn latest(studies: &Path) -> Option<PathBuf> {
    all(studies).into_iter().next().map(|(_, path)| path)
}
