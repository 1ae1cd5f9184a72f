//! Copies of an NHWC input, with its padding, in scratch memory.

use std::marker::PhantomData;
use std::ops::Range;

use super::request::padded;
use crate::conv::algorithm::Call;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::threads::Worker;
use paretune_simd::{Activate, Bf16Token, Dispatch, IsaToken, Simd, SimdFn, SimdOp};

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
            // SAFETY: `row` is a row of the padded images, for which the caller has room, and `y -
            // top` is a row of the input.
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
pub(crate) unsafe fn pad_f32(
    problem: &ConvProblem,
    rows: Range<usize>,
    input: *const f32,
    output: *mut f32,
) {
    // SAFETY: the caller has the problem's input and room for the rows, in different allocations; a
    // line of `count` elements lies within both.
    unsafe {
        Copy { problem: *problem, input, output }
            .rows(rows, 0.0, |from, to, count| std::ptr::copy_nonoverlapping(from, to, count));
    }
}

/// Function that writes the padded rows of a [`PadBf16`].
pub(crate) type PadBf16Entry = unsafe fn(PadBf16<'_>);

/// Returns the function that writes padded rows rounded to bfloat16.
pub(crate) fn pad_bf16(token: Bf16Token) -> PadBf16Entry {
    token.pointer::<PadBf16<'_>>()
}

/// Padded rows of a single-precision input, rounded to bfloat16.
pub(crate) struct PadBf16<'a> {
    pub(crate) problem: &'a ConvProblem,
    /// Range of rows, counted through images.
    pub(crate) rows: Range<usize>,
    pub(crate) input: *const f32,
    /// Address that row 0 has, or would have.
    pub(crate) output: *mut u16,
}

impl SimdFn for PadBf16<'_> {
    type Args<'a> = PadBf16<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, pad: PadBf16<'_>) {
        let copy = Copy { problem: *pad.problem, input: pad.input, output: pad.output };
        // SAFETY: input and rows are valid for the problem, and the closure converts `count`
        // elements of a row of one to a row of the other.
        unsafe { copy.rows(pad.rows, 0, |from, to, count| simd.round_to_bf16(from, to, count)) };
    }
}

/// Function that writes the padded rows of a [`PadBytes`].
pub(crate) type PadBytesEntry = unsafe fn(PadBytes<'_>);

/// Returns the padding function for the activations of [`Simd::dot`].
pub(crate) fn pad_bytes(token: IsaToken) -> PadBytesEntry {
    struct Select;
    impl SimdOp for Select {
        type Output = PadBytesEntry;
        fn eval<S: Simd>(self, simd: S) -> PadBytesEntry {
            simd.pointer::<Pad<S::Act>>()
        }
    }
    token.dispatch(Select)
}

/// Returns the padding function for the activations of [`Simd::dot_low_bit`].
pub(crate) fn pad_low_bit(token: IsaToken) -> PadBytesEntry {
    struct Select;
    impl SimdOp for Select {
        type Output = PadBytesEntry;
        fn eval<S: Simd>(self, simd: S) -> PadBytesEntry {
            simd.pointer::<Pad<S::LowBitAct>>()
        }
    }
    token.dispatch(Select)
}

/// Padded rows of an 8-bit input in the format of dot products.
///
/// The input must be valid for the problem's input and the output for the rows, which no other
/// thread may write.
pub(crate) struct PadBytes<'a> {
    pub(crate) problem: &'a ConvProblem,
    pub(crate) zero_point: u8,
    /// Range of rows, counted through images.
    pub(crate) rows: Range<usize>,
    pub(crate) input: *const u8,
    /// Address that row 0 has, or would have.
    pub(crate) output: *mut u8,
}

impl PadBytes<'_> {
    /// Copies the whole input of `call` with its padding to the start of the workspace, on all
    /// threads, and returns the address of the copy once it is complete.
    ///
    /// # Safety
    /// The addresses of `call` must be valid for `problem`, the workspace must have room for the
    /// copy, and all threads of the pool must make this call.
    pub(crate) unsafe fn share(
        pad: PadBytesEntry,
        problem: &ConvProblem,
        zero_point: u8,
        call: &Call,
        worker: &Worker<'_>,
    ) -> *const u8 {
        let rows = worker.share(problem.batch * padded(problem)[0]);
        let (input, output) = (call.input, call.workspace);
        // SAFETY: the caller has the input and room for the copy, and each row has one writer.
        unsafe { pad(PadBytes { problem, zero_point, rows, input, output }) };
        worker.wait();
        call.workspace.cast_const()
    }
}

/// Writes padded rows as elements of type `A`.
struct Pad<A>(PhantomData<A>);

impl<A: Activate> SimdFn for Pad<A> {
    type Args<'a> = PadBytes<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(_: S, pad: PadBytes<'_>) {
        let zero_point = pad.zero_point;
        let fill = A::activate(zero_point, zero_point);
        let copy = Copy { problem: *pad.problem, input: pad.input, output: pad.output.cast::<A>() };
        // SAFETY: input and rows are valid for the problem, and `count` elements of a row are read
        // and written.
        unsafe {
            // Compilers vectorize this loop.
            copy.rows(pad.rows, fill, |from, to, count| {
                for i in 0..count {
                    *to.add(i) = A::activate(*from.add(i), zero_point);
                }
            });
        }
    }
}
