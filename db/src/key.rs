//! Keys of measurements: the hash of everything that an answer depends on.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Name of the part that holds the hardware id. [`crate::Stats`] counts records by its values.
pub const HARDWARE: &str = "hardware";

/// Prefix that separates these hashes from other uses of the same bytes. It changes with the
/// encoding.
const DOMAIN: &[u8] = b"paretune-key/1";

/// BLAKE3 hash of a [`KeyParts`]. Equal parts have equal keys on every machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

/// Everything that a measurement depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyParts {
    /// Kind of measurement: `latency`, `accuracy`, `memory`, `baseline` and so on.
    pub kind: String,
    /// Dependencies by name: network hash, compression hash, schedule hash, hardware id, protocol
    /// version, images hash and so on.
    pub parts: BTreeMap<String, String>,
}

impl KeyParts {
    /// Creates the parts of a measurement of this kind. [`KeyParts::with`] adds what it depends on.
    #[must_use]
    pub fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), parts: BTreeMap::new() }
    }

    /// Adds a dependency, or replaces the one of the same name.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.parts.insert(name.into(), value.to_string());
        self
    }

    /// Returns the hash of the parts. Every text is hashed with its length, so that different parts
    /// never produce the same input.
    #[must_use]
    pub fn key(&self) -> Key {
        let mut hasher = blake3::Hasher::new();
        let mut text = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        text(DOMAIN);
        text(self.kind.as_bytes());
        for (name, value) in &self.parts {
            text(name.as_bytes());
            text(value.as_bytes());
        }
        Key(*hasher.finalize().as_bytes())
    }
}

impl Key {
    /// Returns the 32 bytes of the hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl From<&KeyParts> for Key {
    fn from(parts: &KeyParts) -> Self {
        parts.key()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        blake3::Hash::from_hex(text)
            .map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| "a key is 64 hexadecimal digits".to_owned())
    }
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
