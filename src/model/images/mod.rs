//! Labelled images: readers of the supported formats, and a three-way split.
//!
//! Every format is a `Source`: a cheap listing of its images, and a way to read one of
//! them. `split` chooses by listing alone, so that only the chosen images are decoded. Images are
//! resized only where the user asks for it.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

mod arrays;
mod axis_order;
mod cache;
mod cifar;
mod classes;
#[cfg(test)]
mod damage;
mod dataset;
mod decode;
mod error;
mod fit;
mod folder;
mod format;
mod idx;
mod jpeg;
mod labels;
mod listing;
mod normalize;
mod npz;
mod options;
mod parts;
mod pixels;
mod source;
mod split;
#[cfg(test)]
mod tests;

pub use dataset::{Dataset, Images};
pub use decode::photo;
pub use error::ImageError;
pub use fit::fit;
pub use labels::read_classes;
pub use normalize::normalize_into;
pub use options::{ImageOptions, ReadProgress};
pub use pixels::Pixels;
pub use split::SplitSizes;

use source::Source;

/// Data set with what there is to say about it.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The images.
    pub images: T,
    /// Sentences for the user about files that were left out or used in a special way.
    pub notes: Vec<String>,
}

/// Reads `path` and splits it three ways. `expected` is the size of the network's input,
/// `[channels, height, width]`.
///
/// Supported are a folder per class of image files, optionally under `train/` and `test/`; a folder
/// of images without class folders; CIFAR-10's binary batches; IDX files; and `.npz` with `x` and
/// optionally `y`. Only images that end up in a part are decoded. The order of each part is
/// independent of the classes, so that any prefix of it is a fair sample.
///
/// # Errors
///
/// Fails if nothing is found, a file cannot be read, the classes are not the network's, images do
/// not become the network's input, or there are too few images for three parts.
pub fn load(
    path: &Path,
    expected: [usize; 3],
    sizes: SplitSizes,
    options: &ImageOptions,
) -> Result<Loaded<Dataset>, ImageError> {
    let source = format::open(path, expected, options)?;
    let mut parts = split::three_ways(source.items(), sizes, path)?;
    let mut notes = source.notes().to_vec();
    notes.extend(parts.shrink(MAX_DECODED_BYTES / expected.iter().product::<usize>().max(1)));
    let all = parts.calibration.len() + parts.search.len() + parts.report.len();
    let done = AtomicUsize::new(0);
    let tell = || options.tell(done.fetch_add(1, Ordering::Relaxed) + 1, all);
    let scratch = options.scratch.as_deref();
    let gather =
        |chosen: &[usize]| format::gather(source.as_ref(), chosen, expected, &tell, scratch);
    let images = Dataset {
        classes: source.classes().to_vec(),
        calibration: gather(&parts.calibration)?,
        search: gather(&parts.search)?,
        report: gather(&parts.report)?,
    };
    Ok(Loaded { images, notes })
}

/// Largest number of bytes of a study's decoded images, which are kept on disk.
const MAX_DECODED_BYTES: usize = 4 << 30;

/// Images for a final score, read in portions: all under `test/`, or all if there is no such part.
pub struct TestSet {
    source: Box<dyn Source>,
    chosen: Vec<usize>,
    expected: [usize; 3],
    options: ImageOptions,
}

impl TestSet {
    /// Lists the images of `path`.
    ///
    /// # Errors
    ///
    /// Fails like [`load`], except for images that cannot be read.
    pub fn open(
        path: &Path,
        expected: [usize; 3],
        options: &ImageOptions,
    ) -> Result<Self, ImageError> {
        let source = format::open(path, expected, options)?;
        let chosen = split::test_or_all(source.items());
        Ok(Self { source, chosen, expected, options: options.clone() })
    }

    /// Returns the number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chosen.len()
    }

    /// Returns whether there is no image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }

    /// Returns the class names in the order of the labels, if known.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        self.source.classes()
    }

    /// Returns sentences for the user about files that were left out or used in a special way.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        self.source.notes()
    }

    /// Returns the largest label; `None` if an image has none.
    #[must_use]
    pub fn highest_label(&self) -> Option<u32> {
        let labels: Option<Vec<u32>> =
            self.chosen.iter().map(|&item| self.source.items()[item].label).collect();
        labels?.into_iter().max()
    }

    /// Reads the images of a range, limited to the existing ones.
    ///
    /// # Errors
    ///
    /// Fails if an image cannot be read or does not become the network's input.
    pub fn read(&self, range: Range<usize>) -> Result<Images, ImageError> {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        let done = AtomicUsize::new(start);
        let tell = || self.options.tell(done.fetch_add(1, Ordering::Relaxed) + 1, self.len());
        let chosen = &self.chosen[start..end];
        format::gather(self.source.as_ref(), chosen, self.expected, &tell, None)
    }
}
