//! Parts that the depthwise algorithms over NHWC activations share: tunables, division among
//! threads, and passes.

use std::ops::Range;

use super::split::grain;
use crate::conv::algorithm::{Call, Request};
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::threads::{Part, Worker};

/// Approximate time of a multiply-add here relative to one in a GEMM.
const SLOWER: usize = 4;

/// Number of output rows below which threads partition the channels by default.
const FEW_ROWS: usize = 8;

/// Returns the tunables of both depthwise algorithms, which compute `at_a_time` channels together.
pub(crate) fn tunables(problem: &ConvProblem, at_a_time: usize) -> Vec<Tunable> {
    let [height, width] = problem.output().unwrap_or([1, 1]);
    let pixels: Vec<usize> = [1, 2, 4].into_iter().filter(|&pixels| pixels <= width).collect();
    let most = pixels.last().copied().unwrap_or(1);
    let axes =
        if problem.in_channels > at_a_time { vec!["rows", "channels"] } else { vec!["rows"] };
    let axis =
        if problem.batch * height < FEW_ROWS && axes.len() > 1 { "channels" } else { "rows" };
    vec![
        Tunable::sizes("pixels", "neighboring output pixels computed in one pass", pixels, most),
        Tunable::choice("parallel_axis", "what threads share: output rows or channels", axes, axis),
    ]
}

/// Returns this thread's parts of an output of this height and width: rows (counted through images)
/// times channels (in units of `block`).
pub(crate) fn parts<'a>(
    worker: &'a Worker<'_>,
    by_channels: bool,
    problem: &ConvProblem,
    [height, width]: [usize; 2],
    block: usize,
) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + use<'a> {
    let (rows, channels) = (problem.batch * height, problem.in_channels);
    let taps = problem.taps();
    let row = SLOWER * width * channels * taps;
    let blocks = channels.div_ceil(block).max(1);
    let (total, grain) =
        if by_channels { (blocks, grain(rows * row / blocks, 1)) } else { (rows, grain(row, 1)) };
    worker.parts(total, grain).map(move |Part { units: part, .. }| {
        if by_channels {
            (0..rows, (part.start * block).min(channels)..(part.end * block).min(channels))
        } else {
            (part, 0..channels)
        }
    })
}

/// Reads from the tunable `parallel_axis` whether threads share the channels instead of the rows.
pub(crate) fn shares_channels(request: &Request<'_>) -> Result<bool, KernelError> {
    match request.choice("parallel_axis")? {
        "rows" => Ok(false),
        "channels" => Ok(true),
        _ => Err(request.bad_value("parallel_axis")),
    }
}

/// Output rows and channels that one call of a kernel of type `K` computes from inputs of type `T`.
pub(crate) struct Pass<'a, K, T> {
    pub(crate) kernel: &'a K,
    pub(crate) call: Call,
    /// Range of output rows, counted through images.
    pub(crate) rows: Range<usize>,
    /// Range of channels, in whole vectors except at the end.
    pub(crate) channels: Range<usize>,
    /// Table of the addresses of inputs, which belongs to the thread.
    pub(crate) addresses: *mut *const T,
}

/// Computes a [`Pass`].
///
/// # Safety
/// The addresses in the pass must be valid, and no other thread may write its part of the output.
pub(crate) type Entry<K, T> = unsafe fn(&Pass<'_, K, T>);
