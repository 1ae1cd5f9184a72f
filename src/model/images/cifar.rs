//! CIFAR-10's binary batches: records of a label byte and 3,072 pixel bytes in red, green and blue
//! planes.

use std::path::Path;

use paretune_kernels::file;

use super::arrays::{Arrays, Block, check_size};
use super::axis_order::AxisOrder;
use super::error::ImageError;
use super::options::ImageOptions;
use super::source::{Item, Role};

const DIMS: [usize; 3] = [3, 32, 32];
const RECORD: usize = 1 + 3 * 32 * 32;
const CLASSES: u8 = 10;
/// Largest size of a batch in bytes: a hundred times that of CIFAR-10.
const MAX_BATCH_BYTES: u64 = 3 << 30;

/// Returns the part that a file of this name belongs to, if it is a batch.
pub(super) fn role(name: &str) -> Option<Role> {
    match name {
        "test_batch.bin" => Some(Role::Test),
        _ if name.starts_with("data_batch_") && name.ends_with(".bin") => Some(Role::Train),
        _ => None,
    }
}

/// Reads the batches of a folder, whose sorted file names are `names`.
pub(super) fn open_folder(
    folder: &Path,
    names: &[String],
    expected: [usize; 3],
    options: &ImageOptions,
) -> Result<Arrays, ImageError> {
    let batches: Vec<(&str, Role)> =
        names.iter().filter_map(|name| Some((name.as_str(), role(name)?))).collect();
    open(folder, &batches, expected, options)
}

/// Reads a single batch as a whole dataset.
pub(super) fn open_file(
    file: &Path,
    expected: [usize; 3],
    options: &ImageOptions,
) -> Result<Arrays, ImageError> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    open(file.parent().unwrap_or(Path::new("")), &[(name, Role::Whole)], expected, options)
}

fn open(
    folder: &Path,
    batches: &[(&str, Role)],
    expected: [usize; 3],
    options: &ImageOptions,
) -> Result<Arrays, ImageError> {
    let mut items = Vec::new();
    let mut blocks = Vec::new();
    for &(name, role) in batches {
        let path = folder.join(name);
        check_size(name, DIMS, expected, options)?;
        let bytes = file::read(&path, MAX_BATCH_BYTES).map_err(ImageError::io(&path))?;
        if bytes.is_empty() || bytes.len() % RECORD != 0 {
            return Err(ImageError::format(
                path,
                format!(
                    "{} bytes are no whole number of CIFAR-10 records of {RECORD} bytes",
                    bytes.len()
                ),
            ));
        }
        for (index, record) in bytes.chunks_exact(RECORD).enumerate() {
            if record[0] >= CLASSES {
                return Err(ImageError::format(
                    path,
                    format!("label {} of record {index} is above 9", record[0]),
                ));
            }
            items.push(Item {
                key: format!("{name}/{index}"),
                label: Some(record[0].into()),
                role,
            });
        }
        let count = bytes.len() / RECORD;
        blocks.push(Block {
            bytes,
            offset: 1,
            stride: RECORD,
            count,
            dims: DIMS,
            axis_order: AxisOrder::ChannelsFirst,
        });
    }
    let classes = classes(&folder.join("batches.meta.txt"))?;
    Arrays::new(classes, items, blocks, expected, options)
}

/// Reads the class names in `batches.meta.txt`, one per line; none if the file is missing.
fn classes(path: &Path) -> Result<Vec<String>, ImageError> {
    let text = match file::read_text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ImageError::io(path)(error)),
    };
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if names.len() != usize::from(CLASSES) {
        return Err(ImageError::format(
            path,
            format!("holds {} class names, not {CLASSES}", names.len()),
        ));
    }
    Ok(names)
}
