//! Taps of a window and the output pixels that find them in the input. All other products are with
//! padding and can be skipped. On small images that is a large part: 31 % of all products of a 3x3
//! window over 4x4 pixels, 56 % over 2x2.

use std::ops::Range;

use super::indirection::IndirectionBuffer;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;

/// One tap of a window.
pub struct Tap {
    /// Index of the tap in the window.
    pub number: usize,
    /// Output rows and columns that find the tap in the input.
    pub within: [Range<usize>; 2],
    /// Indirection buffer of the tap under these pixels of an image.
    pub rows: IndirectionBuffer,
}

/// Returns the taps that some pixel finds in the input, the last of which lies under all pixels.
/// `None` if no tap lies under all pixels, or if every tap does.
pub fn by_tap(problem: &ConvProblem, output: [usize; 2]) -> Option<Vec<Tap>> {
    let [height, width] = problem.window.kernel;
    let mut taps = Vec::with_capacity(height * width);
    for ky in 0..height {
        for kx in 0..width {
            let within = [inside(problem, 0, output[0], ky), inside(problem, 1, output[1], kx)];
            taps.push((ky * width + kx, [ky, kx], within));
        }
    }
    let everywhere = |within: &[Range<usize>; 2]| *within == [0..output[0], 0..output[1]];
    if taps.iter().all(|(.., within)| everywhere(within)) {
        return None;
    }
    let last = taps.remove(taps.iter().position(|(.., within)| everywhere(within))?);
    taps.retain(|(.., within)| within.iter().all(|range| !range.is_empty()));
    taps.push(last);
    let tap = |(number, tap, within): (usize, [usize; 2], [Range<usize>; 2])| Tap {
        number,
        rows: IndirectionBuffer::tap(problem, tap, &within),
        within,
    };
    Some(taps.into_iter().map(tap).collect())
}

/// Value of the tunable `order` with pixels as the outer loop.
pub(crate) const PIXELS_OUTER: &str = "pixels";
/// Value of the tunable `order` with taps as the outer loop.
pub(crate) const TAPS_OUTER: &str = "taps";

/// Returns the tunable `order`; `can` allows taps as the outer loop, `better` makes it the default.
pub(crate) fn order_tunable(can: bool, better: bool) -> Tunable {
    let names = if can { vec![PIXELS_OUTER, TAPS_OUTER] } else { vec![PIXELS_OUTER] };
    let default = if can && better { TAPS_OUTER } else { PIXELS_OUTER };
    Tunable::choice(
        "order",
        "outer loop: pixels, or taps without those in the padding",
        names,
        default,
    )
}

/// Returns the fraction of products of taps with pixels that do not involve padding.
pub fn useful(problem: &ConvProblem, output: [usize; 2]) -> f64 {
    let axis = |axis: usize| {
        let taps = problem.window.kernel[axis];
        let met: usize = (0..taps).map(|tap| inside(problem, axis, output[axis], tap).len()).sum();
        met as f64 / (taps * output[axis]).max(1) as f64
    };
    axis(0) * axis(1)
}

/// Returns the output positions along `axis` that find `tap` in the input.
fn inside(problem: &ConvProblem, axis: usize, outputs: usize, tap: usize) -> Range<usize> {
    let window = &problem.window;
    let (stride, padding) = (window.stride[axis], window.padding[axis]);
    let offset = tap * window.dilation[axis];
    let first = padding.saturating_sub(offset).div_ceil(stride).min(outputs);
    let end = (problem.input[axis] + padding).saturating_sub(offset).div_ceil(stride).min(outputs);
    first..end.max(first)
}
