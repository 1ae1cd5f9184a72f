//! Files of images, and the photos inside.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use paretune_kernels::file;
use paretune_kernels::image::{MAX_SIDE, Photo};

use super::error::ImageError;
use super::jpeg;

/// Largest size of an image file in bytes.
const MAX_FILE_BYTES: u64 = 128 << 20;
/// Memory that decoding one image may allocate, in bytes.
const MAX_DECODED_BYTES: u64 = 512 << 20;

/// Names of the formats that are read, with the endings of their files.
pub(super) const FORMATS: [(&str, &[&str]); 5] = [
    ("PNG", &["png"]),
    ("JPEG", &["jpg", "jpeg", "jpe", "jfif"]),
    ("WebP", &["webp"]),
    ("BMP", &["bmp"]),
    ("TIFF", &["tif", "tiff"]),
];

/// Endings of image files that are not read.
pub(super) const OTHERS: [&str; 13] =
    ["gif", "ppm", "pgm", "pbm", "pnm", "avif", "heic", "heif", "jxl", "jp2", "tga", "dng", "svg"];

/// Returns the ending of a file's name in small letters.
pub(super) fn ending(name: &str) -> String {
    Path::new(name)
        .extension()
        .map(|ending| ending.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default()
}

/// Returns the name of the format that a file's name promises, if it is read.
pub(super) fn format(name: &str) -> Option<&'static str> {
    let ending = ending(name);
    let named = |(_, endings): &&(&str, &[&str])| endings.contains(&ending.as_str());
    FORMATS.iter().find(named).map(|(format, _)| *format)
}

/// Reads the photo in the file `path` for a network with `channels` channels. `name` stands for it
/// in errors.
///
/// # Errors
///
/// Fails if the file is damaged, no image, or partly transparent.
pub fn photo(path: &Path, name: &str, channels: usize) -> Result<Photo, ImageError> {
    let bad = |reason: String| ImageError::format(path, reason);
    let bytes = file::read(path, MAX_FILE_BYTES).map_err(ImageError::io(path))?;
    if bytes.is_empty() {
        return Err(bad("the file is empty".to_owned()));
    }
    // The content decides, not the name: JPEG files called .png are common.
    let mut reader = ImageReader::new(Cursor::new(&bytes))
        .with_guessed_format()
        .map_err(ImageError::io(path))?;
    match reader.format() {
        Some(ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp | ImageFormat::Tiff) => {}
        Some(ImageFormat::Jpeg) => jpeg::check_end(&bytes).map_err(bad)?,
        _ => {
            let formats: Vec<&str> = FORMATS.iter().map(|(name, _)| *name).collect();
            return Err(bad(format!("none of {} inside", formats.join(", "))));
        }
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let undecodable = |error| bad(format!("cannot be decoded: {error}"));
    let decoder = reader.into_decoder().map_err(undecodable)?;
    if decoder.total_bytes() > MAX_DECODED_BYTES {
        return Err(bad(format!("decodes to more than {} MiB", MAX_DECODED_BYTES >> 20)));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    interleaved(image, channels, name)
}

/// Converts a decoded image to bytes of one, three or four channels: an opaque alpha channel is
/// dropped, 16 bits become 8.
fn interleaved(image: DynamicImage, channels: usize, name: &str) -> Result<Photo, ImageError> {
    let opaque = match &image {
        DynamicImage::ImageRgba8(image) => image.pixels().all(|pixel| pixel[3] == u8::MAX),
        DynamicImage::ImageLumaA8(image) => image.pixels().all(|pixel| pixel[1] == u8::MAX),
        DynamicImage::ImageRgba16(image) => image.pixels().all(|pixel| pixel[3] == u16::MAX),
        DynamicImage::ImageLumaA16(image) => image.pixels().all(|pixel| pixel[1] == u16::MAX),
        _ => true,
    };
    let wide = channels == 4 && image.color().has_color() && image.color().has_alpha();
    if !opaque && !wide {
        return Err(ImageError::Color {
            name: name.to_owned(),
            found: "partly transparent",
            channels,
            advice: "; put the images onto a background first",
        });
    }
    let size = [image.height() as usize, image.width() as usize];
    let (channels, pixels) = if wide {
        (4, image.into_rgba8().into_raw())
    } else if image.color().has_color() {
        (3, image.into_rgb8().into_raw())
    } else {
        (1, image.into_luma8().into_raw())
    };
    Ok(Photo { size, channels, pixels })
}
