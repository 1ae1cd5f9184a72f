//! A network as it is deployed: a folder with `plan.bin` and `weights.bin`, and nothing else.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::plan::Plan;

/// A plan and what is needed to feed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    /// The network.
    pub plan: Plan,
    /// How images become its input, and what its outputs mean.
    pub preprocessing: Preprocessing,
    /// Content hash of the configuration that it was built from.
    pub configuration: String,
}

/// How 8-bit images become the input: `(pixel - mean[channel]) / std[channel]` on the 0-255 scale.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// One per channel.
    pub mean: Vec<f32>,
    /// One per channel, positive.
    pub std: Vec<f32>,
    /// Names of the classes in the order of the outputs, where known.
    pub classes: Vec<String>,
}

impl Bundle {
    /// Writes the folder, whole or not at all.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn write(&self, _folder: &Path) -> Result<(), KernelError> {
        todo!()
    }

    /// Reads and checks a folder; sizes are checked before anything is allocated.
    ///
    /// # Errors
    /// Where files are missing, damaged or of another version.
    pub fn read(_folder: &Path) -> Result<Self, KernelError> {
        todo!()
    }

    /// Bytes that [`Bundle::write`] would put on disk: the metric `size`, exactly.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        todo!()
    }
}
