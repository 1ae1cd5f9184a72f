//! Copies of an NHWC input, with its padding, in scratch memory.

use std::ops::Range;

use paretune_base::plan::operator::ConvProblem;
use paretune_simd::{Activate, Job, Simd, Usable, build};

/// Source and destination of a padded copy.
#[derive(Clone, Copy)]
struct Copy<From, To> {
    problem: ConvProblem,
    input: *const From,
    output: *mut To,
}

impl<From, To> Copy<From, To> {
    /// Writes padded rows `rows` (counted through images): `fill` in the padding, and `count`
    /// elements at a time with `line` elsewhere.
    ///
    /// # Safety
    /// The input must be valid for the whole problem and the output for the rows, which no other
    /// thread may write.
    #[inline(always)]
    unsafe fn rows(&self, rows: Range<usize>, fill: To, line: impl Fn(*const From, *mut To, usize))
    where
        To: std::marker::Copy,
    {
        let [height, width] = self.problem.input;
        let [top, left, bottom, right] = self.problem.window.padding;
        let channels = self.problem.in_channels;
        let padded = (left + width + right) * channels;
        for row in rows {
            let (image, y) = (row / (top + height + bottom), row % (top + height + bottom));
            // SAFETY: `row` is one of the padded image's, and `y - top` of the input's.
            unsafe {
                // The output may be a part of the padded image that begins at a later row.
                let to = self.output.wrapping_add(row * padded);
                if y < top || y - top >= height {
                    std::slice::from_raw_parts_mut(to.cast::<std::mem::MaybeUninit<To>>(), padded)
                        .fill(std::mem::MaybeUninit::new(fill));
                    continue;
                }
                let from = self.input.add((image * height + y - top) * width * channels);
                let edge = |at: usize, columns: usize| {
                    std::slice::from_raw_parts_mut(
                        to.add(at * channels).cast::<std::mem::MaybeUninit<To>>(),
                        columns * channels,
                    )
                    .fill(std::mem::MaybeUninit::new(fill));
                };
                edge(0, left);
                line(from, to.add(left * channels), width * channels);
                edge(left + width, right);
            }
        }
    }
}

/// Writes the padded rows `rows` (counted through images) of a single-precision input.
///
/// # Safety
/// `input` must be valid for the problem's input, and `output` for the rows, which no other thread
/// may write.
pub(crate) unsafe fn pad_f32(problem: &ConvProblem, rows: Range<usize>, input: *const f32, output: *mut f32) {
    // SAFETY: the caller vouches for both; lines are copied between different allocations.
    unsafe {
        Copy { problem: *problem, input, output }
            .rows(rows, 0.0, |from, to, count| std::ptr::copy_nonoverlapping(from, to, count));
    }
}

/// Writes the padded rows `rows` (counted through images), rounded to bfloat16.
///
/// # Safety
/// The requirements of [`pad_f32`] must be met, and the processor must have AVX-512 BF16.
pub(crate) unsafe fn pad_bf16(
    problem: &ConvProblem,
    rows: Range<usize>,
    input: *const f32,
    output: *mut u16,
) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: passed on.
    unsafe {
        Copy { problem: *problem, input, output }
            .rows(rows, 0, |from, to, count| paretune_simd::bf16::round(from, to, count));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (problem, rows, input, output);
}

/// Function that writes padded rows (counted through images) of an 8-bit input in the format of dot
/// products. It takes problem, zero point, rows, input, and the output address that row 0 has or
/// would have.
pub(crate) type PadBytes = unsafe fn(&ConvProblem, u8, Range<usize>, *const u8, *mut u8);

/// Returns the padding function for the instruction set of `usable`.
pub(crate) fn pad_bytes(usable: Usable) -> PadBytes {
    struct Select;
    impl paretune_simd::Build for Select {
        type Output = PadBytes;
        fn build<S: Simd>(self) -> PadBytes {
            entry::<S, S::Act>
        }
    }
    build(usable, Select)
}

/// Returns the padding function for dot products with weights of at most 4 bits.
pub(crate) fn pad_few(usable: Usable) -> PadBytes {
    struct Select;
    impl paretune_simd::Build for Select {
        type Output = PadBytes;
        fn build<S: Simd>(self) -> PadBytes {
            entry::<S, S::Few>
        }
    }
    build(usable, Select)
}

/// Writes padded rows of an 8-bit input as elements of type `A`.
///
/// # Safety
/// The requirements of [`pad_f32`] must be met, and the processor must execute `S`.
unsafe fn entry<S: Simd, A: Activate>(
    problem: &ConvProblem,
    zero_point: u8,
    rows: Range<usize>,
    input: *const u8,
    output: *mut u8,
) {
    let copy = Copy { problem: *problem, input, output: output.cast::<A>() };
    // SAFETY: passed on.
    unsafe { S::vectorize(Bytes { copy, zero_point, rows }) }
}

struct Bytes<A> {
    copy: Copy<u8, A>,
    zero_point: u8,
    rows: Range<usize>,
}

impl<A: Activate> Job for Bytes<A> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let zero_point = self.zero_point;
        let fill = A::activate(zero_point, zero_point);
        // SAFETY: the caller vouches for both ends; compilers make vectors of this loop.
        unsafe {
            self.copy.rows(self.rows, fill, |from, to, count| {
                for i in 0..count {
                    *to.add(i) = A::activate(*from.add(i), zero_point);
                }
            });
        }
    }
}
