//! What convolutions over planar activations share: an input in which every tap of every output pixel
//! lies at one fixed distance, and the store of finished pixels.
//!
//! The input is copied with its padding, split by phase: row and column modulo the strides. Within a
//! phase the pixels under a tap are contiguous whatever the stride, so output pixels can be counted
//! through padded rows ("flat"), and vectors of them run across row ends. The few sums at row ends that
//! belong to no pixel are thrown away. Where that is too much waste, or where loads across cache lines
//! cost more than a larger copy, the input can be *unfolded*: one copy per tap column, with rows as long
//! as the output's, so that flat pixels are pixels.

use std::ops::Range;

use super::finish::Finish;
use super::request::padded;
use crate::operator::ConvProblem;
use crate::simd::{Job, Simd, copy_few};

/// The split input.
pub(super) struct Phases {
    problem: ConvProblem,
    output: [usize; 2],
    /// Numbers per row of a phase: the distance of output rows in flat pixels.
    row: usize,
    /// Numbers per phase.
    phase: usize,
    /// `[vertical, horizontal]` phases that some tap reads, in order; unfolded, the horizontal one is the
    /// column of the tap.
    phases: Vec<[usize; 2]>,
    /// Whether there is a copy per tap column.
    unfolded: bool,
    /// Whether the input needs no copy.
    as_is: bool,
}

impl Phases {
    /// For kernels that compute `width` flat pixels at a time; `unfolded` or not.
    pub(super) fn new(problem: &ConvProblem, output: [usize; 2], width: usize, unfolded: bool) -> Self {
        let window = &problem.window;
        let [height, columns] = padded(problem);
        let rows = height.div_ceil(window.stride[0]);
        let row = if unfolded { output[1] } else { columns.div_ceil(window.stride[1]) };
        let used = |axis: usize| {
            let phase = |tap: usize| match axis {
                1 if unfolded => tap * window.dilation[1],
                _ => tap * window.dilation[axis] % window.stride[axis],
            };
            let mut used: Vec<usize> = (0..window.kernel[axis]).map(phase).collect();
            used.sort_unstable();
            used.dedup();
            used
        };
        let phases = used(0).into_iter().flat_map(|y| used(1).into_iter().map(move |x| [y, x])).collect();
        let mut this =
            Self { problem: *problem, output, row, phase: rows * row, phases, unfolded, as_is: false };
        this.as_is = window.stride == [1, 1]
            && window.padding == [0; 4]
            && (!unfolded || window.kernel[1] == 1)
            && this.pixels() >= width;
        this
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
        let (y, x) = (ky * window.dilation[0], kx * window.dilation[1]);
        let (column, shift) =
            if self.unfolded { (x, 0) } else { (x % window.stride[1], x / window.stride[1]) };
        let wanted = [y % window.stride[0], column];
        // Every tap's phase is among them.
        let phase = self.phases.iter().position(|&phase| phase == wanted).unwrap_or(0);
        phase * self.phase + y / window.stride[0] * self.row + shift
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
        let [height, width] = self.problem.input;
        let [top, left, ..] = self.problem.window.padding;
        let [stride_y, stride_x] = self.problem.window.stride;
        for plane in planes {
            for (number, &[phase_y, phase_x]) in self.phases.iter().enumerate() {
                for y in 0..self.phase / self.row {
                    // SAFETY: rows and columns are checked against the input's size.
                    unsafe {
                        let to = output.add(plane * self.channel() + number * self.phase + y * self.row);
                        let padded_y = y * stride_y + phase_y;
                        if padded_y < top || padded_y - top >= height {
                            to.write_bytes(0, self.row);
                            continue;
                        }
                        let from = input.add((plane * height + padded_y - top) * width);
                        // The columns of this phase that lie in the input.
                        let start = left.saturating_sub(phase_x).div_ceil(stride_x).min(self.row);
                        let end = (left + width).saturating_sub(phase_x).div_ceil(stride_x).min(self.row);
                        let end = end.max(start);
                        to.write_bytes(0, start);
                        if start < end {
                            let first = from.add(start * stride_x + phase_x - left);
                            if stride_x == 1 {
                                copy_row(first, to.add(start), end - start);
                            } else {
                                for x in 0..end - start {
                                    *to.add(start + x) = *first.add(x * stride_x);
                                }
                            }
                        }
                        to.add(end).write_bytes(0, self.row - end);
                    }
                }
            }
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
