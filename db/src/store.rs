//! The store: records by key, each of them flushed before it is acknowledged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::codec::{decode, encode};
use crate::guard::guarded;
use crate::lock::{Lock, acquire};
use crate::open::{OPEN_TIMEOUT, Opened, disk_bytes, open};
use crate::record::now;
use crate::salvage::{self, FoundRecords};
use crate::{HARDWARE, Key, Outcome, Record, StoreError};

/// Measurements by key on disk. Threads share the store by reference; one process owns it.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Open database; `None` only if compaction could not open the new folder.
    db: Option<sled::Db>,
    notices: Mutex<Vec<String>>,
    // The last field, so that the lock is released after sled is closed.
    _lock: Lock,
}

/// Numbers of records in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Number of records by kind, failed ones included.
    pub kinds: BTreeMap<String, u64>,
    /// Number of records whose outcome is a failure.
    pub failed: u64,
    /// Number of entries with a wrong checksum or under a wrong key.
    pub damaged: u64,
    /// Size of the folder in bytes.
    pub bytes: u64,
    /// Number of records by hardware id.
    pub hardware: BTreeMap<String, u64>,
}

/// Numbers of sound and damaged records, as [`Store::verify`] counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Number of records with a right checksum under their own key.
    pub intact: u64,
    /// Number of entries that are not intact.
    pub damaged: u64,
    /// Number of intact records that are in the files but unknown to sled.
    pub unreachable: u64,
}

/// Sizes before and after a compaction by [`Store::compact`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Number of records that were kept.
    pub records: u64,
    /// Size of the folder before compaction, in bytes.
    pub bytes_before: u64,
    /// Size of the folder after compaction, in bytes.
    pub bytes_after: u64,
}

impl Store {
    /// Opens the store in the folder `path`, or creates it. A lock file `NAME.lock` is created
    /// beside the folder.
    ///
    /// A folder that sled cannot read is renamed to `NAME.damaged-TIME`. Its intact records are
    /// copied to a fresh folder, and [`Store::notices`] reports it.
    ///
    /// # Errors
    /// Returns [`StoreError::Locked`] if another process has the store open, and
    /// [`StoreError::Unusable`] or [`StoreError::Io`] if the operating system cannot provide such a
    /// folder.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_within(path, OPEN_TIMEOUT)
    }

    pub(crate) fn open_within(path: &Path, timeout: Duration) -> Result<Self, StoreError> {
        let unusable = |reason: &str| StoreError::Unusable {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        if path.file_name().is_none() {
            return Err(unusable("it has no name"));
        }
        if path.exists() && !path.is_dir() {
            return Err(unusable("it is a file, not a folder"));
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|source| StoreError::Io { path: parent.to_owned(), source })?;
        }
        let lock = acquire(path, &with_suffix(path, ".lock"))?;
        finish_compaction(path)
            .map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
        let mut notices = Vec::new();
        let db = open_or_set_aside(path, timeout, &mut notices)?;
        Ok(Self { path: path.to_owned(), db: Some(db), notices: Mutex::new(notices), _lock: lock })
    }

    /// Returns the folder that holds the store.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the messages for the user since the last call: damage that was found, records that
    /// were recovered.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the record filed under `key`. A damaged record reads as absent and causes a notice.
    ///
    /// # Errors
    /// Returns [`StoreError::Damaged`] if sled fails.
    pub fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        let Some(bytes) = self.sled(|db| db.get(key.as_bytes()))? else {
            return Ok(None);
        };
        let record = decode(key, &bytes).ok();
        if record.is_none() {
            self.notice(format!(
                "the record {key} in the result store is damaged and will be measured again"
            ));
        }
        Ok(record)
    }

    /// Stores the record under its key, replacing an older one, and returns once it is on disk.
    ///
    /// # Errors
    /// Returns [`StoreError::Refused`] if the record is too large or not finite, and
    /// [`StoreError::Damaged`] if sled fails.
    pub fn put(&self, record: &Record) -> Result<(), StoreError> {
        self.put_unflushed(record)?;
        self.flush()
    }

    pub(crate) fn put_unflushed(&self, record: &Record) -> Result<(), StoreError> {
        let frame = encode(record)?;
        self.sled(|db| db.insert(record.key().as_bytes(), frame)).map(drop)
    }

    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        self.sled(|db| db.flush()).map(drop)
    }

    /// Iterates over all intact records in the order of their keys.
    #[must_use]
    pub fn iter(&self) -> Records<'_> {
        Records { store: self, entries: self.db.as_ref().map(|db| db.iter()), damaged: 0 }
    }

    /// Counts the records of the store.
    ///
    /// # Errors
    /// Returns [`StoreError::Damaged`] if sled fails, and [`StoreError::Io`] if the folder cannot
    /// be listed.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        let mut stats = Stats { bytes: self.bytes()?, ..Stats::default() };
        let mut records = self.iter();
        for record in &mut records {
            let record = record?;
            if let Some(hardware) = record.key_parts.parts.get(HARDWARE) {
                *stats.hardware.entry(hardware.clone()).or_default() += 1;
            }
            stats.failed += u64::from(matches!(record.outcome, Outcome::Failed { .. }));
            *stats.kinds.entry(record.key_parts.kind).or_default() += 1;
        }
        stats.damaged = records.damaged;
        Ok(stats)
    }

    /// Counts intact and damaged records by reading everything twice: through sled, and directly
    /// from the files.
    ///
    /// # Errors
    /// Returns [`StoreError::Damaged`] if sled fails, and [`StoreError::Io`] if the folder cannot
    /// be read.
    pub fn verify(&self) -> Result<Verified, StoreError> {
        let mut known = BTreeSet::new();
        let mut records = self.iter();
        for record in &mut records {
            known.insert(record?.key());
        }
        let mut unreachable = BTreeSet::new();
        salvage::scan(&self.path, &mut |record, _| {
            let key = record.key();
            if !known.contains(&key) {
                unreachable.insert(key);
            }
        })
        .map_err(|source| self.io(source))?;
        Ok(Verified {
            intact: known.len() as u64,
            damaged: records.damaged,
            unreachable: unreachable.len() as u64,
        })
    }

    /// Replaces the folder by a fresh one with the intact records, since sled itself never frees
    /// space. If the process is killed at any moment, either the old or the new folder is whole.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] or [`StoreError::Damaged`]. The store is then unchanged, or must
    /// be opened again.
    pub fn compact(&mut self) -> Result<Compacted, StoreError> {
        let bytes_before = self.bytes()?;
        let (new, old) =
            (with_suffix(&self.path, ".compact-new"), with_suffix(&self.path, ".compact-old"));
        let io = |source| StoreError::Io { path: self.path.clone(), source };
        remove(&new).map_err(io)?;
        let fresh = open_fresh(&new)?;
        let mut records = 0;
        for record in self.iter() {
            let record = record?;
            let frame = encode(&record)?;
            checked(&new, || fresh.insert(record.key().as_bytes(), frame))?;
            records += 1;
        }
        checked(&new, || fresh.flush())?;
        close(&new, fresh)?;

        // sled refers to its files by path: it must be closed while the folders change places.
        if let Some(db) = self.db.take() {
            close(&self.path, db)?;
        }
        std::fs::rename(&self.path, &old).map_err(|source| self.io(source))?;
        std::fs::rename(&new, &self.path).map_err(|source| self.io(source))?;
        finish_compaction(&self.path).map_err(|source| self.io(source))?;
        let mut notices = Vec::new();
        self.db = Some(open_or_set_aside(&self.path, OPEN_TIMEOUT, &mut notices)?);
        notices.into_iter().for_each(|text| self.notice(text));
        Ok(Compacted { records, bytes_before, bytes_after: self.bytes()? })
    }

    /// Returns the size of the folder in bytes.
    fn bytes(&self) -> Result<u64, StoreError> {
        disk_bytes(&self.path).map_err(|source| self.io(source))
    }

    fn io(&self, source: std::io::Error) -> StoreError {
        StoreError::Io { path: self.path.clone(), source }
    }

    fn notice(&self, text: String) {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn sled<T>(&self, call: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, StoreError> {
        match &self.db {
            Some(db) => checked(&self.path, || call(db)),
            None => Err(StoreError::Damaged {
                path: self.path.clone(),
                reason: "it was closed".to_owned(),
            }),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let db = self.db.take();
        // Everything that was acknowledged is on disk already, so a panic during closing loses
        // nothing.
        let _ = guarded(move || drop(db));
    }
}

/// Iterator over the intact records of a [`Store`].
pub struct Records<'a> {
    store: &'a Store,
    entries: Option<sled::Iter>,
    damaged: u64,
}

impl Iterator for Records<'_> {
    type Item = Result<Record, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entries = self.entries.as_mut()?;
            let entry = checked(&self.store.path, || entries.next().transpose());
            let (key, bytes) = match entry {
                Ok(entry) => entry?,
                Err(error) => {
                    self.entries = None;
                    return Some(Err(error));
                }
            };
            match Key::from_slice(&key).map(|key| decode(&key, &bytes)) {
                Some(Ok(record)) => return Some(Ok(record)),
                _ => self.damaged += 1,
            }
        }
    }
}

/// Calls sled and converts its errors and panics.
fn checked<T>(path: &Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    let damaged = |reason| StoreError::Damaged { path: path.to_owned(), reason };
    match guarded(call) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(source))) => Err(StoreError::Io { path: path.to_owned(), source }),
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(text) => Err(damaged(text)),
    }
}

fn close(path: &Path, db: sled::Db) -> Result<(), StoreError> {
    checked(path, move || {
        drop(db);
        Ok(())
    })
}

fn open_fresh(path: &Path) -> Result<sled::Db, StoreError> {
    match open(path, OPEN_TIMEOUT)? {
        Opened::Sound(db, _) => Ok(db),
        Opened::Damaged(reason) => Err(StoreError::Damaged { path: path.to_owned(), reason }),
    }
}

fn open_or_set_aside(
    path: &Path,
    timeout: Duration,
    notices: &mut Vec<String>,
) -> Result<sled::Db, StoreError> {
    let io = |source| StoreError::Io { path: path.to_owned(), source };
    let found_records = FoundRecords::of(path).map_err(io)?;
    let (db, known, aside) = match open(path, timeout)? {
        Opened::Sound(db, contents) => {
            if contents.bad > 0 {
                let path = path.display();
                notices.push(format!(
                    "{} damaged records in the result store {path} are ignored",
                    contents.bad
                ));
            }
            (db, contents.known, None)
        }
        Opened::Damaged(reason) => {
            let aside = set_aside(path).map_err(io)?;
            (open_fresh(path)?, HashMap::new(), Some((aside, reason)))
        }
    };
    let lost = found_records.lost(&known);
    for (key, frame) in &lost.frames {
        checked(path, || db.insert(key.as_bytes(), frame.as_ref()))?;
    }
    checked(path, || db.flush())?;
    let (path, count) = (path.display(), lost.frames.len());
    if let Some((aside, reason)) = aside {
        notices.push(format!(
            "the result store {path} was damaged ({reason}); it was set aside as {}, and {count} \
             intact records \
             were recovered from it",
            aside.display()
        ));
    } else if count > 0 {
        notices.push(format!(
            "{count} records that the result store {path} had lost were found in its files"
        ));
    }
    if lost.gone > 0 {
        notices
            .push(format!("{} records of the result store {path} are lost to damage", lost.gone));
    }
    Ok(db)
}

fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let time = now();
    let mut aside = with_suffix(path, &format!(".damaged-{time}"));
    let mut count = 1;
    while aside.exists() {
        count += 1;
        aside = with_suffix(path, &format!(".damaged-{time}-{count}"));
    }
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

/// Completes or undoes a compaction that was interrupted.
fn finish_compaction(path: &Path) -> std::io::Result<()> {
    let (new, old) = (with_suffix(path, ".compact-new"), with_suffix(path, ".compact-old"));
    if !path.exists() && old.exists() {
        std::fs::rename(&old, path)?;
    }
    remove(&old)?;
    remove(&new)
}

fn remove(folder: &Path) -> std::io::Result<()> {
    if folder.exists() { std::fs::remove_dir_all(folder) } else { Ok(()) }
}

/// Returns the path with `suffix` appended to its last component.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
