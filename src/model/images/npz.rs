//! NumPy archives: `x` with the images and optionally `y` with the labels, or `x_train`, `y_train`,
//! `x_test`, `y_test`. Pixels are `uint8`, or floats from 0 to 255.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use npyz::{Deserialize, NpyFile, NpyHeader, NpyReader, Order, TypeChar};
use zip::ZipArchive;

use paretune_kernels::file;

use super::arrays::{Arrays, Block, check_size};
use super::axis_order::AxisOrder;
use super::error::ImageError;
use super::options::ImageOptions;
use super::source::{Item, Role};

/// Largest header in bytes; NumPy writes some hundred bytes.
const MAX_HEADER: usize = 1 << 16;

/// Largest number of bytes read behind an array in search of the end of its member.
const MAX_TRAILER: u64 = 1 << 16;

/// Names of the arrays of images and labels, with the part that they make up.
const PARTS: [(&str, &str, Role); 3] = [
    ("x", "y", Role::Whole),
    ("x_train", "y_train", Role::Train),
    ("x_test", "y_test", Role::Test),
];

/// Reads archives. Of several in one folder, `train.npz` is the train part and `test.npz` the test
/// part.
pub(super) fn open(
    files: &[PathBuf],
    expected: [usize; 3],
    options: &ImageOptions,
) -> Result<Arrays, ImageError> {
    let mut items = Vec::new();
    let mut blocks = Vec::new();
    let mut labelled = true;
    for path in files.iter().map(PathBuf::as_path) {
        let (file, _) = file::open(path).map_err(ImageError::io(path))?;
        let mut archive = ZipArchive::new(BufReader::new(file))
            .map_err(std::io::Error::from)
            .map_err(unreadable(path))?;
        let name =
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let before = blocks.len();
        for (x, y, role) in PARTS {
            let Some(mut block) = read_entry(&mut archive, path, x, |array| {
                images(array, path, x, expected, options)
            })?
            else {
                continue;
            };
            let role = match name.as_str() {
                _ if role != Role::Whole || files.len() == 1 => role,
                "train.npz" => Role::Train,
                "test.npz" => Role::Test,
                _ => Role::Whole,
            };
            let labels = read_entry(&mut archive, path, y, |array| labels(array, path, y))?;
            if let Some(labels) = &labels
                && labels.len() != block.count
            {
                return Err(ImageError::format(
                    path,
                    format!("{y} has {} labels for {} images in {x}", labels.len(), block.count),
                ));
            }
            labelled &= labels.is_some();
            items.extend((0..block.count).map(|index| Item {
                key: format!("{name}/{x}/{index}"),
                label: labels.as_ref().map(|labels| labels[index]),
                role,
            }));
            block.bytes.shrink_to_fit();
            blocks.push(block);
        }
        if blocks.len() == before {
            let names: Vec<String> = archive
                .file_names()
                .filter_map(|name| Some(name.ok()?.strip_suffix(".npy")?.to_owned()))
                .collect();
            let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            return Err(ImageError::format(
                path,
                format!("has no array x (or x_train, x_test); it holds {names}"),
            ));
        }
    }
    if !labelled {
        items.iter_mut().for_each(|item| item.label = None);
    }
    Arrays::new(Vec::new(), items, blocks, expected, options)
}

type Archive = ZipArchive<BufReader<File>>;

/// Reads one array of an archive with `read`, if it is present.
fn read_entry<T>(
    archive: &mut Archive,
    path: &Path,
    name: &str,
    read: impl FnOnce(NpyFile<&mut dyn Read>) -> Result<T, ImageError>,
) -> Result<Option<T>, ImageError> {
    let file_name = format!("{name}.npy");
    if !archive.file_names().any(|name| name.is_ok_and(|name| name == file_name)) {
        return Ok(None);
    }
    let damaged = |error: &dyn std::fmt::Display| {
        ImageError::format(path, format!("array {name} cannot be unpacked: {error}"))
    };
    let mut entry = archive.by_name(&file_name).map_err(|error| damaged(&error))?;
    let header = header(&mut entry).map_err(unreadable(path))?;
    let reader: &mut dyn Read = &mut entry;
    let array = read(NpyFile::with_header(header, reader))?;
    // The checksum of a member is compared once its end has been read.
    std::io::copy(&mut entry.take(MAX_TRAILER), &mut std::io::sink())
        .map_err(|error| damaged(&error))?;
    Ok(Some(array))
}

/// Reads the header of an array without trusting the length that it states.
fn header(reader: &mut impl Read) -> std::io::Result<NpyHeader> {
    let mut text = vec![0; 10];
    reader.read_exact(&mut text)?;
    let mut length = usize::from(u16::from_le_bytes([text[8], text[9]]));
    if text[6] > 1 {
        let mut high = [0; 2];
        reader.read_exact(&mut high)?;
        text.extend(high);
        length |= usize::from(u16::from_le_bytes(high)) << 16;
    }
    if length > MAX_HEADER {
        return Err(std::io::Error::other(format!("a header of {length} bytes is too long")));
    }
    let start = text.len();
    text.resize(start + length, 0);
    reader.read_exact(&mut text[start..])?;
    NpyHeader::from_reader(Cursor::new(text))
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> ImageError {
    let path = path.to_owned();
    move |error| ImageError::format(path, format!("is no readable .npz archive: {error}"))
}

fn images(
    array: NpyFile<&mut dyn Read>,
    path: &Path,
    name: &str,
    expected: [usize; 3],
    options: &ImageOptions,
) -> Result<Block, ImageError> {
    let bad = |reason: String| ImageError::format(path, format!("{name} {reason}"));
    let shape = sizes(&array).ok_or_else(|| bad("is too large".to_owned()))?;
    if array.order() == Order::Fortran && shape.len() > 1 {
        return Err(bad("lies in Fortran order; save numpy.ascontiguousarray of it".to_owned()));
    }
    let (dims, axis_order) = match *shape.as_slice() {
        [_, height, width] => ([1, height, width], AxisOrder::ChannelsFirst),
        [_, channels, height, width]
            if matches!(channels, 1 | 3) || [channels, height, width] == expected =>
        {
            ([channels, height, width], AxisOrder::ChannelsFirst)
        }
        [_, height, width, channels]
            if matches!(channels, 1 | 3) || [channels, height, width] == expected =>
        {
            ([channels, height, width], AxisOrder::ChannelsLast)
        }
        _ => {
            return Err(bad(format!(
                "has shape {shape:?}; [count, channels, height, width] or [count, height, width, \
                 channels] is needed, \
                 with 1 or 3 channels"
            )));
        }
    };
    check_size(name, dims, expected, options)?;
    let axis_order = if dims[0] == 1 { AxisOrder::ChannelsFirst } else { axis_order };
    let stride: usize = dims.iter().product();
    let count = shape[0];
    let total = count.checked_mul(stride).ok_or_else(|| bad("is too large".to_owned()))?;
    let bytes = match plain_type(&array) {
        Some((TypeChar::Uint, 1)) => {
            let mut bytes = Vec::new();
            // The buffer grows with the actual data, whatever size the header states.
            array
                .into_inner()
                .take(total as u64)
                .read_to_end(&mut bytes)
                .map_err(unreadable(path))?;
            bytes
        }
        Some((TypeChar::Float, 4)) => pixels(data::<f32>(array, path)?, total, f64::from, bad)?,
        Some((TypeChar::Float, 8)) => pixels(data::<f64>(array, path)?, total, |value| value, bad)?,
        _ => {
            return Err(bad(format!(
                "has type {}; uint8, float32 or float64 is needed",
                array.dtype().descr()
            )));
        }
    };
    if bytes.len() != total {
        return Err(bad(format!("ends after {} of {total} values", bytes.len())));
    }
    Ok(Block { bytes, offset: 0, stride, count, dims, axis_order })
}

/// Converts floats from 0 to 255 to bytes.
fn pixels<T: Deserialize>(
    values: NpyReader<T, &mut dyn Read>,
    total: usize,
    float: impl Fn(T) -> f64,
    bad: impl Fn(String) -> ImageError,
) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let mut highest = 0.0_f64;
    for value in values.take(total) {
        let value = float(value.map_err(|error| bad(format!("cannot be read: {error}")))?);
        if !(0.0..=255.0).contains(&value) {
            return Err(bad(format!("holds {value}; pixels must lie between 0 and 255")));
        }
        highest = highest.max(value);
        bytes.push(value.round() as u8);
    }
    if highest > 0.0 && highest <= 1.0 {
        return Err(bad(
            "lies between 0 and 1; multiply it by 255, the scale of --mean and --std".to_owned()
        ));
    }
    Ok(bytes)
}

fn labels(array: NpyFile<&mut dyn Read>, path: &Path, name: &str) -> Result<Vec<u32>, ImageError> {
    let bad = |reason: String| ImageError::format(path, format!("{name} {reason}"));
    let shape = sizes(&array).unwrap_or_default();
    let count = match *shape.as_slice() {
        [count] | [count, 1] => count,
        _ => return Err(bad(format!("has shape {shape:?}; one class index per image is needed"))),
    };
    match plain_type(&array) {
        Some((TypeChar::Uint, 1)) => indices(data::<u8>(array, path)?, count, bad),
        Some((TypeChar::Uint, 2)) => indices(data::<u16>(array, path)?, count, bad),
        Some((TypeChar::Uint, 4)) => indices(data::<u32>(array, path)?, count, bad),
        Some((TypeChar::Uint, 8)) => indices(data::<u64>(array, path)?, count, bad),
        Some((TypeChar::Int, 1)) => indices(data::<i8>(array, path)?, count, bad),
        Some((TypeChar::Int, 2)) => indices(data::<i16>(array, path)?, count, bad),
        Some((TypeChar::Int, 4)) => indices(data::<i32>(array, path)?, count, bad),
        Some((TypeChar::Int, 8)) => indices(data::<i64>(array, path)?, count, bad),
        _ => Err(bad(format!("has type {}; integers are needed", array.dtype().descr()))),
    }
}

fn indices<T: Deserialize + TryInto<u32> + Copy + std::fmt::Display>(
    values: NpyReader<T, &mut dyn Read>,
    count: usize,
    bad: impl Fn(String) -> ImageError,
) -> Result<Vec<u32>, ImageError> {
    let mut labels = Vec::new();
    for value in values.take(count) {
        let value = value.map_err(|error| bad(format!("cannot be read: {error}")))?;
        labels.push(
            value.try_into().map_err(|_| bad(format!("holds {value}, which is no class index")))?,
        );
    }
    Ok(labels)
}

fn data<'a, T: Deserialize>(
    array: NpyFile<&'a mut dyn Read>,
    path: &Path,
) -> Result<NpyReader<T, &'a mut dyn Read>, ImageError> {
    array.data().map_err(|error| ImageError::format(path, error.to_string()))
}

fn sizes(array: &NpyFile<&mut dyn Read>) -> Option<Vec<usize>> {
    array.shape().iter().map(|&size| usize::try_from(size).ok()).collect()
}

fn plain_type(array: &NpyFile<&mut dyn Read>) -> Option<(TypeChar, usize)> {
    match array.dtype() {
        npyz::DType::Plain(plain) => Some((plain.type_char(), plain.num_bytes()?)),
        _ => None,
    }
}
