//! Transforms of Winograd convolution: of weights once, of tiles on vectors of channels.

use std::ops::Range;

use super::{Phase, Prepared};
use crate::conv::algorithm::Call;
use paretune_simd::{Simd, SimdFn};

/// Returns the finite points of tiles with `side` points along a side and, for each, the divisor of
/// the interpolation: a line of `G` consists of `point^k` divided by it. The last point is
/// infinity.
fn points(side: usize) -> &'static [(f64, f64)] {
    match side {
        4 => &[(0.0, 1.0), (1.0, 2.0), (-1.0, 2.0)],
        6 => &[(0.0, 4.0), (1.0, -6.0), (-1.0, -6.0), (2.0, 24.0), (-2.0, 24.0)],
        _ => &[
            (0.0, 1.0),
            (1.0, -4.5),
            (-1.0, -4.5),
            (2.0, 90.0),
            (-2.0, 90.0),
            (0.5, 45.0 / 32.0),
            (-0.5, 45.0 / 32.0),
        ],
    }
}

/// Returns `G g G'` of a window of `taps x taps` for tiles with `side` points along a side.
pub(super) fn weights(side: usize, taps: usize, window: &[f32]) -> Vec<f32> {
    let line = |&(point, divisor): &(f64, f64)| -> Vec<f64> {
        (0..taps).map(|k| point.powi(k as i32) / divisor).collect()
    };
    let mut matrix: Vec<Vec<f64>> = points(side).iter().map(line).collect();
    matrix.push((0..taps).map(|k| if k + 1 == taps { 1.0 } else { 0.0 }).collect());
    let mut transformed = Vec::with_capacity(side * side);
    for left in &matrix {
        for right in &matrix {
            let mut sum = 0.0;
            for (row, x) in window.chunks_exact(taps).zip(left) {
                for (number, y) in row.iter().zip(right) {
                    sum += x * f64::from(*number) * y;
                }
            }
            transformed.push(sum as f32);
        }
    }
    transformed
}

/// Points along a side of the largest tile; lines of smaller tiles ignore the last ones.
const MOST: usize = 8;

/// Output pixels along a side of the largest tile.
const MOST_OUT: usize = 6;

/// Compiled transforms of tiles.
pub(super) struct Entries {
    pub(super) input: Phase,
    pub(super) output: Phase,
}

impl Entries {
    /// Returns the transforms for tiles of `SIZE` output pixels and `SIDE` points along a side.
    pub(super) fn new<S: Simd, const SIDE: usize, const SIZE: usize>(simd: S) -> Self {
        Self { input: simd.pointer::<Input<SIDE>>(), output: simd.pointer::<Output<SIDE, SIZE>>() }
    }
}

/// Tiles of a chunk to transform, one thread's share.
pub(super) struct Tiles<'a> {
    pub(super) kernel: &'a Prepared,
    pub(super) call: &'a Call,
    /// Range of tiles within the chunk.
    pub(super) share: Range<usize>,
    /// Index of the chunk's first tile.
    pub(super) start: usize,
    /// Matrices `[point][tile][channel]`, the points [`Prepared::stride`] apart.
    pub(super) matrix: *mut f32,
}

impl Tiles<'_> {
    /// Returns `[image, vertical, horizontal]` of a tile of the chunk.
    fn place(&self, tile: usize) -> [usize; 3] {
        let [rows, columns] = self.kernel.grid.tiles;
        let tile = self.start + tile;
        [tile / (rows * columns), tile / columns % rows, tile % columns]
    }
}

/// Transforms tiles of the input to the matrices.
struct Input<const SIDE: usize>;

impl<const SIDE: usize> SimdFn for Input<SIDE> {
    type Args<'a> = Tiles<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, tiles: Tiles<'_>) {
        let problem = &tiles.kernel.problem;
        let channels = problem.in_channels;
        let [height, width] = problem.input;
        let [top, left, ..] = problem.window.padding;
        let side = SIDE;
        let size = tiles.kernel.grid.size;
        let stride = tiles.kernel.stride(channels);
        for tile in tiles.share.clone() {
            let [image, y, x] = tiles.place(tile);
            let vertical = offsets(y * size, top, height, width * channels);
            let horizontal = offsets(x * size, left, width, channels);
            let input =
                tiles.call.input.cast::<f32>().wrapping_add(image * height * width * channels);
            let mut addresses = [tiles.kernel.zeros.as_ptr(); MOST * MOST];
            for (number, address) in addresses.iter_mut().enumerate().take(side * side) {
                let offset = vertical[number / side] + horizontal[number % side];
                // Computed without a branch, and discarded for padding.
                let inside = input.wrapping_offset(offset);
                *address = if offset < 0 { *address } else { inside };
            }
            let mut channel = 0;
            while channel < channels {
                let rest = channels - channel;
                let part = rest < S::LANES;
                // SAFETY: each address is that of a pixel or of zeros, with `channels` numbers, and
                // the matrix has room for all points and tiles of the chunk. Partial vectors end
                // with the channels.
                unsafe {
                    let mut numbers = [[simd.splat(0.0); MOST]; MOST];
                    for (i, row) in numbers.iter_mut().enumerate().take(side) {
                        for (j, number) in row.iter_mut().enumerate().take(side) {
                            let from = addresses[i * side + j].add(channel);
                            *number =
                                if part { simd.load_partial(from, rest) } else { simd.load(from) };
                        }
                    }
                    // The transform is applied to columns, then to rows.
                    for j in 0..side {
                        let column =
                            input_line::<S, SIDE>(simd, paretune_simd::array(|i| numbers[i][j]));
                        for i in 0..side {
                            numbers[i][j] = column[i];
                        }
                    }
                    for (i, &row) in numbers.iter().enumerate().take(side) {
                        let row = input_line::<S, SIDE>(simd, row);
                        for (j, &number) in row.iter().enumerate().take(side) {
                            let point = i * side + j;
                            let to = tiles.matrix.add(point * stride + tile * channels + channel);
                            if part {
                                simd.store_partial(to, rest, number)
                            } else {
                                simd.store(to, number)
                            }
                        }
                    }
                }
                channel += S::LANES;
            }
        }
    }
}

/// Returns the offsets of the lines of a tile that begins at `first` of a padded input, `step`
/// elements apart. The sum of two offsets is negative if either is padding.
#[inline(always)]
fn offsets(first: usize, padding: usize, size: usize, step: usize) -> [isize; MOST] {
    paretune_simd::array(|line| {
        // Before the input begins, this wraps around to a position beyond any size.
        let position = (first + line).wrapping_sub(padding);
        if position < size { (position * step) as isize } else { isize::MIN / 4 }
    })
}

/// Returns `B' d` of one line.
#[inline(always)]
fn input_line<S: Simd, const SIDE: usize>(simd: S, d: [S::F32; MOST]) -> [S::F32; MOST] {
    if SIDE == 4 {
        return [
            simd.sub(d[0], d[2]),
            simd.add(d[1], d[2]),
            simd.sub(d[2], d[1]),
            simd.sub(d[3], d[1]),
            d[4],
            d[5],
            d[6],
            d[7],
        ];
    }
    if SIDE == 8 {
        return input_line_8(simd, d);
    }
    let (two, four, minus_four, minus_five) =
        (simd.splat(2.0), simd.splat(4.0), simd.splat(-4.0), simd.splat(-5.0));
    // 4 d2 - d4 and 4 d1 - d3 with either sign, d4 - d2 and 2 (d3 - d1).
    let even = simd.fma(minus_four, d[2], d[4]);
    let odd = simd.fma(minus_four, d[1], d[3]);
    let difference = simd.sub(d[4], d[2]);
    let double = simd.mul(two, simd.sub(d[3], d[1]));
    [
        simd.fma(four, d[0], simd.fma(minus_five, d[2], d[4])),
        simd.add(even, odd),
        simd.sub(even, odd),
        simd.add(difference, double),
        simd.sub(difference, double),
        simd.fma(four, d[1], simd.fma(minus_five, d[3], d[5])),
        d[6],
        d[7],
    ]
}

/// Returns `B' d` of one line of tiles with eight points along a side.
#[inline(always)]
fn input_line_8<S: Simd>(simd: S, d: [S::F32; MOST]) -> [S::F32; MOST] {
    let times = |factor: f32, x: S::F32, sum: S::F32| simd.fma(simd.splat(factor), x, sum);
    // Lines of points with opposite signs share the even and the odd terms.
    let even_1 = times(-4.25, d[4], simd.add(d[2], d[6]));
    let odd_1 = times(-4.25, d[3], simd.add(d[1], d[5]));
    let even_2 = times(0.25, d[2], times(-1.25, d[4], d[6]));
    let odd_2 = times(0.5, d[1], times(-2.5, d[3], simd.add(d[5], d[5])));
    let even_half = times(4.0, d[2], times(-5.0, d[4], d[6]));
    let odd_half = times(2.0, d[1], times(-2.5, d[3], simd.mul(simd.splat(0.5), d[5])));
    [
        times(5.25, simd.sub(d[4], d[2]), simd.sub(d[0], d[6])),
        simd.add(even_1, odd_1),
        simd.sub(even_1, odd_1),
        simd.add(even_2, odd_2),
        simd.sub(even_2, odd_2),
        simd.add(even_half, odd_half),
        simd.sub(even_half, odd_half),
        times(5.25, simd.sub(d[3], d[5]), simd.sub(d[7], d[1])),
    ]
}

/// Transforms the matrices of products back to output pixels.
struct Output<const SIDE: usize, const SIZE: usize>;

impl<const SIDE: usize, const SIZE: usize> SimdFn for Output<SIDE, SIZE> {
    type Args<'a> = Tiles<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, tiles: Tiles<'_>) {
        let kernel = tiles.kernel;
        let channels = kernel.problem.out_channels;
        let [height, width] = kernel.output;
        let side = SIDE;
        let stride = tiles.kernel.stride(channels);
        let residual = tiles.call.residual.cast::<f32>();
        for tile in tiles.share.clone() {
            let [image, y, x] = tiles.place(tile);
            let (rows, columns) = (SIZE.min(height - y * SIZE), SIZE.min(width - x * SIZE));
            let corner = (image * height + y * SIZE) * width + x * SIZE;
            let mut channel = 0;
            while channel < channels {
                let rest = channels - channel;
                let part = rest < S::LANES;
                // SAFETY: the matrix holds all points and tiles of the chunk, and `rows` and
                // `columns` are clipped to the output. Partial vectors end with the channels.
                unsafe {
                    let load = |from: *const f32| {
                        if part { simd.load_partial(from, rest) } else { simd.load(from) }
                    };
                    let mut numbers = [[simd.splat(0.0); MOST]; MOST_OUT];
                    for j in 0..side {
                        let column = output_line::<S, SIDE, SIZE>(
                            simd,
                            paretune_simd::array(|i| {
                                let point = i.min(side - 1) * side + j;
                                load(tiles.matrix.add(point * stride + tile * channels + channel))
                            }),
                        );
                        for i in 0..SIZE {
                            numbers[i][j] = column[i];
                        }
                    }
                    let bias = load(kernel.bias.as_ptr().add(channel));
                    for (i, &row) in numbers.iter().enumerate().take(rows) {
                        let row = output_line::<S, SIDE, SIZE>(simd, row);
                        for (j, &number) in row.iter().enumerate().take(columns) {
                            let at = (corner + i * width + j) * channels + channel;
                            let mut number = simd.add(number, bias);
                            if !residual.is_null() {
                                number = simd.add(number, load(residual.add(at)));
                            }
                            let number = kernel.epilogue.apply(simd, number);
                            let to = tiles.call.output.cast::<f32>().add(at);
                            if part {
                                simd.store_partial(to, rest, number)
                            } else {
                                simd.store(to, number)
                            }
                        }
                    }
                }
                channel += S::LANES;
            }
        }
    }
}

/// Returns `A' m` of one line: element `i` is the sum over all points of `point^i m`, where
/// infinity contributes only to the last element.
#[inline(always)]
fn output_line<S: Simd, const SIDE: usize, const SIZE: usize>(
    simd: S,
    m: [S::F32; MOST],
) -> [S::F32; MOST_OUT] {
    // Points with opposite signs contribute their sum to even powers and their difference to
    // odd ones.
    let both = |at: usize| [simd.add(m[at], m[at + 1]), simd.sub(m[at], m[at + 1])];
    let (one, two, half) = (both(1), both(3), both(5));
    let mut line = [m[0]; MOST_OUT];
    let mut factor = 1.0;
    for (i, number) in line.iter_mut().enumerate().take(SIZE) {
        let mut sum = one[i % 2];
        if i == 0 {
            sum = simd.add(m[0], sum);
        }
        if i + 1 == SIZE {
            sum = simd.add(sum, m[SIDE - 1]);
        }
        if SIDE == 8 {
            sum = simd.fma(simd.splat(1.0 / factor), half[i % 2], sum);
        }
        if SIDE >= 6 {
            sum = simd.fma(simd.splat(factor), two[i % 2], sum);
        }
        *number = sum;
        factor *= 2.0;
    }
    line
}
