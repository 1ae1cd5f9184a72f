//! Errors of reading images, worded for the user who provided them.

use std::path::PathBuf;

/// Error of reading or writing images.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The operating system could not read the file or folder.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The cache of decoded images could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Path of the unwritable file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The path holds no images in a known format.
    #[error(
        "no images found in {}: looked for a folder per class of PNG, JPEG, WebP, BMP or TIFF files \
         (optionally under train/ and test/), a folder of such files, CIFAR-10's data_batch_*.bin \
         and test_batch.bin, IDX files such as train-images-idx3-ubyte (or .gz), and .npz with x \
         and y{hint}",
        path.display()
    )]
    Nothing {
        /// Path given by the user.
        path: PathBuf,
        /// Hint about other contents, starting with `"; "`, or empty.
        hint: String,
    },
    /// The number of classes in the data is not that of the network.
    #[error(
        "{}: {found} class(es) with images ({names}){empty}, but the network tells {outputs} classes \
         apart; name its outputs in order, a class name a line, with `--classes FILE`",
        path.display()
    )]
    ClassCount {
        /// Path of the folder or of the file of labels.
        path: PathBuf,
        /// Number of classes with images.
        found: usize,
        /// Names of the first few of them.
        names: String,
        /// Words about class folders without images, or empty.
        empty: String,
        /// Number of classes that the network tells apart.
        outputs: usize,
    },
    /// A class of the data is none of the network's.
    #[error(
        "{}: {unknown} is none of the network's classes ({known}); correct the names, or name the \
         network's outputs in order, a class name a line, with `--classes FILE`",
        path.display()
    )]
    UnknownClasses {
        /// Path of the folder or of the file of labels.
        path: PathBuf,
        /// Names of the first few unknown classes.
        unknown: String,
        /// Names of the network's first few classes.
        known: String,
    },
    /// The folder holds only one folder, which is not a class but the dataset itself.
    #[error(
        "{} holds nothing but a folder that itself holds {part}/; give that folder instead: {}",
        path.display(), inner.display()
    )]
    Outer {
        /// Path given by the user.
        path: PathBuf,
        /// Path of the inner folder.
        inner: PathBuf,
        /// Name of a folder inside that marks a dataset.
        part: String,
    },
    /// A folder holds both images and class folders.
    #[error(
        "{} holds both class folders ({folder}) and loose images ({image}); move the images into \
         class folders",
        path.display()
    )]
    Mixed {
        /// Path of the mixed folder.
        path: PathBuf,
        /// Name of one class folder.
        folder: String,
        /// Name of one loose image.
        image: String,
    },
    /// The file does not match its name or header.
    #[error("{}: {reason}", path.display())]
    Format {
        /// Path of the damaged file.
        path: PathBuf,
        /// Description of the problem in words.
        reason: String,
    },
    /// All images have one size, which is not the network's.
    #[error(
        "{name}: the images are {found}, but the network takes {expected}; give `--resize {shorter}` \
         (the shorter side, of which the middle is cut out) or `--resize {exact}` (exactly), as in \
         the training of the network",
        found = size(*found), expected = size(*expected), shorter = shorter(*expected),
        exact = exact(*expected)
    )]
    Size {
        /// Name of one such image.
        name: String,
        /// `[height, width]` of the image.
        found: [usize; 2],
        /// `[height, width]` of the network's input.
        expected: [usize; 2],
    },
    /// Only some of the images have the network's size.
    #[error(
        "mixed sizes: {name} is {found}, while {other} is {expected}, which is what the network \
         takes; give `--resize {shorter}` (the shorter side, of which the middle is cut out) or \
         `--resize {exact}` (exactly), as in the training of the network",
        found = size(*found), expected = size(*expected), shorter = shorter(*expected),
        exact = exact(*expected)
    )]
    MixedSizes {
        /// Name of an image of a wrong size.
        name: String,
        /// `[height, width]` of that image.
        found: [usize; 2],
        /// Name of an image of the right size.
        other: String,
        /// `[height, width]` of the network's input.
        expected: [usize; 2],
    },
    /// A resized image is smaller than the part to cut out of it.
    #[error(
        "{name}: {found} pixels are left of the image, but {expected} are to be cut out for the \
         network; give a larger `--resize`",
        found = size(*found), expected = size(*expected)
    )]
    TooSmall {
        /// Name of one such image.
        name: String,
        /// `[height, width]` of the image before the crop.
        found: [usize; 2],
        /// `[height, width]` of the network's input.
        expected: [usize; 2],
    },
    /// The colors do not fit the network's input channels.
    #[error("{name} is {found}, but the network takes {channels} channel(s){advice}")]
    Color {
        /// Name of the image or array.
        name: String,
        /// Colors of the image in words.
        found: &'static str,
        /// Number of channels of the network's input.
        channels: usize,
        /// Advice, starting with `"; "`, or empty.
        advice: &'static str,
    },
    /// There are too few images for three parts.
    #[error("{} has only {found} image(s){place}; at least {needed} are needed to split them", path.display())]
    TooFew {
        /// Path given by the user.
        path: PathBuf,
        /// Place of the images: `" in its test part"` or empty.
        place: &'static str,
        /// Number of images that were found.
        found: usize,
        /// Least number of images that is needed.
        needed: usize,
    },
    /// The images do not fit into memory.
    #[error("{count} images of {bytes} bytes each do not fit into memory")]
    TooLarge {
        /// Number of images to be loaded.
        count: usize,
        /// Number of bytes of one image.
        bytes: usize,
    },
}

impl ImageError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(super) fn format(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Format { path: path.into(), reason: reason.into() }
    }
}

fn size([height, width]: [usize; 2]) -> String {
    format!("{width}x{height}")
}

/// Returns the length of the shorter side that training scripts use for this size: 256 for 224.
fn shorter([height, width]: [usize; 2]) -> usize {
    height.max(width).saturating_mul(8).div_ceil(7)
}

fn exact([height, width]: [usize; 2]) -> String {
    format!("{height}x{width}")
}
