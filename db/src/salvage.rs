//! Recovery of records straight from the bytes of a store's files, without sled.
//!
//! sled writes values unchanged into its log, so the magic number finds every record that still has
//! a right checksum. Where damage makes sled panic, hang or cut its log short, only the records
//! that were hit are lost.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::codec::{HEADER_BYTES, MAGIC, MAX_FRAME_BYTES, decode_prefix};
use crate::{Key, Record};

/// Bytes that are read at a time. Each chunk also carries over the possible beginning of a frame.
const CHUNK_BYTES: usize = 1 << 20;

/// Bytes of records that are kept in memory at most while sled opens their folder.
const MAX_KEPT_BYTES: usize = 256 << 20;

/// Calls `found` with every intact record in the regular files of `folder` and with its bytes. The
/// same key may come several times.
pub(crate) fn scan(folder: &Path, found: &mut dyn FnMut(Record, &[u8])) -> io::Result<()> {
    for file in files(folder)? {
        scan_stream(&mut File::open(file)?, found)?;
    }
    Ok(())
}

/// Records that were read from the files of a store before sled opens them: sled empties a file
/// whose header it rejects.
#[derive(Debug, Default)]
pub(crate) struct FoundRecords {
    newest: HashMap<Key, FoundRecord>,
    bytes: usize,
}

/// Newest version of one record in [`FoundRecords`].
#[derive(Debug)]
struct FoundRecord {
    created: u64,
    /// Encoded record; absent once too many bytes are kept already.
    frame: Option<Box<[u8]>>,
}

/// Records that sled no longer knows, as [`FoundRecords::lost`] finds them.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// Keys and encoded records to be stored again.
    pub frames: Vec<(Key, Box<[u8]>)>,
    /// Number of records whose bytes were not kept.
    pub gone: u64,
}

impl FoundRecords {
    /// Reads all records of a folder. A folder that does not exist has none.
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let mut found_records = Self::default();
        if folder.exists() {
            scan(folder, &mut |record, frame| found_records.add(&record, frame))?;
        }
        Ok(found_records)
    }

    fn add(&mut self, record: &Record, frame: &[u8]) {
        let key = record.key();
        if self.newest.get(&key).is_some_and(|other| other.created >= record.created) {
            return;
        }
        let kept = self.bytes + frame.len() <= MAX_KEPT_BYTES;
        let record = FoundRecord { created: record.created, frame: kept.then(|| frame.into()) };
        self.bytes += record.frame.as_ref().map_or(0, |frame| frame.len());
        if let Some(FoundRecord { frame: Some(older), .. }) = self.newest.insert(key, record) {
            self.bytes -= older.len();
        }
    }

    /// Returns the records that sled lacks or knows only in an older version; `known` has the
    /// creation times that sled knows. Nothing is ever deleted from a store, so these records were
    /// lost to damage.
    pub(crate) fn lost(self, known: &HashMap<Key, u64>) -> Lost {
        let mut lost = Lost::default();
        for (key, record) in self.newest {
            if known.get(&key).is_some_and(|&known| known >= record.created) {
                continue;
            }
            match record.frame {
                Some(frame) => lost.frames.push((key, frame)),
                None => lost.gone += 1,
            }
        }
        lost
    }
}

/// Lists the regular files in a folder and below it, without following links.
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

fn scan_stream(stream: &mut dyn Read, found: &mut dyn FnMut(Record, &[u8])) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(CHUNK_BYTES + MAX_FRAME_BYTES);
    loop {
        let end = stream.take(CHUNK_BYTES as u64).read_to_end(&mut buffer)? == 0;
        // A frame that begins before `safe` lies wholly in the buffer.
        let safe = if end { buffer.len() } else { buffer.len().saturating_sub(MAX_FRAME_BYTES) };
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
            if buffer.len() - at >= HEADER_BYTES
                && let Ok((record, length)) = decode_prefix(&buffer[at..])
            {
                found(record, &buffer[at..at + length]);
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
