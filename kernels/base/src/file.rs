//! Bounded reads of regular files.
//!
//! A path from outside may lead to a device that never ends or to a pipe that nobody writes to.
//! Both are refused before the first byte, and a regular file beyond a limit before memory is
//! asked for.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// Largest size of a text that people write or read, in bytes.
pub const MAX_TEXT_BYTES: u64 = 64 << 20;

/// Opens a regular file and returns it with its length in bytes. Never waits for a writer.
///
/// # Errors
/// Fails if the path does not lead to a regular file that can be read.
pub fn open(path: &Path) -> Result<(File, u64)> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
    }
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(Error::new(ErrorKind::IsADirectory, "it is a folder, not a file"));
    }
    if !metadata.is_file() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "it is no regular file (but a device, a pipe or a socket)",
        ));
    }
    Ok((file, metadata.len()))
}

/// Reads a regular file of at most `most` bytes.
///
/// # Errors
/// Fails like [`open`], and if the file is larger.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let too_long = |bytes: u64| {
        Error::new(
            ErrorKind::FileTooLarge,
            format!("it has {bytes} bytes, and at most {most} are read"),
        )
    };
    let (file, length) = open(path)?;
    if length > most {
        return Err(too_long(length));
    }
    let mut bytes = Vec::new();
    let capacity = usize::try_from(length).map_err(|_| too_long(length))?;
    bytes.try_reserve_exact(capacity).map_err(|_| Error::from(ErrorKind::OutOfMemory))?;
    // The file may grow meanwhile, and files of the system state a length of zero.
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_long(bytes.len() as u64)) } else { Ok(bytes) }
}

/// Reads a text of at most [`MAX_TEXT_BYTES`].
///
/// # Errors
/// Fails like [`read`], and if the bytes are not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = read(path, MAX_TEXT_BYTES)?;
    String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "seven b").unwrap();
        assert_eq!(read(&path, 7).unwrap(), b"seven b");
        assert_eq!(read(&path, 6).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(read_text(&path).unwrap(), "seven b");
        assert_eq!(read(folder.path(), 6).unwrap_err().kind(), ErrorKind::IsADirectory);
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[cfg(unix)]
    #[test]
    fn devices_and_pipes_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("zero");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        assert_eq!(read(&link, 1 << 40).unwrap_err().kind(), ErrorKind::InvalidInput);
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&pipe, 1 << 40).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
