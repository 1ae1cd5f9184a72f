//! Bytes of a record in sled: magic, length, checksum, postcard.
//!
//! The frame describes itself, so that records can be told from noise in the files of a folder that sled itself can
//! no longer read (`salvage`).

use crate::{Key, Record, StoreError};

/// Opens every frame; its last byte is the version of the format.
pub(crate) const MAGIC: [u8; 8] = *b"PTrecrd\x01";
/// Magic, payload length (u32), checksum.
pub(crate) const HEADER: usize = 8 + 4 + 16;
/// The largest frame that is stored or believed. Larger things belong in files named by their content.
pub(crate) const MAX_FRAME: usize = 64 * 1024;

/// Why bytes are not a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

pub(crate) fn encode(record: &Record) -> Result<Vec<u8>, StoreError> {
    record.check()?;
    let refuse = |reason| StoreError::Refused { kind: record.key_parts.kind.clone(), reason };
    let payload = postcard::to_stdvec(record).map_err(|error| refuse(error.to_string()))?;
    if HEADER + payload.len() > MAX_FRAME {
        return Err(refuse(format!("{} bytes, more than {MAX_FRAME}", HEADER + payload.len())));
    }
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&checksum(&payload));
    frame.extend_from_slice(&payload);
    Ok(frame)
}

/// Decodes a frame that begins at the start of `bytes` (more may follow); gives the record and the frame's length.
pub(crate) fn decode_prefix(bytes: &[u8]) -> Result<(Record, usize), Invalid> {
    let header = bytes.get(..HEADER).ok_or(Invalid)?;
    if header[..8] != MAGIC {
        return Err(Invalid);
    }
    let length = u32::from_le_bytes(header[8..12].try_into().map_err(|_| Invalid)?) as usize;
    if HEADER + length > MAX_FRAME {
        return Err(Invalid);
    }
    let payload = bytes.get(HEADER..HEADER + length).ok_or(Invalid)?;
    if header[12..] != checksum(payload) {
        return Err(Invalid);
    }
    let record: Record = postcard::from_bytes(payload).map_err(|_| Invalid)?;
    record.check().map_err(|_| Invalid)?;
    Ok((record, HEADER + length))
}

/// Decodes what is filed under `key`; a record filed under a key that is not its own is no record.
pub(crate) fn decode(key: &Key, bytes: &[u8]) -> Result<Record, Invalid> {
    let (record, length) = decode_prefix(bytes)?;
    if length != bytes.len() || record.key() != *key {
        return Err(Invalid);
    }
    Ok(record)
}

fn checksum(payload: &[u8]) -> [u8; 16] {
    let hash = blake3::hash(payload);
    let mut short = [0; 16];
    short.copy_from_slice(&hash.as_bytes()[..16]);
    short
}
