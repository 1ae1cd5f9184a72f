//! Memory on cache-line boundaries for packed weights and tables.

use std::marker::PhantomData;

use crate::block::{ALIGNMENT, Block};

/// Bytes of a cache line; also the alignment that the executor gives to workspaces.
pub(super) const LINE: usize = ALIGNMENT;

/// A fixed number of numbers, zero at first, the first of them on a cache-line boundary.
pub(super) struct Buffer<T> {
    block: Block,
    len: usize,
    numbers: PhantomData<T>,
}

/// Numbers that any bytes are a valid value of.
///
/// # Safety
/// No padding, no invalid bit patterns, alignment at most [`LINE`].
pub(super) unsafe trait Number: Copy + Send + Sync + 'static {}
// SAFETY: plain numbers.
unsafe impl Number for f32 {}
// SAFETY: plain numbers.
unsafe impl Number for i8 {}
// SAFETY: plain numbers.
unsafe impl Number for i16 {}
// SAFETY: plain numbers.
unsafe impl Number for i32 {}
// SAFETY: plain numbers.
unsafe impl Number for u8 {}

impl<T: Number> Buffer<T> {
    /// `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        Self { block: Block::zeros(whole_lines(len * size_of::<T>())), len, numbers: PhantomData }
    }

    /// The same numbers, aligned.
    pub(super) fn from_slice(numbers: &[T]) -> Self {
        let mut buffer = Self::zeros(numbers.len());
        buffer.as_mut_slice().copy_from_slice(numbers);
        buffer
    }

    pub(super) fn as_ptr(&self) -> *const T {
        self.block.start().cast_const().cast()
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: the block holds at least `len` numbers, every bit pattern is one, and the alignment fits.
        unsafe { std::slice::from_raw_parts_mut(self.block.start().cast(), self.len) }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        whole_lines(self.len * size_of::<T>())
    }
}

/// `bytes` rounded up to whole cache lines, so that parts of a workspace do not share one.
pub(super) fn whole_lines(bytes: usize) -> usize {
    bytes.next_multiple_of(LINE)
}
