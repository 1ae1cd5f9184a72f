//! Permute copies of small planes in registers: the source of every element is looked up once, when
//! the kernel is prepared, instead of row by row in every run.

use std::ops::Range;

use super::Phases;
use paretune_simd::{Dispatch, IsaToken, Simd, SimdFn, lanes};

/// Elements per channel's copy above which rows are long enough to be copied one by one.
const MAX_PLANE_PIXELS: usize = 4096;

/// Permutation that copies a channel from its plane.
pub(super) struct PermuteCopy {
    /// Index of the plane's first element that each vector of the copy reads.
    starts: Vec<usize>,
    /// Permutation of every vector, `[vector][lane]`, see [`Simd::permute`].
    indices: Vec<i32>,
    /// Number of elements from a plane's start that are read.
    reach: usize,
    /// Elements of a plane; `channel` counts those of a channel's copy.
    plane: usize,
    channel: usize,
    entry: Entry,
}

/// Copies a range of channels.
///
/// # Safety
/// The requirements of [`PermuteCopy::copy`] must be met, and the processor must execute the
/// instruction set that the function was compiled for.
type Entry = unsafe fn(Copy<'_>);

impl PermuteCopy {
    /// Builds the permutation; `None` if the copy is large, or if some vector's elements are too
    /// far apart in the plane.
    pub(super) fn new(phases: &Phases, token: IsaToken) -> Option<Self> {
        let channel = phases.channel();
        let lanes = lanes(token.isa());
        if channel > MAX_PLANE_PIXELS {
            return None;
        }
        let plane = phases.problem.input[0] * phases.problem.input[1];
        let (mut starts, mut indices, mut reach) = (Vec::new(), Vec::new(), 0);
        for first in (0..channel).step_by(lanes) {
            let source = |lane: usize| {
                if first + lane < channel { phases.source(first + lane) } else { None }
            };
            let places = (0..lanes).filter_map(source);
            let (low, high) = (places.clone().min().unwrap_or(0), places.max().unwrap_or(0));
            // Reads stay inside the plane, if it is that large.
            let start = low.min(plane.saturating_sub(2 * lanes));
            if high - start >= 2 * lanes {
                return None;
            }
            starts.push(start);
            reach = reach.max(start + 2 * lanes);
            indices.extend(
                (0..lanes).map(|lane| source(lane).map_or(-1, |place| (place - start) as i32)),
            );
        }
        Some(Self {
            starts,
            indices,
            reach,
            plane,
            channel,
            entry: token.f32().pointer::<Copy<'_>>(),
        })
    }

    /// Copies those of the channels `planes`, of `all` that the input has, for which the reads stay
    /// inside the input. Returns the range of the other channels.
    ///
    /// # Safety
    /// The requirements of [`Phases::copy`] must be met.
    pub(super) unsafe fn copy(
        &self,
        planes: Range<usize>,
        all: usize,
        input: *const f32,
        output: *mut f32,
    ) -> Range<usize> {
        let enough =
            (all * self.plane).checked_sub(self.reach).map_or(0, |rest| rest / self.plane + 1);
        let end = planes.end.min(enough).max(planes.start);
        // SAFETY: `end` is at most `enough`, so that `reach` numbers from the start of each plane
        // on lie in the input. The caller has room for the channels.
        unsafe {
            (self.entry)(Copy { permutation: self, planes: planes.start..end, input, output })
        };
        end..planes.end
    }
}

struct Copy<'a> {
    permutation: &'a PermuteCopy,
    planes: Range<usize>,
    input: *const f32,
    output: *mut f32,
}

impl SimdFn for Copy<'_> {
    type Args<'a> = Copy<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, copy: Copy<'_>) {
        let PermuteCopy { starts, indices, plane, channel, .. } = copy.permutation;
        for number in copy.planes {
            // SAFETY: every vector reads two vectors that end within `reach`, which the caller has
            // checked against the input. The last vector of a channel is partial, so none is
            // written beyond it.
            unsafe {
                let (from, to) =
                    (copy.input.add(number * plane), copy.output.add(number * channel));
                for (vector, &start) in starts.iter().enumerate() {
                    let first = vector * S::LANES;
                    let numbers = simd.permute(from.add(start), indices.as_ptr().add(first));
                    if first + S::LANES <= *channel {
                        simd.store(to.add(first), numbers);
                    } else {
                        simd.store_partial(to.add(first), channel - first, numbers);
                    }
                }
            }
        }
    }
}
