//! The store: records by key, each flushed before it is acknowledged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::codec::{decode, encode};
use crate::lock::{Lock, acquire};
use crate::open::{Opened, PATIENCE, disk_bytes, open};
use crate::quiet::guarded;
use crate::record::now;
use crate::salvage::{self, Harvest};
use crate::{HARDWARE, Key, Outcome, Record, StoreError};

/// Measurements by key, on disk. Shared by reference between threads; owned by one process.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// `None` only where compaction could not open the new folder.
    db: Option<sled::Db>,
    notices: Mutex<Vec<String>>,
    // Last, so that it is released after sled is closed.
    _lock: Lock,
}

/// What is in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Records by kind, failed ones included.
    pub kinds: BTreeMap<String, u64>,
    /// Records whose outcome is a failure.
    pub failed: u64,
    /// Entries with a wrong checksum or a key that is not theirs.
    pub damaged: u64,
    /// Bytes of the folder.
    pub bytes: u64,
    /// Hardware ids that were measured on, with their records.
    pub hardware: BTreeMap<String, u64>,
}

/// Result of [`Store::verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Records with a right checksum under their own key.
    pub intact: u64,
    /// Entries that are not.
    pub damaged: u64,
    /// Intact records found in the files that sled no longer knows.
    pub unreachable: u64,
}

/// Result of [`Store::compact`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Records kept.
    pub records: u64,
    /// Bytes of the folder before.
    pub bytes_before: u64,
    /// Bytes of the folder after.
    pub bytes_after: u64,
}

impl Store {
    /// Opens the store in folder `path`, or creates it. The folder's parent also gets `NAME.lock`.
    ///
    /// A folder that sled cannot read is renamed to `NAME.damaged-TIME`; its intact records are copied to a fresh
    /// one, and [`Store::notices`] says so.
    ///
    /// # Errors
    /// [`StoreError::Locked`] where another process has it open; [`StoreError::Unusable`] or [`StoreError::Io`]
    /// where the system cannot give such a folder.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_within(path, PATIENCE)
    }

    pub(crate) fn open_within(path: &Path, patience: Duration) -> Result<Self, StoreError> {
        let unusable =
            |reason: &str| StoreError::Unusable { path: path.to_owned(), reason: reason.to_owned() };
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
        let lock = acquire(path, &beside(path, ".lock"))?;
        finish_compaction(path).map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
        let mut notices = Vec::new();
        let db = open_or_set_aside(path, patience, &mut notices)?;
        Ok(Self { path: path.to_owned(), db: Some(db), notices: Mutex::new(notices), _lock: lock })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a person should be told since the last call: damage found, records recovered.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The record filed under `key`. A damaged one reads as absent and becomes a notice.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where sled fails.
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

    /// Files the record under its key, in place of an older one, and returns once it is on disk.
    ///
    /// # Errors
    /// [`StoreError::Refused`] where the record is too large or not finite; [`StoreError::Damaged`] where sled fails.
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

    /// All intact records, in the order of their keys.
    #[must_use]
    pub fn iter(&self) -> Records<'_> {
        Records { store: self, entries: self.db.as_ref().map(|db| db.iter()), damaged: 0 }
    }

    /// Counts what is stored.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where sled fails, [`StoreError::Io`] where the folder cannot be listed.
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

    /// Reads everything twice, through sled and past it, and counts what is sound.
    ///
    /// # Errors
    /// As [`Store::stats`].
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

    /// Writes the intact records to a fresh folder and puts it in place of this one: sled itself never gives space
    /// back. Killed at any moment, it leaves the one or the other whole.
    ///
    /// # Errors
    /// [`StoreError::Io`] or [`StoreError::Damaged`]; the store then is as before, or has to be opened again.
    pub fn compact(&mut self) -> Result<Compacted, StoreError> {
        let bytes_before = self.bytes()?;
        let (new, old) = (beside(&self.path, ".compact-new"), beside(&self.path, ".compact-old"));
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

        // sled names its files by path: it must be closed while the folders change places.
        if let Some(db) = self.db.take() {
            close(&self.path, db)?;
        }
        std::fs::rename(&self.path, &old).map_err(|source| self.io(source))?;
        std::fs::rename(&new, &self.path).map_err(|source| self.io(source))?;
        finish_compaction(&self.path).map_err(|source| self.io(source))?;
        let mut notices = Vec::new();
        self.db = Some(open_or_set_aside(&self.path, PATIENCE, &mut notices)?);
        notices.into_iter().for_each(|text| self.notice(text));
        Ok(Compacted { records, bytes_before, bytes_after: self.bytes()? })
    }

    /// Bytes of the folder.
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
            None => Err(StoreError::Damaged { path: self.path.clone(), reason: "it was closed".to_owned() }),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let db = self.db.take();
        // Everything acknowledged is on disk already, so a panic while closing costs nothing.
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

/// A call into sled: its errors and its panics.
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
    match open(path, PATIENCE)? {
        Opened::Sound(db, _) => Ok(db),
        Opened::Damaged(reason) => Err(StoreError::Damaged { path: path.to_owned(), reason }),
    }
}

fn open_or_set_aside(
    path: &Path,
    patience: Duration,
    notices: &mut Vec<String>,
) -> Result<sled::Db, StoreError> {
    let io = |source| StoreError::Io { path: path.to_owned(), source };
    let harvest = Harvest::of(path).map_err(io)?;
    let (db, known, aside) = match open(path, patience)? {
        Opened::Sound(db, contents) => {
            if contents.bad > 0 {
                let path = path.display();
                notices
                    .push(format!("{} damaged records in the result store {path} are ignored", contents.bad));
            }
            (db, contents.known, None)
        }
        Opened::Damaged(reason) => {
            let aside = set_aside(path).map_err(io)?;
            (open_fresh(path)?, HashMap::new(), Some((aside, reason)))
        }
    };
    let lost = harvest.lost(&known);
    for (key, frame) in &lost.frames {
        checked(path, || db.insert(key.as_bytes(), frame.as_ref()))?;
    }
    checked(path, || db.flush())?;
    let (path, count) = (path.display(), lost.frames.len());
    if let Some((aside, reason)) = aside {
        notices.push(format!(
            "the result store {path} was damaged ({reason}); it was set aside as {}, and {count} intact records \
             were recovered from it",
            aside.display()
        ));
    } else if count > 0 {
        notices
            .push(format!("{count} records that the result store {path} had lost were found in its files"));
    }
    if lost.gone > 0 {
        notices.push(format!("{} records of the result store {path} are lost to damage", lost.gone));
    }
    Ok(db)
}

fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let time = now();
    let mut aside = beside(path, &format!(".damaged-{time}"));
    let mut count = 1;
    while aside.exists() {
        count += 1;
        aside = beside(path, &format!(".damaged-{time}-{count}"));
    }
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

/// Brings a compaction that was cut short to its one or its other end.
fn finish_compaction(path: &Path) -> std::io::Result<()> {
    let (new, old) = (beside(path, ".compact-new"), beside(path, ".compact-old"));
    if !path.exists() && old.exists() {
        std::fs::rename(&old, path)?;
    }
    remove(&old)?;
    remove(&new)
}

fn remove(folder: &Path) -> std::io::Result<()> {
    if folder.exists() { std::fs::remove_dir_all(folder) } else { Ok(()) }
}

/// `PATH` with `suffix` after its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
