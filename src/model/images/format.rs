//! Detection of the image format, and reading of chosen images.

use std::path::Path;

use rayon::prelude::*;

use super::dataset::Images;
use super::error::ImageError;
use super::source::Source;
use super::{cifar, folder, idx, npz};

/// Detects the format of `path` and lists its images.
pub(super) fn open(path: &Path, expected: [usize; 3]) -> Result<Box<dyn Source>, ImageError> {
    let metadata = std::fs::metadata(path).map_err(ImageError::io(path))?;
    if metadata.is_file() {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().to_ascii_lowercase())
            .unwrap_or_default();
        if name.ends_with(".npz") {
            return Ok(Box::new(npz::open(&[path.to_owned()], expected)?));
        }
        if name.ends_with(".bin") {
            return Ok(Box::new(cifar::open_file(path, expected)?));
        }
        if idx::is_images(path)? {
            return Ok(Box::new(idx::open(&[path.to_owned()], expected)?));
        }
        return Err(ImageError::Nothing {
            path: path.into(),
            hint: "; this file is none of them".to_owned(),
        });
    }
    let names = folder::file_names(path)?;
    if names.iter().any(|name| cifar::role(name).is_some()) {
        return Ok(Box::new(cifar::open_folder(path, &names, expected)?));
    }
    let mut arrays = Vec::new();
    let mut matrices = Vec::new();
    for name in &names {
        let file = path.join(name);
        if name.ends_with(".npz") {
            arrays.push(file);
        } else if name.contains("idx") && idx::is_images(&file)? {
            matrices.push(file);
        }
    }
    if !matrices.is_empty() {
        return Ok(Box::new(idx::open(&matrices, expected)?));
    }
    if !arrays.is_empty() {
        return Ok(Box::new(npz::open(&arrays, expected)?));
    }
    let unpacked = path.join("cifar-10-batches-bin");
    if unpacked.is_dir() {
        return open(&unpacked, expected);
    }
    Ok(Box::new(folder::open(path, expected)?))
}

/// Reads the chosen images in parallel. Of several errors the first in order is returned,
/// independent of the threads.
pub(super) fn gather(
    source: &dyn Source,
    chosen: &[usize],
    expected: [usize; 3],
) -> Result<Images, ImageError> {
    let too_large = |bytes| ImageError::TooLarge { count: chosen.len(), bytes };
    let bytes = expected
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size))
        .ok_or_else(|| too_large(usize::MAX))?;
    let total = bytes.checked_mul(chosen.len()).ok_or_else(|| too_large(bytes))?;
    let mut pixels = Vec::new();
    pixels.try_reserve_exact(total).map_err(|_| too_large(bytes))?;
    pixels.resize(total, 0_u8);
    if bytes > 0 {
        let results: Vec<Result<(), ImageError>> = pixels
            .par_chunks_exact_mut(bytes)
            .zip(chosen.par_iter())
            .map(|(out, &item)| source.read(item, out))
            .collect();
        let good = results.iter().position(Result::is_ok);
        if let Some(error) = results.into_iter().find_map(Result::err) {
            return Err(match (error, good) {
                (ImageError::Size { name, found, expected }, Some(good)) => {
                    ImageError::MixedSizes {
                        name,
                        found,
                        other: source.items()[chosen[good]].key.clone(),
                        expected,
                    }
                }
                (error, _) => error,
            });
        }
    }
    // One image without a label makes all of them unlabelled; sources label all or none.
    let labels: Option<Vec<u32>> = chosen.iter().map(|&item| source.items()[item].label).collect();
    Ok(Images { dims: expected, pixels: pixels.into(), labels: labels.unwrap_or_default().into() })
}
