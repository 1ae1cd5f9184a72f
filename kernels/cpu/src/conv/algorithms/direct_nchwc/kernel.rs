//! Microkernels: a run of pixels by a block of output channels, with all sums in registers.

use crate::conv::support::epilogue::{Epilogue, StoreTile};
use paretune_simd::Isa;
use paretune_simd::{Simd, SimdFn, SimdOp};

/// Returns the largest number of pixels of a compiled tile with `vectors` vectors; 0 if there is
/// none. It never grows with `vectors`, so that the remainders at the edges of a tile have a
/// microkernel too.
pub(super) const fn most_rows(isa: Isa, vectors: usize) -> usize {
    match isa {
        // Compilers find registers for these on any target.
        Isa::Portable => match vectors {
            1 => 4,
            2 => 2,
            3 | 4 => 1,
            _ => 0,
        },
        // 16 registers: the sums, the weights of a step, an input.
        Isa::Avx2 | Isa::AvxVnni => match vectors {
            1 => 12,
            2 => 6,
            3 => 4,
            4 => 2,
            5 | 6 => 1,
            _ => 0,
        },
        // Sets with 32 registers.
        Isa::Neon | Isa::NeonDot | Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => match vectors
        {
            1 => 28,
            2 => 14,
            3 => 9,
            4 => 6,
            5 | 6 => 4,
            _ => 0,
        },
    }
}

/// Microkernel arguments for one tile.
pub(super) struct Tile<'a> {
    /// Address of the tile's first pixel in the first plane.
    pub(super) input: *const f32,
    /// Offset and length of every run under a pixel.
    pub(super) steps: &'a [[usize; 2]],
    /// Packed weights, `[step][channel]`.
    pub(super) weights: *const f32,
    /// Prefetch distance of the weights in elements.
    pub(super) ahead: usize,
    /// Bias of the first channel; whole vectors must be readable.
    pub(super) bias: *const f32,
    /// Number of channels that exist in the output.
    pub(super) channels: usize,
    /// Pieces of the tile that are output pixels, `[offset in the tile, output pixel, count]`.
    pub(super) pieces: &'a [[usize; 3]],
    /// Distance in elements between output pixels.
    pub(super) pixel: usize,
    /// Distance in elements between vectors of output channels.
    pub(super) vector: usize,
    /// Address of the first channel of the image's first pixel.
    pub(super) output: *mut f32,
    /// Address of the matching residual element, or null.
    pub(super) residual: *const f32,
    pub(super) epilogue: &'a Epilogue,
}

/// Computes a [`Tile`].
///
/// # Safety
/// The addresses must be valid for the tile's pixels, channels and steps, and no other thread may
/// write its part of the output.
pub(super) type Entry = unsafe fn(&Tile<'_>);

/// Selects the instantiation for a tile size.
pub(super) struct Select {
    pub(super) isa: Isa,
    pub(super) rows: usize,
    pub(super) vectors: usize,
    /// Whether planes have single channels.
    pub(super) planar: bool,
}

impl SimdOp for Select {
    type Output = Option<Entry>;

    fn eval<S: Simd>(self, simd: S) -> Option<Entry> {
        if self.rows > most_rows(self.isa, self.vectors) {
            return None;
        }
        macro_rules! choose {
            ($($vectors:literal: $($rows:literal)+;)+) => {
                match (self.vectors, self.rows, self.planar) {
                    $($(
                        ($vectors, $rows, false) => Some(simd.pointer::<Run<$rows, $vectors, false>>() as Entry),
                        ($vectors, $rows, true) => Some(simd.pointer::<Run<$rows, $vectors, true>>() as Entry),
                    )+)+
                    _ => None,
                }
            };
        }
        // The conditions are constants, so that no microkernel is generated for tiles of other
        // sets.
        if const { S::REGISTERS >= 32 } {
            return choose!(
                1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28;
                2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
                3: 1 2 3 4 5 6 7 8 9;
                4: 1 2 3 4 5 6;
                5: 1 2 3 4;
                6: 1 2 3 4;
            );
        }
        if const { S::REGISTERS < 16 } {
            return choose!(1: 1 2 3 4; 2: 1 2; 3: 1; 4: 1;);
        }
        choose!(
            1: 1 2 3 4 5 6 7 8 9 10 11 12;
            2: 1 2 3 4 5 6;
            3: 1 2 3 4;
            4: 1 2;
            5: 1;
            6: 1;
        )
    }
}

struct Run<const ROWS: usize, const VECTORS: usize, const NCHW: bool>;

impl<const ROWS: usize, const VECTORS: usize, const NCHW: bool> SimdFn
    for Run<ROWS, VECTORS, NCHW>
{
    type Args<'a> = &'a Tile<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, tile: &Tile<'_>) {
        let width = VECTORS * S::LANES;
        // Distance in elements between pixels; a constant, so that one address serves all pixels.
        let unit = if NCHW { 1 } else { S::LANES };
        // SAFETY: the caller has every run under every pixel of the tile, `width` weights for each
        // step, whole vectors of biases, and `ROWS` pixels in the output if its only piece has so
        // many.
        unsafe {
            let first: [S::F32; VECTORS] =
                paretune_simd::array(|v| simd.load(tile.bias.add(v * S::LANES)));
            let mut sums = [first; ROWS];
            let mut weights = tile.weights;
            macro_rules! step {
                ($input:expr) => {
                    for v in (0..width).step_by(16) {
                        simd.prefetch(weights.wrapping_add(tile.ahead + v));
                    }
                    let w: [S::F32; VECTORS] =
                        paretune_simd::array(|v| simd.load(weights.add(v * S::LANES)));
                    for r in 0..ROWS {
                        let x = simd.splat(*$input.add(r * unit));
                        for v in 0..VECTORS {
                            sums[r][v] = simd.fma(x, w[v], sums[r][v]);
                        }
                    }
                    weights = weights.add(width);
                };
            }
            for &[offset, run] in tile.steps {
                let input = tile.input.add(offset);
                if NCHW {
                    step!(input);
                } else {
                    for k in 0..run {
                        let input = input.add(k);
                        step!(input);
                    }
                }
            }
            let whole = tile.channels == width && tile.epilogue.other.is_none();
            if let &[[_, pixel, count]] = tile.pieces
                && whole
                && count == ROWS
            {
                let at = pixel * tile.pixel;
                for r in 0..ROWS {
                    for v in 0..VECTORS {
                        let at = at + r * tile.pixel + v * tile.vector;
                        let mut sum = sums[r][v];
                        if !tile.residual.is_null() {
                            sum = simd.add(sum, simd.load(tile.residual.add(at)));
                        }
                        simd.store(tile.output.add(at), tile.epilogue.clamp(simd, sum));
                    }
                }
            } else {
                let sums = sums;
                simd.call::<StorePieces<'_>>(StorePieces {
                    tile,
                    sums: sums.as_ptr().cast(),
                    vectors: VECTORS,
                });
            }
        }
    }
}

/// General store of a tile: pixels in pieces, partial vectors, any activation.
struct StorePieces<'a> {
    tile: &'a Tile<'a>,
    /// Sums of the tile, `[pixel][vector][lane]`.
    sums: *const f32,
    vectors: usize,
}

impl SimdFn for StorePieces<'_> {
    type Args<'a> = StorePieces<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, store: StorePieces<'_>) {
        let StorePieces { tile, sums, vectors } = store;
        for &[offset, pixel, count] in tile.pieces {
            for vector in 0..vectors {
                for number in 0..count {
                    let at = (pixel + number) * tile.pixel + vector * tile.vector;
                    // SAFETY: the piece has `count` pixels from `offset` on in the sums, and from
                    // `pixel` on in output and residual, with the tile's channels.
                    unsafe {
                        let residual = tile.residual;
                        StoreTile::call(
                            simd,
                            StoreTile {
                                sums: sums.add(((offset + number) * vectors + vector) * S::LANES),
                                rows: 1,
                                vectors: 1,
                                channels: (tile.channels - vector * S::LANES).min(S::LANES),
                                output: tile.output.add(at),
                                residual: if residual.is_null() {
                                    residual
                                } else {
                                    residual.add(at)
                                },
                                pixel: tile.pixel,
                                epilogue: tile.epilogue,
                            },
                        );
                    }
                }
            }
        }
    }
}
