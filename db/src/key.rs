//! Names of measurements: everything that matters for an answer, and its hash.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Name of the part that holds the hardware id; [`crate::Stats`] lists its values.
pub const HARDWARE: &str = "hardware";

/// Separates our hashes from any other use of the same bytes; a change of the encoding below changes it.
const DOMAIN: &[u8] = b"paretune-key/1";

/// BLAKE3 of a [`KeyParts`]: equal parts have equal keys on every machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

/// Everything that a measurement depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyParts {
    /// What was measured: `latency`, `accuracy`, `memory`, `baseline`, ...
    pub kind: String,
    /// By name: network hash, compression hash, schedule hash, hardware id, protocol version, images hash, ...
    pub parts: BTreeMap<String, String>,
}

impl KeyParts {
    /// Parts of a measurement of this kind; add what it depends on with [`KeyParts::with`].
    #[must_use]
    pub fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), parts: BTreeMap::new() }
    }

    /// The same, and `name` has this value.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.parts.insert(name.into(), value.to_string());
        self
    }

    /// Hash of the parts. Every text goes in with its length, so that no two different parts read alike.
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
    /// The 32 bytes.
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
