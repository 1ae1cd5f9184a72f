//! Interface of the image formats.

use super::error::ImageError;

/// Part of the dataset to which its author assigned an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Train,
    Test,
    /// The dataset has no parts.
    Whole,
}

/// Image in the listing of a dataset.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Path relative to the data folder, or file and index; equal on every machine.
    pub key: String,
    pub label: Option<u32>,
    pub role: Role,
}

/// Listed dataset of one format.
pub(super) trait Source: Sync {
    /// Returns the class names in label order; empty if unknown.
    fn classes(&self) -> &[String];
    /// Returns all images, sorted by key within each role.
    fn items(&self) -> &[Item];
    /// Returns sentences for the user about files that were left out or used in a special way.
    fn notes(&self) -> &[String];
    /// Writes the pixels of one image, `[channels, height, width]` of the network's input.
    fn read(&self, item: usize, out: &mut [u8]) -> Result<(), ImageError>;
}
