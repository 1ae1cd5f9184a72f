//! Copied rows of a plane with their padding: one after another, split by column modulo the stride.

use crate::conv::support::planar::ValidColumns;
use paretune_base::plan::operator::ConvProblem;
use paretune_simd::Simd;

/// Geometry of the lines under a strip of output rows.
pub(super) struct Lines {
    problem: ConvProblem,
    /// Elements before the first line, so that the input's first column is aligned.
    lead: usize,
    /// Elements from one phase of a line to the next; `line` is the distance between lines.
    phase: usize,
    line: usize,
    /// Elements of a phase that some tap of some pixel reads.
    used: usize,
    /// Columns of every phase that are not padding.
    spans: Vec<ValidColumns>,
    /// Elements that may be overwritten behind the last line.
    slack: usize,
}

impl Lines {
    /// Builds the geometry for square windows with equal strides in both directions.
    pub(super) fn new(problem: &ConvProblem, output: [usize; 2], lanes: usize) -> Self {
        let (size, stride) = (problem.window.kernel[1], problem.window.stride[1]);
        let left = problem.window.padding[1];
        let used = output[1] + (size - 1) / stride;
        let phase =
            (output[1].next_multiple_of(lanes) + (size - 1) / stride).next_multiple_of(lanes);
        Self {
            lead: if stride == 1 { (lanes - left % lanes) % lanes } else { 0 },
            phase,
            line: stride * phase,
            used,
            spans: (0..stride).map(|phase| ValidColumns::of(problem, phase, used)).collect(),
            slack: 2 * lanes,
            problem: *problem,
        }
    }

    /// Returns the bytes of the lines under `rows` output rows, in whole cache lines.
    pub(super) fn bytes(&self, rows: usize) -> usize {
        let window = &self.problem.window;
        let lines = (rows - 1) * window.stride[0] + window.kernel[0];
        ((self.lead + lines * self.line + self.slack) * size_of::<f32>()).next_multiple_of(64)
    }

    /// Returns the elements of an input plane.
    pub(super) fn plane(&self) -> usize {
        self.problem.input[0] * self.problem.input[1]
    }

    /// Returns the index of a line's first element.
    #[inline(always)]
    pub(super) fn at(&self, line: usize) -> usize {
        self.lead + line * self.line
    }

    /// Returns the distance in elements between lines.
    #[inline(always)]
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// Returns the distance in elements between the phases of a line.
    #[inline(always)]
    pub(super) fn phase(&self) -> usize {
        self.phase
    }

    /// Copies `count` rows of `plane`, the first of which is under the first tap of output row
    /// `first`.
    ///
    /// # Safety
    /// `plane` must be a plane of the input, and `STRIDE` the window's stride. `lines` must have
    /// [`Lines::bytes`] for the output rows that need `count` rows.
    #[inline(always)]
    pub(super) unsafe fn copy<S: Simd, const STRIDE: usize>(
        &self,
        simd: S,
        plane: *const f32,
        first: usize,
        count: usize,
        lines: *mut f32,
    ) {
        let [height, width] = self.problem.input;
        let [top, ..] = self.problem.window.padding;
        for line in 0..count {
            let row = (first * STRIDE + line).checked_sub(top).filter(|&row| row < height);
            for (phase, &ValidColumns { start, end, first }) in self.spans.iter().enumerate() {
                // SAFETY: rows and columns of the plane are checked against its size. A line is
                // written in order, and whole: what is written beyond it, less than two vectors, is
                // overwritten or slack.
                unsafe {
                    let to = lines.add(self.at(line) + phase * self.phase);
                    let Some(row) = row.filter(|_| start < end) else {
                        clear(simd, to, 0, self.used);
                        continue;
                    };
                    clear(simd, to, 0, start);
                    let from = plane.add(row * width);
                    if STRIDE == 1 {
                        copy_row(simd, from.add(first), end - start, to.add(start));
                    } else {
                        every_second(simd, from, width, first, end - start, to.add(start));
                    }
                    clear(simd, to, end, self.used);
                }
            }
        }
    }
}

/// Writes zeros from `start` to `end`, and up to a vector beyond.
///
/// # Safety
/// `to` must have room for the zeros and a vector more.
#[inline(always)]
unsafe fn clear<S: Simd>(simd: S, to: *mut f32, start: usize, end: usize) {
    if start < end {
        // SAFETY: `start` is less than `end`, and the caller has room for a vector beyond the
        // latter.
        unsafe { simd.store(to.add(start), simd.splat(0.0)) };
        // More than one vector is rare.
        for at in (start + S::LANES..end).step_by(S::LANES) {
            // SAFETY: `at` is less than `end`, beyond which the caller has room for a vector.
            unsafe { simd.store(to.add(at), simd.splat(0.0)) };
        }
    }
}

/// Copies `count` elements, and writes up to a vector of zeros behind them.
///
/// # Safety
/// The elements must exist at `from`, and `to` must have room for them and a vector more.
#[inline(always)]
unsafe fn copy_row<S: Simd>(simd: S, from: *const f32, count: usize, to: *mut f32) {
    let mut at = 0;
    // SAFETY: the caller has `count` elements, of which `at + LANES` or the last `count - at` are
    // read, and room for a vector beyond `count`.
    unsafe {
        while at + S::LANES <= count {
            simd.store(to.add(at), simd.load(from.add(at)));
            at += S::LANES;
        }
        if at < count {
            simd.store(to.add(at), simd.load_partial(from.add(at), count - at));
        }
    }
}

/// Copies `count` elements of a row of length `width`, every second one from element `first` on.
///
/// # Safety
/// The elements must exist in the row, and `to` must have room for them.
#[inline(always)]
unsafe fn every_second<S: Simd>(
    simd: S,
    row: *const f32,
    width: usize,
    first: usize,
    count: usize,
    to: *mut f32,
) {
    const EVEN: [i32; 16] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];
    const ODD: [i32; 16] = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31];
    // SAFETY: the caller has the elements in the row and room for `count`. Two vectors are read
    // that end with the last element, or begin with the row and end within it.
    unsafe {
        if count < S::LANES || width < 2 * S::LANES {
            for at in 0..count {
                *to.add(at) = *row.add(first + 2 * at);
            }
            return;
        }
        let mut next = 0;
        while next < count {
            // The last vector overlaps the one before it: elements copied twice cost less than a
            // scalar loop.
            let at = next.min(count - S::LANES);
            next = at + S::LANES;
            let from = first + 2 * at;
            let numbers = match from.checked_sub(1) {
                Some(from) => simd.permute(row.add(from), ODD.as_ptr()),
                None => simd.permute(row, EVEN.as_ptr()),
            };
            simd.store(to.add(at), numbers);
        }
    }
}
