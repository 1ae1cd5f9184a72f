//! What the matrix products of `kernels/tile.cl` share on the host: the sizes of a tile, what must hold between them, and the
//! launch.

use super::super::device::Limits;
use super::super::launch::Launch;
use super::{Chosen, Request, powers, switch, unfit};
use crate::error::KernelError;
use crate::operator::ConvProblem;
use crate::schedule::Tunable;

/// Sums that a work-item can hold beside what it loads: with 255 registers to a work-item and more of
/// them than that, compilers spill.
pub(super) const MOST_SUMS: usize = 64;

/// Sizes of a problem as a matrix product, of one group.
pub(super) struct Sizes {
    /// Images by pixels.
    pub columns: usize,
    /// Channels by taps.
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

    /// Tunables that all products have, beside those that say how large a tile is: `tile_k` is steps to begin with; of slices
    /// there are `most`, with `least` steps each.
    pub fn tunables(&self, tile_k: usize, most: usize, least: usize) -> Vec<Tunable> {
        let Self { columns, inner } = *self;
        let shared = "slices of a work-group that share the inner dimension";
        vec![
            powers("thread_n", "pixels of a work-item", 1, 8, columns.div_ceil(2), 4),
            powers("vector", "pixels read at once", 1, 4, columns.div_ceil(2), 1),
            powers("tile_k", "steps of the inner dimension staged at once", 4, 32, inner, tile_k),
            powers("split", shared, 1, most, inner / least, 1),
            switch("local", "whether weights and inputs are staged in local memory", true),
            powers("unroll", "steps of the inner dimension unrolled", 1, 16, inner, 4),
        ]
    }
}

/// What must hold between tunables, in words; `rows` are the outputs of a tile, `sums` what a work-item accumulates no more of
/// than it can hold.
pub(super) fn constraints(limits: &Limits, rows: &str, sums: String) -> Vec<String> {
    let (group, floats) = (limits.work_group.min(1024), limits.local_memory / 4);
    vec![
        format!("threads_m * threads_n * split <= {group}"),
        sums,
        "vector <= thread_n".to_owned(),
        "unroll <= tile_k".to_owned(),
        format!("local == 0 or split * tile_k * ({rows} + threads_n * thread_n) <= {floats}"),
        format!("split == 1 or split * {rows} * threads_n * thread_n <= {floats}"),
    ]
}

/// What a work-group computes at a time, and how.
pub(super) struct Tile {
    /// Outputs, pixels, and steps of a slice.
    pub m: usize,
    pub n: usize,
    pub k: usize,
    threads_m: usize,
    threads_n: usize,
    vector: usize,
    /// Slices that share the inner dimension.
    pub split: usize,
    local: bool,
    unroll: usize,
}

impl Tile {
    /// Of `m` outputs; the rest as the schedule has it.
    ///
    /// # Errors
    /// Where it does not fit the device, or its sizes each other: `name` is the algorithm's.
    pub fn of(name: &str, request: &Request<'_>, m: usize) -> Result<Self, KernelError> {
        let chosen = Chosen(&request.schedule.tunables);
        let [threads_m, threads_n, thread_n, vector] =
            ["threads_m", "threads_n", "thread_n", "vector"].map(|name| chosen.get(name));
        let [k, split, unroll] = ["tile_k", "split", "unroll"].map(|name| chosen.get(name));
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
            && m * thread_n <= MOST_SUMS * threads_m
            && m.is_multiple_of(threads_m)
            && vector <= thread_n
            && unroll <= k;
        if fits { Ok(tile) } else { Err(unfit(name, "its tiles do not fit this device, or each other")) }
    }

    fn threads(&self) -> usize {
        self.threads_m * self.threads_n * self.split
    }

    /// Steps of all slices together.
    pub fn chunk(&self) -> usize {
        self.k * self.split
    }

    fn local_bytes(&self) -> usize {
        let staged = if self.local { self.chunk() * (self.m + self.n) } else { 0 };
        let reduced = if self.split > 1 { self.split * self.m * self.n } else { 0 };
        4 * staged.max(reduced)
    }

    /// The kernel, from `source` with `tile.cl` behind it, with macros for its tile and as many constants as it takes.
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
