//! Microkernels over compressed weights: the register tile of the dense microkernel, but only the
//! steps in k that a block of output channels has, each with the offset of its input.

use std::marker::PhantomData;

use super::kinds::Kind;
use crate::conv::support::buffer::LINE;
use crate::conv::support::indirection::IndirectionView;
use paretune_simd::{Simd, SimdFn};

/// Microkernel arguments: `tiles` tiles of consecutive pixels times `blocks` blocks of consecutive
/// channels.
#[derive(Clone, Copy)]
pub(crate) struct MicrokernelArgs<K: Kind> {
    /// Indirection buffer of the pixels' runs, one run per segment.
    pub rows: IndirectionView,
    /// Input that `rows` refers to.
    pub input: *const u8,
    /// Run of zeros, which stands for padding.
    pub zeros: *const u8,
    /// Number of steps, `[block][segment]`.
    pub counts: *const u32,
    /// Offset of every step's input in its run.
    pub indices: *const u16,
    /// Packed weights, `[step][channel of the block][`[`Kind::packed`]`]`
    pub weights: *const K::Weight,
    /// Initial values of the sums, `[block][channel]`.
    pub start: *const K::Sum,
    /// Output, residual and epilogue.
    pub store: K::Store,
    /// Index of the first block's first channel in the group.
    pub column: usize,
    /// Distance in elements between pixels of output and residual.
    pub pixel: usize,
    /// Index of the first pixel.
    pub first: usize,
    /// Number of consecutive tiles, one below the other.
    pub tiles: usize,
    /// Number of blocks of channels.
    pub blocks: usize,
    /// Number of channels of these blocks that exist.
    pub channels: usize,
    /// Prefetch distance, as a number of weights.
    pub ahead: usize,
}

/// Computes a [`MicrokernelArgs`].
///
/// # Safety
/// All pointers of the arguments must be valid for what they describe, and no other thread may
/// write the output.
pub(crate) type Entry<K> = unsafe fn(&MicrokernelArgs<K>);

/// Returns the compiled microkernel of `rows` pixels by `vectors` vectors of channels, if there is
/// one, for a tile of `tile_rows` pixels. Few sums are split into several accumulation chains,
/// because each addition waits for the previous one of its chain. In single precision the number of
/// chains depends on the tile alone: the remainder of a tile depends on the number of threads, and
/// results must not.
pub(super) fn choose<K: Kind, S: Simd>(
    simd: S,
    rows: usize,
    vectors: usize,
    tile_rows: usize,
) -> Option<Entry<K>> {
    macro_rules! choose {
        ($($vectors:literal: $($rows:literal/$chains:literal)+;)+) => {
            match (vectors, rows) {
                $($(($vectors, $rows) => Some(simd.pointer::<Tiles<K, $rows, $vectors, $chains>>() as Entry<K>),)+)+
                _ => None,
            }
        };
    }
    if const { S::REGISTERS < 16 } {
        return choose!(1: 1/1 2/1 3/1 4/1; 2: 1/1 2/1;);
    }
    if const { K::FEW_ROWS } {
        return choose!(1: 1/8 2/4 3/3 4/2; 2: 1/4 2/2 3/2 4/1; 3: 1/2 2/2; 4: 1/2 2/1;);
    }
    if const { K::EXACT } {
        return choose!(
            1: 1/8 2/4 3/3 4/2 5/2 6/1 7/1 8/1 9/1 10/1 11/1 12/1;
            2: 1/4 2/2 3/2 4/1 5/1 6/1;
        );
    }
    match tile_rows {
        1 => choose!(1: 1/8; 2: 1/4;),
        2 | 3 => choose!(1: 1/4 2/4 3/4; 2: 1/2 2/2 3/2;),
        4 => choose!(1: 1/2 2/2 3/2 4/2; 2: 1/1 2/1 3/1 4/1;),
        _ => choose!(
            1: 1/1 2/1 3/1 4/1 5/1 6/1 7/1 8/1 9/1 10/1 11/1 12/1;
            2: 1/1 2/1 3/1 4/1 5/1 6/1;
        ),
    }
}

struct Tiles<K: Kind, const ROWS: usize, const VECTORS: usize, const CHAINS: usize>(PhantomData<K>);

impl<K: Kind, const ROWS: usize, const VECTORS: usize, const CHAINS: usize> SimdFn
    for Tiles<K, ROWS, VECTORS, CHAINS>
{
    type Args<'a> = &'a MicrokernelArgs<K>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, args: &MicrokernelArgs<K>) {
        let width = VECTORS * S::LANES;
        let step = width * K::packed::<S>();
        let vector = S::LANES * K::packed::<S>();
        let [tap_rows, tap_columns] = args.rows.taps;
        let input = args.input.cast::<K::Act<S>>();
        let zeros = args.zeros.cast::<K::Act<S>>();
        let mut pixel = args.rows.pixel(args.first);
        // SAFETY: tiles, blocks and segments below are those that the arguments describe. `counts`
        // has a number of steps for each segment of each block, and weights and indices have that
        // many; indices stay within a run. Starts are padded to whole vectors.
        unsafe {
            for tile in 0..args.tiles {
                let sites: [_; ROWS] = paretune_simd::array(|_| {
                    let site = args.rows.site(pixel);
                    pixel = args.rows.next(pixel);
                    site
                });
                let (mut weights, mut indices, mut counts) =
                    (args.weights, args.indices, args.counts);
                for block in 0..args.blocks {
                    let start = args.start.add(block * width);
                    let first: [K::Acc<S>; VECTORS] =
                        paretune_simd::array(|v| K::load_sums(simd, start.add(v * S::LANES)));
                    let mut sums = [[[K::zero(simd); VECTORS]; ROWS]; CHAINS];
                    sums[0] = [first; ROWS];
                    for ky in 0..tap_rows {
                        for kx in 0..tap_columns {
                            let mut left = *counts as usize;
                            counts = counts.add(1);
                            if left == 0 {
                                continue;
                            }
                            let runs: [_; ROWS] =
                                paretune_simd::array(|r| sites[r].run(ky, kx, input, zeros));
                            macro_rules! step {
                                ($chain:expr, $at:expr) => {
                                    let k = usize::from(*indices.add($at));
                                    let weights = weights.add($at * step);
                                    K::step::<S, ROWS, VECTORS, CHAINS>(
                                        simd, &mut sums, $chain, weights, &runs, k,
                                    );
                                    let line = (LINE / size_of::<K::Weight>()).div_ceil(vector);
                                    for v in (0..VECTORS).step_by(line) {
                                        simd.prefetch(
                                            weights.wrapping_add(args.ahead + v * vector),
                                        );
                                    }
                                };
                            }
                            while left >= CHAINS {
                                for c in 0..CHAINS {
                                    step!(c, c);
                                }
                                (weights, indices) =
                                    (weights.add(CHAINS * step), indices.add(CHAINS));
                                left -= CHAINS;
                            }
                            while CHAINS > 1 && left > 0 {
                                step!(0, 0);
                                (weights, indices) = (weights.add(step), indices.add(1));
                                left -= 1;
                            }
                        }
                    }
                    for c in 1..CHAINS {
                        for r in 0..ROWS {
                            for v in 0..VECTORS {
                                sums[0][r][v] = K::add(simd, sums[0][r][v], sums[c][r][v]);
                            }
                        }
                    }
                    let at = (args.first + tile * ROWS) * args.pixel;
                    let column = args.column + block * width;
                    let channels = (args.channels - block * width).min(width);
                    K::store::<S, ROWS, VECTORS>(
                        simd,
                        &args.store,
                        at,
                        args.pixel,
                        column,
                        channels,
                        &sums[0],
                    );
                }
            }
        }
    }
}
