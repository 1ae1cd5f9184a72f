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

use super::api::Program;
use super::device::Device;
use super::layout::PreparedStep;
use super::source::OPTIONS;
use crate::error::KernelError;
use crate::executor::StepInfo;

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

    /// Returns the program of `source` built with `options`.
    ///
    /// # Errors
    /// Fails if the program does not build; the message contains the compiler's log.
    pub fn get(&self, device: &Device, source: &str, options: &str) -> Result<Arc<Program>, KernelError> {
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
            Program::from_binary(&device.context, device.id, &binary, &flags)
                .inspect_err(|error| tracing::debug!("a stored program is built again: {error}"))
                .ok()
        });
        let program = match stored {
            Some(program) => program,
            None => {
                let program = Program::from_source(&device.context, device.id, source, &flags)?;
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

/// Builds the programs of all launches, keyed by their source. Several programs are built by
/// several threads.
///
/// # Errors
/// Fails if a program does not build; the message names the step.
pub(super) fn build(
    device: &Device,
    steps: &[(StepInfo, PreparedStep)],
) -> Result<HashMap<String, Arc<Program>>, KernelError> {
    let mut texts: HashMap<String, &str> = HashMap::new();
    for (info, step) in steps {
        for launch in &step.prepared.launches {
            texts.entry(launch.macros.complete(launch.source)).or_insert(&info.name);
        }
    }
    let todo: Vec<(&String, &&str)> = texts.iter().collect();
    // Compilers that run on the device itself gain nothing from concurrency.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let builders = if device.limits.cpu { 1 } else { cores.min(todo.len()).max(1) };
    let share = todo.len().div_ceil(builders).max(1);
    let built = std::thread::scope(|scope| {
        let builders: Vec<_> = todo
            .chunks(share)
            .map(|part| {
                scope.spawn(move || {
                    part.iter()
                        .map(|(text, step)| {
                            let program = device.programs.get(device, text, OPTIONS);
                            let program =
                                program.map_err(|error| KernelError::plan(**step, error.to_string()))?;
                            Ok(((*text).clone(), program))
                        })
                        .collect::<Result<Vec<_>, KernelError>>()
                })
            })
            .collect();
        let lost = || KernelError::System("a thread that builds kernels died".to_owned());
        builders.into_iter().map(|builder| builder.join().map_err(|_| lost())?).collect::<Result<Vec<_>, _>>()
    })?;
    Ok(built.into_iter().flatten().collect())
}

/// Returns `$PARETUNE_OPENCL_CACHE`, or `paretune/opencl` in the user's cache folder.
fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        return (!folder.is_empty()).then(|| folder.into());
    }
    let caches = std::env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
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
