//! Lock file beside the store's folder, which ensures one owner process and names it.
//!
//! sled locks a file of its own as well, but that lock moves with the folder when the folder is set
//! aside, and it cannot name its owner.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::StoreError;

/// Guard that holds the lock until it is dropped or the process ends, in whatever way it ends.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code)] File);

pub(crate) fn acquire(folder: &Path, lock_file: &Path) -> Result<Lock, StoreError> {
    let io = |source| StoreError::Io { path: lock_file.to_owned(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(lock_file)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let owner = match (&mut file).take(200).read_to_string(&mut text) {
                Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
                _ => "another process".to_owned(),
            };
            return Err(StoreError::Locked { path: folder.to_owned(), owner });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    let name = std::env::current_exe()
        .ok()
        .and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "paretune".to_owned());
    file.set_len(0).map_err(io)?;
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    writeln!(file, "{name} (process {})", std::process::id()).map_err(io)?;
    Ok(Lock(file))
}
