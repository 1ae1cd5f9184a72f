//! Counts actual allocations, for the measured side of the `memory` metric.
//!
//! A program that needs the counts installs [`CountingAllocator`]:
//!
//! ```
//! use paretune_base::memory::{self, CountingAllocator};
//!
//! #[global_allocator]
//! static ALLOCATOR: CountingAllocator = CountingAllocator;
//!
//! let numbers = vec![0_u8; 1 << 20];
//! assert!(memory::is_counting());
//! assert!(memory::live_bytes() >= 1 << 20);
//! memory::reset_peak();
//! drop(numbers);
//! assert!(memory::peak_bytes() >= memory::live_bytes() + (1 << 20));
//! ```
//!
//! Packed weights, arenas and workspaces are ordinary allocations, so they are all in these
//! figures. Threads' stacks, mapped files and memory of devices are not: of a loaded network
//! [`LoadedPlan::mapped_bytes`](crate::execution::LoadedPlan::mapped_bytes) and
//! [`LoadedPlan::device_bytes`](crate::execution::LoadedPlan::device_bytes) tell the rest.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

pub mod block;
pub mod mapping;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator with counters. Counts are exact; the peak may miss the sum of two
/// allocations that threads make in the same instant.
pub struct CountingAllocator;

fn grow(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    // Most allocations make no new peak: read before writing to the shared cache line.
    if live > PEAK.load(Ordering::Relaxed) {
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
}

fn shrink(bytes: usize) {
    LIVE.fetch_sub(bytes, Ordering::Relaxed);
}

// SAFETY: every call is one of the system's allocator with its arguments unchanged. Counting
// touches atomics only and never allocates.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller has a layout of non-zero size, which is all that the system's
        // allocator asks for.
        let start = unsafe { System.alloc(layout) };
        if !start.is_null() {
            grow(layout.size());
        }
        start
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller has a layout of non-zero size, which is all that the system's
        // allocator asks for.
        let start = unsafe { System.alloc_zeroed(layout) };
        if !start.is_null() {
            grow(layout.size());
        }
        start
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: `start` came from the system's allocator, as all blocks of this one do, with the
        // caller's `layout`.
        let moved = unsafe { System.realloc(start, layout, size) };
        if !moved.is_null() {
            // Shrink first: a block that grows in place never occupies both sizes at once.
            shrink(layout.size());
            grow(size);
        }
        moved
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: `start` came from the system's allocator, as all blocks of this one do, with the
        // caller's `layout`.
        unsafe { System.dealloc(start, layout) };
        shrink(layout.size());
    }
}

/// Returns the bytes that are allocated now, or 0 if [`CountingAllocator`] is not installed.
#[must_use]
pub fn live_bytes() -> u64 {
    LIVE.load(Ordering::Relaxed) as u64
}

/// Returns the maximum of bytes allocated at once since the start or the last [`reset_peak`], or 0
/// if [`CountingAllocator`] is not installed.
#[must_use]
pub fn peak_bytes() -> u64 {
    PEAK.load(Ordering::Relaxed) as u64
}

/// Returns the number of allocations since the start, or 0 if [`CountingAllocator`] is not
/// installed.
#[must_use]
pub fn allocations() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed) as u64
}

/// Resets the peak to the bytes that are allocated now.
pub fn reset_peak() {
    PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Returns whether [`CountingAllocator`] is installed, and so whether the counts are meaningful.
#[must_use]
pub fn is_counting() -> bool {
    // Every Rust program allocates before it gets here, so an installed allocator has counted some.
    allocations() > 0
}
