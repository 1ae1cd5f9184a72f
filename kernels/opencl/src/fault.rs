//! Fault injection for tests of device loss. Compiled for tests only: those of this crate, and
//! those of others through the feature `fault-injection`.
//!
//! `$PARETUNE_OPENCL_FAULT` is `CODE:CALLS` or `CODE:CALLS:FILE`. After the given number of calls
//! of a process, all further calls return the code, as if this process had lost the device. The
//! optional file is created at that moment, and the device is lost to every process that finds the
//! file.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use opencl3::types::cl_int;

/// Lets devices without tensor cores run the kernels that need them, in the compiler's emulation.
pub static TENSOR_CORES_ANYWHERE: AtomicBool = AtomicBool::new(false);

const VARIABLE: &str = "PARETUNE_OPENCL_FAULT";

/// Parsed value of the environment variable.
struct Fault {
    code: cl_int,
    calls: u64,
    file: Option<PathBuf>,
}

thread_local! {
    static HERE: Cell<Option<cl_int>> = const { Cell::new(None) };
}

/// Makes every call of this thread fail with `code`, or stops the failures with `None`.
pub fn here(code: Option<cl_int>) {
    HERE.set(code);
}

/// Returns the error code that replaces the result of the current call, if any.
pub fn injected() -> Option<cl_int> {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
    if let Some(code) = HERE.get() {
        return Some(code);
    }
    let fault = FAULT.get_or_init(read).as_ref()?;
    let file = fault.file.as_deref();
    let lost = CALLS.fetch_add(1, Ordering::Relaxed) >= fault.calls;
    if let Some(file) = file.filter(|_| lost)
        && let Err(error) = std::fs::write(file, [])
    {
        tracing::warn!("`{}`: {error}", file.display());
    }
    (lost || file.is_some_and(std::path::Path::exists)).then_some(fault.code)
}

fn read() -> Option<Fault> {
    let text = std::env::var(VARIABLE).ok()?;
    let mut parts = text.splitn(3, ':');
    let (code, calls) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(Fault { code, calls, file: parts.next().map(PathBuf::from) })
}
