//! Writes a folder of files atomically.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Creates or replaces `folder` with exactly these files. They are written and synced in a
/// temporary folder beside it, which is then renamed. An existing folder is only replaced if it has
/// no other files.
pub(super) fn write(folder: &Path, files: &[(&str, &[u8])]) -> Result<(), String> {
    let replaces = folder.symlink_metadata().is_ok();
    if replaces {
        only_these(folder, files)?;
    }
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(say("cannot create the folder above"))?;
    let fresh = sibling(folder)?;
    let written = write_files(&fresh, files)
        .and_then(|()| if replaces { exchange(&fresh, folder) } else { rename(&fresh, folder) });
    // After an exchange the temporary name has the old bundle; after a failure the new one.
    let cleaned = if fresh.exists() { fs::remove_dir_all(&fresh) } else { Ok(()) };
    written?;
    cleaned.map_err(say("cannot remove what was replaced"))?;
    sync(parent)
}

/// Refuses to replace a folder that contains other files.
fn only_these(folder: &Path, files: &[(&str, &[u8])]) -> Result<(), String> {
    let refuse = || "exists and is not a bundle; remove it or choose another name".to_owned();
    for entry in fs::read_dir(folder).map_err(|_| refuse())? {
        let name = entry.map_err(say("cannot be read"))?.file_name();
        if !files.iter().any(|(file, _)| name == *file) {
            return Err(refuse());
        }
    }
    Ok(())
}

/// Returns an unused name beside `folder`.
fn sibling(folder: &Path) -> Result<PathBuf, String> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut name = std::ffi::OsString::from(".");
    name.push(folder.file_name().ok_or("has no name")?);
    name.push(format!(".{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    Ok(folder.with_file_name(name))
}

fn write_files(fresh: &Path, files: &[(&str, &[u8])]) -> Result<(), String> {
    fs::create_dir(fresh).map_err(say("cannot be created"))?;
    for (name, bytes) in files {
        let write = || {
            let mut file = File::create(fresh.join(name))?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(say("cannot be written"))?;
    }
    sync(fresh)
}

fn rename(fresh: &Path, folder: &Path) -> Result<(), String> {
    fs::rename(fresh, folder).map_err(say("cannot be put in place"))
}

/// Swaps two folders atomically if the system can.
fn exchange(fresh: &Path, folder: &Path) -> Result<(), String> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        if renameat2(AT_FDCWD, fresh, AT_FDCWD, folder, RenameFlags::RENAME_EXCHANGE).is_ok() {
            return Ok(());
        }
    }
    // On other systems the folder is missing for a moment, but never incomplete.
    let old = sibling(folder)?;
    fs::rename(folder, &old).map_err(say("cannot be replaced"))?;
    rename(fresh, folder).inspect_err(|_| {
        // Best effort: the first error is the one to report.
        let _ = fs::rename(&old, folder);
    })?;
    fs::remove_dir_all(&old).map_err(say("cannot remove what was replaced"))
}

/// Makes the names in a folder durable.
fn sync(folder: &Path) -> Result<(), String> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(say("cannot be synced"))
}

fn say(what: &str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{what}: {error}")
}
