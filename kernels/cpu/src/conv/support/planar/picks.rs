//! Permute copies of small planes in registers: the source of every element is looked up once, when
//! the kernel is prepared, instead of row by row in every run.

use std::ops::Range;

use super::Phases;
use paretune_simd::{Build, Job, Simd, Usable, build_f32, lanes};

/// Elements per channel's copy above which rows are long enough to be copied one by one.
const MOST: usize = 4096;

/// Permutation that copies a channel from its plane.
pub(super) struct Picks {
    /// Index of the plane's first element that each vector of the copy reads.
    starts: Vec<usize>,
    /// Permutation of every vector, `[vector][lane]`, see [`Simd::pick`].
    picks: Vec<i32>,
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
/// The requirements of [`Picks::copy`] must be met, and the processor must execute the instruction
/// set that the function was compiled for.
type Entry = unsafe fn(&Picks, Range<usize>, *const f32, *mut f32);

impl Picks {
    /// Builds the permutation; `None` if the copy is large, or if some vector's elements are too
    /// far apart in the plane.
    pub(super) fn new(phases: &Phases, usable: Usable) -> Option<Self> {
        let channel = phases.channel();
        let lanes = lanes(usable.isa());
        if channel > MOST {
            return None;
        }
        let plane = phases.problem.input[0] * phases.problem.input[1];
        let (mut starts, mut picks, mut reach) = (Vec::new(), Vec::new(), 0);
        for first in (0..channel).step_by(lanes) {
            let source =
                |lane: usize| if first + lane < channel { phases.source(first + lane) } else { None };
            let places = (0..lanes).filter_map(source);
            let (low, high) = (places.clone().min().unwrap_or(0), places.max().unwrap_or(0));
            // Reads stay inside the plane, if it is that large.
            let start = low.min(plane.saturating_sub(2 * lanes));
            if high - start >= 2 * lanes {
                return None;
            }
            starts.push(start);
            reach = reach.max(start + 2 * lanes);
            picks.extend((0..lanes).map(|lane| source(lane).map_or(-1, |place| (place - start) as i32)));
        }
        struct Select;
        impl Build for Select {
            type Output = Entry;
            fn build<S: Simd>(self) -> Entry {
                entry::<S>
            }
        }
        Some(Self { starts, picks, reach, plane, channel, entry: build_f32(usable, Select) })
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
        let enough = (all * self.plane).checked_sub(self.reach).map_or(0, |rest| rest / self.plane + 1);
        let end = planes.end.min(enough).max(planes.start);
        // SAFETY: the caller's promise; nothing is read beyond the input.
        unsafe { (self.entry)(self, planes.start..end, input, output) };
        end..planes.end
    }
}

/// Copies channels with the vectors of `S`.
///
/// # Safety
/// The requirements of [`Entry`] must be met.
unsafe fn entry<S: Simd>(picks: &Picks, planes: Range<usize>, input: *const f32, output: *mut f32) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Copy { picks, planes, input, output }) }
}

struct Copy<'a> {
    picks: &'a Picks,
    planes: Range<usize>,
    input: *const f32,
    output: *mut f32,
}

impl Job for Copy<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Picks { starts, picks, plane, channel, .. } = self.picks;
        for number in self.planes {
            // SAFETY: windows of two vectors around what is picked can be read, as the caller has seen to; channels of
            // the copy are written whole and no further.
            unsafe {
                let (from, to) = (self.input.add(number * plane), self.output.add(number * channel));
                for (vector, &start) in starts.iter().enumerate() {
                    let first = vector * S::LANES;
                    let numbers = S::pick(from.add(start), picks.as_ptr().add(first));
                    if first + S::LANES <= *channel {
                        S::store(to.add(first), numbers);
                    } else {
                        S::store_first(to.add(first), channel - first, numbers);
                    }
                }
            }
        }
    }
}
