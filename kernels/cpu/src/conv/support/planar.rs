//! Shared parts of convolutions over NCHW activations: an input copy in which each tap is at a
//! fixed offset from every output pixel, and the store of finished pixels.
//!
//! The input is copied with its padding and split by phase: row and column modulo the strides.
//! Within a phase the pixels under a tap are contiguous for every stride. Output pixels can
//! therefore be counted through padded rows ("flat" pixels), and vectors of them run across row
//! ends. The few sums at row ends that belong to no pixel are discarded. If that wastes too much,
//! or if loads across cache lines cost more than a larger copy, the input can be *unfolded*: one
//! copy per tap column, with rows as long as the output's, so that flat pixels are output pixels;
//! or one copy per tap, so that the offsets are multiples of the plane size.

use std::ops::Range;

mod permute;

use self::permute::PermuteCopy;
use super::epilogue::Epilogue;
use super::request::padded;
use paretune_base::plan::operator::ConvProblem;
use paretune_simd::{IsaToken, Simd, SimdFn, copy_few};

/// Geometry of the phase-split copy of an input.
pub(crate) struct Phases {
    problem: ConvProblem,
    output: [usize; 2],
    /// Elements per row of a phase, which is the distance of output rows in flat pixels.
    row: usize,
    /// Number of elements per phase of a channel.
    phase: usize,
    /// `[vertical, horizontal]` phases that some tap reads, in order; along an unfolded axis, row
    /// or column of the tap.
    phases: Vec<[usize; 2]>,
    /// Columns of every horizontal phase that lie in the input.
    spans: Vec<ValidColumns>,
    /// Whether there is a copy `[per tap row, per tap column]`.
    unfolded: [bool; 2],
    /// Whether the input is read in place.
    as_is: bool,
    /// Permutation that copies small planes.
    permute: Option<PermuteCopy>,
}

/// Columns of a horizontal phase that are not padding.
#[derive(Clone, Copy)]
pub(crate) struct ValidColumns {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Input column of the first of them.
    pub(crate) first: usize,
}

impl ValidColumns {
    /// Returns the input columns among the first `columns` of a horizontal phase.
    pub(crate) fn of(problem: &ConvProblem, phase: usize, columns: usize) -> Self {
        let (left, stride) = (problem.window.padding[1], problem.window.stride[1]);
        let start = left.saturating_sub(phase).div_ceil(stride).min(columns);
        let end = (left + problem.input[1])
            .saturating_sub(phase)
            .div_ceil(stride)
            .min(columns)
            .max(start);
        Self { start, end, first: (start * stride + phase).saturating_sub(left) }
    }
}

impl Phases {
    /// Builds the geometry for kernels that compute `width` flat pixels at a time; `unfolded` asks
    /// for a copy `[per tap row, per tap column]`.
    pub(crate) fn new(
        problem: &ConvProblem,
        output: [usize; 2],
        width: usize,
        unfolded: [bool; 2],
        token: IsaToken,
    ) -> Self {
        let mut this = Self::geometry(problem, output, unfolded);
        this.as_is &= this.pixels() >= width;
        if !this.as_is {
            this.permute = PermuteCopy::new(&this, token);
        }
        this
    }

    /// Builds the geometry alone, for callers that copy the input themselves.
    pub(crate) fn geometry(problem: &ConvProblem, output: [usize; 2], unfolded: [bool; 2]) -> Self {
        let window = &problem.window;
        let [height, columns] = padded(problem);
        let rows = if unfolded[0] { output[0] } else { height.div_ceil(window.stride[0]) };
        let row = if unfolded[1] { output[1] } else { columns.div_ceil(window.stride[1]) };
        let used = |axis: usize| {
            let phase = |tap: usize| {
                let place = tap * window.dilation[axis];
                if unfolded[axis] { place } else { place % window.stride[axis] }
            };
            let mut used: Vec<usize> = (0..window.kernel[axis]).map(phase).collect();
            used.sort_unstable();
            used.dedup();
            used
        };
        let phases =
            used(0).into_iter().flat_map(|y| used(1).into_iter().map(move |x| [y, x])).collect();
        let spans =
            used(1).into_iter().map(|phase| ValidColumns::of(problem, phase, row)).collect();
        Self {
            problem: *problem,
            output,
            row,
            phase: rows * row,
            phases,
            spans,
            unfolded,
            as_is: window.stride == [1, 1]
                && window.padding == [0; 4]
                && (0..2).all(|axis| !unfolded[axis] || window.kernel[axis] == 1),
            permute: None,
        }
    }

    /// Returns the elements per row of a phase.
    pub(crate) fn row(&self) -> usize {
        self.row
    }

    /// Iterates over the rows of a channel's copy: the row of the input plane, or `None` for
    /// padding, and the columns that are not padding.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (Option<usize>, ValidColumns)> + '_ {
        let window = &self.problem.window;
        self.phases.iter().enumerate().flat_map(move |(number, &[phase_y, _])| {
            let span = self.spans[number % self.spans.len()];
            (0..self.phase / self.row).map(move |y| {
                let row = (y * window.stride[0] + phase_y).checked_sub(window.padding[0]);
                (row.filter(|&row| row < self.problem.input[0]), span)
            })
        })
    }

    /// Returns the element of a channel's plane that element `place` of its copy holds, or `None`
    /// for padding.
    fn source(&self, place: usize) -> Option<usize> {
        let [top, ..] = self.problem.window.padding;
        let [height, width] = self.problem.input;
        let (number, y, x) = (place / self.phase, place % self.phase / self.row, place % self.row);
        let row = (y * self.problem.window.stride[0] + self.phases[number][0]).checked_sub(top)?;
        let ValidColumns { start, end, first } = self.spans[number % self.spans.len()];
        let column = first + x.checked_sub(start)? * self.problem.window.stride[1];
        (row < height && x < end).then_some(row * width + column)
    }

    /// Returns the number of flat pixels from the first to the last output pixel of an image.
    pub(crate) fn pixels(&self) -> usize {
        (self.output[0] - 1) * self.row + self.output[1]
    }

    /// Returns whether flat pixels are output pixels.
    pub(crate) fn gapless(&self) -> bool {
        self.row == self.output[1]
    }

    /// Returns the distance in elements between channels of the phase-split input.
    pub(crate) fn channel(&self) -> usize {
        self.phase * self.phases.len()
    }

    /// Returns the distance in elements between images of the phase-split input.
    pub(crate) fn image(&self) -> usize {
        self.channel() * self.problem.in_channels
    }

    /// Returns the offset from an output pixel's flat number to its input under tap `[ky, kx]`, in
    /// the first channel.
    pub(crate) fn tap(&self, ky: usize, kx: usize) -> usize {
        let window = &self.problem.window;
        let split = |axis: usize, tap: usize| {
            let (place, stride) = (tap * window.dilation[axis], window.stride[axis]);
            if self.unfolded[axis] { (place, 0) } else { (place % stride, place / stride) }
        };
        let ((y, down), (x, right)) = (split(0, ky), split(1, kx));
        // The phase of every tap is in the list.
        let phase = self.phases.iter().position(|&phase| phase == [y, x]).unwrap_or(0);
        phase * self.phase + down * self.row + right
    }

    /// Returns the bytes of the copy, with room to read `width` flat pixels from any pixel on.
    pub(crate) fn bytes(&self, width: usize) -> usize {
        if self.as_is { 0 } else { (self.problem.batch * self.image() + width) * size_of::<f32>() }
    }

    /// Returns whether kernels read the input in place.
    pub(crate) fn reads_input(&self) -> bool {
        self.as_is
    }

    /// Returns the number of channels of all images, which are the units of [`Phases::copy`].
    pub(crate) fn planes(&self) -> usize {
        self.problem.batch * self.problem.in_channels
    }

    /// Copies the channels `planes` (counted through images).
    ///
    /// # Safety
    /// `input` and `output` must be valid for the problem's input and for [`Phases::bytes`], and no
    /// other thread may write the channels.
    pub(crate) unsafe fn copy(&self, planes: Range<usize>, input: *const f32, output: *mut f32) {
        let planes = match &self.permute {
            // SAFETY: the caller has the input of the problem and room for the channels.
            Some(permute) => unsafe { permute.copy(planes, self.planes(), input, output) },
            None => planes,
        };
        let rows = self.phase / self.row;
        let columns = self.spans.len();
        // If adjacent rows of taps are one input row apart, the rows of a copy are those of the
        // copy above it, shifted by one.
        let window = &self.problem.window;
        let shared =
            if self.unfolded[0] && window.stride[0] == window.dilation[0] { rows - 1 } else { 0 };
        for plane in planes {
            for (number, &[phase_y, _]) in self.phases.iter().enumerate() {
                // SAFETY: the copy has room for all phases of all channels, `columns` of them for a
                // row of taps.
                unsafe {
                    let to = output.add(plane * self.channel() + number * self.phase);
                    let done = if number < columns { 0 } else { shared };
                    if done > 0 {
                        copy_row(to.sub(columns * self.phase).add(self.row), to, done * self.row);
                    }
                    for y in done..rows {
                        let to = to.add(y * self.row);
                        self.copy_part(
                            plane,
                            y * window.stride[0] + phase_y,
                            number % columns,
                            input,
                            to,
                        );
                    }
                }
            }
        }
    }

    /// Copies the part of row `padded_y` of the padded plane that belongs to a phase; `span` is the
    /// index of the phase's columns.
    ///
    /// # Safety
    /// The requirements of [`Phases::copy`] must be met, and `to` must have room for a row of a
    /// phase.
    #[inline(always)]
    unsafe fn copy_part(
        &self,
        plane: usize,
        padded_y: usize,
        span: usize,
        input: *const f32,
        to: *mut f32,
    ) {
        let [height, width] = self.problem.input;
        let [top, ..] = self.problem.window.padding;
        let stride = self.problem.window.stride[1];
        let ValidColumns { start, end, first } = self.spans[span];
        // SAFETY: `padded_y - top` is less than the input's height, and columns from `first` on are
        // those that lie in the input. `to` has room for the `row` numbers of a row.
        unsafe {
            if padded_y < top || padded_y - top >= height {
                return clear(to, self.row);
            }
            clear(to, start);
            if start < end {
                let from = input.add((plane * height + padded_y - top) * width + first);
                if stride == 1 {
                    copy_row(from, to.add(start), end - start);
                } else {
                    for x in 0..end - start {
                        *to.add(start + x) = *from.add(x * stride);
                    }
                }
            }
            clear(to.add(end), self.row - end);
        }
    }

    /// Returns the flat pixels that the tile of `width` from `start` on stores, and the pixel from
    /// which on it computes. The latter is earlier if the tile would read beyond an input that is
    /// not a copy.
    pub(crate) fn window(&self, start: usize, width: usize) -> (Range<usize>, usize) {
        let pixels = self.pixels();
        let from = if self.as_is { start.min(pixels - width) } else { start };
        (start..(start + width).min(pixels), from)
    }
}

/// Writes `count` zeros; optimized for few.
///
/// # Safety
/// `to` must be valid for `count` elements.
#[inline(always)]
unsafe fn clear(to: *mut f32, count: usize) {
    const FEW: [f32; 16] = [0.0; 16];
    // SAFETY: the caller has room for `count` numbers, and `FEW` has more if it is read.
    unsafe {
        if count < FEW.len() { copy_few(FEW.as_ptr(), to, count) } else { to.write_bytes(0, count) }
    }
}

/// Copies a row; optimized for rows too short for a call of `memcpy`.
///
/// # Safety
/// Both addresses must be valid for `count` elements, and the ranges must not overlap.
unsafe fn copy_row(from: *const f32, to: *mut f32, count: usize) {
    const PIECE: usize = 8;
    // SAFETY: pieces end at `count` or before.
    unsafe {
        if count < PIECE {
            return copy_few(from, to, count);
        }
        let piece = |at: usize| {
            to.add(at)
                .cast::<[f32; PIECE]>()
                .write_unaligned(from.add(at).cast::<[f32; PIECE]>().read_unaligned());
        };
        let mut at = 0;
        while at + PIECE < count {
            piece(at);
            at += PIECE;
        }
        piece(count - PIECE);
    }
}

/// Epilogue and store of those sums of flat pixels that belong to output pixels.
pub(crate) struct StorePixels<'a> {
    pub(crate) phases: &'a Phases,
    /// Range of flat pixels that are stored.
    pub(crate) pixels: Range<usize>,
    /// Sums of the flat pixels, from `pixels.start` on.
    pub(crate) sums: *const f32,
    /// Start of the output plane.
    pub(crate) output: *mut f32,
    /// Start of the residual plane, or null.
    pub(crate) residual: *const f32,
    pub(crate) epilogue: &'a Epilogue,
}

impl SimdFn for StorePixels<'_> {
    type Args<'a> = StorePixels<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, store: StorePixels<'_>) {
        // Without gaps, all rows are one.
        let gapless = store.phases.gapless();
        let pixels = store.phases.pixels();
        let width = if gapless { pixels } else { store.phases.output[1] };
        let row = if gapless { pixels } else { store.phases.row };
        let mut flat = store.pixels.start;
        while flat < store.pixels.end {
            let (y, x) = (flat / row, flat % row);
            let next = ((y + 1) * row).min(store.pixels.end);
            let count = width.saturating_sub(x).min(next - flat);
            // SAFETY: `count` pixels from column `x` of row `y` on are in the plane, and have sums.
            unsafe {
                let sums = store.sums.add(flat - store.pixels.start);
                let at = y * width + x;
                let mut i = 0;
                while i < count {
                    let rest = count - i;
                    let part = rest < S::LANES;
                    let load = |from: *const f32| {
                        if part { simd.load_partial(from, rest) } else { simd.load(from) }
                    };
                    let mut sum = load(sums.add(i));
                    if !store.residual.is_null() {
                        sum = simd.add(sum, load(store.residual.add(at + i)));
                    }
                    let sum = store.epilogue.apply(simd, sum);
                    let to = store.output.add(at + i);
                    if part {
                        simd.store_partial(to, rest, sum)
                    } else {
                        simd.store(to, sum)
                    }
                    i += S::LANES;
                }
            }
            flat = next;
        }
    }
}
