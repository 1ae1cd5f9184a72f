//! All operations on one photo, in the order in which training scripts apply them.

use super::{Channels, Resize, Transform, crop, resample};

/// Decoded photo: rows of pixels with interleaved channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Photo {
    /// Height and width in pixels.
    pub size: [usize; 2],
    /// Number of bytes per pixel: 1 for gray, 3 for red, green and blue, or as many as the
    /// network's channels.
    pub channels: usize,
    /// Bytes of the pixels, row by row.
    pub pixels: Vec<u8>,
}

/// Largest number of pixels of a resized photo.
const MAX_PIXELS: usize = 1 << 28;

/// Reason why a photo does not become the input of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransformError {
    /// The photo has another size, and no operation changes it.
    Size {
        /// Height and width of the photo after all operations.
        found: [usize; 2],
    },
    /// After the change of size the photo is smaller than the part to cut out.
    TooSmall {
        /// Height and width of the photo before the crop.
        found: [usize; 2],
    },
    /// The change of size would make an image too large for any memory.
    TooLarge {
        /// Height and width that the photo would get.
        found: [usize; 2],
    },
    /// The photo has colors, and the network takes one channel.
    Colored,
    /// The photo has another number of channels than the network.
    Channels {
        /// Number of channels of the photo.
        found: usize,
    },
    /// The photo has no pixel, or not the number of bytes that its size states.
    Malformed,
}

/// Writes the pixels `[channels, height, width]` of a network's input, whose size is `expected`.
///
/// # Errors
/// Fails if the operations do not lead to the network's size or channels.
///
/// # Panics
/// Panics if `out` does not have the length that `expected` states.
pub fn transform(
    photo: &Photo,
    transform: &Transform,
    expected: [usize; 3],
    out: &mut [u8],
) -> Result<(), TransformError> {
    let [channels, height, width] = expected;
    assert_eq!(out.len(), channels * height * width, "one byte per input value");
    let Photo { mut size, channels: found, ref pixels } = *photo;
    let bytes = size[0].checked_mul(size[1]).and_then(|pixels| pixels.checked_mul(found));
    if pixels.is_empty() || bytes != Some(pixels.len()) {
        return Err(TransformError::Malformed);
    }
    let gray = (transform.channels == Channels::Gray && found == 3).then(|| luma(pixels));
    let (mut pixels, kept) = match gray {
        Some(gray) => (gray, 1),
        None => (pixels.clone(), found),
    };
    match (kept, channels) {
        (kept, channels) if kept == channels => {}
        (1, 3) => {}
        (3, 1) => return Err(TransformError::Colored),
        (found, _) => return Err(TransformError::Channels { found }),
    }
    if let Some(resize) = transform.resize {
        let to = target(resize, size);
        if to[0].saturating_mul(to[1]) > MAX_PIXELS {
            return Err(TransformError::TooLarge { found: to });
        }
        pixels = resample::resize(&pixels, size, to, kept, transform.interpolation);
        size = to;
    }
    if size != [height, width] {
        if !transform.crop {
            return Err(TransformError::Size { found: size });
        }
        if size[0] < height || size[1] < width {
            return Err(TransformError::TooSmall { found: size });
        }
        pixels = crop::center(&pixels, size, [height, width], kept);
    }
    let plane = height * width;
    if kept == 1 {
        out.chunks_exact_mut(plane).for_each(|to| to.copy_from_slice(&pixels));
        return Ok(());
    }
    let turned = transform.channels == Channels::Bgr && kept >= 3;
    for (channel, to) in out.chunks_exact_mut(plane).enumerate() {
        // A fourth channel keeps its place.
        let from = if turned && channel < 3 { 2 - channel } else { channel };
        to.iter_mut().zip(pixels.iter().skip(from).step_by(kept)).for_each(|(to, x)| *to = *x);
    }
    Ok(())
}

/// Returns the size `[height, width]` to which an image of `from` is brought.
fn target(resize: Resize, from: [usize; 2]) -> [usize; 2] {
    match resize {
        Resize::Exact(height, width) => [height as usize, width as usize],
        Resize::Shorter(side) => {
            let side = side as usize;
            let [height, width] = from;
            let (short, long) = (height.min(width), height.max(width));
            // Truncated like torchvision's; images are far smaller than the range of the product.
            let other = side.saturating_mul(long) / short.max(1);
            if height <= width { [side, other] } else { [other, side] }
        }
    }
}

/// Returns the luma of red, green and blue (ITU-R 601-2) with the fixed point of Pillow.
fn luma(pixels: &[u8]) -> Vec<u8> {
    pixels
        .chunks_exact(3)
        .map(|pixel| {
            let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
            ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16) as u8
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Interpolation;

    /// Returns the photo that `golden.py` draws.
    fn photo(size: [usize; 2], channels: usize) -> Photo {
        let pixels = (0..size[0] * size[1] * channels)
            .map(|i| ((i * i * 31 + i * 17 + (i >> 3) * 101) % 251) as u8)
            .collect();
        Photo { size, channels, pixels }
    }

    #[test]
    fn every_filter_gives_the_bytes_of_pillow() {
        for line in include_str!("golden.txt").lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [filter, from, to, channels, bytes] = words[..] else { panic!("{line}") };
            let interpolation: Interpolation = filter.parse().unwrap();
            let size = |text: &str| match text.parse::<Resize>().unwrap() {
                Resize::Exact(height, width) => [height as usize, width as usize],
                Resize::Shorter(side) => [side as usize; 2],
            };
            let (from, to, channels) = (size(from), size(to), channels.parse().unwrap());
            let options = Transform {
                resize: Some(Resize::Exact(to[0] as u32, to[1] as u32)),
                interpolation,
                ..Transform::default()
            };
            let mut out = vec![0; channels * to[0] * to[1]];
            transform(&photo(from, channels), &options, [channels, to[0], to[1]], &mut out)
                .unwrap();
            let found: Vec<u8> =
                (0..out.len()).map(|i| out[i % channels * to[0] * to[1] + i / channels]).collect();
            let wanted: Vec<u8> = (0..bytes.len() / 2)
                .map(|i| u8::from_str_radix(&bytes[2 * i..2 * i + 2], 16).unwrap())
                .collect();
            assert_eq!(found, wanted, "{filter} {from:?} {to:?}");
        }
    }

    #[test]
    fn the_shorter_side_is_given_and_the_other_one_truncated() {
        assert_eq!(target(Resize::Shorter(256), [480, 641]), [256, 341]);
        assert_eq!(target(Resize::Shorter(256), [641, 480]), [341, 256]);
        assert_eq!(target(Resize::Shorter(8), [3, 3]), [8, 8]);
    }

    #[test]
    fn channels_are_turned_dropped_or_repeated() {
        let one = |channels, expected: [usize; 3]| {
            let mut out = vec![0; expected.iter().product()];
            let options = Transform { channels, ..Transform::default() };
            let photo = Photo { size: [1, 1], channels: 3, pixels: vec![10, 20, 30] };
            transform(&photo, &options, expected, &mut out).map(|()| out)
        };
        assert_eq!(one(Channels::Rgb, [3, 1, 1]), Ok(vec![10, 20, 30]));
        assert_eq!(one(Channels::Bgr, [3, 1, 1]), Ok(vec![30, 20, 10]));
        // (10 * 19595 + 20 * 38470 + 30 * 7471) / 65536 = 18.15.
        assert_eq!(one(Channels::Gray, [1, 1, 1]), Ok(vec![18]));
        assert_eq!(one(Channels::Gray, [3, 1, 1]), Ok(vec![18; 3]));
        assert_eq!(one(Channels::Rgb, [1, 1, 1]), Err(TransformError::Colored));
        assert_eq!(one(Channels::Rgb, [4, 1, 1]), Err(TransformError::Channels { found: 3 }));
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let mut out = [0; 16];
        let mut fit =
            |options: &Transform| transform(&photo([5, 9], 1), options, [1, 4, 4], &mut out);
        let plain = Transform::default();
        assert_eq!(fit(&plain), Err(TransformError::Size { found: [5, 9] }));
        assert_eq!(fit(&Transform { crop: true, ..plain }), Ok(()));
        let small = Transform { resize: Some(Resize::Shorter(3)), crop: true, ..plain };
        assert_eq!(fit(&small), Err(TransformError::TooSmall { found: [3, 5] }));
        let huge = Transform { resize: Some(Resize::Exact(16384, 16384 + 1)), ..plain };
        assert!(matches!(fit(&huge), Err(TransformError::TooLarge { .. })));
        let uneven = Photo { size: [2, 2], channels: 1, pixels: vec![0; 3] };
        assert_eq!(transform(&uneven, &plain, [1, 4, 4], &mut out), Err(TransformError::Malformed));
    }
}
