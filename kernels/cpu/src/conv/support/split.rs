//! Partition of GEMM convolutions among threads and caches.

use std::ops::Range;

use super::tiles::Extent;
use crate::conv::algorithm::Request;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
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
    /// Reads the partitioned dimension from the tunable `split`.
    pub(crate) fn from_request(request: &Request<'_>) -> Result<Self, KernelError> {
        match request.tunable("split")? {
            0 => Ok(Self::Pixels),
            1 => Ok(Self::Channels),
            _ => Err(request.bad_value("split")),
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
const LEAST_MULTIPLY_ADDS: usize = 1 << 17;

/// Returns the smallest number of units, of `multiply_adds` multiply-adds each, that is worth a
/// part of its own; a multiple of `together`.
pub(crate) fn grain(multiply_adds: usize, together: usize) -> usize {
    LEAST_MULTIPLY_ADDS.div_ceil(multiply_adds.max(1)).next_multiple_of(together.max(1))
}

/// Returns the tunable `split`, the dimension that threads partition.
pub(crate) fn split_tunable(problem: &ConvProblem, extent: Extent, isa: Isa) -> Tunable {
    let blocks = extent.columns.div_ceil(lanes(isa));
    let taps: usize = problem.window.kernel.iter().product();
    let weights = problem.out_channels * problem.group_in() * taps;
    let input = problem.batch * problem.in_channels * problem.input[0] * problem.input[1];
    let mut values = Vec::new();
    if extent.rows > 1 {
        values.push(0);
    }
    if blocks > 1 || values.is_empty() {
        values.push(1);
    }
    // If weights outweigh activations, each thread should read its own part of the weights.
    let channels = extent.rows == 1 || (blocks >= 8 && weights > 4 * input);
    let default = i64::from(channels && values.contains(&1));
    Tunable {
        name: "split",
        about: "what threads share: 0 the output pixels, 1 the output channels",
        default: if values.contains(&default) { default } else { values[0] },
        values,
    }
}

/// Returns the tunable `panel`; `column` is the bytes of weights per output channel.
pub(crate) fn panel_tunable(extent: Extent, column: usize, isa: Isa) -> Tunable {
    let narrowest = lanes(isa) * 2;
    let blocks = extent.columns.div_ceil(narrowest).max(1);
    let mut values = vec![1];
    while let Some(&last) = values.last()
        && (last as usize) < blocks
    {
        values.push(last * 2);
    }
    let fitting = (PANEL_BYTES / (column * narrowest).max(1)).max(1) as i64;
    let default = values.iter().copied().filter(|&value| value <= fitting).max().unwrap_or(1);
    Tunable {
        name: "panel",
        about: "blocks of output channels that a tile of pixels meets before the next tile is loaded",
        default,
        values,
    }
}

/// Bytes of weights that stay in a second-level cache from one run to the next, so that nothing
/// needs to be prefetched.
const NEAR: usize = 256 << 10;

/// Bytes of weights that nearly always come from beyond the second-level cache. Prefetching made
/// such layers up to 1.6 times as fast (1x1 with 1,024 channels on 2x2 pixels, AMD Zen 3).
const FAR: usize = 1 << 20;

/// Returns the tunable `prefetch` for a layer of `weight_bytes` bytes of weights.
pub(crate) fn prefetch_tunable(weight_bytes: usize) -> Tunable {
    Tunable {
        name: "prefetch",
        about: "how many bytes ahead weights are fetched; 0: left to the processor",
        values: if weight_bytes > NEAR { vec![0, 1024, 4096] } else { vec![0] },
        default: if weight_bytes >= FAR { 4096 } else { 0 },
    }
}

/// Returns the prefetch distance of the tunable `prefetch` in elements of type `T`.
pub(crate) fn ahead<T>(request: &Request<'_>) -> Result<usize, KernelError> {
    let bytes = usize::try_from(request.tunable("prefetch")?).map_err(|_| request.bad_value("prefetch"))?;
    Ok(bytes / size_of::<T>())
}

/// Prefetch of weights in single-precision kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefetch {
    /// Weights are not prefetched.
    Nothing,
    /// Prefetch of the weights at a fixed distance in elements.
    Numbers(usize),
    /// Prefetch of the block that follows when all tiles of pixels have visited the current one.
    /// Every tile prefetches a part of it, so that memory also works while the later tiles find
    /// their weights in the cache.
    Next,
}

impl Prefetch {
    /// Value of the tunable `prefetch` that stands for [`Prefetch::Next`].
    const NEXT: i64 = 1;

    /// Reads the kind of prefetch from the tunable `prefetch`.
    pub(crate) fn from_request(request: &Request<'_>) -> Result<Self, KernelError> {
        match request.tunable("prefetch")? {
            0 => Ok(Self::Nothing),
            Self::NEXT => Ok(Self::Next),
            _ => Ok(Self::Numbers(ahead::<f32>(request)?)),
        }
    }

    /// Returns the tunable `prefetch` of a layer with `weight_bytes` bytes of weights and `rows`
    /// output pixels.
    pub(crate) fn tunable(weight_bytes: usize, rows: usize) -> Tunable {
        let mut tunable = prefetch_tunable(weight_bytes);
        if tunable.values.len() > 1 && rows > 1 {
            tunable.about = "weights to fetch: 0 none, 1 those after these, else those so many bytes ahead";
            tunable.values.insert(1, Self::NEXT);
        }
        tunable
    }
}
