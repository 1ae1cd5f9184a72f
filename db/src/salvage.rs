//! Records read straight from the bytes of a store's files, without sled.
//!
//! sled writes values unchanged into its log, so every record that still has a right checksum can be found by its
//! magic. Where damage makes sled panic, hang or cut its log short, nothing measured is lost but what was hit.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::codec::{HEADER, MAGIC, MAX_FRAME, decode_prefix};
use crate::{Key, Record};

/// Read at a time; each chunk also carries over what may be the beginning of a frame.
const CHUNK: usize = 1 << 20;

/// Calls `found` with every intact record in the regular files of `folder`; the same key may come several times.
pub(crate) fn scan(folder: &Path, found: &mut dyn FnMut(Record)) -> io::Result<()> {
    for file in files(folder)? {
        scan_stream(&mut File::open(file)?, found)?;
    }
    Ok(())
}

/// The newest intact record of every key that is in `folder` but not, or older, in `known` (created times by key).
pub(crate) fn missing(folder: &Path, known: &HashMap<Key, u64>) -> io::Result<HashMap<Key, Record>> {
    let mut lost: HashMap<Key, Record> = HashMap::new();
    scan(folder, &mut |record| {
        let key = record.key();
        let newest = known.get(&key).copied().max(lost.get(&key).map(|other| other.created));
        if newest.is_none_or(|newest| record.created > newest) {
            lost.insert(key, record);
        }
    })?;
    Ok(lost)
}

/// Regular files in a folder and below it; links are not followed.
pub(crate) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

fn scan_stream(stream: &mut dyn Read, found: &mut dyn FnMut(Record)) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(CHUNK + MAX_FRAME);
    loop {
        let end = stream.take(CHUNK as u64).read_to_end(&mut buffer)? == 0;
        // A frame that begins before `safe` lies wholly in the buffer.
        let safe = if end { buffer.len() } else { buffer.len().saturating_sub(MAX_FRAME) };
        let mut at = 0;
        while at < safe {
            let Some(step) = buffer[at..].iter().position(|&byte| byte == MAGIC[0]) else {
                at = buffer.len();
                break;
            };
            at += step;
            if at >= safe {
                break;
            }
            if buffer.len() - at >= HEADER
                && let Ok((record, length)) = decode_prefix(&buffer[at..])
            {
                found(record);
                at += length;
            } else {
                at += 1;
            }
        }
        if end {
            return Ok(());
        }
        buffer.drain(..at.min(buffer.len()));
    }
}
