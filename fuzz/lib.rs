//! Helpers that the fuzz targets share.
//!
//! Readers of files take paths, so inputs are written into a temporary folder that a process keeps.

#![forbid(unsafe_code)]

use std::path::Path;

thread_local! {
    static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("a temporary folder");
}

/// Calls `read` with a folder that holds `files` and nothing else.
pub fn with_files(files: &[(&str, &[u8])], read: impl FnOnce(&Path)) {
    FOLDER.with(|folder| {
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).expect("writing a temporary file");
        }
        read(folder.path());
        for (name, _) in files {
            std::fs::remove_file(folder.path().join(name)).expect("removing a temporary file");
        }
    });
}
