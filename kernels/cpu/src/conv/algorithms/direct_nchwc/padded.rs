//! Padded input of [`super::DirectNchwc`]: planes of a few channels, split by phase (row and
//! column modulo the strides) so that the pixels under a tap are adjacent for every stride. A plane
//! has a vector of channels, or one channel if the input is NCHW.

use std::ops::Range;

use crate::conv::support::planar::{Phases, ValidColumns};
use crate::conv::support::request::padded;
use paretune_base::plan::operator::ConvProblem;
use paretune_simd::{Dispatch, IsaToken, Simd, SimdFn};

/// Layout in which the input arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Nchw,
    Nhwc,
    Nchwc,
}

/// Geometry of the padded input that the microkernels read.
pub(super) struct Padded {
    problem: ConvProblem,
    order: Order,
    /// Channels per plane, which is also the distance in elements between pixels.
    unit: usize,
    /// Number of planes per image.
    planes: usize,
    /// Phase split of a plane, counted in pixels like that of an NCHW input.
    phases: Phases,
    as_is: bool,
    copy: unsafe fn(&Copy<'_>),
}

/// Returns the pixels per row of a phase, which is the distance of output rows counted through
/// padded rows.
pub(super) fn row_pixels(problem: &ConvProblem) -> usize {
    padded(problem)[1].div_ceil(problem.window.stride[1])
}

impl Padded {
    pub(super) fn new(
        problem: &ConvProblem,
        output: [usize; 2],
        order: Order,
        lanes: usize,
        token: IsaToken,
    ) -> Self {
        let unit = if order == Order::Nchw { 1 } else { lanes };
        let phases = match order {
            Order::Nchw => Phases::new(problem, output, 0, [false; 2], token),
            _ => Phases::geometry(problem, output, [false; 2]),
        };
        // If a pixel has only one plane, NCHWc and NHWC are identical.
        let alike = order != Order::Nhwc || problem.in_channels == unit;
        Self {
            order,
            unit,
            planes: problem.in_channels.div_ceil(unit),
            as_is: alike && phases.reads_input(),
            phases,
            copy: token.f32().pointer::<Planes>(),
            problem: *problem,
        }
    }

    /// Returns the distance of output rows in pixels, counted through padded rows.
    pub(super) fn row(&self) -> usize {
        self.phases.row()
    }

    /// Returns the elements per plane.
    fn plane(&self) -> usize {
        self.phases.channel() * self.unit
    }

    /// Returns the offset of pixel `flat` in a group's first plane.
    pub(super) fn at(&self, image: usize, group: usize, flat: usize) -> usize {
        let plane = image * self.planes + group * self.problem.group_in() / self.unit;
        plane * self.plane() + flat * self.unit
    }

    /// Returns offset and length of every run under a pixel, in the order of
    /// [`Padded::order_of_steps`].
    pub(super) fn steps(&self) -> Vec<[usize; 2]> {
        let mut steps = Vec::new();
        self.runs(|plane, [ky, kx], run| {
            steps.push([plane * self.plane() + self.phases.tap(ky, kx) * self.unit, run]);
        });
        steps
    }

    /// Iterates over the steps in k in the order of use, as `[channel of the group, tap]`.
    pub(super) fn order_of_steps(&self) -> impl Iterator<Item = [usize; 2]> {
        let columns = self.problem.window.kernel[1];
        let mut order = Vec::new();
        self.runs(|plane, [ky, kx], run| {
            order.extend((0..run).map(|k| [plane * self.unit + k, ky * columns + kx]));
        });
        order.into_iter()
    }

    /// Calls `call` for every plane and tap, with the number of channels.
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

    /// Returns whether kernels read the input in place.
    pub(super) fn reads_input(&self) -> bool {
        self.as_is
    }

    /// Returns the bytes of the copy.
    pub(super) fn bytes(&self) -> usize {
        if self.as_is { 0 } else { self.planes() * self.plane() * size_of::<f32>() }
    }

    /// Returns the number of planes of all images, which are the units of [`Padded::copy`].
    pub(super) fn planes(&self) -> usize {
        self.problem.batch * self.planes
    }

    /// Copies the planes `planes`, counted through images.
    ///
    /// # Safety
    /// `input` and `output` must be valid for the problem's input and for [`Padded::bytes`], and no
    /// other thread may write the planes.
    pub(super) unsafe fn copy(&self, planes: Range<usize>, input: *const f32, output: *mut f32) {
        // SAFETY: the caller has the problem's input, and room for the planes that nobody else
        // writes.
        unsafe {
            match self.order {
                Order::Nchw => self.phases.copy(planes, input, output),
                _ => (self.copy)(&Copy { padded: self, planes, input, output }),
            }
        }
    }
}

/// Arguments of [`Padded::copy`] for planes of vectors.
struct Copy<'a> {
    padded: &'a Padded,
    planes: Range<usize>,
    input: *const f32,
    output: *mut f32,
}

struct Planes;

impl SimdFn for Planes {
    type Args<'a> = &'a Copy<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, copy: &Copy<'_>) {
        let &Copy { padded, ref planes, input, output } = copy;
        let row = padded.row();
        for plane in planes.clone() {
            let mut to = output.wrapping_add(plane * padded.plane());
            for (y, span) in padded.phases.lines() {
                // SAFETY: the copy has room for all rows of all phases.
                unsafe { copy_row(simd, padded, plane, y, span, input, to) };
                to = to.wrapping_add(row * S::LANES);
            }
        }
    }
}

/// Copies row `y` of a plane, or zeros for `None`, to a row of a phase, whose columns in `span` are
/// not padding.
///
/// # Safety
/// The requirements of [`Padded::copy`] must be met, and `to` must have room for the row.
#[inline(always)]
unsafe fn copy_row<S: Simd>(
    simd: S,
    padded: &Padded,
    plane: usize,
    y: Option<usize>,
    ValidColumns { start, end, first }: ValidColumns,
    input: *const f32,
    to: *mut f32,
) {
    let ConvProblem { in_channels, input: [height, width], window, .. } = &padded.problem;
    let (image, channel) = (plane / padded.planes, plane % padded.planes * S::LANES);
    let (start, end) = if y.is_some() { (start, end) } else { (0, 0) };
    // SAFETY: `column` is less than the pixels of the row, for which `to` has room. Pixels from
    // `first` on lie in the input, and partial vectors end with its channels.
    unsafe {
        for column in (0..start).chain(end..padded.row()) {
            simd.store(to.add(column * S::LANES), simd.splat(0.0));
        }
        let Some(y) = y.filter(|_| start < end) else { return };
        let pixel = y * width + first;
        let (from, step) = match padded.order {
            Order::Nhwc => {
                (input.add((image * height * width + pixel) * in_channels + channel), *in_channels)
            }
            Order::Nchw | Order::Nchwc => {
                (input.add((plane * height * width + pixel) * S::LANES), S::LANES)
            }
        };
        let count = in_channels - channel;
        for column in 0..end - start {
            let from = from.add(column * window.stride[1] * step);
            let pixel =
                if count < S::LANES { simd.load_partial(from, count) } else { simd.load(from) };
            simd.store(to.add((start + column) * S::LANES), pixel);
        }
    }
}
