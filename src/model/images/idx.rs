//! IDX, the format of MNIST: a magic number, big-endian sizes, unsigned bytes. Images are `[count,
//! height, width]`, or four-dimensional with channels. Labels are in a file beside them. Files may be
//! packed by gzip, as they are offered.

use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use paretune_kernels::file;

use super::arrays::{Arrays, Block, check_size};
use super::axis_order::AxisOrder;
use super::error::ImageError;
use super::options::ImageOptions;
use super::source::{Item, Role};

/// Start of the magic number: two zeros, then the code of unsigned bytes. The number of dimensions
/// follows.
const UNSIGNED_BYTES: [u8; 3] = [0, 0, 8];

/// Largest size of an unpacked file in bytes.
const MAX_BYTES: u64 = 4 << 30;

/// Opens a file, unpacking it if it is packed by gzip.
fn unpacked(path: &Path) -> Result<Box<dyn Read>, ImageError> {
    let (mut file, _) = file::open(path).map_err(ImageError::io(path))?;
    let mut magic = Vec::new();
    let start = file.by_ref().take(2).read_to_end(&mut magic).map_err(ImageError::io(path))?;
    let whole = Cursor::new(magic).chain(file);
    let packed = start == 2 && whole.get_ref().0.get_ref() == &[0x1f, 0x8b];
    Ok(if packed { Box::new(MultiGzDecoder::new(BufReader::new(whole))) } else { Box::new(whole) })
}

/// Returns whether the file starts like IDX images.
pub(super) fn is_images(path: &Path) -> Result<bool, ImageError> {
    let mut magic = [0; 4];
    match unpacked(path)?.read_exact(&mut magic) {
        Ok(()) => Ok(magic[..3] == UNSIGNED_BYTES && matches!(magic[3], 3 | 4)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(ImageError::io(path)(error)),
    }
}

/// Reads image files and their labels. A name that begins with `train` is the train part, one with
/// `t10k` or `test` the test part.
pub(super) fn open(
    files: &[PathBuf],
    expected: [usize; 3],
    options: &ImageOptions,
) -> Result<Arrays, ImageError> {
    let mut items = Vec::new();
    let mut blocks = Vec::new();
    let mut labelled = true;
    for path in files.iter().map(PathBuf::as_path) {
        let name =
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let role = match name.to_ascii_lowercase() {
            _ if files.len() == 1 => Role::Whole,
            name if name.starts_with("train") => Role::Train,
            name if name.starts_with("t10k") || name.starts_with("test") => Role::Test,
            _ => Role::Whole,
        };
        let array = IdxFile::read(path)?;
        let (dims, axis_order) = match *array.sizes.as_slice() {
            [_, height, width] => ([1, height, width], AxisOrder::ChannelsFirst),
            [_, channels @ (1 | 3), height, width] => {
                ([channels, height, width], AxisOrder::ChannelsFirst)
            }
            [_, height, width, channels @ (1 | 3)] => {
                ([channels, height, width], AxisOrder::ChannelsLast)
            }
            ref sizes => {
                return Err(ImageError::format(
                    path,
                    format!("sizes {sizes:?} are not those of images"),
                ));
            }
        };
        check_size(&name, dims, expected, options)?;
        let axis_order = if dims[0] == 1 { AxisOrder::ChannelsFirst } else { axis_order };
        let count = array.sizes[0];
        let labels = labels_beside(path, &name)?;
        if let Some((path, labels)) = &labels
            && labels.len() != count
        {
            return Err(ImageError::format(
                path,
                format!("{} labels for {count} images", labels.len()),
            ));
        }
        labelled &= labels.is_some();
        items.extend((0..count).map(|index| Item {
            key: format!("{name}/{index}"),
            label: labels.as_ref().map(|(_, labels)| labels[index].into()),
            role,
        }));
        let stride = dims.iter().product();
        blocks.push(Block {
            bytes: array.bytes,
            offset: array.offset,
            stride,
            count,
            dims,
            axis_order,
        });
    }
    if !labelled {
        items.iter_mut().for_each(|item| item.label = None);
    }
    Arrays::new(Vec::new(), items, blocks, expected, options)
}

/// Reads the labels of an image file, named with `labels` for `images` and `idx1` for `idx3`.
fn labels_beside(images: &Path, name: &str) -> Result<Option<(PathBuf, Vec<u8>)>, ImageError> {
    let other = name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1");
    // Images may be packed and labels not, or the other way round.
    let toggled = match other.strip_suffix(".gz") {
        Some(plain) => plain.to_owned(),
        None => format!("{other}.gz"),
    };
    let places = [&other, &toggled].map(|name| images.with_file_name(name));
    let Some(path) = places.into_iter().find(|path| path.is_file()).filter(|_| other != name)
    else {
        return Ok(None);
    };
    let array = IdxFile::read(&path)?;
    if array.sizes.len() != 1 {
        return Err(ImageError::format(path, "labels must have one dimension"));
    }
    let labels = array.bytes[array.offset..].to_vec();
    Ok(Some((path, labels)))
}

struct IdxFile {
    sizes: Vec<usize>,
    bytes: Vec<u8>,
    /// Offset of the data behind the header.
    offset: usize,
}

impl IdxFile {
    fn read(path: &Path) -> Result<Self, ImageError> {
        let mut bytes = Vec::new();
        unpacked(path)?
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(ImageError::io(path))?;
        let bad = |reason: &str| ImageError::format(path, reason);
        if bytes.len() as u64 > MAX_BYTES {
            return Err(bad("unpacks to more than 4 GiB"));
        }
        let rank = match *bytes {
            [0, 0, 8, rank, ..] => usize::from(rank),
            _ => return Err(bad("is no IDX file of unsigned bytes")),
        };
        let offset = 4 + 4 * rank;
        let header = bytes.get(4..offset).ok_or_else(|| bad("ends within its header"))?;
        let sizes: Vec<usize> = header
            .chunks_exact(4)
            .map(|size| u32::from_be_bytes([size[0], size[1], size[2], size[3]]) as usize)
            .collect();
        let total = sizes.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        if total != Some(bytes.len() - offset) {
            return Err(bad(&format!(
                "sizes {sizes:?} do not fit {} bytes of data",
                bytes.len() - offset
            )));
        }
        Ok(Self { sizes, bytes, offset })
    }
}
