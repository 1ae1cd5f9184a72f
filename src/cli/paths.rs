//! Default paths of the result store and the studies, in the user's data folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

/// Returns the program's folder in the user's data folder. `PARETUNE_HOME` overrides it.
pub fn home() -> anyhow::Result<PathBuf> {
    if let Some(home) = std::env::var_os("PARETUNE_HOME").filter(|home| !home.is_empty()) {
        return Ok(PathBuf::from(home));
    }
    directories::ProjectDirs::from("", "", "paretune")
        .map(|folders| folders.data_dir().to_owned())
        .ok_or_else(|| anyhow!("there is no home folder to keep results in; set PARETUNE_HOME"))
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
        Some(path) if path.join("study.toml").is_file() => Ok(path.to_owned()),
        Some(path) if studies.join(path).join("study.toml").is_file() => Ok(studies.join(path)),
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

fn latest(studies: &Path) -> Option<PathBuf> {
    std::fs::read_dir(studies)
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let changed = path.join("study.toml").metadata().ok()?.modified().ok()?;
            Some((changed, path))
        })
        .max()
        .map(|(_, path)| path)
}
