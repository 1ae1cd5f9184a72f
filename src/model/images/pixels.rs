//! Bytes of decoded images: in memory, or mapped from a file and then read when they are needed.

use std::ops::{Deref, Range};
use std::sync::Arc;

use paretune_kernels::memory::mapping::Mapping;

/// Shared bytes of decoded images. Clones and parts share them.
#[derive(Clone)]
pub struct Pixels {
    storage: Storage,
    range: Range<usize>,
}

#[derive(Clone)]
enum Storage {
    Memory(Arc<Vec<u8>>),
    Mapped(Arc<Mapping>),
}

impl Pixels {
    /// Returns the bytes in `range` of a mapped file; `None` beyond its end.
    pub(super) fn mapped(mapping: &Arc<Mapping>, range: Range<usize>) -> Option<Self> {
        mapping.bytes().get(range.clone())?;
        Some(Self { storage: Storage::Mapped(Arc::clone(mapping)), range })
    }

    /// Returns a part of the bytes without copying them.
    ///
    /// # Panics
    ///
    /// Panics if the part goes beyond the end.
    pub(super) fn part(&self, part: Range<usize>) -> Self {
        assert!(part.start <= part.end && part.end <= self.len(), "a part within the bytes");
        let start = self.range.start;
        Self { storage: self.storage.clone(), range: start + part.start..start + part.end }
    }
}

impl Deref for Pixels {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all = match &self.storage {
            Storage::Memory(bytes) => bytes.as_slice(),
            Storage::Mapped(mapping) => mapping.bytes(),
        };
        &all[self.range.clone()]
    }
}

impl From<Vec<u8>> for Pixels {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { storage: Storage::Memory(Arc::new(bytes)), range }
    }
}

impl<const N: usize> From<[u8; N]> for Pixels {
    fn from(bytes: [u8; N]) -> Self {
        bytes.to_vec().into()
    }
}

impl FromIterator<u8> for Pixels {
    fn from_iter<I: IntoIterator<Item = u8>>(bytes: I) -> Self {
        bytes.into_iter().collect::<Vec<u8>>().into()
    }
}

impl PartialEq for Pixels {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Pixels {}

impl std::fmt::Debug for Pixels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pixels({} bytes)", self.len())
    }
}
