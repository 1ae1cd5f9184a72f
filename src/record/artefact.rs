//! Files named by their content or by what they depend on, each with a checksum before the value. A
//! damaged file causes an error, never a wrong value.

use std::fs;
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

/// Reads the artefact at `path`.
///
/// # Errors
/// Fails if the file is missing or damaged.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ArtefactError> {
    let bytes = fs::read(path).map_err(|error| ArtefactError::new(path, error))?;
    let (checksum, body) = bytes
        .split_at_checked(blake3::OUT_LEN)
        .ok_or_else(|| ArtefactError::new(path, "is cut off"))?;
    if blake3::hash(body).as_bytes() != checksum {
        return Err(ArtefactError::new(path, "is damaged: the checksum does not match"));
    }
    postcard::from_bytes(body).map_err(|error| ArtefactError::new(path, error))
}

/// Writes the artefact at `path`, completely or not at all.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), ArtefactError> {
    let body = postcard::to_stdvec(value).map_err(|error| ArtefactError::new(path, error))?;
    let mut bytes = Vec::with_capacity(body.len() + blake3::OUT_LEN);
    bytes.extend_from_slice(blake3::hash(&body).as_bytes());
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

/// Writes a file so that a crash leaves either the old or the new content.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    let partial = path.with_file_name(name);
    fs::write(&partial, bytes)?;
    fs::File::open(&partial)?.sync_all()?;
    fs::rename(&partial, path)
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
}
