//! Opening of sled under a watchdog.
//!
//! A folder with flipped bytes can make sled panic or never return, at opening or at any later
//! read. A thread of its own therefore opens the folder and reads it once, and must keep making
//! progress.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::codec::decode;
use crate::guard::guarded;
use crate::{Key, StoreError, salvage};

/// Bytes of sled's page cache. Records are small and mostly read once.
const CACHE_BYTES: u64 = 64 << 20;
/// Time for which opening waits for sled's file lock, which sled frees a little after the last
/// handle is dropped.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without progress after which a folder counts as damaged, whatever its size.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// Assumed speed of a slow disk, which extends the time allowed for large folders.
const SLOW_DISK_BYTES_PER_SECOND: f64 = 10e6;

/// Contents of a folder, seen in one reading.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Time of creation of each intact record.
    pub known: HashMap<Key, u64>,
    /// Number of entries that are no records: wrong checksum or wrong key.
    pub bad: u64,
}

pub(crate) enum Opened {
    Sound(sled::Db, Contents),
    /// The folder must not be used; the text is sled's message.
    Damaged(String),
}

enum Failure {
    Damaged(String),
    Io(io::Error),
}

/// Opens the folder with sled and reads all of it once. Damaged data give [`Opened::Damaged`];
/// `Err` means that the operating system refused.
pub(crate) fn open(folder: &Path, timeout: Duration) -> Result<Opened, StoreError> {
    let io = |source| StoreError::Io { path: folder.to_owned(), source };
    let bytes = disk_bytes(folder).map_err(io)?;
    let timeout = timeout + Duration::from_secs_f64(bytes as f64 / SLOW_DISK_BYTES_PER_SECOND);
    let progress = Arc::new(AtomicU64::new(0));
    let abandoned = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = channel();
    let (path, ticks, stop) = (folder.to_owned(), Arc::clone(&progress), Arc::clone(&abandoned));
    let work = move || {
        let result = guarded(|| read_all(&path, &ticks, &stop))
            .unwrap_or_else(|text| Err(Failure::Damaged(text)));
        let _ = sender.send(result);
    };
    std::thread::Builder::new().name("paretune-store-open".to_owned()).spawn(work).map_err(io)?;

    let (mut seen, mut since) = (0, Instant::now());
    loop {
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok(Ok((db, contents))) => return Ok(Opened::Sound(db, contents)),
            Ok(Err(Failure::Io(source))) => return Err(io(source)),
            Ok(Err(Failure::Damaged(text))) => return Ok(Opened::Damaged(text)),
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(Opened::Damaged("sled ended its thread".to_owned()));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = progress.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() > timeout {
            abandoned.store(true, Ordering::Relaxed);
            return Ok(Opened::Damaged(format!(
                "sled gave no answer for {:.0} s",
                timeout.as_secs_f64()
            )));
        }
    }
}

/// Returns the size of all files in the folder in bytes, or 0 if the folder does not exist.
pub(crate) fn disk_bytes(folder: &Path) -> io::Result<u64> {
    if !folder.exists() {
        return Ok(0);
    }
    // sled renames and removes its files at any time: a file that is gone has no size.
    Ok(salvage::files(folder)?
        .iter()
        .filter_map(|file| file.metadata().ok())
        .map(|data| data.len())
        .sum())
}

fn read_all(
    path: &Path,
    ticks: &AtomicU64,
    stop: &AtomicBool,
) -> Result<(sled::Db, Contents), Failure> {
    let db = open_unlocked(path, ticks)?;
    match read_contents(&db, ticks, stop) {
        Ok(contents) => Ok((db, contents)),
        Err(failure) => {
            // The destructor would write to a folder that is about to be set aside, and may hang on
            // it.
            std::mem::forget(db);
            Err(failure)
        }
    }
}

fn open_unlocked(path: &Path, ticks: &AtomicU64) -> Result<sled::Db, Failure> {
    let start = Instant::now();
    loop {
        let config =
            sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        match config.open() {
            Ok(db) => return Ok(db),
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                if start.elapsed() > LOCK_TIMEOUT {
                    return Err(Failure::Io(error));
                }
                ticks.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(failure(error)),
        }
    }
}

fn read_contents(db: &sled::Db, ticks: &AtomicU64, stop: &AtomicBool) -> Result<Contents, Failure> {
    let mut contents = Contents::default();
    let mut previous: Option<sled::IVec> = None;
    for entry in db.iter() {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::Damaged("abandoned".to_owned()));
        }
        ticks.fetch_add(1, Ordering::Relaxed);
        let (key, value) = entry.map_err(failure)?;
        if previous.as_ref().is_some_and(|previous| previous >= &key) {
            return Err(Failure::Damaged("sled's tree goes in circles".to_owned()));
        }
        match Key::from_slice(&key).map(|key| (key, decode(&key, &value))) {
            Some((key, Ok(record))) => {
                contents.known.insert(key, record.created);
            }
            _ => contents.bad += 1,
        }
        previous = Some(key);
    }
    Ok(contents)
}

/// Classifies an error of sled: bad data can be set aside, a full disk or a missing permission
/// cannot.
fn failure(error: sled::Error) -> Failure {
    match error {
        sled::Error::Io(error) if !is_data(&error) => Failure::Io(error),
        error => Failure::Damaged(error.to_string()),
    }
}

fn is_data(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}
