//! Labelled images: readers of the supported formats, and a three-way split.
//!
//! Every format is a `Source`: a cheap listing of its images, and a way to read one of
//! them. `split` chooses by listing alone, so that only the chosen images are decoded. Images are
//! not resized: a network is scored on the very pixels of the files.

use std::path::Path;

mod arrays;
mod axis_order;
mod cache;
mod cifar;
#[cfg(test)]
mod damage;
mod dataset;
mod error;
mod folder;
mod format;
mod idx;
mod normalize;
mod npz;
mod source;
mod split;
#[cfg(test)]
mod tests;

pub use dataset::{Dataset, Images};
pub use error::ImageError;
pub use normalize::normalize_into;
pub use split::SplitSizes;

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
    let source = format::open(path, expected)?;
    let parts = split::three_ways(source.items(), sizes, path)?;
    Ok(Dataset {
        classes: source.classes().to_vec(),
        calibration: format::gather(source.as_ref(), &parts.calibration, expected)?,
        search: format::gather(source.as_ref(), &parts.search, expected)?,
        report: format::gather(source.as_ref(), &parts.report, expected)?,
    })
}

/// Reads all images under `test/`, or all images if there is no such part, and the class names.
///
/// # Errors
///
/// Fails like [`load`].
pub fn load_test(path: &Path, expected: [usize; 3]) -> Result<(Images, Vec<String>), ImageError> {
    let source = format::open(path, expected)?;
    let chosen = split::test_or_all(source.items());
    Ok((format::gather(source.as_ref(), &chosen, expected)?, source.classes().to_vec()))
}
