//! Hash of source files, shared by the build scripts of the backends: recorded times of kernels
//! must not be mistaken for those of other kernels.

use std::fs;
use std::path::{Path, PathBuf};

/// Lists all files below `folder`.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).expect("the folder of the sources");
    for entry in entries.map(|entry| entry.expect("a file of the sources").path()) {
        if entry.is_dir() { files(&entry, found) } else { found.push(entry) }
    }
}

/// Adds `bytes` to a hash (FNV-1a with 64 bits).
fn add(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Gives the crate the hash of all files below `folders` as `PARETUNE_SOURCE_HASH`.
pub fn emit(folders: &[&str]) {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for folder in folders {
        println!("cargo::rerun-if-changed={folder}");
        let mut found = Vec::new();
        files(Path::new(folder), &mut found);
        found.sort();
        for file in found {
            let name = file.to_string_lossy();
            // Tests change no kernel.
            if name.contains("tests") {
                continue;
            }
            hash = add(hash, name.as_bytes());
            hash = add(hash, &fs::read(&file).expect("a file of the sources"));
        }
    }
    println!("cargo::rustc-env=PARETUNE_SOURCE_HASH={hash:016x}");
}
