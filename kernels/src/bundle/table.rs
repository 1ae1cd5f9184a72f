//! What `weights.bin` has before the coded numbers, where it has anything: packed numbers as kernels use them.

use serde::{Deserialize, Serialize};

use crate::conv::{PackedLayer, Recording, Section};
use crate::hardware::Isa;

/// What is packed, and for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    /// The instruction set, by name, as a later version may know others.
    pub isa: String,
    /// Bytes from the start of the file, whole cache lines.
    pub bytes: usize,
    /// BLAKE3 of these.
    pub digest: [u8; 32],
    /// Bytes of the coded numbers behind them.
    pub coded_bytes: usize,
    /// BLAKE3 of those.
    pub coded_digest: [u8; 32],
    /// What lies where: the sections of all layers, one behind the other.
    pub layers: Vec<PackedLayer>,
}

impl Table {
    /// What was recorded for `isa`, and is to lie before `coded`.
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

    /// Whether the sections are all that is packed, and a file of `weights` bytes is all that there is.
    ///
    /// # Errors
    /// What is wrong.
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
