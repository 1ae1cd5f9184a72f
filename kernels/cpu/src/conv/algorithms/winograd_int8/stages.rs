//! Vectorized stages of [`super`]: transform of the input, products, transform of the sums back.

use std::ops::Range;

use super::{POINTS, Prepared, SIDE, SIZE};
use crate::conv::algorithm::Call;
use crate::conv::support::buffer::LINE;
use crate::conv::support::finish_int8::{BytesFinish, StoreTile8, Target};
use crate::conv::support::tiles::Tile;
use paretune_simd::{Job, Simd};

/// Transforms tiles of the input to `[point][tile][channel]`.
///
/// # Safety
/// The call must be valid, and the destination must have room for a chunk and belong to this
/// thread.
pub(super) type InputEntry = unsafe fn(&Prepared, &Call, Range<usize>, *mut i16);

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

/// Transforms tiles of the input with the vectors of `S`.
///
/// # Safety
/// The requirements of [`InputEntry`] must be met, and the processor must execute `S`.
pub(super) unsafe fn input<S: Simd>(kernel: &Prepared, call: &Call, tiles: Range<usize>, to: *mut i16) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Input { kernel, call, tiles, to }) }
}

struct Input<'a> {
    kernel: &'a Prepared,
    call: &'a Call,
    tiles: Range<usize>,
    to: *mut i16,
}

impl Job for Input<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let kernel = self.kernel;
        let problem = &kernel.problem;
        let channels = problem.in_channels;
        let (point, stride, whole) = (kernel.point(), kernel.stride, 2 * S::LANES);
        let mut place = kernel.place(self.tiles.start);
        for number in 0..self.tiles.len() {
            let addresses = self.addresses(place);
            place = kernel.next(place);
            let mut channel = 0;
            while channel < channels {
                let rest = channels - channel;
                // SAFETY: addresses are valid for all channels; tiles have whole vectors in the matrix.
                unsafe {
                    let to = self.to.add(number * stride + channel);
                    if rest >= whole {
                        transform::<S>(&addresses, channel, to, point);
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
                        transform::<S>(&places, 0, to, point);
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
            let start = self.call.input.wrapping_add(((image * height + row) * width + column) * channels);
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
unsafe fn transform<S: Simd>(places: &[[*const u8; SIDE]; SIDE], channel: usize, to: *mut i16, point: usize) {
    // SAFETY: passed on.
    unsafe {
        let mut lines = [[S::widen(places[0][0].add(channel)); SIDE]; SIDE];
        for (i, row) in places.iter().enumerate() {
            let d = [
                S::widen(row[0].add(channel)),
                S::widen(row[1].add(channel)),
                S::widen(row[2].add(channel)),
                S::widen(row[3].add(channel)),
            ];
            lines[i] = line::<S>(d);
        }
        for j in 0..SIDE {
            let column = line::<S>([lines[0][j], lines[1][j], lines[2][j], lines[3][j]]);
            for (i, &number) in column.iter().enumerate() {
                S::store_wide(to.add((i * SIDE + j) * point), number);
            }
        }
    }
}

/// Returns `B' d` of one line.
///
/// # Safety
/// The processor must execute `S`, as for every function of [`Simd`].
#[inline(always)]
unsafe fn line<S: Simd>(d: [S::D; SIDE]) -> [S::D; SIDE] {
    // SAFETY: passed on.
    unsafe {
        [S::sub_wide(d[0], d[2]), S::add_wide(d[1], d[2]), S::sub_wide(d[2], d[1]), S::sub_wide(d[1], d[3])]
    }
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
    /// Sums, `[point][tile][vector][lane]`.
    pub(super) sums: *mut i32,
}

/// Returns the compiled function for `tile`, if there is one.
pub(super) fn products<S: Simd>(tile: Tile) -> Option<ProductsEntry> {
    macro_rules! choose {
        ($($rows:literal)+) => {
            match (tile.rows, tile.vectors) {
                $(($rows, 1) => Some(entry::<S, $rows, 1> as ProductsEntry),)+
                $(($rows, 2) => Some(entry::<S, $rows, 2> as ProductsEntry),)+
                _ => None,
            }
        };
    }
    if const { S::REGISTERS < 16 } { choose!(1 2 3 4) } else { choose!(1 2 3 4 5 6) }
}

/// Computes [`Products`] with the vectors of `S`.
///
/// # Safety
/// The requirements of [`ProductsEntry`] must be met, and the processor must execute `S`.
unsafe fn entry<S: Simd, const ROWS: usize, const VECTORS: usize>(products: &Products) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Sums::<ROWS, VECTORS>(products)) }
}

struct Sums<'a, const ROWS: usize, const VECTORS: usize>(&'a Products);

impl<const ROWS: usize, const VECTORS: usize> Job for Sums<'_, ROWS, VECTORS> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Products { input, point, stride, pairs, mut weights, ahead, sums: to } = *self.0;
        let width = VECTORS * S::LANES;
        let to = to.cast::<[[S::I; VECTORS]; ROWS]>();
        // SAFETY: the pointers are valid for all points, tiles, pairs and channels.
        unsafe {
            let none = S::load_i32([0; 16].as_ptr());
            for p in 0..POINTS {
                let from = input.add(p * point);
                let rows: [_; ROWS] = std::array::from_fn(|r| from.add(r * stride));
                let mut sums = [[none; VECTORS]; ROWS];
                for k in 0..pairs {
                    let w: [S::D; VECTORS] =
                        std::array::from_fn(|v| S::load_wide(weights.add(v * S::LANES * 2)));
                    for r in 0..ROWS {
                        let x = S::broadcast_wide(rows[r].add(2 * k));
                        for v in 0..VECTORS {
                            sums[r][v] = S::dot_wide(sums[r][v], w[v], x);
                        }
                    }
                    for v in (0..VECTORS).step_by(LINE.div_ceil(S::LANES * 4)) {
                        S::prefetch(weights.wrapping_add(ahead + v * S::LANES * 2));
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
    /// Sums, `[point][tile][vector][lane]`.
    pub(super) sums: *const i32,
    /// Room for the pixels, `[vertical][tile][horizontal][vector][lane]`.
    pub(super) pixels: *mut i32,
}

/// Transforms sums back with the vectors of `S`.
///
/// # Safety
/// The requirements of [`BackEntry`] must be met, and the processor must execute `S`.
pub(super) unsafe fn back<S: Simd>(back: &Back<'_>) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Output(back)) }
}

struct Output<'a>(&'a Back<'a>);

impl Job for Output<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Back { kernel, call, rows, vectors, column, pixels, .. } = *self.0;
        let tile = vectors * S::LANES;
        let target = Target { output: call.output, residual: call.residual };
        // SAFETY: sums, room and channels are those of the register tile.
        unsafe {
            // Nearly always the output is bytes and all channels of the tile exist: then sums stay
            // in registers.
            match kernel.finish.bytes(target) {
                Some(finish) if column + tile <= kernel.problem.out_channels => {
                    if finish.residual.is_some() {
                        self.bytes::<S, true>(&finish, target);
                    } else {
                        self.bytes::<S, false>(&finish, target);
                    }
                }
                _ => {
                    for r in 0..rows {
                        for v in 0..vectors {
                            for (number, &sum) in self.sums::<S>(r, v).iter().enumerate() {
                                let (i, j) = (number / SIZE, number % SIZE);
                                let to = pixels.add(((i * rows + r) * SIZE + j) * tile + v * S::LANES);
                                to.cast::<S::I>().write_unaligned(sum);
                            }
                        }
                    }
                    self.store::<S>();
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
    unsafe fn sums<S: Simd>(&self, r: usize, v: usize) -> [S::I; SIZE * SIZE] {
        let Back { kernel, rows, vectors, column, sums, .. } = *self.0;
        let tile = vectors * S::LANES;
        // SAFETY: sums and channels are those of the register tile.
        unsafe {
            let start = S::load_i32(kernel.start.as_ptr().add(column + v * S::LANES));
            let from = sums.add(r * tile + v * S::LANES);
            let load = |point: usize| S::load_i32(from.add(point * rows * tile));
            let mut lines = [[start; SIDE]; SIZE];
            for j in 0..SIDE {
                let m = [load(j), load(SIDE + j), load(2 * SIDE + j), load(3 * SIDE + j)];
                [lines[0][j], lines[1][j]] = line_back::<S>(m);
            }
            let [a, b] = line_back::<S>(lines[0]);
            let [c, d] = line_back::<S>(lines[1]);
            [S::add_i32(a, start), S::add_i32(b, start), S::add_i32(c, start), S::add_i32(d, start)]
        }
    }

    /// Applies the byte epilogue to all channels and stores them; adds the residual if `RESIDUAL`.
    ///
    /// # Safety
    /// The requirements of [`BackEntry`] must be met, and all channels of the register tile must
    /// exist.
    #[inline(always)]
    unsafe fn bytes<S: Simd, const RESIDUAL: bool>(&self, finish: &BytesFinish, target: Target) {
        let Back { kernel, first, rows, vectors, column, .. } = *self.0;
        let [height, width] = kernel.output;
        let channels = kernel.problem.out_channels;
        let mut place = kernel.place(first);
        for r in 0..rows {
            let [image, y, x] = place;
            place = kernel.next(place);
            let corner = ((image * height + y * SIZE) * width + x * SIZE) * channels + column;
            for v in 0..vectors {
                // SAFETY: these channels exist; pixels that do not are left out.
                unsafe {
                    let scale = S::load(kernel.scale.as_ptr().add(column + v * S::LANES));
                    let bias = S::load(kernel.bias.as_ptr().add(column + v * S::LANES));
                    let sums = self.sums::<S>(r, v);
                    for (number, &sum) in sums.iter().enumerate() {
                        let (i, j) = (number / SIZE, number % SIZE);
                        if y * SIZE + i < height && x * SIZE + j < width {
                            let at = corner + (i * width + j) * channels + v * S::LANES;
                            let sum = S::fma(S::to_f32(sum), scale, bias);
                            let byte = finish.byte::<S, RESIDUAL>(sum, target.residual.wrapping_add(at));
                            S::store_u8(target.output.add(at), byte);
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
    unsafe fn store<S: Simd>(&self) {
        let Back { kernel, call, first, rows, vectors, column, pixels, .. } = *self.0;
        let [height, width] = kernel.output;
        let channels = kernel.problem.out_channels;
        let mut r = 0;
        while r < rows {
            let [image, y, x] = kernel.place(first + r);
            let beside = (rows - r).min(kernel.tiles[1] - x);
            for i in 0..SIZE.min(height - y * SIZE) {
                let pixel = (image * height + y * SIZE + i) * width + x * SIZE;
                // SAFETY: these pixels and channels exist.
                unsafe {
                    S::vectorize(StoreTile8 {
                        finish: &kernel.finish,
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
///
/// # Safety
/// The processor must execute `S`, as for every function of [`Simd`].
#[inline(always)]
unsafe fn line_back<S: Simd>(m: [S::I; SIDE]) -> [S::I; SIZE] {
    // SAFETY: passed on.
    unsafe { [S::add_i32(S::add_i32(m[0], m[1]), m[2]), S::sub_i32(S::sub_i32(m[1], m[2]), m[3])] }
}
