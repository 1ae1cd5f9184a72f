//! Read-only memory-mapped files.
//!
//! A mapping shows the current contents of its file: writes to the file change the mapped bytes,
//! and truncating the file ends the process that reads them. Bundles are therefore replaced as a
//! whole and never rewritten in place. Offsets and counts in a mapping are copied out and checked
//! before use, unlike numbers that only enter calculations.

use std::fs::File;

use memmap2::{Mmap, MmapOptions};

/// The first bytes of a file, mapped into memory.
pub struct Mapping {
    map: Mmap,
}

impl Mapping {
    /// Maps the first `bytes` of `file`.
    ///
    /// # Errors
    /// Fails if the file is shorter or if the system refuses.
    pub fn new(file: &File, bytes: usize) -> Result<Self, String> {
        let refused = |error: std::io::Error| format!("cannot be mapped: {error}");
        let there = file.metadata().map_err(refused)?.len();
        if there < bytes as u64 {
            return Err(format!("has {there} bytes where {bytes} are needed"));
        }
        // SAFETY: the mapping is never written through. Numbers in it are only calculated with, and
        // any bytes are numbers; should somebody write to the file meanwhile, in spite of what is
        // said above, results are wrong.
        let map = unsafe { MmapOptions::new().len(bytes).map(file) }.map_err(refused)?;
        #[cfg(target_os = "linux")]
        if let Err(error) = map.advise(memmap2::Advice::HugePage) {
            // Optional: weights are read once per run, and small pages would cost more page-table
            // walks.
            tracing::debug!("no huge pages: {error}");
        }
        Ok(Self { map })
    }

    /// Creates a mapping of anonymous memory with these bytes.
    #[doc(hidden)]
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut map = memmap2::MmapMut::map_anon(bytes.len()).expect("memory");
        map.copy_from_slice(bytes);
        Self { map: map.make_read_only().expect("memory that is read alone") }
    }

    /// Returns the address of the first byte, which is at the start of a page.
    pub fn start(&self) -> *const u8 {
        self.map.as_ptr()
    }

    /// Returns the number of mapped bytes.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Returns whether the file had no bytes when it was mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the mapped bytes, any of which the caller must be able to live with.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Returns the BLAKE3 hash of all bytes, which also loads them into memory.
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(&self.map).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn files_are_mapped_as_far_as_they_go() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"numbers").unwrap();
        let mapping = Mapping::new(&file, 3).unwrap();
        assert_eq!((mapping.len(), mapping.start() as usize % 64), (3, 0));
        assert_eq!(mapping.digest(), *blake3::hash(b"num").as_bytes());
        assert!(Mapping::new(&file, 8).is_err());
        assert_eq!(Mapping::new(&file, 0).unwrap().digest(), *blake3::hash(b"").as_bytes());
    }
}
