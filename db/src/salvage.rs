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

/// The most bytes of records that are kept in memory while sled opens the folder that they lie in.
const MAX_KEPT: usize = 256 << 20;

/// Calls `found` with every intact record in the regular files of `folder` and its bytes; the same key may come
/// several times.
pub(crate) fn scan(folder: &Path, found: &mut dyn FnMut(Record, &[u8])) -> io::Result<()> {
    for file in files(folder)? {
        scan_stream(&mut File::open(file)?, found)?;
    }
    Ok(())
}

/// What the files of a store hold, read before sled opens them: sled empties a file whose head it does not like.
#[derive(Debug, Default)]
pub(crate) struct Harvest {
    newest: HashMap<Key, Sheaf>,
    bytes: usize,
}

/// One record of a [`Harvest`].
#[derive(Debug)]
struct Sheaf {
    created: u64,
    /// Not kept where there are too many.
    frame: Option<Box<[u8]>>,
}

/// What [`Harvest::lost`] gives.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// Keys and bytes as they are to be stored.
    pub frames: Vec<(Key, Box<[u8]>)>,
    /// Records that are gone.
    pub gone: u64,
}

impl Harvest {
    /// Reads a folder; one that does not exist holds nothing.
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let mut harvest = Self::default();
        if folder.exists() {
            scan(folder, &mut |record, frame| harvest.add(&record, frame))?;
        }
        Ok(harvest)
    }

    fn add(&mut self, record: &Record, frame: &[u8]) {
        let key = record.key();
        if self.newest.get(&key).is_some_and(|other| other.created >= record.created) {
            return;
        }
        let kept = self.bytes + frame.len() <= MAX_KEPT;
        let sheaf = Sheaf { created: record.created, frame: kept.then(|| frame.into()) };
        self.bytes += sheaf.frame.as_ref().map_or(0, |frame| frame.len());
        if let Some(Sheaf { frame: Some(older), .. }) = self.newest.insert(key, sheaf) {
            self.bytes -= older.len();
        }
    }

    /// What is not, or only older, in the store as sled sees it (created times by key). Nothing is ever deleted from
    /// a store, so these were lost to damage.
    pub(crate) fn lost(self, known: &HashMap<Key, u64>) -> Lost {
        let mut lost = Lost::default();
        for (key, sheaf) in self.newest {
            if known.get(&key).is_some_and(|&known| known >= sheaf.created) {
                continue;
            }
            match sheaf.frame {
                Some(frame) => lost.frames.push((key, frame)),
                None => lost.gone += 1,
            }
        }
        lost
    }
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

fn scan_stream(stream: &mut dyn Read, found: &mut dyn FnMut(Record, &[u8])) -> io::Result<()> {
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
