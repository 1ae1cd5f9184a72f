//! Labelled images: reading the formats that users have, and splitting them three ways.

use std::sync::Arc;

/// Images of one size, 8 bits per channel, with labels where known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// `[channels, height, width]`
    pub dims: [usize; 3],
    /// One image after another, each row-major `[channels, height, width]`.
    pub pixels: Arc<[u8]>,
    /// One class index per image; empty where the images are unlabelled.
    pub labels: Arc<[u32]>,
}

/// What a study works with. No image is in two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Class names in the order of the labels, where known.
    pub classes: Vec<String>,
    /// Unlabelled use only: ranges, statistics, reconstruction.
    pub calibration: Images,
    /// What the search scores candidates on.
    pub search: Images,
    /// What final points are scored on, never used for choosing.
    pub report: Images,
}
