//! Calls that fail on purpose, for tests of what happens when a device is lost. Compiled for tests alone: those of this crate,
//! and those of others through the feature `fault-injection`.
//!
//! `$PARETUNE_OPENCL_FAULT` is `CODE:CALLS` or `CODE:CALLS:FILE`: after so many calls of a process, all the others return the
//! code, as if the device were lost to this process. With a file, which is made when that happens, it is lost to every process
//! that finds the file.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use opencl3::types::cl_int;

const VARIABLE: &str = "PARETUNE_OPENCL_FAULT";

/// What the variable says.
struct Fault {
    code: cl_int,
    calls: u64,
    file: Option<PathBuf>,
}

thread_local! {
    static HERE: Cell<Option<cl_int>> = const { Cell::new(None) };
}

/// Lets every call of this thread fail with `code`, or none.
#[cfg(test)]
pub fn here(code: Option<cl_int>) {
    HERE.set(code);
}

/// The code that the call which has just returned is to have instead of its own.
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
