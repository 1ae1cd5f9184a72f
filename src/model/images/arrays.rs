//! Images in contiguous arrays, as in binary batches, IDX and NumPy files.

use paretune_kernels::image::{Photo, Transform};

use super::axis_order::AxisOrder;
use super::error::ImageError;
use super::fit::fit;
use super::options::ImageOptions;
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
    /// Size of each image, `[channels, height, width]`.
    pub dims: [usize; 3],
    pub axis_order: AxisOrder,
}

/// Dataset of arrays. Its items are the images of one block after those of another.
pub(super) struct Arrays {
    classes: Vec<String>,
    items: Vec<Item>,
    blocks: Vec<Block>,
    expected: [usize; 3],
    transform: Transform,
}

impl Arrays {
    /// Creates a dataset. `items` has one entry for each image of each block, in order.
    ///
    /// # Errors
    ///
    /// Fails if the options are those of a folder of image files.
    pub fn new(
        classes: Vec<String>,
        items: Vec<Item>,
        blocks: Vec<Block>,
        expected: [usize; 3],
        options: &ImageOptions,
    ) -> Result<Self, ImageError> {
        if let Some(path) = &options.labels {
            return Err(ImageError::format(
                path,
                "--labels is for folders of image files; arrays hold their own labels",
            ));
        }
        let classes = if options.classes.is_empty() { classes } else { options.classes.clone() };
        Ok(Self { classes, items, blocks, expected, transform: options.transform })
    }
}

/// Checks the size of an array's images before they are read, where no operation changes it.
///
/// # Errors
///
/// Fails if the images do not have the size of the network's input.
pub(super) fn check_size(
    name: &str,
    found: [usize; 3],
    expected: [usize; 3],
    options: &ImageOptions,
) -> Result<(), ImageError> {
    let changed = options.transform.resize.is_some() || options.transform.crop;
    if changed || found[1..] == expected[1..] {
        return Ok(());
    }
    Err(ImageError::Size {
        name: name.to_owned(),
        found: [found[1], found[2]],
        expected: [expected[1], expected[2]],
    })
}

impl Source for Arrays {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn items(&self) -> &[Item] {
        &self.items
    }

    fn notes(&self) -> &[String] {
        &[]
    }

    fn read(&self, item: usize, out: &mut [u8]) -> Result<(), ImageError> {
        let name = || self.items.get(item).map(|item| item.key.clone()).unwrap_or_default();
        let mut index = item;
        for block in &self.blocks {
            if index >= block.count {
                index -= block.count;
                continue;
            }
            let length: usize = block.dims.iter().product();
            let start = block.offset + index * block.stride;
            let pixels = block
                .bytes
                .get(start..start + length)
                .ok_or_else(|| ImageError::format(name(), "the file ends before this image"))?;
            let [channels, height, width] = block.dims;
            let pixels = match block.axis_order {
                AxisOrder::ChannelsLast => pixels.to_vec(),
                AxisOrder::ChannelsFirst => interleaved(pixels, channels),
            };
            let photo = Photo { size: [height, width], channels, pixels };
            return fit(&photo, &name(), &self.transform, self.expected, out);
        }
        Err(ImageError::format(name(), "no such image"))
    }
}

/// Converts `[channels, height, width]` to `[height, width, channels]`.
fn interleaved(planes: &[u8], channels: usize) -> Vec<u8> {
    let mut out = vec![0; planes.len()];
    let plane = planes.len() / channels.max(1);
    for (channel, plane) in planes.chunks_exact(plane.max(1)).enumerate() {
        out.iter_mut().skip(channel).step_by(channels).zip(plane).for_each(|(to, x)| *to = *x);
    }
    out
}
