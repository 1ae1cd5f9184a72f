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
        "no images found in {}: looked for a folder per class of PNG or JPEG files (optionally \
         under train/ and \
         test/), a folder of PNG or JPEG files, CIFAR-10's data_batch_*.bin and test_batch.bin, IDX files such as \
         train-images-idx3-ubyte, and .npz with x and y{hint}",
        path.display()
    )]
    Nothing {
        /// Path given by the user.
        path: PathBuf,
        /// Hint about other contents, starting with `"; "`, or empty.
        hint: String,
    },
    /// A class folder holds no images.
    #[error("class folder {} has no PNG or JPEG file{hint}; remove the folder or fill it", path.display())]
    EmptyClass {
        /// Path of the class folder.
        path: PathBuf,
        /// Hint about other contents, starting with `" "`, or empty.
        hint: String,
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
        part: &'static str,
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
        "{name}: the images are {found}, but the network takes {expected}; resize them, or give a \
         network of their \
         size",
        found = size(*found), expected = size(*expected)
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
         takes; resize the \
         images to one size",
        found = size(*found), expected = size(*expected)
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
