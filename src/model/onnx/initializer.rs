//! Reads initializers as [`Tensor`]s: number formats, and data in external files.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use paretune_kernels::weights::fp16_number;
use sha2::{Digest, Sha256};

use super::proto::TensorProto;
use super::proto::tensor_proto::{DataLocation, DataType};
use super::tensor::{Data, Int, Tensor, volume};

/// Location of external data, with the running hash of all bytes that define the network.
pub struct Source<'a> {
    /// Folder of the model, if it has one.
    pub folder: Option<&'a Path>,
    /// Hash of the model's file, then of external data in the order of reading.
    pub hasher: Sha256,
}

/// Reads one tensor.
///
/// # Errors
///
/// Describes the problem without the tensor's name.
pub fn read(proto: &TensorProto, source: &mut Source<'_>) -> Result<Tensor, String> {
    let dims = proto
        .dims
        .iter()
        .map(|&dim| usize::try_from(dim).map_err(|_| format!("has a negative extent {dim}")))
        .collect::<Result<Vec<_>, _>>()?;
    let count = volume(&dims).ok_or_else(|| format!("shape {dims:?} is too large"))?;
    if proto.segment.is_some() {
        return Err("is split into segments, which no ONNX version uses".into());
    }
    let kind = DataType::try_from(proto.data_type.unwrap_or_default()).map_err(|_| {
        format!("has the unknown number format {}", proto.data_type.unwrap_or_default())
    })?;
    let external = proto.data_location == Some(DataLocation::External as i32);
    let data = if external {
        let width = width(kind).ok_or_else(|| unsupported(kind))?;
        let bytes = external_bytes(proto, source, count.checked_mul(width))?;
        source.hasher.update(&bytes);
        raw(kind, &bytes, count)?
    } else if let Some(bytes) =
        proto.raw_data.as_ref().filter(|bytes| !bytes.is_empty() || count == 0)
    {
        raw(kind, bytes, count)?
    } else {
        typed(kind, proto, count)?
    };
    Ok(Tensor { dims, data })
}

fn unsupported(kind: DataType) -> String {
    format!(
        "numbers in the format {} are not supported; export the model in single precision",
        kind.as_str_name()
    )
}

/// Returns the bytes per number in raw data.
fn width(kind: DataType) -> Option<usize> {
    Some(match kind {
        DataType::Bool | DataType::Int8 | DataType::Uint8 => 1,
        DataType::Float16 | DataType::Bfloat16 | DataType::Int16 | DataType::Uint16 => 2,
        DataType::Float | DataType::Int32 | DataType::Uint32 => 4,
        DataType::Double | DataType::Int64 | DataType::Uint64 => 8,
        _ => return None,
    })
}

/// Decodes little-endian numbers, as in `raw_data` and in external files.
fn raw(kind: DataType, bytes: &[u8], count: usize) -> Result<Data, String> {
    let width = width(kind).ok_or_else(|| unsupported(kind))?;
    if count.checked_mul(width) != Some(bytes.len()) {
        return Err(format!(
            "its shape needs {count} numbers of {width} bytes, but {} bytes are there",
            bytes.len()
        ));
    }
    fn floats<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Data {
        Data::Float(bytes.as_chunks::<N>().0.iter().map(|&chunk| convert(chunk)).collect())
    }
    fn ints<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> i64) -> Data {
        Data::Int(
            bytes.as_chunks::<N>().0.iter().map(|&chunk| Int::Known(convert(chunk))).collect(),
        )
    }
    Ok(match kind {
        DataType::Float => floats(bytes, f32::from_le_bytes),
        DataType::Double => floats(bytes, |b| f64::from_le_bytes(b) as f32),
        DataType::Float16 => floats(bytes, |b| fp16_number(u16::from_le_bytes(b))),
        DataType::Bfloat16 => floats(bytes, |b| brain(u16::from_le_bytes(b))),
        DataType::Bool | DataType::Uint8 => ints(bytes, |[b]: [u8; 1]| b.into()),
        DataType::Int8 => ints(bytes, |b| i8::from_le_bytes(b).into()),
        DataType::Int16 => ints(bytes, |b| i16::from_le_bytes(b).into()),
        DataType::Uint16 => ints(bytes, |b| u16::from_le_bytes(b).into()),
        DataType::Int32 => ints(bytes, |b| i32::from_le_bytes(b).into()),
        DataType::Uint32 => ints(bytes, |b| u32::from_le_bytes(b).into()),
        DataType::Int64 => ints(bytes, i64::from_le_bytes),
        DataType::Uint64 => ints(bytes, |b| u64::from_le_bytes(b).min(i64::MAX as u64) as i64),
        _ => return Err(unsupported(kind)),
    })
}

/// Decodes numbers in the repeated fields of the message.
fn typed(kind: DataType, proto: &TensorProto, count: usize) -> Result<Data, String> {
    let check = |found: usize| {
        if found == count {
            Ok(())
        } else {
            Err(format!("its shape needs {count} numbers, but {found} are there"))
        }
    };
    Ok(match kind {
        DataType::Float => {
            check(proto.float_data.len())?;
            Data::Float(proto.float_data.as_slice().into())
        }
        DataType::Double => {
            check(proto.double_data.len())?;
            Data::Float(proto.double_data.iter().map(|&value| value as f32).collect())
        }
        DataType::Float16 | DataType::Bfloat16 => {
            check(proto.int32_data.len())?;
            let convert = if kind == DataType::Float16 { fp16_number } else { brain };
            Data::Float(proto.int32_data.iter().map(|&bits| convert(bits as u16)).collect())
        }
        DataType::Bool
        | DataType::Int8
        | DataType::Uint8
        | DataType::Int16
        | DataType::Uint16
        | DataType::Int32 => {
            check(proto.int32_data.len())?;
            Data::Int(proto.int32_data.iter().map(|&value| Int::Known(value.into())).collect())
        }
        DataType::Int64 => {
            check(proto.int64_data.len())?;
            Data::Int(proto.int64_data.iter().map(|&value| Int::Known(value)).collect())
        }
        DataType::Uint32 | DataType::Uint64 => {
            check(proto.uint64_data.len())?;
            let clamp = |&value: &u64| Int::Known(value.min(i64::MAX as u64) as i64);
            Data::Int(proto.uint64_data.iter().map(clamp).collect::<Arc<[Int]>>())
        }
        _ => return Err(unsupported(kind)),
    })
}

/// Reads the part of an external file that a tensor refers to.
fn external_bytes(
    proto: &TensorProto,
    source: &Source<'_>,
    expected: Option<usize>,
) -> Result<Vec<u8>, String> {
    let expected = expected.ok_or("is too large")?;
    let entry = |key: &str| {
        proto
            .external_data
            .iter()
            .find(|entry| entry.key.as_deref() == Some(key))
            .and_then(|entry| entry.value.as_deref())
    };
    let number = |key: &str| {
        entry(key)
            .map(|text| {
                text.parse::<u64>().map_err(|_| format!("its external {key} `{text}` is no number"))
            })
            .transpose()
    };
    let location = entry("location").ok_or("is external but names no file")?;
    let offset = number("offset")?.unwrap_or(0);
    let length = number("length")?;
    let folder = source.folder.ok_or_else(|| {
        format!("its data is in the file `{location}`, but the model has no folder")
    })?;
    let path = inside(folder, location)?;
    let shown = path.display();
    let (mut file, bytes) = paretune_kernels::file::open(&path).map_err(|error| {
        format!(
            "its data is in `{shown}`, which cannot be opened ({error}); keep that file \
             beside the model"
        )
    })?;
    let available = bytes.saturating_sub(offset);
    let length = length.unwrap_or(available);
    if length != expected as u64 {
        return Err(format!(
            "needs {expected} bytes, but its entry for `{location}` covers {length}"
        ));
    }
    if length > available {
        return Err(format!(
            "its data is at {offset}..{} of `{shown}`, which has only {} bytes",
            u128::from(offset) + u128::from(length),
            bytes
        ));
    }
    let mut bytes = vec![0; expected];
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|error| format!("cannot read `{shown}`: {error}"))?;
    Ok(bytes)
}

/// Resolves `location`, which must stay inside `folder`, symbolic links included.
fn inside(folder: &Path, location: &str) -> Result<PathBuf, String> {
    let relative = Path::new(location);
    let plain =
        relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let outside = || format!("its data is in `{location}`, which lies outside the model's folder");
    if !plain || location.is_empty() {
        return Err(outside());
    }
    let path = folder.join(relative);
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if let (Ok(real), Ok(root)) = (path.canonicalize(), folder.canonicalize())
        && !real.starts_with(&root)
    {
        return Err(outside());
    }
    Ok(path)
}

/// Converts a bfloat16, the upper half of a single-precision number.
fn brain(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 2f32.powi(-14)),
            (0x0001, 2f32.powi(-24)),
            (0x7c00, f32::INFINITY),
            (0x3555, 0.333_251_95),
        ] {
            assert_eq!(fp16_number(bits), value);
        }
        assert!(fp16_number(0x7e00).is_nan());
        assert_eq!(brain(0x3f80), 1.0);
    }

    #[test]
    fn external_paths_stay_inside() {
        let folder = Path::new("models");
        assert!(inside(folder, "weights/a.bin").is_ok());
        for bad in ["../a.bin", "/etc/passwd", "", "a/../../b"] {
            assert!(inside(folder, bad).is_err(), "{bad}");
        }
    }
}
