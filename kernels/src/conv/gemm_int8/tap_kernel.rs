//! 8-bit microkernels for one tap of a window: they add its products to sums that wait in memory.

use super::kernel::compiled;
use crate::conv::buffer::LINE;
use crate::conv::rows::RowsView;
#[cfg(target_arch = "x86_64")]
use crate::conv::tiles::entry_for_16;
use crate::conv::tiles::{Tile, entry_for_32, entry_for_any};
use crate::hardware::Isa;
use crate::simd::{Job, Simd, Usable};

/// Arguments for one tap of a window: `tiles` tiles of consecutive pixels among those that it is under.
#[derive(Clone, Copy)]
pub(in crate::conv) struct TapStrip {
    /// Where these pixels find their run.
    pub rows: RowsView,
    /// What `rows` is about, in [`Simd::Act`].
    pub input: *const u8,
    /// Dot-product groups of the run; the last may reach beyond it, into weights of zero.
    pub run: usize,
    /// `[group][channel of the block][element of the group]`, as in [`super::Strip`].
    pub weights: *const u8,
    /// What the tap adds to the sum of each channel of the block besides its products.
    pub start: *const i32,
    /// Of each pixel the sums of a block of channels, that of the first pixel of all being here.
    pub sums: *mut i32,
    /// Sums from one pixel to the next.
    pub pixel: usize,
    /// How many more there are after each row of pixels.
    pub gap: usize,
    /// First pixel.
    pub first: usize,
    /// How many tiles follow it.
    pub tiles: usize,
    /// Of what follows these weights, where fetching into the cache begins, and how many lines each group of each tile
    /// fetches.
    pub fetch: (*const u8, usize),
}

/// Adds a [`TapStrip`] to its sums.
///
/// # Safety
/// All pointers in the strip are valid for what it describes, and nobody else writes its sums.
pub(in crate::conv) type Entry = unsafe fn(&TapStrip);

/// A microkernel of a tap. It exists only where the processor executes its instruction set.
#[derive(Clone, Copy)]
pub(in crate::conv) struct TapMicrokernel {
    /// What to call.
    pub run: Entry,
}

impl TapMicrokernel {
    /// As [`super::Microkernel::new`].
    pub(in crate::conv) fn new(usable: Usable, tile: Tile, widened: bool) -> Option<Self> {
        compiled!(entry, entry_widened, usable, tile, widened).map(|run| Self { run })
    }
}

/// One compiled microkernel of a tap.
///
/// # Safety
/// As for [`Entry`], and the processor executes `S`; [`TapMicrokernel::new`] sees to that.
unsafe fn entry<S: Simd, const ROWS: usize, const VECTORS: usize>(strip: &TapStrip) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Tiles::<ROWS, VECTORS, false>(strip)) }
}

/// [`entry`] for weights of 16 bits.
///
/// # Safety
/// As for [`entry`], and the dot product is one of pairs of 16 bits.
#[cfg(target_arch = "x86_64")]
unsafe fn entry_widened<S: Simd, const ROWS: usize, const VECTORS: usize>(strip: &TapStrip) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Tiles::<ROWS, VECTORS, true>(strip)) }
}

struct Tiles<'a, const ROWS: usize, const VECTORS: usize, const WIDENED: bool>(&'a TapStrip);

impl<const ROWS: usize, const VECTORS: usize, const WIDENED: bool> Job for Tiles<'_, ROWS, VECTORS, WIDENED> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let strip = self.0;
        let vector = S::LANES * S::GROUP * if WIDENED { size_of::<i16>() } else { 1 };
        let input = strip.input.cast::<S::Act>();
        let mut pixel = strip.rows.pixel(strip.first);
        let mut fetch = strip.fetch.0;
        // SAFETY: the strip's pointers are valid for what it describes; every offset below stays within. Vectors of
        // integers are `LANES` of them, one behind the other.
        unsafe {
            for _ in 0..strip.tiles {
                let mut windows = [input; ROWS];
                let mut places = [strip.sums; ROWS];
                for r in 0..ROWS {
                    windows[r] = strip.rows.site(pixel).run(0, 0, input, input);
                    places[r] = strip.sums.add(strip.rows.place(pixel, strip.pixel, strip.gap));
                    pixel = strip.rows.next(pixel);
                }
                let mut sums = [[S::load_i32(strip.start); VECTORS]; ROWS];
                for v in 0..VECTORS {
                    let start = S::load_i32(strip.start.add(v * S::LANES));
                    for r in 0..ROWS {
                        sums[r][v] = S::add_i32(start, S::load_i32(places[r].add(v * S::LANES)));
                    }
                }
                let mut weights = strip.weights;
                for group in 0..strip.run {
                    let w: [S::D; VECTORS] = std::array::from_fn(|v| {
                        let from = weights.add(v * vector);
                        if WIDENED { S::load_wide(from.cast()) } else { S::load_weights(from.cast()) }
                    });
                    for r in 0..ROWS {
                        let x = S::broadcast(windows[r].add(group * S::GROUP));
                        for v in 0..VECTORS {
                            sums[r][v] = S::dot(sums[r][v], w[v], x);
                        }
                    }
                    for _ in 0..strip.fetch.1 {
                        S::prefetch(fetch);
                        fetch = fetch.wrapping_add(LINE);
                    }
                    weights = weights.add(VECTORS * vector);
                }
                for r in 0..ROWS {
                    for v in 0..VECTORS {
                        places[r].add(v * S::LANES).cast::<S::I>().write_unaligned(sums[r][v]);
                    }
                }
            }
        }
    }
}
