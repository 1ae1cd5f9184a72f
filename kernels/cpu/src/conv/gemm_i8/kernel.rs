//! 8-bit microkernels: a tile of output pixels by output channels is summed exactly in 32-bit
//! integers, then scaled, finished and stored.

use crate::conv::support::buffer::LINE;
use crate::conv::support::finish_int8::{Finish8, StoreTile8, Target};
use crate::conv::support::rows::RowsView;
#[cfg(target_arch = "x86_64")]
use crate::conv::support::tiles::entry_for_16;
use crate::conv::support::tiles::{Tile, entry_for_32, entry_for_any};
use paretune_simd::Isa;
use paretune_simd::{Job, Simd, Usable};

/// Microkernel arguments: `tiles` tiles of consecutive pixels times `blocks` blocks of consecutive
/// channels.
#[derive(Clone, Copy)]
pub(crate) struct Strip {
    /// Indirection buffer of the pixels' windows.
    pub rows: RowsView,
    /// Input that `rows` refers to, with elements of type [`Simd::Act`]; it carries its padding.
    pub input: *const u8,
    /// Offsets of a window's runs in the input, in elements of type [`Simd::Act`].
    pub runs: *const usize,
    /// Number of runs per window.
    pub run_count: usize,
    /// Dot-product groups per run; the last may reach beyond the run, where the weights are zero.
    pub run: usize,
    /// Packed weights of 8 bits, or 16 if widened, `[block][group of every run][channel of the
    /// block][element of the group]`, with channels padded to whole vectors.
    pub weights: *const u8,
    /// Initial values of the sums, `[block][channel]`.
    pub start: *const i32,
    /// Scales of the sums, `[block][channel]`, see [`Finish8::scale`].
    pub scale: *const f32,
    /// Biases of the scaled sums, `[block][channel]`, see [`Finish8::bias`].
    pub bias: *const f32,
    /// Addresses of output and residual.
    pub target: Target,
    /// Offset in elements of the first block's first channel in pixel 0.
    pub at: usize,
    /// Distance in elements between pixels of output and residual.
    pub pixel: usize,
    /// Index of the first pixel.
    pub first: usize,
    /// Number of consecutive tiles, one below the other.
    pub tiles: usize,
    /// Number of blocks of channels.
    pub blocks: usize,
    /// Prefetch distance of the weights in bytes; a distance of 0 costs and gains nothing.
    pub ahead: usize,
    /// Number of channels of these blocks that exist.
    pub channels: usize,
    /// Epilogue that the sums go through.
    pub finish: Finish8,
}

/// Computes a [`Strip`].
///
/// # Safety
/// All pointers of the arguments must be valid for what they describe, and no other thread may
/// write the output.
pub(crate) type Entry = unsafe fn(&Strip);

/// A microkernel, which exists only if the processor executes its instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Microkernel {
    /// Entry point, which takes the microkernel arguments.
    pub run: Entry,
}

/// Returns the function `$entry::<set, rows, vectors>` for instruction set and tile, if it is
/// compiled; for weights of 16 bits, which require [`widens`], `$entry_widened` takes its place.
macro_rules! compiled {
    ($entry:ident, $entry_widened:ident, $usable:expr, $tile:expr, $widened:expr) => {{
        let (rows, vectors): (usize, usize) = ($tile.rows, $tile.vectors);
        match $usable.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if $widened => entry_for_16!($entry_widened, paretune_simd::Avx2, rows, vectors),
            _ if $widened => None,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => entry_for_16!($entry, paretune_simd::Avx2, rows, vectors),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => entry_for_16!($entry, paretune_simd::AvxVnni, rows, vectors),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => entry_for_32!($entry, paretune_simd::Avx512, rows, vectors),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::Avx512Bf16 => {
                entry_for_32!($entry, paretune_simd::Avx512Vnni, rows, vectors)
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => entry_for_32!($entry, paretune_simd::Neon, rows, vectors),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => entry_for_32!($entry, paretune_simd::NeonDot, rows, vectors),
            _ => entry_for_any!($entry, paretune_simd::Portable, rows, vectors),
        }
    }};
}

pub(super) use compiled;

impl Microkernel {
    /// Returns the compiled microkernel for `tile`, if there is one; `widened` weights require
    /// [`widens`].
    pub(crate) fn new(usable: Usable, tile: Tile, widened: bool) -> Option<Self> {
        compiled!(entry, entry_widened, usable, tile, widened).map(|run| Self { run })
    }
}

/// Returns whether there are microkernels for weights of 16 bits: on instruction sets where
/// widening them costs as much as half a product.
pub(crate) fn widens(isa: Isa) -> bool {
    isa == Isa::Avx2
}

/// Computes a [`Strip`] with 8-bit weights.
///
/// # Safety
/// The requirements of [`Entry`] must be met, and the processor must execute `S`, which
/// [`Microkernel::new`] ensures.
unsafe fn entry<S: Simd, const ROWS: usize, const VECTORS: usize>(strip: &Strip) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Tiles::<ROWS, VECTORS, false>(strip)) }
}

/// Computes a [`Strip`] with 16-bit weights.
///
/// # Safety
/// The requirements of [`entry`] must be met, and the dot product of `S` must multiply pairs of 16
/// bits.
#[cfg(target_arch = "x86_64")]
unsafe fn entry_widened<S: Simd, const ROWS: usize, const VECTORS: usize>(strip: &Strip) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Tiles::<ROWS, VECTORS, true>(strip)) }
}

struct Tiles<'a, const ROWS: usize, const VECTORS: usize, const WIDENED: bool>(&'a Strip);

impl<const ROWS: usize, const VECTORS: usize, const WIDENED: bool> Job for Tiles<'_, ROWS, VECTORS, WIDENED> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let strip = self.0;
        let width = VECTORS * S::LANES;
        let vector = S::LANES * S::GROUP * if WIDENED { size_of::<i16>() } else { 1 };
        let input = strip.input.cast::<S::Act>();
        let mut pixel = strip.rows.pixel(strip.first);
        // SAFETY: the strip's pointers are valid for what it describes; every offset below stays within.
        unsafe {
            for tile in 0..strip.tiles {
                // The runs of every window have the same offsets from its start.
                let mut windows = [input; ROWS];
                for window in &mut windows {
                    *window = strip.rows.site(pixel).run(0, 0, input, input);
                    pixel = strip.rows.next(pixel);
                }
                let mut weights = strip.weights;
                for block in 0..strip.blocks {
                    let start = strip.start.add(block * width);
                    let first: [S::I; VECTORS] =
                        std::array::from_fn(|v| S::load_i32(start.add(v * S::LANES)));
                    let mut sums = [first; ROWS];
                    for run in 0..strip.run_count {
                        let mut place = *strip.runs.add(run);
                        for _ in 0..strip.run {
                            let w: [S::D; VECTORS] = std::array::from_fn(|v| {
                                let from = weights.add(v * vector);
                                if WIDENED { S::load_wide(from.cast()) } else { S::load_weights(from.cast()) }
                            });
                            for r in 0..ROWS {
                                let x = S::broadcast(windows[r].add(place));
                                for v in 0..VECTORS {
                                    sums[r][v] = S::dot(sums[r][v], w[v], x);
                                }
                            }
                            for v in (0..VECTORS).step_by(LINE / vector) {
                                S::prefetch(weights.wrapping_add(strip.ahead + v * vector));
                            }
                            weights = weights.add(VECTORS * vector);
                            place += S::GROUP;
                        }
                    }
                    let at = strip.at + (strip.first + tile * ROWS) * strip.pixel + block * width;
                    let channels = (strip.channels - block * width).min(width);
                    let sums = sums;
                    let (first, column) = (sums.as_ptr().cast(), block * width);
                    S::vectorize(StoreTile8 {
                        finish: &strip.finish,
                        target: strip.target,
                        scale: strip.scale.add(column),
                        bias: strip.bias.add(column),
                        pixel: strip.pixel,
                        sums: first,
                        rows: ROWS,
                        vectors: VECTORS,
                        at,
                        channels,
                    });
                }
            }
        }
    }
}
