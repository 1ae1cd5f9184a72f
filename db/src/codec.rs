//! Encoding of a record in sled: magic number, length, checksum and postcard payload.
//!
//! The frame describes itself. The module `salvage` can therefore tell records from noise in the
//! files of a folder that sled itself can no longer read.

use crate::{Key, Record, StoreError};

/// First bytes of every frame. The last byte is the version of the format.
pub(crate) const MAGIC: [u8; 8] = *b"PTrecrd\x01";
/// Bytes of the frame's header: magic number, payload length (u32) and checksum.
pub(crate) const HEADER_BYTES: usize = 8 + 4 + 16;
/// Bytes of the largest frame that is stored or accepted. Larger data belong in content-addressed
/// files.
pub(crate) const MAX_FRAME_BYTES: usize = 64 * 1024;

/// Error for bytes that hold no valid record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

pub(crate) fn encode(record: &Record) -> Result<Vec<u8>, StoreError> {
    record.check()?;
    let refuse = |reason| StoreError::Refused { kind: record.key_parts.kind.clone(), reason };
    let payload = postcard::to_stdvec(record).map_err(|error| refuse(error.to_string()))?;
    if HEADER_BYTES + payload.len() > MAX_FRAME_BYTES {
        return Err(refuse(format!(
            "{} bytes, more than {MAX_FRAME_BYTES}",
            HEADER_BYTES + payload.len()
        )));
    }
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&checksum(&payload));
    frame.extend_from_slice(&payload);
    Ok(frame)
}

/// Decodes the frame at the start of `bytes`, which may continue after it. Returns the record and
/// the length of the frame in bytes.
pub(crate) fn decode_prefix(bytes: &[u8]) -> Result<(Record, usize), Invalid> {
    let header = bytes.get(..HEADER_BYTES).ok_or(Invalid)?;
    if header[..8] != MAGIC {
        return Err(Invalid);
    }
    let length = u32::from_le_bytes(header[8..12].try_into().map_err(|_| Invalid)?) as usize;
    if HEADER_BYTES + length > MAX_FRAME_BYTES {
        return Err(Invalid);
    }
    let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + length).ok_or(Invalid)?;
    if header[12..] != checksum(payload) {
        return Err(Invalid);
    }
    let record: Record = postcard::from_bytes(payload).map_err(|_| Invalid)?;
    record.check().map_err(|_| Invalid)?;
    Ok((record, HEADER_BYTES + length))
}

/// Decodes the record filed under `key`. A record whose own key differs is invalid.
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
