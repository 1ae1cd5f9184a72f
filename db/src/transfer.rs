//! Export and import of records as JSON lines: for other machines, for scripts, and for rebuilding
//! a store.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use crate::record::now;
use crate::{Key, Record, Store, StoreError};

/// Bytes of the longest line that an import reads. Longer lines are rejected.
pub const MAX_LINE_BYTES: u64 = 512 * 1024;

/// Lines of an import between two flushes.
const LINES_PER_FLUSH: u64 = 256;
/// Number of reasons that the result of an import keeps.
const MAX_REASONS: usize = 10;
/// Seconds by which a record may lie in the future, since clocks of machines differ.
const MAX_CLOCK_SKEW_SECONDS: u64 = 24 * 3600;
const FORMAT: &str = "paretune-record/1";

/// Line of an export: a record with its key.
#[derive(Serialize, Deserialize)]
struct Line<R> {
    format: String,
    key: Key,
    #[serde(flatten)]
    record: R,
}

/// Numbers of accepted and rejected lines of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Number of records that were new to this store.
    pub added: u64,
    /// Number of records that replaced an older version.
    pub replaced: u64,
    /// Number of records that were known already.
    pub unchanged: u64,
    /// Number of lines that are no records or were refused.
    pub rejected: u64,
    /// Reasons of the first rejections, as `line N: reason`.
    pub reasons: Vec<String>,
}

impl Store {
    /// Writes every intact record as one JSON line and returns their number.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if the writer fails, and [`StoreError::Damaged`] if sled fails.
    pub fn export(&self, writer: &mut dyn Write) -> Result<u64, StoreError> {
        let io = |source| StoreError::Io { path: "export".into(), source };
        let mut count = 0;
        for record in self.iter() {
            let record = record?;
            let line = Line { format: FORMAT.to_owned(), key: record.key(), record: &record };
            let mut text = serde_json::to_vec(&line).map_err(|error| io(error.into()))?;
            text.push(b'\n');
            writer.write_all(&text).map_err(io)?;
            count += 1;
        }
        writer.flush().map_err(io)?;
        Ok(count)
    }

    /// Adds the records of an export. Of two records with one key the newer stays, so the order of
    /// imports does not matter. Invalid lines are counted and skipped; empty lines are ignored.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if the reader fails, and [`StoreError::Damaged`] if sled fails.
    pub fn import(&self, reader: &mut dyn BufRead) -> Result<Imported, StoreError> {
        let io = |source| StoreError::Io { path: "import".into(), source };
        let mut imported = Imported::default();
        let (mut number, mut line) = (0_u64, Vec::new());
        while let Some(whole) = next_line(reader, &mut line).map_err(io)? {
            number += 1;
            if line.iter().all(u8::is_ascii_whitespace) && whole {
                continue;
            }
            match self.import_line(&line, whole) {
                Ok(None) => imported.unchanged += 1,
                Ok(Some(true)) => imported.replaced += 1,
                Ok(Some(false)) => imported.added += 1,
                Err(Rejection::Line(reason)) => {
                    imported.rejected += 1;
                    if imported.reasons.len() < MAX_REASONS {
                        imported.reasons.push(format!("line {number}: {reason}"));
                    }
                }
                Err(Rejection::Store(error)) => return Err(error),
            }
            if number % LINES_PER_FLUSH == 0 {
                self.flush()?;
            }
        }
        self.flush()?;
        Ok(imported)
    }

    /// Stores the record of a line. Returns whether it replaced an older one; `None` if it was
    /// known already.
    fn import_line(&self, line: &[u8], whole: bool) -> Result<Option<bool>, Rejection> {
        if !whole {
            return Err(Rejection::Line(format!("longer than {MAX_LINE_BYTES} bytes")));
        }
        let line: Line<Record> =
            serde_json::from_slice(line).map_err(|error| Rejection::Line(error.to_string()))?;
        if line.format != FORMAT {
            return Err(Rejection::Line(format!("its format is not {FORMAT}")));
        }
        if line.key != line.record.key() {
            return Err(Rejection::Line("its key is not the hash of its parts".to_owned()));
        }
        if line.record.created > now() + MAX_CLOCK_SKEW_SECONDS {
            return Err(Rejection::Line("it claims to be from the future".to_owned()));
        }
        let present = self.get(&line.key).map_err(Rejection::Store)?;
        if present.as_ref().is_some_and(|present| present.created >= line.record.created) {
            return Ok(None);
        }
        match self.put_unflushed(&line.record) {
            Ok(()) => Ok(Some(present.is_some())),
            Err(error @ StoreError::Refused { .. }) => Err(Rejection::Line(error.to_string())),
            Err(error) => Err(Rejection::Store(error)),
        }
    }
}

enum Rejection {
    Line(String),
    Store(StoreError),
}

/// Reads a line without its newline. Returns `None` at the end, and `Some(false)` for a line that
/// was skipped since it is too long.
fn next_line(reader: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let mut read = 0_u64;
    loop {
        let buffer = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if buffer.is_empty() {
            return Ok((read > 0).then_some(read <= MAX_LINE_BYTES));
        }
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        read += part.len() as u64;
        if read <= MAX_LINE_BYTES {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(read <= MAX_LINE_BYTES));
        }
    }
}
