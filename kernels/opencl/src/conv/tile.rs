//! The host side of the tiled GEMM in `kernels/tile.cl`: tile sizes, the constraints between them,
//! and the launch.

use super::{Chosen, Request, powers, switch, unfit};
use crate::launch::Launch;
use crate::limits::Limits;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;

/// Maximum number of sums that a work-item can hold beside its operands. With 255 registers per
/// work-item, compilers spill beyond that.
pub(super) const MAX_SUMS: usize = 64;

/// Sizes of the GEMM of one group.
pub(super) struct Sizes {
    /// Number of columns: images times pixels.
    pub columns: usize,
    /// Inner dimension: channels times taps.
    pub inner: usize,
}

impl Sizes {
    pub fn of(problem: &ConvProblem) -> Self {
        let [height, width] = problem.window.output(problem.input, false).unwrap_or([1, 1]);
        Self {
            columns: problem.batch * height * width,
            inner: problem.group_in() * problem.window.kernel[0] * problem.window.kernel[1],
        }
    }

    /// Returns the tunables that all tiled GEMMs share, except those for the size of a tile.
    /// `tile_k` is the default number of staged steps; at most `most` slices share the inner
    /// dimension, with at least `least` steps each.
    pub fn tunables(&self, tile_k: usize, most: usize, least: usize) -> Vec<Tunable> {
        let Self { columns, inner } = *self;
        let shared = "slices of a work-group that share the inner dimension";
        vec![
            powers("thread_n", "pixels of a work-item", 1, 8, columns.div_ceil(2), 4),
            powers("vector", "pixels read at once", 1, 4, columns.div_ceil(2), 1),
            powers("tile_k", "steps of the inner dimension staged at once", 4, 32, inner, tile_k),
            powers("split_k", shared, 1, most, inner / least, 1),
            switch("local", "whether weights and inputs are staged in local memory", true),
            powers("unroll", "steps of the inner dimension unrolled", 1, 16, inner, 4),
        ]
    }
}

/// Returns the constraints between tunables as expressions. `rows` is the number of outputs of a
/// tile, and `sums` bounds the sums of a work-item.
pub(super) fn constraints(limits: &Limits, rows: &str, sums: String) -> Vec<String> {
    let (group, floats) = (limits.work_group.min(1024), limits.local_memory / 4);
    vec![
        format!("threads_m * threads_n * split_k <= {group}"),
        sums,
        "vector <= thread_n".to_owned(),
        "unroll <= tile_k".to_owned(),
        format!("local == 0 or split_k * tile_k * ({rows} + threads_n * thread_n) <= {floats}"),
        format!("split_k == 1 or split_k * {rows} * threads_n * thread_n <= {floats}"),
    ]
}

/// Sizes of the tile that a work-group computes, and its options.
pub(super) struct Tile {
    /// Number of outputs, pixels, and steps of a slice.
    pub m: usize,
    pub n: usize,
    pub k: usize,
    threads_m: usize,
    threads_n: usize,
    vector: usize,
    /// Number of slices that share the inner dimension.
    pub split: usize,
    local: bool,
    unroll: usize,
}

impl Tile {
    /// Creates a tile of `m` outputs, with the other sizes from the schedule.
    ///
    /// # Errors
    /// Fails if the tile does not fit the device, or if its sizes do not fit together; `name` is
    /// the algorithm's name for the message.
    pub fn of(name: &str, request: &Request<'_>, m: usize) -> Result<Self, KernelError> {
        let chosen = Chosen(&request.schedule.tunables);
        let [threads_m, threads_n, thread_n, vector] =
            ["threads_m", "threads_n", "thread_n", "vector"].map(|name| chosen.get(name));
        let [k, split, unroll] = ["tile_k", "split_k", "unroll"].map(|name| chosen.get(name));
        let tile = Self {
            m,
            n: threads_n * thread_n,
            k,
            threads_m,
            threads_n,
            vector,
            split,
            local: chosen.is_on("local", true),
            unroll,
        };
        let fits = tile.threads() <= request.limits.work_group.min(1024)
            && tile.local_bytes() <= request.limits.local_memory
            && m * thread_n <= MAX_SUMS * threads_m
            && m.is_multiple_of(threads_m)
            && vector <= thread_n
            && unroll <= k;
        if fits {
            Ok(tile)
        } else {
            Err(unfit(name, "its tiles do not fit this device, or each other"))
        }
    }

    fn threads(&self) -> usize {
        self.threads_m * self.threads_n * self.split
    }

    /// Returns the steps of all slices together.
    pub fn chunk(&self) -> usize {
        self.k * self.split
    }

    fn local_bytes(&self) -> usize {
        let staged = if self.local { self.chunk() * (self.m + self.n) } else { 0 };
        let reduced = if self.split > 1 { self.split * self.m * self.n } else { 0 };
        4 * staged.max(reduced)
    }

    /// Creates the launch of the kernel in `source`, which ends with `tile.cl`, with macros for
    /// this tile and with `constants` constant arguments.
    pub fn launch(&self, source: &'static str, request: &Request<'_>, constants: usize) -> Launch {
        let problem = &request.problem;
        let mut macros = request.macros();
        macros
            .define("TILE_M", self.m)
            .define("TILE_N", self.n)
            .define("TILE_K", self.k)
            .define("THREAD_M", self.m / self.threads_m)
            .define("THREAD_N", self.n / self.threads_n)
            .define("VECTOR", self.vector)
            .define("SPLIT", self.split)
            .define("LOCAL", u8::from(self.local))
            .define("UNROLL", self.unroll);
        let pixels = problem.batch * request.output[0] * request.output[1];
        Launch {
            source,
            kernel: "convolve",
            macros,
            groups: [pixels.div_ceil(self.n), problem.group_out().div_ceil(self.m), problem.groups],
            threads: self.threads(),
            arguments: request.arguments(constants),
        }
    }
}
