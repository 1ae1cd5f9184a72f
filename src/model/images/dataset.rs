//! Images in memory and the dataset of a study.

use std::ops::Range;
use std::sync::Arc;

use super::pixels::Pixels;

/// Images of one size with 8 bits per channel, and labels if known. Large data sets are mapped from
/// files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Size of each image, `[channels, height, width]`.
    pub dims: [usize; 3],
    /// Pixels of one image after another, each row-major `[channels, height, width]`.
    pub pixels: Pixels,
    /// Class index of each image; empty if the images are unlabelled.
    pub labels: Arc<[u32]>,
}

/// Dataset of a study. Its parts have no image in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Class names in the order of the labels, if known.
    pub classes: Vec<String>,
    /// Images for ranges, statistics and reconstruction; their labels are not used.
    pub calibration: Images,
    /// Images on which the search scores candidates.
    pub search: Images,
    /// Images on which final points are scored, never used for choosing.
    pub report: Images,
}

impl Images {
    /// Returns the bytes of one image.
    #[must_use]
    pub fn image_bytes(&self) -> usize {
        self.dims.iter().product()
    }

    /// Returns the number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pixels.len().checked_div(self.image_bytes()).unwrap_or(0)
    }

    /// Returns whether there is no image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether every image has a label.
    #[must_use]
    pub fn is_labelled(&self) -> bool {
        !self.labels.is_empty()
    }

    /// Returns the pixels of image `index`, `[channels, height, width]`.
    ///
    /// # Panics
    ///
    /// Panics if `index` is not below [`Images::len`].
    #[must_use]
    pub fn image(&self, index: usize) -> &[u8] {
        let bytes = self.image_bytes();
        &self.pixels[index * bytes..(index + 1) * bytes]
    }

    /// Returns the label of image `index`, if the images are labelled.
    #[must_use]
    pub fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(index).copied()
    }

    /// Returns the images of a range, limited to the existing ones.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        let bytes = self.image_bytes();
        let labels = if self.is_labelled() { &self.labels[start..end] } else { &[] };
        Self {
            dims: self.dims,
            pixels: self.pixels.part(start * bytes..end * bytes),
            labels: labels.into(),
        }
    }

    /// Returns the first `count` images, or all if there are fewer.
    #[must_use]
    pub fn take(&self, count: usize) -> Self {
        if count >= self.len() { self.clone() } else { self.slice(0..count) }
    }

    /// Returns a BLAKE3 hash over dimensions, pixels and labels in hexadecimal. Equal images hash
    /// alike on every machine.
    #[must_use]
    pub fn content_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"paretune images 1");
        for size in self.dims {
            hasher.update(&(size as u64).to_le_bytes());
        }
        hasher.update(&(self.pixels.len() as u64).to_le_bytes());
        hasher.update(&self.pixels);
        for label in self.labels.iter() {
            hasher.update(&label.to_le_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}
