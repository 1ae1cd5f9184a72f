//! Partition of GEMM convolutions among threads and caches.

use std::ops::Range;

use super::tiles::Extent;
use crate::conv::algorithm::Request;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::{Tunable, TunableDomain};
use paretune_base::threads::{Part, Worker};
use paretune_simd::Isa;
use paretune_simd::lanes;

/// Bytes of packed weights that may be read between two visits of one tile of pixels: about half of
/// a common second-level cache.
const PANEL_BYTES: usize = 256 << 10;

/// Dimension that threads partition. Neither splits a sum, so results do not depend on the number
/// of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    /// Threads partition the output pixels.
    Pixels,
    /// Threads partition the blocks of output channels.
    Channels,
}

impl Split {
    /// Reads the partitioned dimension from the tunable `parallel_axis`.
    pub(crate) fn from_request(request: &Request<'_>) -> Result<Self, KernelError> {
        match request.choice("parallel_axis")? {
            "pixels" => Ok(Self::Pixels),
            "channels" => Ok(Self::Channels),
            _ => Err(request.bad_value("parallel_axis")),
        }
    }

    /// Returns this thread's parts, ranges of pixels and of blocks; `work` is the cost of one pixel
    /// and one block.
    pub(crate) fn parts<'a>(
        self,
        worker: &'a Worker<'_>,
        pixels: usize,
        work: &PartWork,
    ) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + use<'a> {
        let blocks = work.blocks;
        let (total, grain) = match self {
            Self::Pixels => (pixels, grain(work.multiply_adds * blocks, work.rows)),
            Self::Channels => (blocks, grain(work.multiply_adds * pixels, 1)),
        };
        worker.parts(total, grain).map(move |Part { units: part, .. }| match self {
            Self::Pixels => (part, 0..blocks),
            Self::Channels => (0..pixels, part),
        })
    }
}

/// Cost that determines the size of parts.
pub(crate) struct PartWork {
    /// Multiply-adds of one pixel and one block of output channels.
    pub(crate) multiply_adds: usize,
    /// Pixels that are computed together, mr.
    pub(crate) rows: usize,
    /// Number of blocks of output channels.
    pub(crate) blocks: usize,
}

/// Multiply-adds below which a part is not worth stealing by another thread: two or three
/// microseconds.
const MIN_MULTIPLY_ADDS: usize = 1 << 17;

/// Returns the smallest number of units, of `multiply_adds` multiply-adds each, that is worth a
/// part of its own; a multiple of `together`.
pub(crate) fn grain(multiply_adds: usize, together: usize) -> usize {
    MIN_MULTIPLY_ADDS.div_ceil(multiply_adds.max(1)).next_multiple_of(together.max(1))
}

/// Returns the tunable `parallel_axis`, the dimension that threads partition.
pub(crate) fn split_tunable(problem: &ConvProblem, extent: Extent, isa: Isa) -> Tunable {
    let blocks = extent.columns.div_ceil(lanes(isa));
    let taps = problem.taps();
    let weights = problem.out_channels * problem.group_in() * taps;
    let input = problem.batch * problem.in_channels * problem.input[0] * problem.input[1];
    let mut values = Vec::new();
    if extent.rows > 1 {
        values.push("pixels");
    }
    if blocks > 1 || values.is_empty() {
        values.push("channels");
    }
    // If weights outweigh activations, each thread should read its own part of the weights.
    let channels = extent.rows == 1 || (blocks >= 8 && weights > 4 * input);
    let default = if channels { "channels" } else { "pixels" };
    let default = if values.contains(&default) { default } else { values[0] };
    Tunable::choice(
        "parallel_axis",
        "what threads share: output pixels or output channels",
        values,
        default,
    )
}

/// Returns the tunable `panel`; `column` is the bytes of weights per output channel.
pub(crate) fn panel_tunable(extent: Extent, column: usize, isa: Isa) -> Tunable {
    let narrowest = lanes(isa) * 2;
    let blocks = extent.columns.div_ceil(narrowest).max(1);
    let mut values = vec![1];
    while let Some(&last) = values.last()
        && last < blocks
    {
        values.push(last * 2);
    }
    let fitting = (PANEL_BYTES / (column * narrowest).max(1)).max(1);
    let default = values.iter().copied().filter(|&value| value <= fitting).max().unwrap_or(1);
    let about =
        "blocks of output channels that a tile of pixels meets before the next tile is loaded";
    Tunable::sizes("panel", about, values, default)
}

/// Bytes of weights that stay in a second-level cache from one run to the next, so that nothing
/// needs to be prefetched.
const L2_RESIDENT_BYTES: usize = 256 << 10;

/// Bytes of weights that nearly always come from beyond the second-level cache. Prefetching made
/// such layers up to 1.6 times as fast (1x1 with 1,024 channels on 2x2 pixels, AMD Zen 3).
const UNCACHED_BYTES: usize = 1 << 20;

/// Names of the tunable `prefetch` for fixed distances, with the bytes.
const DISTANCES: [(&str, usize); 3] = [("none", 0), ("bytes_1024", 1024), ("bytes_4096", 4096)];

/// Name of the tunable `prefetch` for the weights that follow the current ones.
const NEXT: &str = "next_block";

/// Returns the tunable `prefetch` for a layer of `weight_bytes` bytes of weights.
pub(crate) fn prefetch_tunable(weight_bytes: usize) -> Tunable {
    let names = DISTANCES.map(|(name, _)| name).to_vec();
    let names = if weight_bytes > L2_RESIDENT_BYTES { names } else { vec!["none"] };
    let default = if weight_bytes >= UNCACHED_BYTES { "bytes_4096" } else { "none" };
    Tunable::choice(
        "prefetch",
        "weights that are fetched ahead: none, or those at a distance",
        names,
        default,
    )
}

/// Returns the prefetch distance of the tunable `prefetch` in elements of type `T`.
pub(crate) fn ahead<T>(request: &Request<'_>) -> Result<usize, KernelError> {
    let name = request.choice("prefetch")?;
    let found = DISTANCES.iter().find(|(distance, _)| *distance == name);
    found.map(|(_, bytes)| bytes / size_of::<T>()).ok_or_else(|| request.bad_value("prefetch"))
}

/// Prefetch of weights in single-precision kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefetch {
    /// Weights are left to the processor's own prefetcher.
    Nothing,
    /// Prefetch of the weights at a fixed distance in elements.
    Numbers(usize),
    /// Prefetch of the block that follows when all tiles of pixels have visited the current one.
    /// Every tile prefetches a part of it, so that memory also works while the later tiles find
    /// their weights in the cache.
    Next,
}

impl Prefetch {
    /// Reads the kind of prefetch from the tunable `prefetch`.
    pub(crate) fn from_request(request: &Request<'_>) -> Result<Self, KernelError> {
        match request.choice("prefetch")? {
            NEXT => Ok(Self::Next),
            _ => Ok(match ahead::<f32>(request)? {
                0 => Self::Nothing,
                distance => Self::Numbers(distance),
            }),
        }
    }

    /// Returns the tunable `prefetch` of a layer with `weight_bytes` bytes of weights and `rows`
    /// output pixels.
    pub(crate) fn tunable(weight_bytes: usize, rows: usize) -> Tunable {
        let mut tunable = prefetch_tunable(weight_bytes);
        if let TunableDomain::Choice(names) = &mut tunable.domain
            && names.len() > 1
            && rows > 1
        {
            tunable.about =
                "weights that are fetched ahead: none, the next block, or those at a distance";
            names.insert(1, NEXT);
        }
        tunable
    }
}
