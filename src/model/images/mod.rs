//! Labelled images: reading the formats that users have, and splitting them three ways.
//!
//! Every format is a [`source::Source`]: a cheap listing of what there is, and a way to read one
//! image. [`split`] chooses by listing alone, so that only the chosen images are ever decoded.
//! Resizing is left to the user: a network is judged on the very pixels it will see.

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

impl Images {
    /// Bytes of one image.
    #[must_use]
    pub fn image_bytes(&self) -> usize {
        self.dims.iter().product()
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pixels.len().checked_div(self.image_bytes()).unwrap_or(0)
    }

    /// Whether there is no image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every image has a label.
    #[must_use]
    pub fn is_labelled(&self) -> bool {
        !self.labels.is_empty()
    }

    /// Pixels of image `index`, `[channels, height, width]`.
    ///
    /// # Panics
    /// Where `index` is not below [`Images::len`].
    #[must_use]
    pub fn image(&self, index: usize) -> &[u8] {
        let bytes = self.image_bytes();
        &self.pixels[index * bytes..(index + 1) * bytes]
    }

    /// Label of image `index`, where the images are labelled.
    #[must_use]
    pub fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(index).copied()
    }

    /// The images of a range, cut to what there is.
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

    /// The first `count` images, or all where there are fewer.
    #[must_use]
    pub fn take(&self, count: usize) -> Self {
        if count >= self.len() { self.clone() } else { self.slice(0..count) }
    }

    /// BLAKE3 over dimensions, pixels and labels, hexadecimal: equal images hash alike everywhere.
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

/// Reads `path` and splits it three ways; `expected` is the network's input, `[channels, height, width]`.
///
/// Understood are a folder per class of PNG or JPEG files, optionally under `train/` and `test/`; a
/// folder of images without class folders (unlabelled); CIFAR-10's binary batches; IDX files; and
/// `.npz` with `x` and optionally `y`. Only images that end up in a part are decoded. Each part comes
/// in an order that has nothing to do with the classes, so that any prefix of it is a fair sample.
///
/// # Errors
/// Where nothing is found, a file cannot be read, a class is empty, images have another size or
/// color than the network's input, or there are too few images for three parts.
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

/// Everything under `test/`, or everything where there is no such part, with the class names.
///
/// # Errors
/// As [`load`].
pub fn load_test(path: &Path, expected: [usize; 3]) -> Result<(Images, Vec<String>), ImageError> {
    let source = source::open(path, expected)?;
    let chosen = split::test_or_all(source.items());
    Ok((source::gather(source.as_ref(), &chosen, expected)?, source.classes().to_vec()))
}
