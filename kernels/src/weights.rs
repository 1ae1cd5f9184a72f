//! Weights as they are stored: compact, in one canonical order, independent of how they will be run.
//!
//! Algorithms pack from these at load time. What a bundle weighs on disk therefore depends on
//! compression alone and never on the schedule.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The weights of one convolution or dense layer, and its bias.
///
/// `dims` is `[out_channels, in_channels / groups, kernel_height, kernel_width]`, row-major ("OIHW");
/// a dense layer is a 1x1 convolution: `[out, in, 1, 1]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// `[out_channels, in_channels / groups, kernel_height, kernel_width]`
    pub dims: [usize; 4],
    /// The numbers.
    pub values: WeightValues,
    /// One per output channel.
    pub bias: Option<Arc<[f32]>>,
}

/// The numbers of [`Weights`], in the format that decides which algorithms can run them and how many
/// bytes they take on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WeightValues {
    /// Dense single precision.
    F32(Arc<[f32]>),
    /// Single precision with many zeros. Held dense in memory; stored on disk, and executed, as the
    /// non-zero values and their positions. Values are single precision.
    SparseF32(Arc<[f32]>),
    /// Dense 8-bit integers, symmetric, one scale per output channel; run with 8-bit activations.
    I8(DenseI8),
}

/// 8-bit symmetric weights: `weight = value * scale[out_channel]`, values in -127..=127.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DenseI8 {
    /// In the order of [`Weights::dims`].
    pub values: Arc<[i8]>,
    /// One per output channel, positive and finite.
    pub scales: Arc<[f32]>,
}

/// Which kind of numbers a kernel reads; every convolution algorithm states the one it executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WeightFormat {
    /// [`WeightValues::F32`]
    F32,
    /// [`WeightValues::SparseF32`]
    SparseF32,
    /// [`WeightValues::I8`]
    I8,
}

impl WeightValues {
    /// The format of these numbers.
    #[must_use]
    pub fn format(&self) -> WeightFormat {
        match self {
            Self::F32(_) => WeightFormat::F32,
            Self::SparseF32(_) => WeightFormat::SparseF32,
            Self::I8(_) => WeightFormat::I8,
        }
    }

    /// How many numbers there are, zeros included.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) | Self::SparseF32(values) => values.len(),
            Self::I8(dense) => dense.values.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
