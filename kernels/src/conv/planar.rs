//! What convolutions over planar activations share: an input in which every tap of every output pixel
//! lies at one fixed distance, and the store of finished pixels.
//!
//! The input is copied with its padding, split by phase: row and column modulo the strides. Within a
//! phase the pixels under a tap are contiguous whatever the stride, so output pixels can be counted
//! through padded rows ("flat"), and vectors of them run across row ends. The few sums at row ends that
//! belong to no pixel are thrown away. Where that is too much waste, or where loads across cache lines
//! cost more than a larger copy, the input can be *unfolded*: one copy per tap column, with rows as long
//! as the output's, so that flat pixels are pixels; or one copy per tap, so that they lie at multiples of the plane.

use std::ops::Range;

mod picks;

use self::picks::Picks;
use super::finish::Finish;
use super::request::padded;
use crate::operator::ConvProblem;
use crate::simd::{Job, Simd, Usable, copy_few};

/// The split input.
pub(super) struct Phases {
    problem: ConvProblem,
    output: [usize; 2],
    /// Numbers per row of a phase: the distance of output rows in flat pixels.
    row: usize,
    /// Numbers per phase.
    phase: usize,
    /// `[vertical, horizontal]` phases that some tap reads, in order; unfolded, row or column of the tap.
    phases: Vec<[usize; 2]>,
    /// Of every horizontal phase, the columns that lie in the input.
    spans: Vec<Span>,
    /// Whether there is a copy `[per tap row, per tap column]`.
    unfolded: [bool; 2],
    /// Whether the input needs no copy.
    as_is: bool,
    /// How small planes are copied.
    picks: Option<Picks>,
}

/// Columns of a horizontal phase that are not padding.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The column of the input that the first of them is.
    pub(super) first: usize,
}

impl Span {
    /// Of a horizontal phase, among its first `columns`.
    pub(super) fn of(problem: &ConvProblem, phase: usize, columns: usize) -> Self {
        let (left, stride) = (problem.window.padding[1], problem.window.stride[1]);
        let start = left.saturating_sub(phase).div_ceil(stride).min(columns);
        let end = (left + problem.input[1]).saturating_sub(phase).div_ceil(stride).min(columns).max(start);
        Self { start, end, first: (start * stride + phase).saturating_sub(left) }
    }
}

impl Phases {
    /// For kernels that compute `width` flat pixels at a time, with a copy `[per tap row, per tap column]` or not.
    pub(super) fn new(
        problem: &ConvProblem,
        output: [usize; 2],
        width: usize,
        unfolded: [bool; 2],
        usable: Usable,
    ) -> Self {
        let mut this = Self::geometry(problem, output, unfolded);
        this.as_is &= this.pixels() >= width;
        if !this.as_is {
            this.picks = Picks::new(&this, usable);
        }
        this
    }

    /// Where everything lies, for whoever copies it on their own.
    pub(super) fn geometry(problem: &ConvProblem, output: [usize; 2], unfolded: [bool; 2]) -> Self {
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
        let phases = used(0).into_iter().flat_map(|y| used(1).into_iter().map(move |x| [y, x])).collect();
        let spans = used(1).into_iter().map(|phase| Span::of(problem, phase, row)).collect();
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
            picks: None,
        }
    }

    /// Numbers per row of a phase.
    pub(super) fn row(&self) -> usize {
        self.row
    }

    /// The rows of a channel's copy, one after the other: the row of the plane that each is, unless it is padding, and the
    /// columns that are none.
    pub(super) fn lines(&self) -> impl Iterator<Item = (Option<usize>, Span)> + '_ {
        let window = &self.problem.window;
        self.phases.iter().enumerate().flat_map(move |(number, &[phase_y, _])| {
            let span = self.spans[number % self.spans.len()];
            (0..self.phase / self.row).map(move |y| {
                let row = (y * window.stride[0] + phase_y).checked_sub(window.padding[0]);
                (row.filter(|&row| row < self.problem.input[0]), span)
            })
        })
    }

    /// The number of a channel's plane that is number `place` of its copy, unless that is padding.
    fn source(&self, place: usize) -> Option<usize> {
        let [top, ..] = self.problem.window.padding;
        let [height, width] = self.problem.input;
        let (number, y, x) = (place / self.phase, place % self.phase / self.row, place % self.row);
        let row = (y * self.problem.window.stride[0] + self.phases[number][0]).checked_sub(top)?;
        let Span { start, end, first } = self.spans[number % self.spans.len()];
        let column = first + x.checked_sub(start)? * self.problem.window.stride[1];
        (row < height && x < end).then_some(row * width + column)
    }

    /// Flat pixels from the first to the last of an image's output.
    pub(super) fn pixels(&self) -> usize {
        (self.output[0] - 1) * self.row + self.output[1]
    }

    /// Whether flat pixels are pixels.
    pub(super) fn gapless(&self) -> bool {
        self.row == self.output[1]
    }

    /// Numbers from one channel of the split input to the next.
    pub(super) fn channel(&self) -> usize {
        self.phase * self.phases.len()
    }

    /// Numbers from one image of the split input to the next.
    pub(super) fn image(&self) -> usize {
        self.channel() * self.problem.in_channels
    }

    /// Distance from an output pixel's flat number to its input under tap `[ky, kx]`, in the first
    /// channel.
    pub(super) fn tap(&self, ky: usize, kx: usize) -> usize {
        let window = &self.problem.window;
        let split = |axis: usize, tap: usize| {
            let (place, stride) = (tap * window.dilation[axis], window.stride[axis]);
            if self.unfolded[axis] { (place, 0) } else { (place % stride, place / stride) }
        };
        let ((y, down), (x, right)) = (split(0, ky), split(1, kx));
        // Every tap's phase is among them.
        let phase = self.phases.iter().position(|&phase| phase == [y, x]).unwrap_or(0);
        phase * self.phase + down * self.row + right
    }

    /// Bytes of the copy, so that `width` flat pixels may be read from any pixel on.
    pub(super) fn bytes(&self, width: usize) -> usize {
        if self.as_is { 0 } else { (self.problem.batch * self.image() + width) * size_of::<f32>() }
    }

    /// Whether kernels read the input itself.
    pub(super) fn reads_input(&self) -> bool {
        self.as_is
    }

    /// Number of channels of all images: what [`Phases::copy`] is shared by.
    pub(super) fn planes(&self) -> usize {
        self.problem.batch * self.problem.in_channels
    }

    /// Copies channels `planes` (counted through images).
    ///
    /// # Safety
    /// `input` and `output` are valid for the problem's input and for [`Phases::bytes`], and nobody else
    /// writes these channels.
    pub(super) unsafe fn copy(&self, planes: Range<usize>, input: *const f32, output: *mut f32) {
        // SAFETY: passed on.
        let planes = match &self.picks {
            Some(picks) => unsafe { picks.copy(planes, self.planes(), input, output) },
            None => planes,
        };
        let rows = self.phase / self.row;
        let columns = self.spans.len();
        // Where rows of taps are one row of the input apart, a copy is the one above it, a row further on.
        let window = &self.problem.window;
        let shared = if self.unfolded[0] && window.stride[0] == window.dilation[0] { rows - 1 } else { 0 };
        for plane in planes {
            for (number, &[phase_y, _]) in self.phases.iter().enumerate() {
                // SAFETY: the copy has room for all phases of all channels, `columns` of them for a row of taps.
                unsafe {
                    let to = output.add(plane * self.channel() + number * self.phase);
                    let done = if number < columns { 0 } else { shared };
                    if done > 0 {
                        copy_row(to.sub(columns * self.phase).add(self.row), to, done * self.row);
                    }
                    for y in done..rows {
                        let to = to.add(y * self.row);
                        self.copy_part(plane, y * window.stride[0] + phase_y, number % columns, input, to);
                    }
                }
            }
        }
    }

    /// Copies what a phase has of row `padded_y` of the padded plane, `span` being the phase's columns.
    ///
    /// # Safety
    /// As for [`Phases::copy`]; `to` has room for a row of a phase.
    #[inline(always)]
    unsafe fn copy_part(&self, plane: usize, padded_y: usize, span: usize, input: *const f32, to: *mut f32) {
        let [height, width] = self.problem.input;
        let [top, ..] = self.problem.window.padding;
        let stride = self.problem.window.stride[1];
        let Span { start, end, first } = self.spans[span];
        // SAFETY: rows and columns are checked against the input's size.
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

    /// The flat pixels that the tile of `width` from `start` on is there for, and from which pixel on it
    /// computes: earlier where it would otherwise read beyond an input that is not a copy.
    pub(super) fn window(&self, start: usize, width: usize) -> (Range<usize>, usize) {
        let pixels = self.pixels();
        let from = if self.as_is { start.min(pixels - width) } else { start };
        (start..(start + width).min(pixels), from)
    }
}

/// Writes zeros, rarely many.
///
/// # Safety
/// `to` is valid for `count` numbers.
#[inline(always)]
unsafe fn clear(to: *mut f32, count: usize) {
    const FEW: [f32; 16] = [0.0; 16];
    // SAFETY: the caller's promise.
    unsafe { if count < FEW.len() { copy_few(FEW.as_ptr(), to, count) } else { to.write_bytes(0, count) } }
}

/// Copies a row, which is rarely long enough for what is called to copy memory.
///
/// # Safety
/// Both are valid for `count` numbers and do not overlap.
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

/// Finishes and stores those of the sums of flat pixels that are pixels.
pub(super) struct StorePixels<'a> {
    pub(super) phases: &'a Phases,
    /// Flat pixels.
    pub(super) pixels: Range<usize>,
    /// Of `pixels.start` and what follows.
    pub(super) sums: *const f32,
    /// Start of the plane.
    pub(super) output: *mut f32,
    /// The same of the residual, or null.
    pub(super) residual: *const f32,
    pub(super) finish: &'a Finish,
}

impl Job for StorePixels<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // Without gaps, all rows are one.
        let gapless = self.phases.gapless();
        let pixels = self.phases.pixels();
        let width = if gapless { pixels } else { self.phases.output[1] };
        let row = if gapless { pixels } else { self.phases.row };
        let mut flat = self.pixels.start;
        while flat < self.pixels.end {
            let (y, x) = (flat / row, flat % row);
            let next = ((y + 1) * row).min(self.pixels.end);
            let count = width.saturating_sub(x).min(next - flat);
            // SAFETY: `count` pixels from column `x` of row `y` on are in the plane, and have sums.
            unsafe {
                let sums = self.sums.add(flat - self.pixels.start);
                let at = y * width + x;
                let mut i = 0;
                while i < count {
                    let rest = count - i;
                    let part = rest < S::LANES;
                    let load =
                        |from: *const f32| if part { S::load_first(from, rest) } else { S::load(from) };
                    let mut sum = load(sums.add(i));
                    if !self.residual.is_null() {
                        sum = S::add(sum, load(self.residual.add(at + i)));
                    }
                    let sum = self.finish.apply::<S>(sum);
                    let to = self.output.add(at + i);
                    if part {
                        S::store_first(to, rest, sum)
                    } else {
                        S::store(to, sum)
                    }
                    i += S::LANES;
                }
            }
            flat = next;
        }
    }
}
