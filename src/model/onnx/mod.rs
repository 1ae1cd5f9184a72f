//! Import and export of ONNX files.
//!
//! Import is defensive, because files come from others: sizes are checked before anything is
//! allocated, nothing panics, and errors name the unsupported node. The result is the graph as the
//! file has it, one or more steps per node. [`crate::passes`] simplifies it.

use std::path::Path;

use prost::Message;
use prost::bytes::Bytes;
use sha2::{Digest, Sha256};

use self::operators::MAX_FILE_BYTES;
use crate::error::ModelError;
use crate::network::Network;

mod decode_memory;
mod export;
mod fold;
mod functions;
mod import;
mod importer;
mod initializer;
mod lower;
mod names;
mod node;
mod operators;
mod options;
mod outputs;
mod proto;
mod quantized;
mod tensor;

pub use export::{export, export_bundle};
pub use operators::OPERATORS;
pub use options::{ImportOptions, Outputs};

/// Reads a file as written, without simplification.
///
/// # Errors
///
/// Fails if the file cannot be read, is damaged, or holds something that is not supported.
pub fn load(path: &Path) -> Result<Network, ModelError> {
    load_with(path, &ImportOptions::default())
}

/// Reads a file as written like [`load`], with what it leaves open decided by `options`.
///
/// # Errors
///
/// Fails like [`load`].
pub fn load_with(path: &Path, options: &ImportOptions) -> Result<Network, ModelError> {
    let failed = |source| ModelError::Io { path: path.to_path_buf(), source };
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(format_error(&name, format!("{} is not a file", path.display())));
    }
    check_size(&name, metadata.len())?;
    let bytes = paretune_kernels::file::read(path, MAX_FILE_BYTES).map_err(failed)?;
    check_size(&name, bytes.len() as u64)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    read(&name, Bytes::from(bytes), Some(folder), options)
}

/// Reads the bytes of a file as written, without simplification.
///
/// # Errors
///
/// Fails if the bytes are damaged or hold something that is not supported.
pub fn from_bytes(name: &str, bytes: &[u8], folder: Option<&Path>) -> Result<Network, ModelError> {
    check_size(name, bytes.len() as u64)?;
    read(name, Bytes::copy_from_slice(bytes), folder, &ImportOptions::default())
}

fn read(
    name: &str,
    bytes: Bytes,
    folder: Option<&Path>,
    options: &ImportOptions,
) -> Result<Network, ModelError> {
    decode_memory::check_decode_memory(&bytes).map_err(|problem| format_error(name, problem))?;
    let mut source = initializer::Source { folder, hasher: Sha256::new_with_prefix(&bytes) };
    let model = proto::ModelProto::decode(bytes).map_err(|error| {
        format_error(name, format!("{error}; the file is damaged or of another kind"))
    })?;
    let (plan, outputs) = import::import(name, model, &mut source, options)?;
    let sha256 = source.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Network { name: name.to_string(), sha256, plan, outputs, channels_last: false })
}

fn check_size(name: &str, bytes: u64) -> Result<(), ModelError> {
    match bytes {
        0 => Err(format_error(name, "the file is empty".into())),
        1..=MAX_FILE_BYTES => Ok(()),
        _ => Err(format_error(
            name,
            format!(
                "{bytes} bytes are more than an ONNX file can have; store weights as external data"
            ),
        )),
    }
}

fn format_error(name: &str, problem: String) -> ModelError {
    ModelError::Format { name: name.to_string(), problem }
}
