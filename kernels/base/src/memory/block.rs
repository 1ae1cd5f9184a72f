//! Memory for weights, activations and workspaces: aligned, initially zero, and on huge pages if
//! large. Weights are read once per run, and with pages of 4 KiB that would cost a page-table walk
//! for each page.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::error::KernelError;

/// Alignment of every block in bytes: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// Bytes of a huge page on x86-64, and on aarch64 with pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;

/// An aligned block of bytes, initially zero.
pub struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the block is plain memory that this value owns alone.
unsafe impl Send for Block {}
// SAFETY: a shared reference gives out an address only; whoever dereferences it takes care.
unsafe impl Sync for Block {}

impl Block {
    /// Allocates `bytes` zero bytes.
    ///
    /// # Errors
    /// Fails if the memory is not available.
    pub fn new(bytes: usize) -> Result<Self, KernelError> {
        let refused = || KernelError::System(format!("cannot allocate {bytes} bytes"));
        let layout = layout(bytes).ok_or_else(refused)?;
        Ok(Self { start: zeros(layout).ok_or_else(refused)?, layout })
    }

    /// Allocates `bytes` zero bytes. Ends the process if the memory is not available, like a `Vec`.
    pub fn zeros(bytes: usize) -> Self {
        let Some(layout) = layout(bytes) else { panic!("no address space has {bytes} bytes") };
        Self { start: zeros(layout).unwrap_or_else(|| handle_alloc_error(layout)), layout }
    }

    /// Returns the address of the first byte.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated by `zeros` with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

fn layout(bytes: usize) -> Option<Layout> {
    let alignment = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
    // An empty allocation is not allowed.
    Layout::from_size_align(bytes.max(1), alignment).ok()
}

fn zeros(layout: Layout) -> Option<NonNull<u8>> {
    if layout.align() < HUGE_PAGE {
        // SAFETY: the size is not zero.
        return NonNull::new(unsafe { alloc_zeroed(layout) });
    }
    // SAFETY: the size is not zero.
    let start = NonNull::new(unsafe { alloc(layout) })?;
    // The advice must precede the first write to a page.
    advise(start, layout.size());
    // SAFETY: the block was just allocated with this size.
    unsafe { start.as_ptr().write_bytes(0, layout.size()) };
    Some(start)
}

/// Asks the operating system for huge pages. Failure is harmless: the block then uses ordinary
/// pages.
#[cfg(target_os = "linux")]
fn advise(start: NonNull<u8>, bytes: usize) {
    use nix::sys::mman::{MmapAdvise, madvise};
    // Advise only whole huge pages: the rest of the last one may belong to other allocations.
    let whole = bytes / HUGE_PAGE * HUGE_PAGE;
    // SAFETY: the range is part of the allocation, and the advice changes nothing about its
    // contents.
    if let Err(error) = unsafe { madvise(start.cast(), whole, MmapAdvise::MADV_HUGEPAGE) } {
        tracing::debug!("no huge pages: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_start: NonNull<u8>, _bytes: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_any_size_are_aligned_zeros() {
        for bytes in [0, 1, 4096, HUGE_PAGE - 1, HUGE_PAGE, 2 * HUGE_PAGE + 12_345] {
            let block = Block::new(bytes).unwrap();
            assert_eq!(block.start() as usize % ALIGNMENT, 0);
            // SAFETY: the block has that many bytes, and nobody else writes them.
            let all = unsafe { std::slice::from_raw_parts_mut(block.start(), bytes) };
            assert!(all.iter().all(|&byte| byte == 0));
            all.fill(1);
        }
    }

    #[test]
    fn too_much_is_an_error() {
        assert!(Block::new(usize::MAX / 2).is_err());
    }
}
