//! The deployed form of a network: a folder with `plan.bin` and `weights.bin`, and nothing else.
//!
//! `plan.bin` has the magic bytes `PARETUNE`, a format version, a BLAKE3 checksum over everything
//! else in both files, and the plan without weights. `weights.bin` has the weights in the order of
//! the plan, compressed losslessly by the weight codec. The size of a bundle depends on compression
//! alone, never on the packing that a schedule implies.
//!
//! [`Bundle::write_packed`] trades size for load time. `weights.bin` then begins with the packed
//! weights of this plan for one instruction set, each section on a cache-line boundary, so that
//! loading only maps the file. The coded weights follow, and are read only if other packed weights
//! are needed. `plan.bin` lists the sections with a key per layer, and has a checksum for either
//! half of `weights.bin`, so that each half is checked when it is used.
//!
//! Files may be damaged or hostile: reading checks sizes before it allocates, and the plan before
//! it returns it. Checksums exclude accidents only. Packed weights are therefore used as plain
//! numbers, any of which is safe, and only as many as the plan needs. Indices that kernels follow
//! (offsets of sparse weights) are copied and checked against the problem.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::executor::{ExecutorOptions, pack, validate, validate_structure};
use crate::image::Transform;
use paretune_base::error::KernelError;
use paretune_base::plan::Plan;
use paretune_base::plan::weights::Weights;
use paretune_simd::Isa;

mod blocks;
mod folder;
mod format;
mod numbers;
mod stored;
mod stream;
mod table;

pub use stored::{Loaded, Stored, WeightSource};

/// A plan with the preprocessing of its inputs.
///
/// # Examples
/// A bundle is written to a folder and read back. To run it, load it with [`Stored`]:
///
/// ```
/// use paretune_kernels::bundle::{Bundle, Preprocessing, Stored};
/// use paretune_kernels::hardware::Isa;
/// use paretune_kernels::operator::Operator;
/// use paretune_kernels::{Activation, ExecutorOptions, Plan, Step, ValueSpec};
///
/// let value = ValueSpec { dims: vec![4], quantization: None };
/// let relu = Step {
///     name: "relu".into(),
///     operator: Operator::Activation(Activation::Relu),
///     inputs: vec![0],
///     output: 1,
/// };
/// let bundle = Bundle {
///     plan: Plan {
///         values: vec![value.clone(), value],
///         output: 1,
///         steps: vec![relu],
///         threads: 1,
///         ..Plan::default()
///     },
///     preprocessing: Preprocessing::default(),
///     configuration: String::new(),
/// };
///
/// let parent = tempfile::tempdir()?;
/// let folder = parent.path().join("bundle");
/// bundle.write(&folder)?;
/// assert_eq!(Bundle::read(&folder)?, bundle);
///
/// let options = ExecutorOptions { batch: 1, threads: 1, isa: Isa::detect() };
/// let mut executor = Stored::open(&folder)?.load(&options)?.executor;
/// let mut output = [0.0; 4];
/// executor.run(&[-2.0, -1.0, 1.0, 2.0], &mut output)?;
/// assert_eq!(output, [0.0, 0.0, 1.0, 2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    /// Plan of the deployed network.
    pub plan: Plan,
    /// Preprocessing of images, and the meaning of the outputs.
    pub preprocessing: Preprocessing,
    /// Content hash of the configuration that the bundle was built from.
    pub configuration: String,
}

/// Preprocessing from a photo to the network's input: a transform of its pixels, then
/// `(pixel - mean[channel]) / std[channel]` on the 0-255 scale.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Mean per channel, or empty.
    pub mean: Vec<f32>,
    /// Standard deviation per channel, positive.
    pub std: Vec<f32>,
    /// Names of the classes in the order of the outputs, if known.
    pub classes: Vec<String>,
    /// Size, crop and channels of photos, before the normalization.
    pub transform: Transform,
}

/// Sizes of a bundle's files in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileBytes {
    /// Bytes of `plan.bin`, which includes the schedules.
    pub plan: u64,
    /// Bytes of `weights.bin` with coded weights alone, which depend on compression alone.
    pub weights: u64,
}

/// Sizes of the files of a bundle with packed weights, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedBytes {
    /// Bytes of `plan.bin`, with the table of packed weights.
    pub plan: u64,
    /// Bytes of packed weights, the mapped part of `weights.bin`.
    pub packed: u64,
    /// Bytes of coded weights, the rest of `weights.bin`.
    pub coded: u64,
}

impl PackedBytes {
    /// Returns the bytes of both files together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.plan + self.packed + self.coded
    }
}

impl Bundle {
    /// Writes the folder atomically. An existing bundle is replaced; a folder with any other
    /// contents is left alone.
    ///
    /// # Errors
    /// Fails if the plan is not valid, if something other than a bundle is in the way, or if the
    /// disk refuses.
    pub fn write(&self, folder: &Path) -> Result<(), KernelError> {
        self.check().map_err(|problem| complaint(folder, problem))?;
        let files = format::encode(self);
        folder::write(folder, &[(PLAN, &files.plan), (WEIGHTS, &files.weights)])
            .map_err(|problem| complaint(folder, problem))
    }

    /// Writes the folder like [`Bundle::write`], with weights packed for `isa` before the coded
    /// ones.
    ///
    /// # Errors
    /// Fails like [`Bundle::write`], and if the plan does not run on this machine's processor with
    /// these instructions.
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

    /// Reads and checks a folder with all weights; sizes are checked before anything is allocated.
    /// To run a bundle, [`Stored`] is faster.
    ///
    /// # Errors
    /// Fails if files are missing, damaged or of another version.
    pub fn read(folder: &Path) -> Result<Self, KernelError> {
        let bundle = Stored::open(folder)?.bundle()?;
        Ok(std::sync::Arc::unwrap_or_clone(bundle))
    }

    /// Returns the bytes that [`Bundle::write`] would put on disk, which is exactly the metric
    /// `size`.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let FileBytes { plan, weights } = self.file_bytes();
        plan + weights
    }

    /// Returns the bytes of each file; see [`Bundle::bytes`].
    #[must_use]
    pub fn file_bytes(&self) -> FileBytes {
        let files = format::encode(self);
        FileBytes { plan: files.plan.len() as u64, weights: files.weights.len() as u64 }
    }

    fn check(&self) -> Result<(), String> {
        validate(&self.plan, 1).map_err(|error| error.to_string())?;
        self.check_structure()
    }

    /// Checks everything except the values of weights.
    fn check_structure(&self) -> Result<(), String> {
        validate_structure(&self.plan, 1).map_err(|error| error.to_string())?;
        let Preprocessing { mean, std, .. } = &self.preprocessing;
        let channels = self.plan.values[self.plan.input].dims.first().copied().unwrap_or(1);
        let sound =
            mean.iter().all(|x| x.is_finite()) && std.iter().all(|x| x.is_normal() && *x > 0.0);
        let one_each = mean.len() == std.len() && (mean.is_empty() || mean.len() == channels);
        if sound && one_each {
            Ok(())
        } else {
            Err(format!(
                "normalization by {mean:?} and {std:?} is impossible for {channels} channels"
            ))
        }
    }
}

/// Returns the bytes of these weights in `weights.bin`: the contribution of a layer to the metric
/// `size`, except for a few bytes in the plan.
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
