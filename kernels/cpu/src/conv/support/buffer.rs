//! Cache-line aligned memory for packed weights and tables: owned, or a part of a mapped file.

use std::ops::Deref;
use std::sync::Arc;

use paretune_base::memory::block::{ALIGNMENT, Block};
use paretune_base::memory::mapping::Mapping;

/// Bytes of a cache line, which is also the alignment that the executor gives to workspaces.
pub(crate) const LINE: usize = ALIGNMENT;

/// A fixed number of elements from a cache-line boundary on, which are never written after
/// construction.
pub(crate) struct Buffer<T> {
    start: *const T,
    len: usize,
    _memory: Memory,
}

/// Owner of the memory that a [`Buffer`] points into.
enum Memory {
    Own { _block: Block },
    Mapped { _mapping: Arc<Mapping> },
}

// SAFETY: the numbers are never written again, and live as long as the memory that the buffer
// holds.
unsafe impl<T: Number> Send for Buffer<T> {}
// SAFETY: shared buffers are only read, and live as long as the memory that the buffer holds.
unsafe impl<T: Number> Sync for Buffer<T> {}

/// Element types for which every bit pattern is a valid value.
///
/// # Safety
/// The type must have no padding and no invalid bit patterns, and its alignment must be at most
/// [`LINE`].
pub(crate) unsafe trait Number: Copy + Default + Send + Sync + 'static {
    /// Code of the element type in files.
    const KIND: u8;
}

macro_rules! numbers {
    ($($number:ty: $kind:literal)+) => {
        $(
            // SAFETY: plain numbers.
            unsafe impl Number for $number {
                const KIND: u8 = $kind;
            }
        )+
    };
}

numbers!(f32: 0 i8: 1 u8: 2 i16: 3 u16: 4 i32: 5 u32: 6);

impl<T: Number> Buffer<T> {
    /// Allocates `len` zeros and lets `fill` write them.
    pub(crate) fn new(len: usize, fill: impl FnOnce(&mut [T])) -> Self {
        let block = Block::zeros(whole_lines(len * size_of::<T>()));
        let start = block.start().cast::<T>();
        // SAFETY: the block holds at least `len` numbers, every bit pattern is one, the alignment
        // fits, and nobody else knows the block yet.
        fill(unsafe { std::slice::from_raw_parts_mut(start, len) });
        Self { start, len, _memory: Memory::Own { _block: block } }
    }

    /// Allocates a buffer of `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        Self::new(len, |_| ())
    }

    /// Returns the `len` elements from byte `at` of a mapping on, or `None` if the mapping does not
    /// hold that many whole cache lines there.
    pub(crate) fn mapped(mapping: &Arc<Mapping>, at: usize, len: usize) -> Option<Self> {
        let end = at.checked_add(lines_of::<T>(len)?)?;
        if !at.is_multiple_of(LINE) || end > mapping.len() {
            return None;
        }
        let start = mapping.start().wrapping_add(at);
        if !start.addr().is_multiple_of(LINE) {
            return None;
        }
        Some(Self {
            start: start.cast(),
            len,
            _memory: Memory::Mapped { _mapping: Arc::clone(mapping) },
        })
    }

    pub(crate) fn as_ptr(&self) -> *const T {
        self.start
    }

    /// Returns the size in bytes, in whole cache lines.
    pub(crate) fn bytes(&self) -> usize {
        whole_lines(self.len * size_of::<T>())
    }
}

impl<T: Number> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: there are `len` numbers, aligned, which live as long as the buffer and are not
        // written.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

/// Rounds `bytes` up to whole cache lines, so that parts of a workspace do not share one.
pub(crate) fn whole_lines(bytes: usize) -> usize {
    bytes.next_multiple_of(LINE)
}

/// Returns the bytes of the whole cache lines that `len` elements take, or `None` on overflow.
pub(crate) fn lines_of<T>(len: usize) -> Option<usize> {
    len.checked_mul(size_of::<T>())?.checked_next_multiple_of(LINE)
}
