//! The step from a photo to the pixels of a network's input.

use paretune_kernels::image::{self, Photo, Transform, TransformError};

use super::error::ImageError;

/// Writes the pixels of `photo` for an input of `expected`, `[channels, height, width]`.
///
/// # Errors
///
/// Fails if neither the photo nor the transform leads to that size.
pub fn fit(
    photo: &Photo,
    name: &str,
    transform: &Transform,
    expected: [usize; 3],
    out: &mut [u8],
) -> Result<(), ImageError> {
    let [channels, height, width] = expected;
    let color =
        |found, advice| ImageError::Color { name: name.to_owned(), found, channels, advice };
    image::transform(photo, transform, expected, out).map_err(|error| match error {
        TransformError::Size { found } => {
            ImageError::Size { name: name.to_owned(), found, expected: [height, width] }
        }
        TransformError::TooSmall { found } => {
            ImageError::TooSmall { name: name.to_owned(), found, expected: [height, width] }
        }
        TransformError::TooLarge { found } => {
            let [height, width] = found;
            ImageError::format(name, format!("would be {width}x{height} after --resize"))
        }
        TransformError::Colored => {
            color("in color", "; convert the images to gray first, or give `--channels gray`")
        }
        TransformError::Channels { found: 1 } => color("gray", ""),
        TransformError::Channels { found: 3 } => color("in color", ""),
        TransformError::Channels { .. } => color("of another number of channels", ""),
        TransformError::Malformed => ImageError::format(name, "has no pixels, or too few"),
    })
}
