//! Detection of the image format, and reading of chosen images.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use paretune_kernels::memory::mapping::Mapping;
use rayon::prelude::*;

use super::dataset::Images;
use super::error::ImageError;
use super::listing;
use super::options::ImageOptions;
use super::pixels::Pixels;
use super::source::Source;
use super::{cifar, folder, idx, npz};

/// Detects the format of `path` and lists its images.
pub(super) fn open(
    path: &Path,
    expected: [usize; 3],
    options: &ImageOptions,
) -> Result<Box<dyn Source>, ImageError> {
    let metadata = std::fs::metadata(path).map_err(ImageError::io(path))?;
    if metadata.is_file() {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().to_ascii_lowercase())
            .unwrap_or_default();
        if name.ends_with(".npz") {
            return Ok(Box::new(npz::open(&[path.to_owned()], expected, options)?));
        }
        if name.ends_with(".bin") {
            return Ok(Box::new(cifar::open_file(path, expected, options)?));
        }
        if idx::is_images(path)? {
            return Ok(Box::new(idx::open(&[path.to_owned()], expected, options)?));
        }
        return Err(ImageError::Nothing {
            path: path.into(),
            hint: "; this file is none of them".to_owned(),
        });
    }
    let names = listing::file_names(path)?;
    if names.iter().any(|name| cifar::role(name).is_some()) {
        return Ok(Box::new(cifar::open_folder(path, &names, expected, options)?));
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
        return Ok(Box::new(idx::open(&matrices, expected, options)?));
    }
    if !arrays.is_empty() {
        return Ok(Box::new(npz::open(&arrays, expected, options)?));
    }
    let unpacked = path.join("cifar-10-batches-bin");
    if unpacked.is_dir() {
        return open(&unpacked, expected, options);
    }
    Ok(Box::new(folder::open(path, expected, options)?))
}

/// Bytes of decoded images that are kept in memory; more go to a file.
const IN_MEMORY: usize = 64 << 20;

/// Reads the chosen images in parallel. Of several errors the first in order is returned,
/// independent of the threads. Many images are kept in a nameless file in `scratch`, if there is
/// such a folder, and mapped.
pub(super) fn gather(
    source: &dyn Source,
    chosen: &[usize],
    expected: [usize; 3],
    tell: &(dyn Fn() + Sync),
    scratch: Option<&Path>,
) -> Result<Images, ImageError> {
    let too_large = |bytes| ImageError::TooLarge { count: chosen.len(), bytes };
    let bytes = expected
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size))
        .ok_or_else(|| too_large(usize::MAX))?;
    let total = bytes.checked_mul(chosen.len()).ok_or_else(|| too_large(bytes))?;
    let mut store = match scratch.filter(|_| total > IN_MEMORY) {
        Some(folder) => {
            let unwritable = |source| ImageError::Write { path: folder.into(), source };
            Store::File(tempfile::tempfile_in(folder).map_err(unwritable)?, folder)
        }
        None => Store::Memory(Vec::new()),
    };
    let mut good = None;
    let chunk = (IN_MEMORY / bytes.max(1)).max(1);
    for chosen in chosen.chunks(chunk) {
        let mut pixels = Vec::new();
        let length = bytes * chosen.len();
        pixels.try_reserve_exact(length).map_err(|_| too_large(bytes))?;
        pixels.resize(length, 0_u8);
        decode(source, chosen, bytes, &mut pixels, tell, &mut good)?;
        store.append(pixels).map_err(|error| error.unwrap_or_else(|| too_large(bytes)))?;
    }
    // One image without a label makes all of them unlabelled; sources label all or none.
    let labels: Option<Vec<u32>> = chosen.iter().map(|&item| source.items()[item].label).collect();
    let pixels = store.pixels(total)?;
    Ok(Images { dims: expected, pixels, labels: labels.unwrap_or_default().into() })
}

/// Decodes images into `pixels`. `good` is the first image that had the right size.
fn decode(
    source: &dyn Source,
    chosen: &[usize],
    bytes: usize,
    pixels: &mut [u8],
    tell: &(dyn Fn() + Sync),
    good: &mut Option<usize>,
) -> Result<(), ImageError> {
    if bytes == 0 {
        return Ok(());
    }
    let results: Vec<Result<(), ImageError>> = pixels
        .par_chunks_exact_mut(bytes)
        .zip(chosen.par_iter())
        .map(|(out, &item)| {
            let read = source.read(item, out);
            tell();
            read
        })
        .collect();
    if good.is_none() {
        *good = results.iter().position(Result::is_ok).map(|place| chosen[place]);
    }
    match (results.into_iter().find_map(Result::err), *good) {
        (None, _) => Ok(()),
        (Some(ImageError::Size { name, found, expected }), Some(good)) => {
            let other = source.items()[good].key.clone();
            Err(ImageError::MixedSizes { name, found, other, expected })
        }
        (Some(error), _) => Err(error),
    }
}

/// Place of decoded images while they are read.
enum Store<'a> {
    Memory(Vec<u8>),
    /// A file, and the folder that it is in.
    File(std::fs::File, &'a Path),
}

impl Store<'_> {
    /// Adds the bytes of some images. The error is `None` if memory is short.
    fn append(&mut self, pixels: Vec<u8>) -> Result<(), Option<ImageError>> {
        match self {
            Self::Memory(all) if all.is_empty() => *all = pixels,
            Self::Memory(all) => {
                all.try_reserve(pixels.len()).map_err(|_| None)?;
                all.extend_from_slice(&pixels);
            }
            Self::File(file, folder) => {
                let path = (*folder).into();
                file.write_all(&pixels)
                    .map_err(|source| Some(ImageError::Write { path, source }))?;
            }
        }
        Ok(())
    }

    fn pixels(self, total: usize) -> Result<Pixels, ImageError> {
        match self {
            Self::Memory(pixels) => Ok(pixels.into()),
            Self::File(file, folder) => {
                let mapping = Mapping::new(&file, total)
                    .map_err(|problem| ImageError::format(folder, problem))?;
                Pixels::mapped(&Arc::new(mapping), 0..total)
                    .ok_or_else(|| ImageError::format(folder, "the file of images is cut off"))
            }
        }
    }
}
