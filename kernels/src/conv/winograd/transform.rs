//! The transforms of Winograd convolution: of weights once, of tiles on vectors of channels.

use std::ops::Range;

use super::{Phase, Prepared};
use crate::conv::Call;
use crate::simd::{Job, Simd};

/// `G g G'` for tiles of two.
pub(super) fn weights_2(window: &[f32; 9]) -> Vec<f32> {
    weights(&[[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]], window)
}

/// `G g G'` for tiles of four.
pub(super) fn weights_4(window: &[f32; 9]) -> Vec<f32> {
    const SIXTH: f64 = 1.0 / 6.0;
    let matrix = [
        [0.25, 0.0, 0.0],
        [-SIXTH, -SIXTH, -SIXTH],
        [-SIXTH, SIXTH, -SIXTH],
        [SIXTH / 4.0, SIXTH / 2.0, SIXTH],
        [SIXTH / 4.0, -SIXTH / 2.0, SIXTH],
        [0.0, 0.0, 1.0],
    ];
    weights(&matrix, window)
}

/// `G g G'` for tiles of six.
pub(super) fn weights_6(window: &[f32; 9]) -> Vec<f32> {
    let matrix = [
        [1.0, 0.0, 0.0],
        [-2.0 / 9.0, -2.0 / 9.0, -2.0 / 9.0],
        [-2.0 / 9.0, 2.0 / 9.0, -2.0 / 9.0],
        [1.0 / 90.0, 1.0 / 45.0, 2.0 / 45.0],
        [1.0 / 90.0, -1.0 / 45.0, 2.0 / 45.0],
        [32.0 / 45.0, 16.0 / 45.0, 8.0 / 45.0],
        [32.0 / 45.0, -16.0 / 45.0, 8.0 / 45.0],
        [0.0, 0.0, 1.0],
    ];
    weights(&matrix, window)
}

fn weights<const POINTS: usize>(matrix: &[[f64; 3]; POINTS], window: &[f32; 9]) -> Vec<f32> {
    let mut transformed = Vec::with_capacity(POINTS * POINTS);
    for left in matrix {
        for right in matrix {
            let mut sum = 0.0;
            for (i, x) in left.iter().enumerate() {
                for (j, y) in right.iter().enumerate() {
                    sum += x * f64::from(window[3 * i + j]) * y;
                }
            }
            transformed.push(sum as f32);
        }
    }
    transformed
}

/// Points along a side of the largest tile. Lines of smaller tiles leave the last ones alone.
const MOST: usize = 8;

/// The compiled transforms of tiles.
pub(super) struct Entries {
    pub(super) input: Phase,
    pub(super) output: Phase,
}

impl Entries {
    pub(super) fn new<S: Simd, const SIZE: usize>() -> Self {
        Self { input: input::<S, SIZE>, output: output::<S, SIZE> }
    }
}

/// # Safety
/// The call is valid, `matrix` has room for the chunk, nobody else writes the share, and the processor
/// executes `S`.
unsafe fn input<S: Simd, const SIZE: usize>(
    kernel: &Prepared,
    call: &Call,
    share: Range<usize>,
    start: usize,
    matrix: *mut f32,
) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Input::<SIZE>(Tiles { kernel, call, share, start, matrix })) }
}

/// # Safety
/// As for [`input`].
unsafe fn output<S: Simd, const SIZE: usize>(
    kernel: &Prepared,
    call: &Call,
    share: Range<usize>,
    start: usize,
    matrix: *mut f32,
) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Output::<SIZE>(Tiles { kernel, call, share, start, matrix })) }
}

struct Tiles<'a> {
    kernel: &'a Prepared,
    call: &'a Call,
    share: Range<usize>,
    /// The chunk's first tile.
    start: usize,
    /// `[point][tile][channel]`, the points [`Prepared::stride`] apart.
    matrix: *mut f32,
}

impl Tiles<'_> {
    /// `[image, vertical, horizontal]` of a tile of the chunk.
    fn place(&self, tile: usize) -> [usize; 3] {
        let [rows, columns] = self.kernel.grid.tiles;
        let tile = self.start + tile;
        [tile / (rows * columns), tile / columns % rows, tile % columns]
    }
}

struct Input<'a, const SIZE: usize>(Tiles<'a>);

impl<const SIZE: usize> Job for Input<'_, SIZE> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let tiles = self.0;
        let problem = &tiles.kernel.problem;
        let channels = problem.in_channels;
        let [height, width] = problem.input;
        let [top, left, ..] = problem.window.padding;
        let side = SIZE + 2;
        let stride = tiles.kernel.stride(channels);
        for tile in tiles.share.clone() {
            let [image, y, x] = tiles.place(tile);
            let vertical = offsets(y * SIZE, top, height, width * channels);
            let horizontal = offsets(x * SIZE, left, width, channels);
            let input = tiles.call.input.cast::<f32>().wrapping_add(image * height * width * channels);
            let mut addresses = [tiles.kernel.zeros.as_ptr(); MOST * MOST];
            for (number, address) in addresses.iter_mut().enumerate().take(side * side) {
                let offset = vertical[number / side] + horizontal[number % side];
                // Computed without a branch, and thrown away where it is padding.
                let inside = input.wrapping_offset(offset);
                *address = if offset < 0 { *address } else { inside };
            }
            let mut channel = 0;
            while channel < channels {
                let rest = channels - channel;
                let part = rest < S::LANES;
                // SAFETY: addresses are valid for all channels, the matrix for all points and tiles.
                unsafe {
                    let mut numbers = [[S::splat(0.0); MOST]; MOST];
                    for (i, row) in numbers.iter_mut().enumerate().take(side) {
                        for (j, number) in row.iter_mut().enumerate().take(side) {
                            let from = addresses[i * side + j].add(channel);
                            *number = if part { S::load_first(from, rest) } else { S::load(from) };
                        }
                    }
                    // Columns, then rows.
                    for j in 0..side {
                        let column = input_line::<S, SIZE>(std::array::from_fn(|i| numbers[i][j]));
                        for i in 0..side {
                            numbers[i][j] = column[i];
                        }
                    }
                    for (i, &row) in numbers.iter().enumerate().take(side) {
                        let row = input_line::<S, SIZE>(row);
                        for (j, &number) in row.iter().enumerate().take(side) {
                            let point = i * side + j;
                            let to = tiles.matrix.add(point * stride + tile * channels + channel);
                            if part { S::store_first(to, rest, number) } else { S::store(to, number) }
                        }
                    }
                }
                channel += S::LANES;
            }
        }
    }
}

/// Where the lines of a tile lie that begins at `first` of a padded input, `step` numbers apart. Sums of two with padding
/// in either are negative.
#[inline(always)]
fn offsets(first: usize, padding: usize, size: usize, step: usize) -> [isize; MOST] {
    std::array::from_fn(|line| {
        // Wraps around, to what is beyond any size, before the input begins.
        let position = (first + line).wrapping_sub(padding);
        if position < size { (position * step) as isize } else { isize::MIN / 4 }
    })
}

/// `B' d` of one line.
///
/// # Safety
/// As for every function of [`Simd`].
#[inline(always)]
unsafe fn input_line<S: Simd, const SIZE: usize>(d: [S::F; MOST]) -> [S::F; MOST] {
    // SAFETY: passed on.
    unsafe {
        if SIZE == 2 {
            return [
                S::sub(d[0], d[2]),
                S::add(d[1], d[2]),
                S::sub(d[2], d[1]),
                S::sub(d[1], d[3]),
                d[4],
                d[5],
                d[6],
                d[7],
            ];
        }
        if SIZE == 6 {
            return input_line_6::<S>(d);
        }
        let (two, four, minus_four, minus_five) =
            (S::splat(2.0), S::splat(4.0), S::splat(-4.0), S::splat(-5.0));
        // 4 d2 - d4 and 4 d1 - d3 with either sign, d4 - d2 and 2 (d3 - d1).
        let even = S::fma(minus_four, d[2], d[4]);
        let odd = S::fma(minus_four, d[1], d[3]);
        let difference = S::sub(d[4], d[2]);
        let double = S::mul(two, S::sub(d[3], d[1]));
        [
            S::fma(four, d[0], S::fma(minus_five, d[2], d[4])),
            S::add(even, odd),
            S::sub(even, odd),
            S::add(difference, double),
            S::sub(difference, double),
            S::fma(four, d[1], S::fma(minus_five, d[3], d[5])),
            d[6],
            d[7],
        ]
    }
}

/// `B' d` of one line of tiles of six.
///
/// # Safety
/// As for every function of [`Simd`].
#[inline(always)]
unsafe fn input_line_6<S: Simd>(d: [S::F; MOST]) -> [S::F; MOST] {
    // SAFETY: passed on.
    unsafe {
        let times = |factor: f32, x: S::F, sum: S::F| S::fma(S::splat(factor), x, sum);
        // Lines of points with either sign share the even and the odd terms.
        let even_1 = times(-4.25, d[4], S::add(d[2], d[6]));
        let odd_1 = times(-4.25, d[3], S::add(d[1], d[5]));
        let even_2 = times(0.25, d[2], times(-1.25, d[4], d[6]));
        let odd_2 = times(0.5, d[1], times(-2.5, d[3], S::add(d[5], d[5])));
        let even_half = times(4.0, d[2], times(-5.0, d[4], d[6]));
        let odd_half = times(2.0, d[1], times(-2.5, d[3], S::mul(S::splat(0.5), d[5])));
        [
            times(5.25, S::sub(d[4], d[2]), S::sub(d[0], d[6])),
            S::add(even_1, odd_1),
            S::sub(even_1, odd_1),
            S::add(even_2, odd_2),
            S::sub(even_2, odd_2),
            S::add(even_half, odd_half),
            S::sub(even_half, odd_half),
            times(5.25, S::sub(d[3], d[5]), S::sub(d[7], d[1])),
        ]
    }
}

struct Output<'a, const SIZE: usize>(Tiles<'a>);

impl<const SIZE: usize> Job for Output<'_, SIZE> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let tiles = self.0;
        let kernel = tiles.kernel;
        let channels = kernel.problem.out_channels;
        let [height, width] = kernel.output;
        let side = SIZE + 2;
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
                // SAFETY: the matrix is valid for all points and tiles; pixels are in the output.
                unsafe {
                    let load = |from: *const f32| {
                        if part { S::load_first(from, rest) } else { S::load(from) }
                    };
                    let mut numbers = [[S::splat(0.0); MOST]; MOST - 2];
                    for j in 0..side {
                        let column = output_line::<S, SIZE>(std::array::from_fn(|i| {
                            let point = i.min(side - 1) * side + j;
                            load(tiles.matrix.add(point * stride + tile * channels + channel))
                        }));
                        for i in 0..SIZE {
                            numbers[i][j] = column[i];
                        }
                    }
                    let bias = load(kernel.bias.as_ptr().add(channel));
                    for (i, &row) in numbers.iter().enumerate().take(rows) {
                        let row = output_line::<S, SIZE>(row);
                        for (j, &number) in row.iter().enumerate().take(columns) {
                            let at = (corner + i * width + j) * channels + channel;
                            let mut number = S::add(number, bias);
                            if !residual.is_null() {
                                number = S::add(number, load(residual.add(at)));
                            }
                            let number = kernel.finish.apply::<S>(number);
                            let to = tiles.call.output.cast::<f32>().add(at);
                            if part { S::store_first(to, rest, number) } else { S::store(to, number) }
                        }
                    }
                }
                channel += S::LANES;
            }
        }
    }
}

/// `A' m` of one line.
///
/// # Safety
/// As for every function of [`Simd`].
#[inline(always)]
unsafe fn output_line<S: Simd, const SIZE: usize>(m: [S::F; MOST]) -> [S::F; MOST - 2] {
    // SAFETY: passed on.
    unsafe {
        let (sum, difference) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
        if SIZE == 2 {
            return [S::add(m[0], sum), S::sub(difference, m[3]), sum, difference, sum, difference];
        }
        let (sum_2, difference_2) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
        if SIZE == 6 {
            let (sum_half, difference_half) = (S::add(m[5], m[6]), S::sub(m[5], m[6]));
            let times = |factor: f32, x: S::F, sum: S::F| S::fma(S::splat(factor), x, sum);
            return [
                S::add(S::add(m[0], sum), S::add(sum_2, sum_half)),
                times(2.0, difference_2, times(0.5, difference_half, difference)),
                times(4.0, sum_2, times(0.25, sum_half, sum)),
                times(8.0, difference_2, times(0.125, difference_half, difference)),
                times(16.0, sum_2, times(0.0625, sum_half, sum)),
                times(32.0, difference_2, times(0.03125, difference_half, S::add(difference, m[7]))),
            ];
        }
        [
            S::add(m[0], S::add(sum, sum_2)),
            S::fma(S::splat(2.0), difference_2, difference),
            S::fma(S::splat(4.0), sum_2, sum),
            S::add(m[5], S::fma(S::splat(8.0), difference_2, difference)),
            sum,
            difference,
        ]
    }
}
