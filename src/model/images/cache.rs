//! Cache of a decoded dataset in one file, so that worker processes need not decode it again.
//!
//! Layout: magic, class names, the images of the three parts, then BLAKE3 over all before. Numbers
//! are 64-bit little-endian. The checksum is verified and every size compared with the file's
//! length before anything is allocated for it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use paretune_kernels::memory::mapping::Mapping;

use super::dataset::{Dataset, Images};
use super::error::ImageError;
use super::pixels::Pixels;

const MAGIC: &[u8; 16] = b"paretune images\x01";
const CHECKSUM: usize = blake3::OUT_LEN;

impl Dataset {
    /// Writes the dataset into one file, atomically.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ImageError> {
        let mut head = MAGIC.to_vec();
        number(&mut head, self.classes.len());
        for class in &self.classes {
            number(&mut head, class.len());
            head.extend(class.as_bytes());
        }
        // Two processes may write the file at once: each uses its own temporary, and the last
        // rename wins.
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.part", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let write = || -> std::io::Result<()> {
            let mut file =
                Hashed { file: std::fs::File::create(&temporary)?, hasher: blake3::Hasher::new() };
            file.write(&head)?;
            for images in [&self.calibration, &self.search, &self.report] {
                let mut head = Vec::new();
                images.dims.iter().for_each(|&size| number(&mut head, size));
                number(&mut head, images.pixels.len());
                number(&mut head, images.labels.len());
                file.write(&head)?;
                file.write(&images.pixels)?;
                let labels: Vec<u8> =
                    images.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
                file.write(&labels)?;
            }
            let checksum = file.hasher.finalize();
            file.file.write_all(checksum.as_bytes())?;
            file.file.sync_all()?;
            std::fs::rename(&temporary, path)
        };
        write().map_err(|error| {
            // The write error is what matters; a part file that cannot be removed changes nothing.
            let _ = std::fs::remove_file(&temporary);
            ImageError::Write { path: path.into(), source: error }
        })
    }

    /// Reads a file written by [`Dataset::save`].
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is damaged, or is of another kind.
    pub fn load_cached(path: &Path) -> Result<Self, ImageError> {
        let damaged = |reason: &str| {
            ImageError::format(path, format!("{reason}; delete it, it will be made again"))
        };
        let (file, length) = paretune_kernels::file::open(path).map_err(ImageError::io(path))?;
        let length = usize::try_from(length).map_err(|_| damaged("is too large"))?;
        let mapping = Mapping::new(&file, length).map_err(|reason| damaged(&reason))?;
        parse(&Arc::new(mapping)).map_err(damaged)
    }
}

struct Hashed {
    file: std::fs::File,
    hasher: blake3::Hasher,
}

impl Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }
}

fn number(out: &mut Vec<u8>, value: usize) {
    out.extend((value as u64).to_le_bytes());
}

fn parse(mapping: &Arc<Mapping>) -> Result<Dataset, &'static str> {
    let bytes = mapping.bytes();
    if !bytes.starts_with(MAGIC) {
        return Err("is no file of decoded images");
    }
    let end = bytes.len().checked_sub(CHECKSUM).ok_or("is cut short")?;
    let (body, checksum) = bytes.split_at(end);
    if blake3::hash(body).as_bytes() != checksum {
        return Err("is damaged (the checksum differs)");
    }
    let mut reader = Reader { mapping, body, at: MAGIC.len() };
    let mut classes = Vec::new();
    for _ in 0..reader.number()? {
        let length = reader.number()?;
        let name = std::str::from_utf8(reader.bytes(length)?)
            .map_err(|_| "holds a class name that is no text")?;
        classes.push(name.to_owned());
    }
    let (calibration, search, report) = (reader.images()?, reader.images()?, reader.images()?);
    if reader.at != body.len() {
        return Err("goes on after its end");
    }
    Ok(Dataset { classes, calibration, search, report })
}

struct Reader<'a> {
    mapping: &'a Arc<Mapping>,
    /// Contents of the file without its checksum.
    body: &'a [u8],
    /// Place of the next byte in the file.
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let end = self.at.checked_add(count).ok_or("is cut short")?;
        let bytes = self.body.get(self.at..end).ok_or("is cut short")?;
        self.at = end;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<usize, &'static str> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.bytes(8)?);
        usize::try_from(u64::from_le_bytes(bytes)).map_err(|_| "holds a size that is out of range")
    }

    fn images(&mut self) -> Result<Images, &'static str> {
        let dims = [self.number()?, self.number()?, self.number()?];
        let (pixels, labels) = (self.number()?, self.number()?);
        let image = dims.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        let image = image.ok_or("holds a size that is out of range")?;
        let count = pixels.checked_div(image).unwrap_or(0);
        if image.checked_mul(count) != Some(pixels) || (labels != 0 && labels != count) {
            return Err("holds sizes that contradict each other");
        }
        let start = self.at;
        self.bytes(pixels)?;
        let pixels = Pixels::mapped(self.mapping, start..start + pixels).ok_or("is cut short")?;
        let labels =
            self.bytes(labels.checked_mul(4).ok_or("holds a size that is out of range")?)?;
        let labels = labels
            .chunks_exact(4)
            .map(|label| u32::from_le_bytes([label[0], label[1], label[2], label[3]]));
        Ok(Images { dims, pixels, labels: labels.collect() })
    }
}
