//! Indirection buffer: the address of the input of every output pixel, without the usual table of
//! pointers.
//!
//! A convolution over NHWC activations is a GEMM whose left rows are, tap by tap, runs of input
//! channels (Dukhan, "The Indirect Convolution Algorithm", 2019). That paper keeps a pointer for
//! every pixel and tap. Here the offset is the sum of a vertical and a horizontal part, so two
//! small tables suffice. If either part is padding the sum is negative, and a row of zeros replaces
//! the input.

use std::ops::Range;

use paretune_base::plan::operator::{ConvProblem, Window};

/// Offset that marks padding: its sum with any other offset is negative.
const PADDING: isize = isize::MIN / 4;

/// Offsets in elements from the start of an input to the runs under every output pixel. Pixels are
/// counted through images, rows and columns.
pub struct IndirectionBuffer {
    /// Vertical offsets, `[output row][tap row]`.
    vertical: Vec<isize>,
    /// Horizontal offsets, `[output column][tap column]`.
    horizontal: Vec<isize>,
    output: [usize; 2],
    taps: [usize; 2],
    image: usize,
}

/// View of an indirection buffer ([`IndirectionBuffer`]) for kernels.
#[derive(Clone, Copy)]
pub struct IndirectionView {
    vertical: *const isize,
    horizontal: *const isize,
    output: [usize; 2],
    /// `[rows, columns]` of taps, each of which is a run.
    pub taps: [usize; 2],
    image: usize,
}

impl IndirectionBuffer {
    /// Builds the indirection buffer of a plain matrix: one run per row, rows `stride` elements
    /// apart.
    pub(crate) fn matrix(stride: usize) -> Self {
        Self { vertical: vec![0], horizontal: vec![0], output: [1, 1], taps: [1, 1], image: stride }
    }

    /// Builds an indirection buffer with one run of `in_channels / groups` elements per tap of an
    /// NHWC input.
    pub fn taps(problem: &ConvProblem, output: [usize; 2]) -> Self {
        let [height, width] = problem.input;
        let channels = problem.in_channels;
        if problem.window == Window::POINT {
            return Self::matrix(channels);
        }
        let window = &problem.window;
        Self {
            vertical: offsets(problem, 0, output[0], width * channels),
            horizontal: offsets(problem, 1, output[1], channels),
            output,
            taps: window.kernel,
            image: height * width * channels,
        }
    }

    /// Builds an indirection buffer with one run of `kernel_width * in_channels` elements per row
    /// of taps, for an NHWC input that carries its padding; `padded` is its `[height, width]`.
    /// Horizontal dilation must be 1.
    pub(crate) fn runs(problem: &ConvProblem, output: [usize; 2], padded: [usize; 2]) -> Self {
        let window = &problem.window;
        let channels = problem.in_channels;
        let row = padded[1] * channels;
        let vertical = (0..output[0])
            .flat_map(|y| {
                (0..window.kernel[0])
                    .map(move |ky| (y * window.stride[0] + ky * window.dilation[0]) * row)
            })
            .map(|offset| offset as isize)
            .collect();
        let horizontal =
            (0..output[1]).map(|x| (x * window.stride[1] * channels) as isize).collect();
        Self { vertical, horizontal, output, taps: [window.kernel[0], 1], image: padded[0] * row }
    }

    /// Builds an indirection buffer with one run for the whole window, for an NHWC input that
    /// carries its padding; `padded` is its `[height, width]`. The offsets within the window are
    /// equal for every pixel.
    pub(crate) fn windows(problem: &ConvProblem, output: [usize; 2], padded: [usize; 2]) -> Self {
        if problem.window == Window::POINT {
            return Self::matrix(problem.in_channels);
        }
        let window = &problem.window;
        let channels = problem.in_channels;
        let row = padded[1] * channels;
        let axis = |axis: usize, step: usize| {
            (0..output[axis])
                .map(|position| (position * window.stride[axis] * step) as isize)
                .collect()
        };
        Self {
            vertical: axis(0, row),
            horizontal: axis(1, channels),
            output,
            taps: [1, 1],
            image: padded[0] * row,
        }
    }

    /// Builds an indirection buffer with the run of one tap under the pixels `within`, `[rows,
    /// columns]`, of one image. All of these pixels must find the tap in the input.
    pub(crate) fn tap(
        problem: &ConvProblem,
        [ky, kx]: [usize; 2],
        within: &[Range<usize>; 2],
    ) -> Self {
        let window = &problem.window;
        let channels = problem.in_channels;
        let axis = |axis: usize, tap: usize, step: usize| -> Vec<isize> {
            let place = |position: usize| {
                position * window.stride[axis] + tap * window.dilation[axis] - window.padding[axis]
            };
            within[axis].clone().map(|position| (place(position) * step) as isize).collect()
        };
        Self {
            vertical: axis(0, ky, problem.input[1] * channels),
            horizontal: axis(1, kx, channels),
            output: [within[0].len(), within[1].len()],
            taps: [1, 1],
            image: problem.input[0] * problem.input[1] * channels,
        }
    }

    /// Returns a view that lives no longer than the buffer.
    pub fn view(&self) -> IndirectionView {
        IndirectionView {
            vertical: self.vertical.as_ptr(),
            horizontal: self.horizontal.as_ptr(),
            output: self.output,
            taps: self.taps,
            image: self.image,
        }
    }
}

/// Returns the offsets in elements along one axis, `[output position][tap]`; [`PADDING`] for taps
/// outside the input.
pub(crate) fn offsets(
    problem: &ConvProblem,
    axis: usize,
    outputs: usize,
    step: usize,
) -> Vec<isize> {
    let window = &problem.window;
    let mut offsets = Vec::with_capacity(outputs * window.kernel[axis]);
    for position in 0..outputs {
        for tap in 0..window.kernel[axis] {
            let padded = position * window.stride[axis] + tap * window.dilation[axis];
            let inside =
                padded.checked_sub(window.padding[axis]).filter(|&i| i < problem.input[axis]);
            offsets.push(inside.map_or(PADDING, |i| (i * step) as isize));
        }
    }
    offsets
}

/// Position of one output pixel.
#[derive(Clone, Copy)]
pub struct Pixel {
    image: usize,
    row: usize,
    column: usize,
}

/// Offsets of the taps of one output pixel.
#[derive(Clone, Copy)]
pub struct Site {
    vertical: *const isize,
    horizontal: *const isize,
    image: usize,
}

impl IndirectionView {
    /// Returns the position of pixel `number`.
    pub fn pixel(&self, number: usize) -> Pixel {
        let [height, width] = self.output;
        Pixel {
            image: number / (height * width),
            row: number / width % height,
            column: number % width,
        }
    }

    /// Returns the offsets of the taps of `pixel`.
    ///
    /// # Safety
    /// The tables must be alive, and `pixel` must be one of the output's.
    #[inline(always)]
    pub unsafe fn site(&self, pixel: Pixel) -> Site {
        // SAFETY: row and column are below `output`, which the tables were made for.
        unsafe {
            Site {
                vertical: self.vertical.add(pixel.row * self.taps[0]),
                horizontal: self.horizontal.add(pixel.column * self.taps[1]),
                image: pixel.image * self.image,
            }
        }
    }

    /// Returns the position of `pixel` in an output with `step` elements per pixel and `gap` more
    /// after each row of pixels, without further gaps between images.
    #[inline(always)]
    pub(crate) fn place(&self, pixel: Pixel, step: usize, gap: usize) -> usize {
        let [height, width] = self.output;
        (pixel.image * height + pixel.row) * (width * step + gap) + pixel.column * step
    }

    /// Returns the position after `pixel`.
    #[inline(always)]
    pub fn next(&self, pixel: Pixel) -> Pixel {
        let Pixel { image, row, column } = pixel;
        if column + 1 < self.output[1] {
            Pixel { image, row, column: column + 1 }
        } else if row + 1 < self.output[0] {
            Pixel { image, row: row + 1, column: 0 }
        } else {
            Pixel { image: image + 1, row: 0, column: 0 }
        }
    }
}

impl Site {
    /// Returns the address of the run of tap `[ky, kx]`, or `zeros` if it is padding.
    ///
    /// # Safety
    /// The tables must be alive, the tap must exist, and `input` must be the start of the input
    /// that the tables describe.
    #[inline(always)]
    pub unsafe fn run<T>(
        &self,
        ky: usize,
        kx: usize,
        input: *const T,
        zeros: *const T,
    ) -> *const T {
        // SAFETY: the tables hold an offset for each tap; those that are not negative lie in the
        // image.
        unsafe {
            let offset = *self.vertical.add(ky) + *self.horizontal.add(kx);
            // Computed without a branch, and discarded for padding.
            let inside = input.wrapping_add(self.image).wrapping_offset(offset);
            if offset < 0 { zeros } else { inside }
        }
    }
}
