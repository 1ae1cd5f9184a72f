//! Register tiles of the GEMM microkernels: the compiled ones, the values of the tunables `tile_m`
//! and `tile_n`, and their defaults.
//!
//! A tile is mr output pixels (`rows`) by `vectors` vectors of output channels, whose sums all live
//! in registers.

use std::marker::PhantomData;
use std::ops::Range;

use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_simd::{Isa, Simd, SimdOp, lanes};

/// Largest number of rows (mr) of any compiled tile.
pub const MAX_ROWS: usize = 14;
/// Largest number of vectors of any compiled tile.
pub const MAX_VECTORS: usize = 8;

/// Register tile of one microkernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Rows of output pixels (mr).
    pub rows: usize,
    /// Vectors of output channels per row.
    pub vectors: usize,
}

impl Tile {
    /// Returns the rows and the columns in elements.
    pub fn sides(self, isa: Isa) -> [usize; 2] {
        [self.rows, self.vectors * lanes(isa)]
    }

    /// Returns the tile of these rows and columns, or `None` if `isa` has no such tile.
    pub fn of_sides([rows, columns]: [usize; 2], isa: Isa) -> Option<Self> {
        let tile = Self { rows, vectors: columns / lanes(isa) };
        let fits = columns.is_multiple_of(lanes(isa))
            && (1..=most_vectors(isa, rows)).contains(&tile.vectors);
        fits.then_some(tile)
    }
}

pub(crate) use paretune_base::plan::tunable::TILE;

/// Creates the tunables `tile_m` and `tile_n` for tiles of output pixels by output channels.
pub(crate) fn pixel_tile(tiles: &[[usize; 2]], default: [usize; 2]) -> [Tunable; 2] {
    let abouts = ["output pixels of a register tile", "output channels of a register tile"];
    Tunable::tile(TILE, abouts, tiles, default)
}

/// Returns the largest number of vectors of the compiled tiles with `rows` rows; 0 if there are
/// none. It never grows with `rows`, so the remainders at the edges of a tile have a microkernel
/// too.
pub const fn most_vectors(isa: Isa, rows: usize) -> usize {
    match isa {
        // Compilers find registers for these on any target.
        Isa::Portable => match rows {
            1 => 4,
            2..=4 => 2,
            _ => 0,
        },
        // 16 registers: the sums, one row of weights, one broadcast input.
        Isa::Avx2 | Isa::AvxVnni => match rows {
            1 => 8,
            2 => 6,
            3 => 4,
            4 => 3,
            5 | 6 => 2,
            7..=12 => 1,
            _ => 0,
        },
        // Sets with 32 registers.
        Isa::Neon | Isa::NeonDot | Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => match rows {
            1 => 8,
            2..=6 => 4,
            7..=9 => 3,
            10..=14 => 2,
            _ => 0,
        },
    }
}

/// Returns whether the instruction set has only 16 registers.
const fn few_registers(isa: Isa) -> bool {
    matches!(isa, Isa::Avx2 | Isa::AvxVnni)
}

/// Returns the tiles that the tunable `tile` offers, as `(rows, vectors)`.
pub fn offered(isa: Isa) -> &'static [(usize, usize)] {
    match isa {
        Isa::Portable => &[(1, 4), (2, 2), (3, 2), (4, 1), (4, 2)],
        Isa::Avx2 | Isa::AvxVnni => &[
            (1, 4),
            (1, 8),
            (2, 3),
            (2, 4),
            (2, 6),
            (3, 2),
            (3, 3),
            (3, 4),
            (4, 1),
            (4, 2),
            (4, 3),
            (5, 2),
            (6, 1),
            (6, 2),
            (8, 1),
            (10, 1),
            (12, 1),
        ],
        Isa::Neon | Isa::NeonDot | Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => &[
            (1, 4),
            (1, 8),
            (2, 4),
            (3, 4),
            (4, 2),
            (4, 4),
            (5, 4),
            (6, 2),
            (6, 4),
            (7, 3),
            (8, 1),
            (8, 2),
            (8, 3),
            (9, 3),
            (12, 1),
            (12, 2),
            (14, 1),
            (14, 2),
        ],
    }
}

/// Rows m and columns n of a GEMM `m x k x n`.
#[derive(Clone, Copy)]
pub struct Extent {
    /// Rows m: output pixels.
    pub rows: usize,
    /// Columns n: output channels of a group.
    pub columns: usize,
}

impl Extent {
    /// Returns the extent of one group of a convolution.
    pub(crate) fn of(problem: &ConvProblem) -> Self {
        let pixels = problem.output().map_or(1, |[height, width]| problem.batch * height * width);
        Self { rows: pixels, columns: problem.group_out() }
    }
}

/// Returns the tunables of the tile for an integer GEMM of this extent.
pub fn tile_tunable(extent: Extent, isa: Isa) -> [Tunable; 2] {
    tile_tunable_by(extent, isa, integer_cycles)
}

/// Returns the tunables of the tile for a single-precision GEMM of this extent.
pub(crate) fn real_tile_tunable(extent: Extent, isa: Isa) -> [Tunable; 2] {
    tile_tunable_by(extent, isa, real_cycles)
}

/// Returns the tunables of the tile; the default is the tile with the fewest `cycles`.
fn tile_tunable_by(extent: Extent, isa: Isa, cycles: Cycles) -> [Tunable; 2] {
    let columns = extent.columns.div_ceil(lanes(isa));
    let mut tiles: Vec<Tile> = Vec::new();
    for &(rows, vectors) in offered(isa) {
        // Tiles larger than the problem are clipped: the edges would use a smaller microkernel
        // anyway.
        let tile = Tile { rows: rows.min(extent.rows), vectors: vectors.min(columns) };
        if !tiles.contains(&tile) {
            tiles.push(tile);
        }
    }
    let default = tiles.iter().copied().min_by(|&a, &b| {
        let cost = |tile| estimate(extent, tile, isa, cycles);
        cost(a).total_cmp(&cost(b))
    });
    let sides: Vec<[usize; 2]> = tiles.iter().map(|tile| tile.sides(isa)).collect();
    pixel_tile(&sides, default.map_or(sides[0], |tile| tile.sides(isa)))
}

/// Estimates the cycles per step in k of a tile of `rows` by `vectors`: two multiply-adds per
/// cycle, a latency of four cycles before a sum can be added to again, two loads per cycle.
type Cycles = fn(usize, usize, Isa) -> f64;

fn integer_cycles(rows: usize, vectors: usize, isa: Isa) -> f64 {
    let sums = (rows * vectors) as f64 / 2.0;
    let loads = (rows + vectors) as f64 / 2.0;
    // Sums, a row of weights and a broadcast input must leave a register free, or sums are spilled
    // at every step: half the speed was measured (3 x 32 and 4 x 24 against 5 x 16 on AVX2).
    let crowded = few_registers(isa) && rows * vectors + vectors + 1 > 15;
    (sums.max(loads).max(4.0) + 0.25) * if crowded { 2.0 } else { 1.0 }
}

pub(crate) fn real_cycles(rows: usize, vectors: usize, isa: Isa) -> f64 {
    let sums = (rows * vectors) as f64 / 2.0;
    let loads = (rows + vectors) as f64 / 2.0;
    // In single precision it suffices that sums, weights and input fit.
    let crowded = match rows * vectors + vectors + 1 {
        17.. if few_registers(isa) => 2.0,
        16 if few_registers(isa) => 1.02,
        _ => 1.0,
    };
    // If the sums barely cover the latency, every delay costs time.
    let tight = if sums <= 4.0 { 0.5 } else { 0.0 };
    (sums.max(loads).max(4.0) + tight + 0.25) * crowded
}

/// Estimates the cycles per step in k of a whole GEMM.
fn estimate(extent: Extent, tile: Tile, isa: Isa, cycles: Cycles) -> f64 {
    let columns = extent.columns.div_ceil(lanes(isa));
    let (full, tail) = (columns / tile.vectors, columns % tile.vectors);
    let mut total = 0.0;
    for (rows, count) in balanced(extent.rows, tile.rows) {
        if count > 0 {
            let tail = if tail > 0 { cycles(rows, tail, isa) } else { 0.0 };
            total += count as f64 * (full as f64 * cycles(rows, tile.vectors, isa) + tail);
        }
    }
    total
}

/// Divides `total` rows into tiles of at most `rows`, as evenly as possible: `[(rows, count); 2]`.
pub fn balanced(total: usize, rows: usize) -> [(usize, usize); 2] {
    let tiles = total.div_ceil(rows);
    if tiles == 0 {
        return [(0, 0); 2];
    }
    let (each, more) = (total / tiles, total % tiles);
    [(each + 1, more), (each, tiles - more)]
}

/// Tile run: one call of a microkernel, for consecutive tiles of one height times adjacent blocks
/// of one width.
#[derive(Clone, Copy)]
pub(crate) struct TileRun {
    /// Register tile of the call.
    pub(crate) tile: Tile,
    /// Index of the first row.
    pub(crate) first: usize,
    /// Number of consecutive tiles, one below the other.
    pub(crate) tiles: usize,
    /// Index of the first block.
    pub(crate) block: usize,
    /// Number of adjacent blocks, side by side.
    pub(crate) blocks: usize,
    /// Index of the first column.
    pub(crate) column: usize,
    /// Number of columns of these blocks that exist.
    pub(crate) channels: usize,
}

/// Covers `rows` times the `columns` in `blocks` of `tile`'s width with tile runs, `panel` blocks
/// at a time. Within a panel each tile of rows visits every block before the next tile is touched.
/// All blocks before a run's first one are whole.
#[inline(always)]
pub(crate) fn cover(
    tile: Tile,
    lanes: usize,
    columns: usize,
    rows: Range<usize>,
    blocks: Range<usize>,
    panel: usize,
    mut call: impl FnMut(TileRun),
) {
    let width = tile.vectors * lanes;
    let whole = columns / width;
    let tail = (columns % width).div_ceil(lanes);
    let mut start = blocks.start;
    while start < blocks.end {
        let end = (start + panel).min(blocks.end);
        let mut first = rows.start;
        for (height, tiles) in balanced(rows.len(), tile.rows) {
            if tiles == 0 {
                continue;
            }
            let parts = [
                (tile.vectors, start, end.min(whole).saturating_sub(start)),
                (tail, whole, usize::from(tail > 0 && end > whole)),
            ];
            for (vectors, block, blocks) in parts.into_iter().filter(|(.., blocks)| *blocks > 0) {
                let column = block * width;
                let channels = (blocks * vectors * lanes).min(columns - column);
                let tile = Tile { rows: height, vectors };
                call(TileRun { tile, first, tiles, block, blocks, column, channels });
            }
            first += height * tiles;
        }
        start = end;
    }
}

/// Returns the microkernels of `tile` and of all smaller tiles, for the edges, as `[rows -
/// 1][vectors - 1]`; `None` if one is missing.
pub(crate) fn with_smaller<K>(
    tile: Tile,
    kernel: impl Fn(Tile) -> Option<K>,
) -> Option<Vec<Vec<K>>> {
    (1..=tile.rows)
        .map(|rows| (1..=tile.vectors).map(|vectors| kernel(Tile { rows, vectors })).collect())
        .collect()
}

/// Selects the instantiation of the function `$run` for the constants in `$key`, from a table
/// `a: b b b;`, or `a: b/c b/c;` where a third constant depends on the first two.
macro_rules! instance {
    ($simd:ident, $run:ident, $entry:ty, $key:expr,
        $($a:literal: $($b:literal $(/ $c:literal)?)+;)+) => {
        match $key {
            $($(($a, $b) => Some($simd.pointer::<$run<$a, $b $(, $c)?>>() as $entry),)+)+
            _ => None,
        }
    };
}
pub(crate) use instance;

/// Microkernels that are compiled for every register tile.
pub(crate) trait Microkernels {
    /// Pointer to a compiled microkernel, or a table of them.
    type Pointer;
    /// Returns the microkernel of `ROWS` rows by `VECTORS` vectors for the instruction set of
    /// `simd`.
    fn pointer<S: Simd, const ROWS: usize, const VECTORS: usize>(simd: S) -> Self::Pointer;
}

/// Returns the microkernel of `tile`, or `None` if the instruction set has no such tile. The
/// compiled tiles depend on the number of registers, see [`most_vectors`].
pub(crate) fn microkernel<S: Simd, K: Microkernels>(simd: S, tile: Tile) -> Option<K::Pointer> {
    macro_rules! choose {
        ($($rows:literal: $($vectors:literal)+;)+) => {
            match (tile.rows, tile.vectors) {
                $($(($rows, $vectors) => Some(K::pointer::<S, $rows, $vectors>(simd)),)+)+
                _ => None,
            }
        };
    }
    if const { S::REGISTERS < 16 } {
        choose!(1: 1 2 3 4; 2: 1 2; 3: 1 2; 4: 1 2;)
    } else if const { S::REGISTERS < 32 } {
        choose!(
            1: 1 2 3 4 5 6 7 8; 2: 1 2 3 4 5 6; 3: 1 2 3 4; 4: 1 2 3; 5: 1 2; 6: 1 2;
            7: 1; 8: 1; 9: 1; 10: 1; 11: 1; 12: 1;
        )
    } else {
        choose!(
            1: 1 2 3 4 5 6 7 8; 2: 1 2 3 4; 3: 1 2 3 4; 4: 1 2 3 4; 5: 1 2 3 4; 6: 1 2 3 4;
            7: 1 2 3; 8: 1 2 3; 9: 1 2 3; 10: 1 2; 11: 1 2; 12: 1 2; 13: 1 2; 14: 1 2;
        )
    }
}

/// Finds the microkernel of a tile, see [`microkernel`].
pub(crate) struct Find<K>(Tile, PhantomData<K>);

impl<K> Find<K> {
    pub(crate) fn new(tile: Tile) -> Self {
        Self(tile, PhantomData)
    }
}

impl<K: Microkernels> SimdOp for Find<K> {
    type Output = Option<K::Pointer>;

    fn eval<S: Simd>(self, simd: S) -> Option<K::Pointer> {
        microkernel::<S, K>(simd, self.0)
    }
}
