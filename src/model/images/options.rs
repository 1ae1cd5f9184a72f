//! Options for reading images: size, channels, scale, class names and labels. Where the images lie
//! is left to the loader.

use std::path::PathBuf;
use std::sync::Arc;

use paretune_kernels::image::Transform;

/// Receives the number of images that are read and the number of all that will be.
pub type ReadProgress = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// Settings of a data set: how its files become inputs, and how its names become labels.
#[derive(Clone, Default)]
pub struct ImageOptions {
    /// Size, crop and channels of the images.
    pub transform: Transform,
    /// Class names in the order of the network's outputs; empty for the sorted names of folders.
    pub classes: Vec<String>,
    /// File with a line `NAME CLASS` for every labelled image of a folder.
    pub labels: Option<PathBuf>,
    /// Number of classes that the network tells apart, if it is a classifier.
    pub outputs: Option<usize>,
    /// Folder for a nameless file of decoded images; without it they stay in memory.
    pub scratch: Option<PathBuf>,
    /// Receiver of the progress of reading.
    pub progress: Option<ReadProgress>,
}

impl ImageOptions {
    /// Reports that `done` of `all` images are read.
    pub(super) fn tell(&self, done: usize, all: usize) {
        if let Some(progress) = &self.progress {
            progress(done, all);
        }
    }
}
