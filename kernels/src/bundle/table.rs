//! The table of packed weights, which precede the coded weights in `weights.bin`.

use serde::{Deserialize, Serialize};

use paretune_cpu::conv::support::packing::{PackedLayer, Recording, Section};
use paretune_simd::Isa;

/// Description of the packed weights and of their target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    /// Name of the instruction set; text, because later versions may have others.
    pub isa: String,
    /// Bytes of packed weights from the start of the file, a multiple of a cache line.
    pub bytes: usize,
    /// BLAKE3 of the packed weights.
    pub digest: [u8; 32],
    /// Bytes of the coded weights after the packed ones.
    pub coded_bytes: usize,
    /// BLAKE3 of the coded weights.
    pub coded_digest: [u8; 32],
    /// Sections of all layers, in the order of the file.
    pub layers: Vec<PackedLayer>,
}

impl Table {
    /// Creates the table of `recording`, packed for `isa` and followed by `coded`.
    pub(super) fn of(recording: &Recording, isa: Isa, coded: &[u8]) -> Self {
        Self {
            isa: isa.name().to_owned(),
            bytes: recording.bytes.len(),
            digest: *blake3::hash(&recording.bytes).as_bytes(),
            coded_bytes: coded.len(),
            coded_digest: *blake3::hash(coded).as_bytes(),
            layers: recording.layers.clone(),
        }
    }

    /// Checks that the sections cover all packed weights, and that the file has exactly `weights`
    /// bytes.
    ///
    /// # Errors
    /// Describes the mismatch.
    pub(super) fn check(&self, weights: u64) -> Result<(), String> {
        let sections = self.layers.iter().flat_map(|layer| &layer.sections).map(Section::bytes);
        let packed = sections.into_iter().try_fold(0_usize, |sum, bytes| sum.checked_add(bytes?));
        let all = self.bytes.checked_add(self.coded_bytes).map(|bytes| bytes as u64);
        if packed == Some(self.bytes) && all == Some(weights) {
            Ok(())
        } else {
            Err(format!("weights.bin has {weights} bytes, but other ones are listed"))
        }
    }
}
