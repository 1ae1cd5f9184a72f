//! Labelled images: readers of the supported formats, and a three-way split.
//!
//! Every format is a [`source::Source`]: a cheap listing of its images, and a way to read one of
//! them. [`split`] chooses by listing alone, so that only the chosen images are decoded. Images are
//! not resized: a network is scored on the very pixels of the files.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

mod arrays;
mod cache;
mod cifar;
#[cfg(test)]
mod damage;
mod error;
mod folder;
mod idx;
mod normalize;
mod npz;
mod source;
mod split;
#[cfg(test)]
mod tests;

pub use error::ImageError;
pub use normalize::normalize_into;
pub use split::SplitSizes;

/// Images of one size with 8 bits per channel, and labels if known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Size of each image, `[channels, height, width]`.
    pub dims: [usize; 3],
    /// Pixels of one image after another, each row-major `[channels, height, width]`.
    pub pixels: Arc<[u8]>,
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
            pixels: self.pixels[start * bytes..end * bytes].into(),
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

/// Reads `path` and splits it three ways. `expected` is the size of the network's input,
/// `[channels, height, width]`.
///
/// Supported are a folder per class of PNG or JPEG files, optionally under `train/` and `test/`; a
/// folder of images without class folders (unlabelled); CIFAR-10's binary batches; IDX files; and
/// `.npz` with `x` and optionally `y`. Only images that end up in a part are decoded. The order of
/// each part is independent of the classes, so that any prefix of it is a fair sample.
///
/// # Errors
///
/// Fails if nothing is found, a file cannot be read, a class is empty, images differ in size or
/// color from the network's input, or there are too few images for three parts.
pub fn load(path: &Path, expected: [usize; 3], sizes: SplitSizes) -> Result<Dataset, ImageError> {
    let source = source::open(path, expected)?;
    let parts = split::three_ways(source.items(), sizes, path)?;
    Ok(Dataset {
        classes: source.classes().to_vec(),
        calibration: source::gather(source.as_ref(), &parts.calibration, expected)?,
        search: source::gather(source.as_ref(), &parts.search, expected)?,
        report: source::gather(source.as_ref(), &parts.report, expected)?,
    })
}

/// Reads all images under `test/`, or all images if there is no such part, and the class names.
///
/// # Errors
///
/// Fails like [`load`].
pub fn load_test(path: &Path, expected: [usize; 3]) -> Result<(Images, Vec<String>), ImageError> {
    let source = source::open(path, expected)?;
    let chosen = split::test_or_all(source.items());
    Ok((source::gather(source.as_ref(), &chosen, expected)?, source.classes().to_vec()))
}
