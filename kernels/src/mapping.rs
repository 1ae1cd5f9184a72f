//! Files mapped into memory, for reading alone.
//!
//! A mapping shows what the file holds at the time, so whoever changes a mapped file changes what is read, and whoever
//! cuts it off ends the process that reads it. Bundles are therefore replaced and never rewritten in place, and what is
//! followed rather than calculated with (places, counts) is copied out and checked before it is used.

use std::fs::File;

use memmap2::{Mmap, MmapOptions};

/// The first bytes of a file, mapped.
pub(crate) struct Mapping {
    map: Mmap,
}

impl Mapping {
    /// Maps the first `bytes` of `file`.
    ///
    /// # Errors
    /// Where the file is shorter or the system refuses.
    pub(crate) fn new(file: &File, bytes: usize) -> Result<Self, String> {
        let refused = |error: std::io::Error| format!("cannot be mapped: {error}");
        let there = file.metadata().map_err(refused)?.len();
        if there < bytes as u64 {
            return Err(format!("has {there} bytes where {bytes} are needed"));
        }
        // SAFETY: the mapping is never written through. Numbers in it are only calculated with, and any bytes are
        // numbers; should somebody write to the file meanwhile, in spite of what is said above, results are wrong.
        let map = unsafe { MmapOptions::new().len(bytes).map(file) }.map_err(refused)?;
        #[cfg(target_os = "linux")]
        if let Err(error) = map.advise(memmap2::Advice::HugePage) {
            // A wish: weights are read once per run, and would otherwise wait for more page tables.
            tracing::debug!("no huge pages: {error}");
        }
        Ok(Self { map })
    }

    /// A mapping of no file.
    #[cfg(test)]
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        let mut map = memmap2::MmapMut::map_anon(bytes.len()).expect("memory");
        map.copy_from_slice(bytes);
        Self { map: map.make_read_only().expect("memory that is read alone") }
    }

    /// The first byte, at the start of a page.
    pub(crate) fn start(&self) -> *const u8 {
        self.map.as_ptr()
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// BLAKE3 of all bytes; brings them into memory on the way.
    pub(crate) fn digest(&self) -> [u8; 32] {
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
