//! A network as it is deployed: a folder with `plan.bin` and `weights.bin`, and nothing else.
//!
//! `plan.bin` is `PARETUNE`, a format version, a BLAKE3 checksum over everything else in both files,
//! and the plan without its numbers; `weights.bin` is the numbers, in the order of the plan's weights,
//! as compact as they can be without changing a bit ([`numbers`](self)). What a bundle weighs depends
//! on compression alone, never on schedules' packing.
//!
//! Files may be damaged or hostile: reading checks sizes before it allocates, and the plan before it
//! returns it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::executor::validate;
use crate::plan::Plan;
use crate::weights::Weights;

mod blocks;
mod folder;
mod format;
mod numbers;
mod stream;

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

/// Bytes of a bundle's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileBytes {
    /// `plan.bin`; schedules are part of it.
    pub plan: u64,
    /// `weights.bin`, which depends on compression alone.
    pub weights: u64,
}

impl Bundle {
    /// Writes the folder, whole or not at all. A bundle that is there already is replaced; anything
    /// else that is there is left alone.
    ///
    /// # Errors
    /// Where the plan is not valid, something that is not a bundle is in the way, or the disk refuses.
    pub fn write(&self, folder: &Path) -> Result<(), KernelError> {
        self.check().map_err(|problem| complaint(folder, problem))?;
        let files = format::encode(self);
        folder::write(folder, &[(PLAN, &files.plan), (WEIGHTS, &files.weights)])
            .map_err(|problem| complaint(folder, problem))
    }

    /// Reads and checks a folder; sizes are checked before anything is allocated.
    ///
    /// # Errors
    /// Where files are missing, damaged or of another version.
    pub fn read(folder: &Path) -> Result<Self, KernelError> {
        let file = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|error| complaint(&path, format!("cannot be read: {error}")))
        };
        let (plan, weights) = (file(PLAN)?, file(WEIGHTS)?);
        let bundle = format::decode(&plan, &weights).map_err(|problem| complaint(folder, problem))?;
        bundle.check().map_err(|problem| complaint(folder, problem))?;
        Ok(bundle)
    }

    /// Bytes that [`Bundle::write`] would put on disk: the metric `size`, exactly.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let FileBytes { plan, weights } = self.file_bytes();
        plan + weights
    }

    /// [`Bundle::bytes`] of each file.
    #[must_use]
    pub fn file_bytes(&self) -> FileBytes {
        let files = format::encode(self);
        FileBytes { plan: files.plan.len() as u64, weights: files.weights.len() as u64 }
    }

    fn check(&self) -> Result<(), String> {
        validate(&self.plan, 1).map_err(|error| error.to_string())?;
        let Preprocessing { mean, std, .. } = &self.preprocessing;
        let channels = self.plan.values[self.plan.input].dims.first().copied().unwrap_or(1);
        let sound = mean.iter().all(|x| x.is_finite()) && std.iter().all(|x| x.is_normal() && *x > 0.0);
        let one_each = mean.len() == std.len() && (mean.is_empty() || mean.len() == channels);
        if sound && one_each {
            Ok(())
        } else {
            Err(format!("normalization by {mean:?} and {std:?} is impossible for {channels} channels"))
        }
    }
}

/// Bytes that these weights take in `weights.bin`: what a layer adds to the metric `size`, but for a few
/// bytes in the plan.
#[must_use]
pub fn stored_bytes(weights: &Weights) -> u64 {
    let mut out = Vec::new();
    format::put_weights(weights, &mut out);
    out.len() as u64
}

const PLAN: &str = "plan.bin";
const WEIGHTS: &str = "weights.bin";

fn complaint(path: &Path, problem: String) -> KernelError {
    KernelError::Bundle { path: path.display().to_string(), problem }
}
