//! What can be wrong with images, in words for the person who gave them.

use std::path::PathBuf;

/// Why images could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Its answer.
        source: std::io::Error,
    },
    /// A file of decoded images could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// No known format.
    #[error(
        "no images found in {}: looked for a folder per class of PNG or JPEG files (optionally under train/ and \
         test/), a folder of PNG or JPEG files, CIFAR-10's data_batch_*.bin and test_batch.bin, IDX files such as \
         train-images-idx3-ubyte, and .npz with x and y{hint}",
        path.display()
    )]
    Nothing {
        /// What was given.
        path: PathBuf,
        /// What was seen instead, starting with `"; "`, or empty.
        hint: String,
    },
    /// A class folder without images.
    #[error("class folder {} has no PNG or JPEG file{hint}; remove the folder or fill it", path.display())]
    EmptyClass {
        /// The folder.
        path: PathBuf,
        /// What was seen instead, starting with `" "`, or empty.
        hint: String,
    },
    /// One folder, which is not a class but holds the images as they should be given.
    #[error(
        "{} holds nothing but a folder that itself holds {part}/; give that folder instead: {}",
        path.display(), inner.display()
    )]
    Outer {
        /// What was given.
        path: PathBuf,
        /// The folder in it.
        inner: PathBuf,
        /// What that has that no class would.
        part: &'static str,
    },
    /// Images both beside and inside of class folders.
    #[error(
        "{} holds both class folders ({folder}) and loose images ({image}); move the images into class folders",
        path.display()
    )]
    Mixed {
        /// The folder.
        path: PathBuf,
        /// One class folder.
        folder: String,
        /// One loose image.
        image: String,
    },
    /// The file is not what its name or header says.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// All images have one size, which is not the network's.
    #[error(
        "{name}: the images are {found}, but the network takes {expected}; resize them, or give a network of their \
         size",
        found = size(*found), expected = size(*expected)
    )]
    Size {
        /// An image.
        name: String,
        /// Its `[height, width]`.
        found: [usize; 2],
        /// The network's `[height, width]`.
        expected: [usize; 2],
    },
    /// Some images have the network's size and some have not.
    #[error(
        "mixed sizes: {name} is {found}, while {other} is {expected}, which is what the network takes; resize the \
         images to one size",
        found = size(*found), expected = size(*expected)
    )]
    MixedSizes {
        /// An image of a wrong size.
        name: String,
        /// Its `[height, width]`.
        found: [usize; 2],
        /// An image of the right size.
        other: String,
        /// The network's `[height, width]`.
        expected: [usize; 2],
    },
    /// Colors do not fit the network's input channels.
    #[error("{name} is {found}, but the network takes {channels} channel(s){advice}")]
    Color {
        /// The image or array.
        name: String,
        /// Its colors, in words.
        found: &'static str,
        /// The network's.
        channels: usize,
        /// What to do, starting with `"; "`, or empty.
        advice: &'static str,
    },
    /// Three parts need more images.
    #[error("{} has only {found} image(s){place}; at least {needed} are needed to split them", path.display())]
    TooFew {
        /// What was given.
        path: PathBuf,
        /// `" in its test part"` or empty.
        place: &'static str,
        /// Images there.
        found: usize,
        /// Images needed.
        needed: usize,
    },
    /// More bytes than this machine can hold.
    #[error("{count} images of {bytes} bytes each do not fit into memory")]
    TooLarge {
        /// Images.
        count: usize,
        /// Bytes of one.
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
