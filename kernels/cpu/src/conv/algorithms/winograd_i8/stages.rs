//! Vectorized stages of [`super`]: transform of the input, products, transform of the sums back.

use std::ops::Range;

use super::{POINTS, Prepared, SIDE, SIZE};
use crate::conv::algorithm::Call;
use crate::conv::support::buffer::LINE;
use crate::conv::support::epilogue_i8::{ByteEpilogue, StoreTileI8, Target};
use crate::conv::support::tiles::Tile;
use paretune_simd::{Simd, SimdFn};

/// Transforms tiles of the input to `[point][tile][channel]`.
///
/// # Safety
/// The call must be valid, and the destination must have room for a chunk and belong to this
/// thread.
pub(super) type InputEntry = unsafe fn(Input<'_>);

/// Computes [`Products`].
///
/// # Safety
/// The pointers must be valid for what they describe.
pub(super) type ProductsEntry = unsafe fn(&Products);

/// Transforms sums back as [`Back`] describes.
///
/// # Safety
/// The pointers must be valid for what they describe, and no other thread may write this part of
/// the output.
pub(super) type BackEntry = unsafe fn(&Back<'_>);

/// Arguments of the transform of the input.
pub(super) struct Input<'a> {
    pub(super) kernel: &'a Prepared,
    pub(super) call: &'a Call,
    /// Range of tiles to transform.
    pub(super) tiles: Range<usize>,
    /// Address of the transformed input, `[point][tile][channel]`.
    pub(super) to: *mut i16,
}

impl SimdFn for Input<'_> {
    type Args<'a> = Input<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, input: Input<'_>) {
        let kernel = input.kernel;
        let problem = &kernel.problem;
        let channels = problem.in_channels;
        let (point, stride, whole) = (kernel.point(), kernel.stride, 2 * S::LANES);
        let mut place = kernel.place(input.tiles.start);
        for number in 0..input.tiles.len() {
            let addresses = input.addresses(place);
            place = kernel.next(place);
            let mut channel = 0;
            while channel < channels {
                let rest = channels - channel;
                // SAFETY: addresses are valid for all channels; tiles have whole vectors in the
                // matrix.
                unsafe {
                    let to = input.to.add(number * stride + channel);
                    if rest >= whole {
                        transform(simd, &addresses, channel, to, point);
                    } else {
                        let mut few = [[[0_u8; 32]; SIDE]; SIDE];
                        let mut places = addresses;
                        for (i, row) in few.iter_mut().enumerate() {
                            for (j, bytes) in row.iter_mut().enumerate() {
                                let from = addresses[i][j].add(channel);
                                std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), rest);
                                places[i][j] = bytes.as_ptr();
                            }
                        }
                        transform(simd, &places, 0, to, point);
                    }
                }
                channel += whole;
            }
        }
    }
}

impl Input<'_> {
    /// Returns the addresses of a tile's input pixels; padding has the address of a pixel of zero
    /// points.
    #[inline(always)]
    fn addresses(&self, [image, y, x]: [usize; 3]) -> [[*const u8; SIDE]; SIDE] {
        let problem = &self.kernel.problem;
        let channels = problem.in_channels;
        let [height, width] = problem.input;
        let [top, left, ..] = problem.window.padding;
        let first = |tile: usize, before: usize, size: usize| {
            (tile * SIZE).checked_sub(before).filter(|&first| first + SIDE <= size)
        };
        let mut addresses = [[self.kernel.zeros.as_ptr(); SIDE]; SIDE];
        if let (Some(row), Some(column)) = (first(y, top, height), first(x, left, width)) {
            // The common case: in narrow layers, looking up the pixels of a tile takes longer than
            // transforming them.
            let start =
                self.call.input.wrapping_add(((image * height + row) * width + column) * channels);
            for (i, row) in addresses.iter_mut().enumerate() {
                for (j, address) in row.iter_mut().enumerate() {
                    *address = start.wrapping_add((i * width + j) * channels);
                }
            }
            return addresses;
        }
        for (i, addresses) in addresses.iter_mut().enumerate() {
            let row = (y * SIZE + i).checked_sub(top).filter(|&row| row < height);
            for (j, address) in addresses.iter_mut().enumerate() {
                let column = (x * SIZE + j).checked_sub(left).filter(|&column| column < width);
                if let (Some(row), Some(column)) = (row, column) {
                    let pixel = (image * height + row) * width + column;
                    *address = self.call.input.wrapping_add(pixel * channels);
                }
            }
        }
        addresses
    }
}

/// Computes `B' d B` of one vector of channels from `channel` on. The results are `point` elements
/// apart.
///
/// # Safety
/// A vector of bytes must be readable at each place, and a vector of results must have room at each
/// point.
#[inline(always)]
unsafe fn transform<S: Simd>(
    simd: S,
    places: &[[*const u8; SIDE]; SIDE],
    channel: usize,
    to: *mut i16,
    point: usize,
) {
    // SAFETY: the caller has a vector of bytes from `channel` on at each place, and room for a
    // vector at each point.
    unsafe {
        let mut lines = [[simd.load_u8_as_i16(places[0][0].add(channel)); SIDE]; SIDE];
        for (i, row) in places.iter().enumerate() {
            let d = [
                simd.load_u8_as_i16(row[0].add(channel)),
                simd.load_u8_as_i16(row[1].add(channel)),
                simd.load_u8_as_i16(row[2].add(channel)),
                simd.load_u8_as_i16(row[3].add(channel)),
            ];
            lines[i] = line(simd, d);
        }
        for j in 0..SIDE {
            let column = line(simd, [lines[0][j], lines[1][j], lines[2][j], lines[3][j]]);
            for (i, &number) in column.iter().enumerate() {
                simd.store_i16(to.add((i * SIDE + j) * point), number);
            }
        }
    }
}

/// Returns `B' d` of one line.
#[inline(always)]
fn line<S: Simd>(simd: S, d: [S::Groups; SIDE]) -> [S::Groups; SIDE] {
    [
        simd.sub_i16(d[0], d[2]),
        simd.add_i16(d[1], d[2]),
        simd.sub_i16(d[2], d[1]),
        simd.sub_i16(d[1], d[3]),
    ]
}

/// Arguments of the products of a register tile: some tiles by a block of channels, at all points.
pub(super) struct Products {
    /// Address of the first tile at the first point.
    pub(super) input: *const i16,
    /// Distance in elements between points.
    pub(super) point: usize,
    /// Distance in elements between tiles.
    pub(super) stride: usize,
    /// Number of pairs of input channels.
    pub(super) pairs: usize,
    /// Packed weights of the block, see [`super::pack`].
    pub(super) weights: *const i16,
    /// Prefetch distance, as a number of weights.
    pub(super) ahead: usize,
    /// Address of the sums, `[point][tile][vector][lane]`.
    pub(super) sums: *mut i32,
}

/// Returns the compiled function for `tile`, if there is one.
pub(super) fn products<S: Simd>(simd: S, tile: Tile) -> Option<ProductsEntry> {
    macro_rules! choose {
        ($($rows:literal)+) => {
            match (tile.rows, tile.vectors) {
                $(($rows, 1) => Some(simd.pointer::<Sums<$rows, 1>>() as ProductsEntry),)+
                $(($rows, 2) => Some(simd.pointer::<Sums<$rows, 2>>() as ProductsEntry),)+
                _ => None,
            }
        };
    }
    if const { S::REGISTERS < 16 } { choose!(1 2 3 4) } else { choose!(1 2 3 4 5 6) }
}

struct Sums<const ROWS: usize, const VECTORS: usize>;

impl<const ROWS: usize, const VECTORS: usize> SimdFn for Sums<ROWS, VECTORS> {
    type Args<'a> = &'a Products;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, products: &Products) {
        let Products { input, point, stride, pairs, mut weights, ahead, sums: to } = *products;
        let width = VECTORS * S::LANES;
        let to = to.cast::<[[S::I32; VECTORS]; ROWS]>();
        // SAFETY: the caller's addresses are valid for `POINTS` points, `ROWS` tiles, `pairs` pairs
        // of channels and `VECTORS` vectors of columns.
        unsafe {
            let none = simd.zero_i32();
            for p in 0..POINTS {
                let from = input.add(p * point);
                let rows: [_; ROWS] = paretune_simd::array(|r| from.add(r * stride));
                let mut sums = [[none; VECTORS]; ROWS];
                for k in 0..pairs {
                    let w: [S::Groups; VECTORS] =
                        paretune_simd::array(|v| simd.load_i16(weights.add(v * S::LANES * 2)));
                    for r in 0..ROWS {
                        let x = simd.broadcast_i16(rows[r].add(2 * k));
                        for v in 0..VECTORS {
                            sums[r][v] = simd.dot_i16(sums[r][v], w[v], x);
                        }
                    }
                    for v in (0..VECTORS).step_by(LINE.div_ceil(S::LANES * 4)) {
                        simd.prefetch(weights.wrapping_add(ahead + v * S::LANES * 2));
                    }
                    weights = weights.add(width * 2);
                }
                to.add(p).write_unaligned(sums);
            }
        }
    }
}

/// Arguments of the back transform, epilogue and store of a register tile.
pub(super) struct Back<'a> {
    pub(super) kernel: &'a Prepared,
    pub(super) call: &'a Call,
    /// Index of the first tile.
    pub(super) first: usize,
    /// Number of Winograd tiles, the rows of the register tile.
    pub(super) rows: usize,
    /// Number of vectors of channels.
    pub(super) vectors: usize,
    /// Index of the first channel.
    pub(super) column: usize,
    /// Address of the sums, `[point][tile][vector][lane]`.
    pub(super) sums: *const i32,
    /// Room for the pixels, `[vertical][tile][horizontal][vector][lane]`.
    pub(super) pixels: *mut i32,
}

pub(super) struct Output<'a>(&'a Back<'a>);

impl SimdFn for Output<'_> {
    type Args<'a> = &'a Back<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, back: &Back<'_>) {
        let this = Output(back);
        let Back { kernel, call, rows, vectors, column, pixels, .. } = *back;
        let tile = vectors * S::LANES;
        let target = Target { output: call.output, residual: call.residual };
        // SAFETY: the caller has sums and room for `rows` tiles of `vectors` vectors, and their
        // pixels and channels in the output.
        unsafe {
            // Nearly always the output is bytes and all channels of the tile exist: then sums stay
            // in registers.
            match kernel.epilogue.bytes(target) {
                Some(epilogue) if column + tile <= kernel.problem.out_channels => {
                    if epilogue.residual.is_some() {
                        this.bytes::<S, true>(simd, &epilogue, target);
                    } else {
                        this.bytes::<S, false>(simd, &epilogue, target);
                    }
                }
                _ => {
                    for r in 0..rows {
                        for v in 0..vectors {
                            for (number, &sum) in this.sums(simd, r, v).iter().enumerate() {
                                let (i, j) = (number / SIZE, number % SIZE);
                                let to =
                                    pixels.add(((i * rows + r) * SIZE + j) * tile + v * S::LANES);
                                simd.store_i32(to, sum);
                            }
                        }
                    }
                    this.store(simd);
                }
            }
        }
    }
}

impl Output<'_> {
    /// Returns four times the sums of a tile's pixels, row by row, for one vector of channels.
    ///
    /// # Safety
    /// The requirements of [`BackEntry`] must be met.
    #[inline(always)]
    unsafe fn sums<S: Simd>(&self, simd: S, r: usize, v: usize) -> [S::I32; SIZE * SIZE] {
        let Back { kernel, rows, vectors, column, sums, .. } = *self.0;
        let tile = vectors * S::LANES;
        // SAFETY: `r` and `v` are less than `rows` and `vectors`, for which the caller has sums;
        // starts are padded to whole vectors.
        unsafe {
            let start = simd.load_i32(kernel.start.as_ptr().add(column + v * S::LANES));
            let from = sums.add(r * tile + v * S::LANES);
            let load = |point: usize| simd.load_i32(from.add(point * rows * tile));
            let mut lines = [[start; SIDE]; SIZE];
            for j in 0..SIDE {
                let m = [load(j), load(SIDE + j), load(2 * SIDE + j), load(3 * SIDE + j)];
                [lines[0][j], lines[1][j]] = line_back(simd, m);
            }
            let [a, b] = line_back(simd, lines[0]);
            let [c, d] = line_back(simd, lines[1]);
            [
                simd.add_i32(a, start),
                simd.add_i32(b, start),
                simd.add_i32(c, start),
                simd.add_i32(d, start),
            ]
        }
    }

    /// Applies the byte epilogue to all channels and stores them; adds the residual if `RESIDUAL`.
    ///
    /// # Safety
    /// The requirements of [`BackEntry`] must be met, and all channels of the register tile must
    /// exist.
    #[inline(always)]
    unsafe fn bytes<S: Simd, const RESIDUAL: bool>(
        &self,
        simd: S,
        epilogue: &ByteEpilogue,
        target: Target,
    ) {
        let Back { kernel, first, rows, vectors, column, .. } = *self.0;
        let [height, width] = kernel.output;
        let channels = kernel.problem.out_channels;
        let mut place = kernel.place(first);
        for r in 0..rows {
            let [image, y, x] = place;
            place = kernel.next(place);
            let corner = ((image * height + y * SIZE) * width + x * SIZE) * channels + column;
            for v in 0..vectors {
                // SAFETY: all channels of the register tile exist, and pixels beyond the output's
                // edges are left out.
                unsafe {
                    let scale = simd.load(kernel.scale.as_ptr().add(column + v * S::LANES));
                    let bias = simd.load(kernel.bias.as_ptr().add(column + v * S::LANES));
                    let sums = self.sums(simd, r, v);
                    for (number, &sum) in sums.iter().enumerate() {
                        let (i, j) = (number / SIZE, number % SIZE);
                        if y * SIZE + i < height && x * SIZE + j < width {
                            let at = corner + (i * width + j) * channels + v * S::LANES;
                            let sum = simd.fma(simd.to_f32(sum), scale, bias);
                            let byte = epilogue.byte::<S, RESIDUAL>(
                                simd,
                                sum,
                                target.residual.wrapping_add(at),
                            );
                            simd.store_u8(target.output.add(at), byte);
                        }
                    }
                }
            }
        }
    }

    /// Stores the pixels, row by row of horizontally adjacent tiles.
    ///
    /// # Safety
    /// The requirements of [`BackEntry`] must be met.
    #[inline(always)]
    unsafe fn store<S: Simd>(&self, simd: S) {
        let Back { kernel, call, first, rows, vectors, column, pixels, .. } = *self.0;
        let [height, width] = kernel.output;
        let channels = kernel.problem.out_channels;
        let mut r = 0;
        while r < rows {
            let [image, y, x] = kernel.place(first + r);
            let beside = (rows - r).min(kernel.tiles[1] - x);
            for i in 0..SIZE.min(height - y * SIZE) {
                let pixel = (image * height + y * SIZE + i) * width + x * SIZE;
                // SAFETY: rows and columns are clipped to the output, and `channels - column`
                // channels exist there. The room for pixels holds the row of these tiles.
                unsafe {
                    simd.call::<StoreTileI8<'_>>(StoreTileI8 {
                        epilogue: &kernel.epilogue,
                        target: Target { output: call.output, residual: call.residual },
                        scale: kernel.scale.as_ptr().add(column),
                        bias: kernel.bias.as_ptr().add(column),
                        pixel: channels,
                        sums: pixels.add((i * rows + r) * SIZE * vectors * S::LANES),
                        rows: (beside * SIZE).min(width - x * SIZE),
                        vectors,
                        at: pixel * channels + column,
                        channels: (channels - column).min(vectors * S::LANES),
                    });
                }
            }
            r += beside;
        }
    }
}

/// Returns `A' m` of one line.
#[inline(always)]
fn line_back<S: Simd>(simd: S, m: [S::I32; SIDE]) -> [S::I32; SIZE] {
    [simd.add_i32(simd.add_i32(m[0], m[1]), m[2]), simd.sub_i32(simd.sub_i32(m[1], m[2]), m[3])]
}
