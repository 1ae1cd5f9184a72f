//! Estimates the memory that decoding a file takes, so that a small hostile file cannot fill the
//! memory.
//!
//! A decoded message can take far more memory than its two bytes in the file (an empty attribute
//! takes over a kilobyte). This scan of the wire format allocates nothing. It adds up the memory of
//! decoding and refuses files with a sum out of proportion.

/// Memory that decoding may take for any file, in bytes.
const FIXED_BYTES: u64 = 512 << 20;
/// Additional memory that decoding may take per byte of the file.
const BYTES_PER_FILE_BYTE: u64 = 16;
/// Deepest nesting of messages, equal to the decoder's limit.
const MAX_DEPTH: u32 = 100;
/// Upper bound of the size of any decoded message without owned data; checked by a test.
pub(super) const MAX_MESSAGE_BYTES: u64 = 2048;

/// Kinds of messages that are frequent in real files. All others count as [`Kind::Other`], which
/// treats every length-delimited field as a message.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Value,
    Type,
    Text,
    Other,
    /// Text or numbers, which take up to 16 bytes for each byte in the file.
    Plain,
    /// Data that is shared with the file's own bytes.
    Shared,
}

impl Kind {
    /// Returns the size of a decoded message of this kind without owned data.
    fn size(self) -> u64 {
        match self {
            Self::Node => 256,
            Self::Tensor => 384,
            Self::Value => 256,
            Self::Text | Self::Type => 128,
            Self::Plain | Self::Shared => 40,
            _ => MAX_MESSAGE_BYTES,
        }
    }

    /// Returns the kind of field number `field`.
    fn field(self, field: u64) -> Self {
        match (self, field) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 8 | 14) => Self::Text,
            (Self::Model, 2..=6) => Self::Plain,
            (Self::Graph, 1) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) => Self::Tensor,
            (Self::Graph, 11..=13) => Self::Value,
            (Self::Graph, 16) | (Self::Node, 9) | (Self::Tensor, 13 | 16) | (Self::Value, 4) => {
                Self::Text
            }
            (Self::Graph, 2 | 10) | (Self::Node, 1..=4 | 6..=8) => Self::Plain,
            (Self::Attribute, 1 | 4 | 7..=9 | 13 | 21) => Self::Plain,
            (Self::Tensor, 1 | 4..=8 | 10..=12) | (Self::Value, 1 | 3) | (Self::Text, _) => {
                Self::Plain
            }
            (Self::Value, 2) | (Self::Type, _) => Self::Type,
            (Self::Node, 5) => Self::Attribute,
            (Self::Tensor, 9) => Self::Shared,
            _ => Self::Other,
        }
    }
}

/// Refuses files that would take out-of-proportion memory to decode. The decoder reports damage of
/// other kinds.
pub fn check_decode_memory(bytes: &[u8]) -> Result<(), String> {
    let allowed = FIXED_BYTES + BYTES_PER_FILE_BYTE * bytes.len() as u64;
    let mut decoded_bytes = 0;
    add_message(bytes, Kind::Model, 0, &mut decoded_bytes, allowed);
    if decoded_bytes > allowed {
        return Err(format!(
            "decoding its {} bytes would take over {} MB",
            bytes.len(),
            allowed >> 20
        ));
    }
    Ok(())
}

/// Adds up one message. Stops early when the bytes end or the limit is passed.
fn add_message(mut bytes: &[u8], kind: Kind, depth: u32, decoded_bytes: &mut u64, allowed: u64) {
    if depth > MAX_DEPTH {
        return;
    }
    while !bytes.is_empty() && *decoded_bytes <= allowed {
        let Some(key) = varint(&mut bytes) else { return };
        let length = match key & 7 {
            0 => {
                // A number takes at most eight times the single byte it may have in the file.
                *decoded_bytes += 16;
                if varint(&mut bytes).is_none() {
                    return;
                }
                continue;
            }
            1 => 8,
            2 => match varint(&mut bytes) {
                Some(length) => length,
                None => return,
            },
            5 => 4,
            // Groups (3 and 4) are skipped by the decoder without being kept.
            3 | 4 => 0,
            _ => return,
        };
        let Some((inner, rest)) =
            usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length))
        else {
            return;
        };
        bytes = rest;
        if key & 7 == 2 {
            let field = kind.field(key >> 3);
            *decoded_bytes += field.size();
            match field {
                Kind::Shared => {}
                Kind::Plain => *decoded_bytes += 8 * inner.len() as u64,
                _ => add_message(inner, field, depth + 1, decoded_bytes, allowed),
            }
        } else {
            *decoded_bytes += 16;
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::proto;
    use super::*;

    #[test]
    fn no_message_is_larger_than_assumed() {
        for size in [
            size_of::<proto::ModelProto>(),
            size_of::<proto::GraphProto>(),
            size_of::<proto::AttributeProto>(),
            size_of::<proto::FunctionProto>(),
            size_of::<proto::TrainingInfoProto>(),
            size_of::<proto::SparseTensorProto>(),
            size_of::<proto::TypeProto>(),
        ] {
            assert!(size as u64 <= MAX_MESSAGE_BYTES, "{size}");
        }
        assert!(size_of::<proto::NodeProto>() as u64 <= Kind::Node.size());
        assert!(size_of::<proto::TensorProto>() as u64 <= Kind::Tensor.size());
        assert!(size_of::<proto::ValueInfoProto>() as u64 <= Kind::Value.size());
        assert!(size_of::<proto::TypeProto>() as u64 <= Kind::Type.size());
        assert!(size_of::<proto::StringStringEntryProto>() as u64 <= Kind::Text.size());
    }

    #[test]
    fn refuses_a_bomb() {
        // A graph with one node of a million empty attributes: 2 MB that would decode to over a
        // gigabyte.
        let mut attributes = Vec::new();
        for _ in 0..1_000_000 {
            attributes.extend([0x2a, 0]);
        }
        let wrap = |field: u8, inner: &[u8]| {
            let mut bytes = vec![field << 3 | 2];
            let mut length = inner.len();
            while length >= 0x80 {
                bytes.push(length as u8 | 0x80);
                length >>= 7;
            }
            bytes.push(length as u8);
            bytes.extend_from_slice(inner);
            bytes
        };
        let bomb = wrap(7, &wrap(1, &attributes));
        assert!(check_decode_memory(&bomb).is_err());
        assert!(check_decode_memory(&wrap(7, &wrap(5, &wrap(9, &attributes)))).is_ok());
        assert!(check_decode_memory(&bomb[..1000]).is_ok());
    }
}
