//! Files named by their content or by what they depend on, each with a checksum before the value. A
//! damaged file causes an error, never a wrong value.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// An artefact that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("artefact `{path}`: {problem}")]
pub struct ArtefactError {
    /// Path of the file in question.
    pub path: String,
    /// Description of the problem for the user.
    pub problem: String,
}

impl ArtefactError {
    fn new(path: &Path, problem: impl std::fmt::Display) -> Self {
        Self { path: path.display().to_string(), problem: problem.to_string() }
    }
}

/// Name of the layout of artefacts, a part of every checksum. It changes with the types that are kept
/// in artefacts (plans, networks, images), so that a file of another version of the program is made
/// again like a damaged one: its bytes alone do not tell.
const LAYOUT: &str = "paretune artefact, layout 2";

/// Returns the checksum of the serialized value `body` in the current layout.
fn checksum(body: &[u8]) -> [u8; blake3::OUT_LEN] {
    blake3::derive_key(LAYOUT, body)
}

/// Largest size of an artefact in bytes.
const MAX_BYTES: u64 = 64 << 30;

/// Reads the artefact at `path`.
///
/// # Errors
/// Fails if the file is missing or damaged.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ArtefactError> {
    let bytes = paretune_kernels::file::read(path, MAX_BYTES)
        .map_err(|error| ArtefactError::new(path, error))?;
    let (expected, body) = bytes
        .split_at_checked(blake3::OUT_LEN)
        .ok_or_else(|| ArtefactError::new(path, "is cut off"))?;
    if checksum(body) != expected {
        return Err(ArtefactError::new(
            path,
            "is damaged or of another version: the checksum does not match",
        ));
    }
    postcard::from_bytes(body).map_err(|error| ArtefactError::new(path, error))
}

/// Returns whether the artefact at `path` is there and its checksum matches.
#[must_use]
pub fn is_whole(path: &Path) -> bool {
    let Ok(bytes) = fs::read(path) else { return false };
    bytes
        .split_at_checked(blake3::OUT_LEN)
        .is_some_and(|(expected, body)| checksum(body) == expected)
}

/// Writes the artefact at `path`, completely or not at all.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), ArtefactError> {
    let body = postcard::to_stdvec(value).map_err(|error| ArtefactError::new(path, error))?;
    let mut bytes = Vec::with_capacity(body.len() + blake3::OUT_LEN);
    bytes.extend_from_slice(&checksum(&body));
    bytes.extend_from_slice(&body);
    write_whole(path, &bytes).map_err(|error| ArtefactError::new(path, error))
}

/// Reads the artefact at `path`, or computes it with `make` and stores it. A damaged artefact is
/// computed again.
///
/// # Errors
/// Fails if `make` fails or if the file cannot be written.
pub fn read_or_make<T, E>(path: &Path, make: impl FnOnce() -> Result<T, E>) -> Result<T, E>
where
    T: Serialize + DeserializeOwned,
    E: From<ArtefactError>,
{
    if path.exists() {
        match read(path) {
            Ok(value) => return Ok(value),
            Err(error) => tracing::warn!("{error}; it is made again"),
        }
    }
    let value = make()?;
    write(path, &value)?;
    Ok(value)
}

/// Removes a folder whose contents can be computed again. A failure is harmless.
pub fn discard(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::debug!("{} stays: {error}", folder.display());
        }
        _ => {}
    }
}

/// Mark in the names of files that are being written, before the number of the process.
const PARTIAL: &str = ".partial-";

/// Writes a file so that a crash leaves either the old or the new content. After a failure, such as
/// a full disk, nothing is left of the new content.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!("{PARTIAL}{}", std::process::id()));
    let partial = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().inspect_err(|_| {
        // The first error is the one to report.
        let _ = fs::remove_file(&partial);
    })?;
    // The new name is durable only after its folder is synced, which not every system can do.
    if let Some(Ok(folder)) = path.parent().map(fs::File::open) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Removes the files in `folder` that killed processes were writing. A failure is harmless.
pub fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| {
            // Images are written under names that end in `.part`.
            let partial = name.rsplit_once(PARTIAL).map(|(_, process)| process);
            partial.or_else(|| name.strip_suffix(".part")?.rsplit_once('.').map(|(_, id)| id))
        });
        let Some(process) = process.and_then(|text| text.parse::<u32>().ok()) else { continue };
        if process != std::process::id() && !Path::new(&format!("/proc/{process}")).exists() {
            match fs::remove_file(entry.path()) {
                Ok(()) => tracing::info!("{} was left unfinished", entry.path().display()),
                Err(error) => tracing::debug!("{} stays: {error}", entry.path().display()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.numbers");
        write(&path, &vec![1_u32, 2, 3]).unwrap();
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), [1, 2, 3]);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(read::<Vec<u32>>(&path).unwrap_err().to_string().contains("damaged"));
        let made: Result<Vec<u32>, ArtefactError> = read_or_make(&path, || Ok(vec![4]));
        assert_eq!(made.unwrap(), [4]);
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), [4]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no partial files stay");
    }

    #[test]
    fn artefacts_of_another_layout_are_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.numbers");
        // The bytes of another version may well decode, to other numbers.
        let body = postcard::to_stdvec(&vec![1_u32, 2, 3]).unwrap();
        fs::write(&path, [&blake3::hash(&body).as_bytes()[..], &body].concat()).unwrap();
        assert!(!is_whole(&path));
        assert!(read::<Vec<u32>>(&path).unwrap_err().to_string().contains("another version"));
        let made: Result<Vec<u32>, ArtefactError> = read_or_make(&path, || Ok(vec![4]));
        assert_eq!(made.unwrap(), [4]);
        assert!(is_whole(&path));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn nothing_unfinished_stays_after_a_failure_or_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.numbers");
        // The target is a folder, so the last step fails as it would for lack of space.
        fs::create_dir_all(path.join("in the way")).unwrap();
        assert!(write_whole(&path, b"content").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // No process has the largest number.
        for name in ["a.network.partial-4294967295", "b.images.4294967295.part"] {
            fs::write(folder.path().join(name), b"half").unwrap();
        }
        let mine = format!("c.partial-{}", std::process::id());
        fs::write(folder.path().join(&mine), b"half").unwrap();
        fs::write(folder.path().join("d.part"), b"of the user").unwrap();
        sweep(folder.path());
        let mut left: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [mine.as_str(), "d.part", "x.numbers"]);
    }
}
