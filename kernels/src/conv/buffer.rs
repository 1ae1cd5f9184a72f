//! Memory on cache-line boundaries for packed weights and tables.

use std::marker::PhantomData;

/// Bytes of a cache line; also the alignment that the executor gives to workspaces.
pub(super) const LINE: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// A fixed number of numbers, zero at first, the first of them on a cache-line boundary.
pub(super) struct Buffer<T> {
    lines: Vec<Line>,
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
        let lines = (len * size_of::<T>()).div_ceil(LINE);
        Self { lines: vec![Line([0; LINE]); lines], len, numbers: PhantomData }
    }

    /// The same numbers, aligned.
    pub(super) fn from_slice(numbers: &[T]) -> Self {
        let mut buffer = Self::zeros(numbers.len());
        buffer.as_mut_slice().copy_from_slice(numbers);
        buffer
    }

    pub(super) fn as_ptr(&self) -> *const T {
        self.lines.as_ptr().cast()
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: the lines hold at least `len` numbers, every bit pattern is one, and the alignment fits.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.lines.len() * LINE
    }
}

/// `bytes` rounded up to whole cache lines, so that parts of a workspace do not share one.
pub(super) fn whole_lines(bytes: usize) -> usize {
    bytes.next_multiple_of(LINE)
}
