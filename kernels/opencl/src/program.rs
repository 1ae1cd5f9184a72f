//! The cache of built programs: in memory for the life of the process, and on disk for later
//! processes.
//!
//! A file is named by a hash of everything that its content depends on: source, options, device and
//! driver. A file that does not load is built again.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::api::{Context, Program};
use opencl3::types::cl_device_id;
use paretune_base::error::KernelError;

/// Environment variable with the folder for built programs; an empty value disables the cache on
/// disk.
const FOLDER_VARIABLE: &str = "PARETUNE_OPENCL_CACHE";

/// The built programs of one device.
pub(super) struct Programs {
    /// Text that identifies device and driver.
    identity: String,
    folder: Option<PathBuf>,
    built: Mutex<HashMap<blake3::Hash, Arc<Program>>>,
}

impl Programs {
    pub fn of(identity: &str) -> Self {
        Self { identity: identity.to_owned(), folder: folder(), built: Mutex::default() }
    }

    /// Returns the program of `source` with `options`, for the device of this context and id.
    ///
    /// # Errors
    /// Where it does not build; the compiler's words are in the message.
    pub fn get(
        &self,
        (context, id): (&Context, cl_device_id),
        source: &str,
        options: &str,
    ) -> Result<Arc<Program>, KernelError> {
        let mut hasher = blake3::Hasher::new();
        for part in [&self.identity[..], source, options] {
            // The length comes first, so that different lists of parts never hash alike.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let key = hasher.finalize();
        if let Some(program) = self.built.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(program));
        }
        let flags = CString::new(options)
            .map_err(|_| KernelError::System("OpenCL: options with a zero byte".to_owned()))?;
        let file = self.folder.as_ref().map(|folder| folder.join(key.to_hex().as_str()));
        let stored = file.as_deref().and_then(read).and_then(|binary| {
            Program::from_binary(context, id, &binary, &flags)
                .inspect_err(|error| tracing::debug!("a stored program is built again: {error}"))
                .ok()
        });
        let program = match stored {
            Some(program) => program,
            None => {
                let program = Program::from_source(context, id, source, &flags)?;
                if let (Some(file), Some(binary)) = (file, program.binary()) {
                    keep(&file, &binary);
                }
                program
            }
        };
        let program = Arc::new(program);
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        built.insert(key, Arc::clone(&program));
        Ok(program)
    }
}

/// Returns `$PARETUNE_OPENCL_CACHE`, or `paretune/opencl` in the user's cache folder.
fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        return (!folder.is_empty()).then(|| folder.into());
    }
    let caches =
        std::env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let caches = caches.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))?;
    Some(caches.join("paretune").join("opencl"))
}

/// Reads the program in `file` if it is intact, because drivers do not check binaries.
fn read(file: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(file).ok()?;
    let binary = bytes.split_off(blake3::OUT_LEN.min(bytes.len()));
    (*blake3::hash(&binary).as_bytes() == bytes[..]).then_some(binary)
}

/// Stores a built program atomically. A failure is harmless, because the program can be built
/// again.
fn keep(file: &Path, binary: &[u8]) {
    let unique = format!("{}.{:?}", std::process::id(), std::thread::current().id());
    let draft = file.with_extension(unique.replace(['(', ')'], ""));
    let stored = file
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&draft, [blake3::hash(binary).as_bytes(), binary].concat()))
        .and_then(|()| fs::rename(&draft, file));
    if let Err(error) = stored {
        tracing::debug!("a built program is not kept: {error}");
        // Remove a partially written file.
        let _ = fs::remove_file(&draft);
    }
}
