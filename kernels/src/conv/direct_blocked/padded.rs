//! The input of [`super::DirectBlocked`]: planes of a few channels with their padding, split by phase (row and column modulo the
//! strides), so that the pixels under a tap are neighbors whatever the stride. A plane has a vector of channels, or one channel
//! where the input is planar.

use std::ops::Range;

use crate::conv::request::padded;
use crate::operator::ConvProblem;
use crate::simd::{Build, Job, Simd, Usable, build_f32};

/// How the input comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Planar,
    ChannelsLast,
    Blocked,
}

/// Where the numbers of the input lie for the microkernels.
pub(super) struct Padded {
    problem: ConvProblem,
    order: Order,
    /// Channels of a plane, and numbers from one pixel to the next.
    unit: usize,
    /// Planes of an image.
    planes: usize,
    /// `[vertical, horizontal]` phases that some tap reads.
    phases: [Vec<usize>; 2],
    /// Rows of a phase.
    rows: usize,
    /// Pixels of a row of a phase.
    row: usize,
    as_is: bool,
    copy: unsafe fn(&Copy<'_>),
}

/// Pixels of a row of a phase: the distance of output rows, counted through padded rows.
pub(super) fn row_pixels(problem: &ConvProblem) -> usize {
    padded(problem)[1].div_ceil(problem.window.stride[1])
}

impl Padded {
    pub(super) fn new(problem: &ConvProblem, order: Order, lanes: usize, usable: Usable) -> Self {
        struct Find;
        impl Build for Find {
            type Output = unsafe fn(&Copy<'_>);
            fn build<S: Simd>(self) -> Self::Output {
                entry::<S>
            }
        }
        let window = &problem.window;
        let unit = if order == Order::Planar { 1 } else { lanes };
        let used = |axis: usize| {
            let phases =
                (0..window.kernel[axis]).map(|tap| tap * window.dilation[axis] % window.stride[axis]);
            let mut phases: Vec<usize> = phases.collect();
            phases.sort_unstable();
            phases.dedup();
            phases
        };
        // One plane of a pixel is both: blocked, and channels last.
        let alike = order != Order::ChannelsLast || problem.in_channels == unit;
        Self {
            order,
            unit,
            planes: problem.in_channels.div_ceil(unit),
            phases: [used(0), used(1)],
            rows: padded(problem)[0].div_ceil(window.stride[0]),
            row: row_pixels(problem),
            as_is: alike && window.stride == [1, 1] && window.padding == [0; 4],
            copy: build_f32(usable, Find),
            problem: *problem,
        }
    }

    /// Distance of output rows, counted in pixels through padded rows.
    pub(super) fn row(&self) -> usize {
        self.row
    }

    /// Numbers of a plane.
    fn plane(&self) -> usize {
        self.phases[0].len() * self.phases[1].len() * self.rows * self.row * self.unit
    }

    /// Where the pixels from `flat` on of a group's first plane lie.
    pub(super) fn at(&self, image: usize, group: usize, flat: usize) -> usize {
        let plane = image * self.planes + group * self.problem.group_in() / self.unit;
        plane * self.plane() + flat * self.unit
    }

    /// Offset and length of every run under a pixel, in the order of [`Padded::order_of_steps`].
    pub(super) fn steps(&self) -> Vec<[usize; 2]> {
        let window = &self.problem.window;
        let split = |axis: usize, tap: usize| {
            let place = tap * window.dilation[axis];
            // Every tap's phase is among them.
            let phase = self.phases[axis].iter().position(|&phase| phase == place % window.stride[axis]);
            (phase.unwrap_or(0), place / window.stride[axis])
        };
        let mut steps = Vec::new();
        self.runs(|plane, [ky, kx], run| {
            let ((y, down), (x, right)) = (split(0, ky), split(1, kx));
            let phase = y * self.phases[1].len() + x;
            let pixel = (phase * self.rows + down) * self.row + right;
            steps.push([plane * self.plane() + pixel * self.unit, run]);
        });
        steps
    }

    /// The channel of a group and the tap that weights are needed for, step by step.
    pub(super) fn order_of_steps(&self) -> impl Iterator<Item = [usize; 2]> {
        let columns = self.problem.window.kernel[1];
        let mut order = Vec::new();
        self.runs(|plane, [ky, kx], run| {
            order.extend((0..run).map(|k| [plane * self.unit + k, ky * columns + kx]));
        });
        order.into_iter()
    }

    /// Calls for every plane and tap, with the number of channels.
    fn runs(&self, mut call: impl FnMut(usize, [usize; 2], usize)) {
        let [rows, columns] = self.problem.window.kernel;
        let channels = self.problem.group_in();
        for plane in 0..channels.div_ceil(self.unit) {
            for ky in 0..rows {
                for kx in 0..columns {
                    call(plane, [ky, kx], self.unit.min(channels - plane * self.unit));
                }
            }
        }
    }

    /// Whether kernels read the input itself.
    pub(super) fn reads_input(&self) -> bool {
        self.as_is
    }

    /// Bytes of the copy.
    pub(super) fn bytes(&self) -> usize {
        if self.as_is { 0 } else { self.planes() * self.plane() * size_of::<f32>() }
    }

    /// Planes of all images: what [`Padded::copy`] is shared by.
    pub(super) fn planes(&self) -> usize {
        self.problem.batch * self.planes
    }

    /// Copies `planes`, counted through images.
    ///
    /// # Safety
    /// `input` and `output` are valid for the problem's input and for [`Padded::bytes`], and nobody else writes these planes.
    pub(super) unsafe fn copy(&self, planes: Range<usize>, input: *const f32, output: *mut f32) {
        // SAFETY: passed on.
        unsafe { (self.copy)(&Copy { padded: self, planes, input, output }) }
    }
}

/// See [`Padded::copy`].
struct Copy<'a> {
    padded: &'a Padded,
    planes: Range<usize>,
    input: *const f32,
    output: *mut f32,
}

/// # Safety
/// As for [`Padded::copy`], and the processor executes `S`.
unsafe fn entry<S: Simd>(copy: &Copy<'_>) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Planes(copy)) }
}

struct Planes<'a>(&'a Copy<'a>);

impl Job for Planes<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let &Copy { padded, ref planes, input, output } = self.0;
        for plane in planes.clone() {
            let mut to = output.wrapping_add(plane * padded.plane());
            for &y in &padded.phases[0] {
                for &x in &padded.phases[1] {
                    for row in 0..padded.rows {
                        // SAFETY: the copy has room for all rows of all phases.
                        unsafe {
                            if padded.unit == 1 {
                                copy_row::<S, Single>(padded, plane, [row, y, x], input, to);
                            } else {
                                copy_row::<S, Vector>(padded, plane, [row, y, x], input, to);
                            }
                        }
                        to = to.wrapping_add(padded.row * padded.unit);
                    }
                }
            }
        }
    }
}

/// How a pixel of a plane is copied.
trait Pixel<S: Simd> {
    /// Numbers of it.
    const UNIT: usize;
    /// Copies the first `count` of its numbers.
    ///
    /// # Safety
    /// As for every function of [`Simd`].
    unsafe fn copy(from: *const f32, to: *mut f32, count: usize);
    /// Makes it zero.
    ///
    /// # Safety
    /// The same.
    unsafe fn clear(to: *mut f32);
}

struct Single;

impl<S: Simd> Pixel<S> for Single {
    const UNIT: usize = 1;
    #[inline(always)]
    unsafe fn copy(from: *const f32, to: *mut f32, _count: usize) {
        // SAFETY: passed on.
        unsafe { *to = *from };
    }
    #[inline(always)]
    unsafe fn clear(to: *mut f32) {
        // SAFETY: passed on.
        unsafe { *to = 0.0 };
    }
}

struct Vector;

impl<S: Simd> Pixel<S> for Vector {
    const UNIT: usize = S::LANES;
    #[inline(always)]
    unsafe fn copy(from: *const f32, to: *mut f32, count: usize) {
        // SAFETY: passed on.
        unsafe { S::store(to, if count < S::LANES { S::load_first(from, count) } else { S::load(from) }) };
    }
    #[inline(always)]
    unsafe fn clear(to: *mut f32) {
        // SAFETY: passed on.
        unsafe { S::store(to, S::splat(0.0)) };
    }
}

/// Copies a row of a phase of a plane: `[row, vertical phase, horizontal phase]`.
///
/// # Safety
/// As for [`Padded::copy`]; `to` has room for the row, `P` is a pixel of the plane.
#[inline(always)]
unsafe fn copy_row<S: Simd, P: Pixel<S>>(
    padded: &Padded,
    plane: usize,
    [row, y, x]: [usize; 3],
    input: *const f32,
    to: *mut f32,
) {
    let ConvProblem { in_channels, input: [height, width], window, .. } = &padded.problem;
    let ([top, left, ..], [down, right]) = (window.padding, window.stride);
    let (image, channel) = (plane / padded.planes, plane % padded.planes * padded.unit);
    // Columns of the phase that lie in the input, and the input's column of the first.
    let start = left.saturating_sub(x).div_ceil(right).min(padded.row);
    let end = (left + width).saturating_sub(x).div_ceil(right).clamp(start, padded.row);
    let y = (row * down + y).checked_sub(top).filter(|y| y < height);
    let (start, end) = if y.is_some() { (start, end) } else { (0, 0) };
    // SAFETY: the row has `padded.row` pixels; those read lie in the input.
    unsafe {
        for column in (0..start).chain(end..padded.row) {
            P::clear(to.add(column * P::UNIT));
        }
        let Some(y) = y.filter(|_| start < end) else { return };
        let pixel = y * width + start * right + x - left;
        let (from, step) = match padded.order {
            Order::ChannelsLast => {
                (input.add((image * height * width + pixel) * in_channels + channel), *in_channels)
            }
            Order::Planar | Order::Blocked => {
                (input.add((plane * height * width + pixel) * P::UNIT), P::UNIT)
            }
        };
        let count = P::UNIT.min(in_channels - channel);
        if P::UNIT == 1 && right == 1 {
            std::ptr::copy_nonoverlapping(from, to.add(start), end - start);
            return;
        }
        for column in 0..end - start {
            P::copy(from.add(column * right * step), to.add((start + column) * P::UNIT), count);
        }
    }
}
