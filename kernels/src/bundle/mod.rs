//! A network as it is deployed: a folder with `plan.bin` and `weights.bin`, and nothing else.
//!
//! `plan.bin` is `PARETUNE`, a format version, a BLAKE3 checksum over everything else in both files,
//! and the plan without its numbers; `weights.bin` is the numbers, in the order of the plan's weights,
//! as compact as they can be without changing a bit ([`numbers`](self)). What a bundle weighs depends
//! on compression alone, never on schedules' packing.
//!
//! [`Bundle::write_packed`] trades size for load time. `weights.bin` then begins with what the kernels of this plan pack for
//! one instruction set, each part on a cache-line boundary, so that loading maps the file and runs; the coded numbers
//! follow, and are read only where something else is asked for. `plan.bin` lists the parts with a key per layer, and a
//! checksum for either half of `weights.bin`, so that each is checked when it is used.
//!
//! Files may be damaged or hostile: reading checks sizes before it allocates, and the plan before it
//! returns it. Checksums exclude accidents alone, so packed parts are only used as numbers, which may be any, and only as
//! many as the plan needs; places that kernels go to (steps of sparse weights) are copied and checked against the problem.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::executor::{ExecutorOptions, pack, validate, validate_structure};
use crate::hardware::Isa;
use crate::plan::Plan;
use crate::weights::Weights;

mod blocks;
mod folder;
mod format;
mod numbers;
mod stored;
mod stream;
mod table;

pub use stored::{Loaded, Stored, WeightSource};

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
    /// `weights.bin` with coded numbers, which depends on compression alone.
    pub weights: u64,
}

/// Bytes of the files of a bundle with packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedBytes {
    /// `plan.bin`
    pub plan: u64,
    /// What is mapped of `weights.bin`.
    pub packed: u64,
    /// The coded numbers behind it.
    pub coded: u64,
}

impl PackedBytes {
    /// Of both files.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.plan + self.packed + self.coded
    }
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

    /// [`Bundle::write`] with weights as the kernels pack them on `isa`, and the coded ones behind them.
    ///
    /// # Errors
    /// As there, and where the plan does not run on this machine's processor with these instructions.
    pub fn write_packed(&self, folder: &Path, isa: Isa) -> Result<PackedBytes, KernelError> {
        self.check().map_err(|problem| complaint(folder, problem))?;
        let options = ExecutorOptions { batch: 1, threads: self.plan.threads.max(1), isa };
        let mut recording = pack(&self.plan, &options)?;
        let coded = format::encode_numbers(self);
        let plan = format::encode_packed(self, &table::Table::of(&recording, isa, &coded));
        let [plan_bytes, packed, coded_bytes] =
            [plan.len(), recording.bytes.len(), coded.len()].map(|bytes| bytes as u64);
        recording.bytes.extend_from_slice(&coded);
        folder::write(folder, &[(PLAN, &plan), (WEIGHTS, &recording.bytes)])
            .map_err(|problem| complaint(folder, problem))?;
        Ok(PackedBytes { plan: plan_bytes, packed, coded: coded_bytes })
    }

    /// Reads and checks a folder with all numbers; sizes are checked before anything is allocated. To run what is there,
    /// [`Stored`] knows a shorter way.
    ///
    /// # Errors
    /// Where files are missing, damaged or of another version.
    pub fn read(folder: &Path) -> Result<Self, KernelError> {
        let bundle = Stored::open(folder)?.bundle()?;
        Ok(std::sync::Arc::unwrap_or_clone(bundle))
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
        self.check_structure()
    }

    /// [`Bundle::check`] of everything but numbers.
    fn check_structure(&self) -> Result<(), String> {
        validate_structure(&self.plan, 1).map_err(|error| error.to_string())?;
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
