//! Images in contiguous arrays, as in binary batches, IDX and NumPy files.

use super::axis_order::{AxisOrder, to_channels_first};
use super::error::ImageError;
use super::source::{Item, Source};

/// Array of images of equal size.
#[derive(Debug)]
pub(super) struct Block {
    /// Bytes that contain the images.
    pub bytes: Vec<u8>,
    /// Offset of the first image in bytes.
    pub offset: usize,
    /// Distance from one image to the next in bytes.
    pub stride: usize,
    /// Number of images in the array.
    pub count: usize,
    pub axis_order: AxisOrder,
    /// Number of times that the image is repeated over the network's channels: 3 for gray images
    /// and a network with three channels, else 1.
    pub repeat: usize,
}

/// Dataset of arrays. Its items are the images of one block after those of another.
pub(super) struct Arrays {
    classes: Vec<String>,
    items: Vec<Item>,
    blocks: Vec<Block>,
}

impl Arrays {
    /// Creates a dataset. `items` has one entry for each image of each block, in order.
    pub fn new(classes: Vec<String>, items: Vec<Item>, blocks: Vec<Block>) -> Self {
        Self { classes, items, blocks }
    }
}

/// Checks the size of an array's images against the network's input. Gray images are repeated for
/// networks with three channels. Returns the number of repetitions.
pub(super) fn check(
    name: &str,
    found: [usize; 3],
    expected: [usize; 3],
) -> Result<usize, ImageError> {
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
            match block.axis_order {
                AxisOrder::ChannelsLast(channels) => to_channels_first(pixels, channels, out),
                AxisOrder::ChannelsFirst => {
                    out.chunks_exact_mut(length).for_each(|part| part.copy_from_slice(pixels))
                }
            }
            return Ok(());
        }
        Err(ImageError::format(name(), "no such image"))
    }
}
