//! Images that lie in memory one after another, as binary batches, IDX and NumPy files have them.

use super::error::ImageError;
use super::folder::planar;
use super::source::{Item, Source};

/// Order of the axes within one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[channels, height, width]`
    Planar,
    /// `[height, width, channels]`, with the number of channels
    Interleaved(usize),
}

/// One array of images.
#[derive(Debug)]
pub(super) struct Block {
    /// What holds the images.
    pub bytes: Vec<u8>,
    /// Where the first image begins.
    pub offset: usize,
    /// From one image to the next.
    pub stride: usize,
    /// Images.
    pub count: usize,
    pub layout: Layout,
    /// How often the image is repeated over the network's channels: 3 for gray images to a network that
    /// takes three, else 1.
    pub repeat: usize,
}

/// A data set of arrays. Items are the images of one block after those of another.
pub(super) struct Arrays {
    classes: Vec<String>,
    items: Vec<Item>,
    blocks: Vec<Block>,
}

impl Arrays {
    /// `items` has one entry for each image of each block, in order.
    pub fn new(classes: Vec<String>, items: Vec<Item>, blocks: Vec<Block>) -> Self {
        Self { classes, items, blocks }
    }
}

/// Checks the size of an array's images against the network's input. Gray images may go to a network
/// that takes three channels: they are repeated. Returns how often.
pub(super) fn check(name: &str, found: [usize; 3], expected: [usize; 3]) -> Result<usize, ImageError> {
    if found[1..] != expected[1..] {
        return Err(ImageError::Size {
            name: name.to_owned(),
            found: [found[1], found[2]],
            expected: [expected[1], expected[2]],
        });
    }
    match (found[0], expected[0]) {
        (1, 3) => Ok(3),
        (found, expected) if found == expected => Ok(1),
        _ => Err(ImageError::Color {
            name: name.to_owned(),
            found: match found[0] {
                1 => "gray",
                3 => "in color",
                _ => "of another number of channels",
            },
            channels: expected[0],
            advice: if expected[0] == 1 { "; convert the images to gray first" } else { "" },
        }),
    }
}

impl Source for Arrays {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn items(&self) -> &[Item] {
        &self.items
    }

    fn read(&self, item: usize, out: &mut [u8]) -> Result<(), ImageError> {
        let name = || self.items.get(item).map(|item| item.key.clone()).unwrap_or_default();
        let mut index = item;
        for block in &self.blocks {
            if index >= block.count {
                index -= block.count;
                continue;
            }
            let length = out.len() / block.repeat;
            let start = block.offset + index * block.stride;
            let pixels = block
                .bytes
                .get(start..start + length)
                .ok_or_else(|| ImageError::format(name(), "the file ends before this image"))?;
            match block.layout {
                Layout::Interleaved(channels) => planar(pixels, channels, out),
                Layout::Planar => out.chunks_exact_mut(length).for_each(|part| part.copy_from_slice(pixels)),
            }
            return Ok(());
        }
        Err(ImageError::format(name(), "no such image"))
    }
}
