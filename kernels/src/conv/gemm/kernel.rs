//! Single-precision microkernels: a tile of output pixels by output channels, summed in registers over
//! the runs of input that [`RowsView`] finds, finished, and stored. Pairs of bfloat16 are as long as one number and take
//! the same way.

use std::marker::PhantomData;

use crate::conv::buffer::LINE;
use crate::conv::finish::{Finish, StoreTile};
use crate::conv::rows::RowsView;
#[cfg(target_arch = "x86_64")]
use crate::conv::tiles::entry_for_16;
use crate::conv::tiles::{Tile, entry_for_32, entry_for_any};
use crate::hardware::Isa;
use crate::simd::{Job, Simd, Usable};

/// Arguments: `tiles` tiles of consecutive pixels times `blocks` blocks of consecutive channels.
#[derive(Clone, Copy)]
pub(in crate::conv) struct Strip {
    /// Where pixels find their runs.
    pub rows: RowsView,
    /// What `rows` is about, in [`Multiply::Number`].
    pub input: *const f32,
    /// `run` zeros, for padding.
    pub zeros: *const f32,
    /// Steps per run, each of one number or a pair.
    pub run: usize,
    /// `[block][step of every run][channel of the block]` in [`Multiply::Weight`], channels padded to whole vectors.
    pub weights: *const f32,
    /// `[block][channel of the block]`
    pub bias: *const f32,
    /// Of the first block's first channel in pixel 0.
    pub output: *mut f32,
    /// The same of the residual, or null.
    pub residual: *const f32,
    /// Numbers from one pixel to the next, of output and residual.
    pub pixel: usize,
    /// Numbers of output and residual that are left out at the end of each row of pixels.
    pub gap: usize,
    /// First pixel.
    pub first: usize,
    /// How many tiles follow it.
    pub tiles: usize,
    /// How many blocks of channels.
    pub blocks: usize,
    /// What is fetched into the cache meanwhile, to be needed later; where that is `weights`, nothing is gained or lost.
    pub fetch: Fetch,
    /// How many channels there really are in these blocks.
    pub channels: usize,
    /// The activation.
    pub finish: Finish,
}

/// Numbers to fetch into the cache, some at every step in depth, counted in 4 bytes each. They need not exist.
#[derive(Clone, Copy)]
pub(in crate::conv) struct Fetch {
    /// The first.
    pub from: *const f32,
    /// Numbers from what one tile of pixels begins with to what the next one does.
    pub tile: usize,
    /// Numbers per step, of which a tile's width is fetched.
    pub step: usize,
}

/// Computes a [`Strip`].
///
/// # Safety
/// All pointers in the strip are valid for what it describes, and nobody else writes its output.
pub(in crate::conv) type Entry = unsafe fn(&Strip);

/// A microkernel. It exists only where the processor executes its instruction set.
#[derive(Clone, Copy)]
pub(in crate::conv) struct Microkernel {
    /// What to call.
    pub run: Entry,
}

/// The microkernel of single numbers that `$entry` compiles for `$tile`, if there is one.
macro_rules! single_numbers {
    ($entry:ident, $usable:expr, $tile:expr) => {{
        let Tile { rows, vectors } = $tile;
        let run: Option<Entry> = match $usable.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => entry_for_16!($entry, crate::simd::Avx2, rows, vectors),
            // Single precision is the same with and without VNNI.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => {
                entry_for_32!($entry, crate::simd::Avx512, rows, vectors)
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot => entry_for_32!($entry, crate::simd::Neon, rows, vectors),
            _ => entry_for_any!($entry, crate::simd::Portable, rows, vectors),
        };
        run.map(|run| Self { run })
    }};
}

impl Microkernel {
    /// The compiled microkernel for `tile`, if there is one.
    pub(in crate::conv) fn new(usable: Usable, tile: Tile) -> Option<Self> {
        single_numbers!(entry, usable, tile)
    }

    /// The same for weights in half precision.
    pub(in crate::conv) fn of_halves(usable: Usable, tile: Tile) -> Option<Self> {
        single_numbers!(entry_of_halves, usable, tile)
    }

    /// The same for pairs of bfloat16, where the processor multiplies such.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
    pub(in crate::conv) fn of_pairs(usable: Usable, tile: Tile) -> Option<Self> {
        let run: Option<Entry> = match usable.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => entry_for_32!(entry_of_pairs, crate::simd::Avx512, tile.rows, tile.vectors),
            _ => None,
        };
        run.map(|run| Self { run })
    }
}

/// How a step in depth is multiplied.
trait Multiply<S: Simd> {
    /// What inputs consist of.
    type Number: Copy;
    /// How many of them a step takes.
    const GROUP: usize;
    /// What weights are held as.
    type Weight: Copy;
    /// `LANES` weights.
    ///
    /// # Safety
    /// As for every function of [`Simd`].
    unsafe fn load(from: *const Self::Weight) -> S::F;
    /// The input of a step, in every lane.
    ///
    /// # Safety
    /// The same.
    unsafe fn broadcast(from: *const Self::Number) -> S::F;
    /// `acc` and the product.
    ///
    /// # Safety
    /// The same.
    unsafe fn add(acc: S::F, x: S::F, w: S::F) -> S::F;
}

/// Single numbers, and their weights in single precision (`f32`) or in half precision (`u16`).
struct Singles<W>(PhantomData<W>);

/// What single numbers are multiplied by.
trait Weight: Copy {
    /// `LANES` weights.
    ///
    /// # Safety
    /// As for every function of [`Simd`].
    unsafe fn load<S: Simd>(from: *const Self) -> S::F;
}

impl Weight for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const f32) -> S::F {
        // SAFETY: passed on.
        unsafe { S::load(from) }
    }
}

impl Weight for u16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u16) -> S::F {
        // SAFETY: passed on.
        unsafe { S::load_halves(from) }
    }
}

impl<S: Simd, W: Weight> Multiply<S> for Singles<W> {
    type Number = f32;
    const GROUP: usize = 1;
    type Weight = W;

    #[inline(always)]
    unsafe fn load(from: *const W) -> S::F {
        // SAFETY: passed on.
        unsafe { W::load::<S>(from) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const f32) -> S::F {
        // SAFETY: passed on.
        unsafe { S::splat(*from) }
    }
    #[inline(always)]
    unsafe fn add(acc: S::F, x: S::F, w: S::F) -> S::F {
        // SAFETY: passed on.
        unsafe { S::fma(x, w, acc) }
    }
}

/// Pairs of bfloat16.
#[cfg(target_arch = "x86_64")]
struct Pairs;

#[cfg(target_arch = "x86_64")]
impl<S: Simd<F = std::arch::x86_64::__m512>> Multiply<S> for Pairs {
    type Number = u16;
    const GROUP: usize = 2;
    type Weight = f32;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> S::F {
        // SAFETY: passed on.
        unsafe { S::load(from) }
    }

    #[inline(always)]
    unsafe fn broadcast(from: *const u16) -> S::F {
        // SAFETY: passed on.
        unsafe { S::splat(from.cast::<f32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn add(acc: S::F, x: S::F, w: S::F) -> S::F {
        // SAFETY: [`entry_of_pairs`] alone uses this type.
        unsafe { crate::simd::bf16::dot(acc, x, w) }
    }
}

/// [`entry`] of pairs.
///
/// # Safety
/// As for [`Entry`], and the processor has AVX-512 BF16; [`Microkernel::of_pairs`] sees to that.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn entry_of_pairs<S: Simd<F = std::arch::x86_64::__m512>, const ROWS: usize, const VECTORS: usize>(
    strip: &Strip,
) {
    // SAFETY: passed on.
    unsafe { tiles::<S, Pairs, ROWS, VECTORS>(strip) }
}

/// One compiled microkernel.
///
/// # Safety
/// As for [`Entry`], and the processor executes `S`; [`Microkernel::new`] sees to that.
unsafe fn entry<S: Simd, const ROWS: usize, const VECTORS: usize>(strip: &Strip) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Tiles::<f32, ROWS, VECTORS>(strip, PhantomData)) }
}

/// [`entry`] of weights in half precision.
///
/// # Safety
/// The same.
unsafe fn entry_of_halves<S: Simd, const ROWS: usize, const VECTORS: usize>(strip: &Strip) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Tiles::<u16, ROWS, VECTORS>(strip, PhantomData)) }
}

struct Tiles<'a, W, const ROWS: usize, const VECTORS: usize>(&'a Strip, PhantomData<W>);

impl<W: Weight, const ROWS: usize, const VECTORS: usize> Job for Tiles<'_, W, ROWS, VECTORS> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: passed on.
        unsafe { tiles::<S, Singles<W>, ROWS, VECTORS>(self.0) }
    }
}

/// Computes a strip.
///
/// # Safety
/// As for [`Entry`], and the processor executes `S` and `M`.
#[inline(always)]
unsafe fn tiles<S: Simd, M: Multiply<S>, const ROWS: usize, const VECTORS: usize>(strip: &Strip) {
    let width = VECTORS * S::LANES;
    let [tap_rows, tap_columns] = strip.rows.taps;
    let (input, zeros) = (strip.input.cast::<M::Number>(), strip.zeros.cast::<M::Number>());
    let mut pixel = strip.rows.pixel(strip.first);
    // SAFETY: the strip's pointers are valid for what it describes; every offset below stays within.
    unsafe {
        for tile in 0..strip.tiles {
            let mut places = [0; ROWS];
            let sites: [_; ROWS] = std::array::from_fn(|r| {
                let site = strip.rows.site(pixel);
                places[r] = strip.rows.place(pixel, strip.pixel, strip.gap);
                pixel = strip.rows.next(pixel);
                site
            });
            let mut weights = strip.weights.cast::<M::Weight>();
            let mut fetch = strip.fetch.from.wrapping_add(tile * strip.fetch.tile);
            for block in 0..strip.blocks {
                let bias = strip.bias.add(block * width);
                let first: [S::F; VECTORS] = std::array::from_fn(|v| S::load(bias.add(v * S::LANES)));
                let mut sums = [first; ROWS];
                for ky in 0..tap_rows {
                    for kx in 0..tap_columns {
                        let runs: [_; ROWS] = std::array::from_fn(|r| sites[r].run(ky, kx, input, zeros));
                        for k in 0..strip.run {
                            // Before the weights are loaded: behind the sums, compilers found no registers
                            // for those of 4 x 3 vectors.
                            for byte in (0..width * size_of::<M::Weight>()).step_by(LINE) {
                                S::prefetch(fetch.cast::<u8>().wrapping_add(byte));
                            }
                            fetch = fetch.wrapping_add(strip.fetch.step);
                            let w: [S::F; VECTORS] =
                                std::array::from_fn(|v| M::load(weights.add(v * S::LANES)));
                            for r in 0..ROWS {
                                let x = M::broadcast(runs[r].add(k * M::GROUP));
                                for v in 0..VECTORS {
                                    sums[r][v] = M::add(sums[r][v], x, w[v]);
                                }
                            }
                            weights = weights.add(width);
                        }
                    }
                }
                let column = block * width;
                let channels = strip.channels - column;
                if channels >= width && strip.finish.other.is_none() {
                    store_whole::<S, ROWS, VECTORS>(strip, &places, column, &sums);
                } else {
                    let sums = sums;
                    S::vectorize(StorePart {
                        strip,
                        places: &places,
                        sums: sums.as_ptr().cast(),
                        vectors: VECTORS,
                        column,
                        channels: channels.min(width),
                    });
                }
            }
        }
    }
}

/// Stores a tile all of whose channels exist, clamped.
///
/// # Safety
/// The tile's pixels lie at `places` of the strip's output, and `column` is its first channel.
#[inline(always)]
unsafe fn store_whole<S: Simd, const ROWS: usize, const VECTORS: usize>(
    strip: &Strip,
    places: &[usize; ROWS],
    column: usize,
    sums: &[[S::F; VECTORS]; ROWS],
) {
    // SAFETY: the caller vouches for the tile's places.
    unsafe {
        for r in 0..ROWS {
            for v in 0..VECTORS {
                let at = places[r] + column + v * S::LANES;
                let mut sum = sums[r][v];
                if !strip.residual.is_null() {
                    sum = S::add(sum, S::load(strip.residual.add(at)));
                }
                S::store(strip.output.add(at), strip.finish.clamp::<S>(sum));
            }
        }
    }
}

/// Stores any tile: few channels, any activation.
struct StorePart<'a> {
    strip: &'a Strip,
    places: &'a [usize],
    /// `[pixel][vector][lane]`
    sums: *const f32,
    vectors: usize,
    /// First channel.
    column: usize,
    /// Channels that exist.
    channels: usize,
}

impl Job for StorePart<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { strip, vectors, channels, .. } = self;
        for (row, place) in self.places.iter().enumerate() {
            let at = place + self.column;
            // SAFETY: the tile's pixels lie at these places of output and residual; all sums exist.
            unsafe {
                let residual = strip.residual;
                StoreTile {
                    sums: self.sums.add(row * vectors * S::LANES),
                    rows: 1,
                    vectors,
                    channels,
                    output: strip.output.add(at),
                    residual: if residual.is_null() { residual } else { residual.add(at) },
                    pixel: strip.pixel,
                    finish: &strip.finish,
                }
                .run::<S>();
            }
        }
    }
}
