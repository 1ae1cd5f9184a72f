//! Sums and products of 8-bit values with different quantizations. Scales and zero points are
//! folded into one factor and one offset per operand, so that each result takes one or two fused
//! multiply-adds.
//!
//! For mixed element types, and for activations other than clamps, see [`super::pointwise_pair`].

use std::ops::Range;

use super::binary::Arithmetic;
use super::{Context, Io, OperatorKernel, as_images, entry_for};
use paretune_base::plan::Quantization;
use paretune_base::plan::activation::Activation;
use paretune_base::plan::layout::Layout;
use paretune_base::threads::Worker;
use paretune_simd::{Simd, SimdFn};

/// Elements per row of prepared factors and offsets: at least one vector of every instruction set.
const ROW: usize = 64;

/// Elements per unit of work.
const SHARE: usize = 1024;

/// Returns the bounds that `activation` clamps to, as quantized output values; `None` if
/// `activation` is more than a clamp.
fn limits(activation: Activation, grid: Quantization) -> Option<[f32; 2]> {
    let place = |x: f32| (x / grid.scale + f32::from(grid.zero_point)).clamp(0.0, 255.0);
    match activation {
        Activation::Identity => Some([0.0, 255.0]),
        Activation::Relu => Some([place(0.0), 255.0]),
        Activation::Clip { low, high } if low <= high => Some([place(low), place(high)]),
        _ => None,
    }
}

/// Builds `activation(a + b)` of `len` elements each, in one order, from the quantizations of a, b
/// and the output. The output may be an operand. `None` if `activation` is more than a clamp.
pub(super) fn sum(
    context: Context,
    len: usize,
    [a, b, output]: [Quantization; 3],
    activation: Activation,
) -> Option<Box<dyn OperatorKernel>> {
    let limits = limits(activation, output)?;
    let factors = [a.scale / output.scale, b.scale / output.scale];
    let zeros = factors[0] * f32::from(a.zero_point) + factors[1] * f32::from(b.zero_point);
    let sum = Sum { len, factors, offset: f32::from(output.zero_point) - zeros, limits };
    Some(Box::new(Prepared { work: sum, entry: entry_for::<SumPart>(context.isa) }))
}

/// Builds `activation(a op b)`, where b has one single-precision value per image and channel. `a`
/// is `[channels, pixels]` per image in `layout`; `[a, output]` are the quantizations. The output
/// may be `a`. `None` if `activation` is more than a clamp.
pub(super) fn per_channel(
    context: Context,
    arithmetic: Arithmetic,
    [channels, pixels]: [usize; 2],
    layout: Layout,
    [a, output]: [Quantization; 2],
    activation: Activation,
) -> Option<Box<dyn OperatorKernel>> {
    let limits = limits(activation, output)?;
    let (images, channels, layout) = as_images(context, channels, layout);
    let size = [images.batch, channels, pixels];
    let gate = Gate { size, planar: layout == Layout::Nchw, arithmetic, a, output, limits };
    Some(Box::new(Prepared { work: gate, entry: entry_for::<GatePart>(context.isa) }))
}

/// An operator over all elements, and the compiled entry point for a part of them.
struct Prepared<W, P> {
    work: W,
    entry: unsafe fn(&P),
}

#[derive(Clone, Copy)]
struct Sum {
    len: usize,
    /// Scale of each operand divided by the output's scale.
    factors: [f32; 2],
    /// Zero point of the output minus the scaled zero points of the operands.
    offset: f32,
    limits: [f32; 2],
}

/// Contiguous part of a sum.
struct SumPart {
    sum: Sum,
    inputs: [*const u8; 2],
    output: *mut u8,
    count: usize,
}

impl OperatorKernel for Prepared<Sum, SumPart> {
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let sum = self.work;
        let Range { start, end } = worker.share(sum.len.div_ceil(SHARE));
        let (start, end) = (start * SHARE, (end * SHARE).min(sum.len));
        if start < end {
            let inputs = [io.inputs[0].wrapping_add(start), io.inputs[1].wrapping_add(start)];
            let output = io.output.wrapping_add(start);
            // SAFETY: `end` is at most `len`, the number of elements of all three buffers, and
            // workers have different parts.
            unsafe { (self.entry)(&SumPart { sum, inputs, output, count: end - start }) };
        }
    }
}

impl SimdFn for SumPart {
    type Args<'a> = &'a SumPart;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, part: &SumPart) {
        let SumPart { sum, inputs: [a, b], output, count } = *part;
        // SAFETY: `at` and the lanes after it are less than `count`, for which the caller has bytes
        // at all three addresses. Each vector is read before it is written, so the output may be an
        // operand.
        unsafe {
            // No closures over vectors: a closure that is not inlined is not compiled for the
            // instruction set.
            let (p, q) = (simd.splat(sum.factors[0]), simd.splat(sum.factors[1]));
            let offset = simd.splat(sum.offset);
            let (low, high) = (simd.splat(sum.limits[0]), simd.splat(sum.limits[1]));
            let mut at = 0;
            while at + 2 * S::LANES <= count {
                let next = at + S::LANES;
                let (a0, a1) = (simd.load_u8(a.add(at)), simd.load_u8(a.add(next)));
                let (b0, b1) = (simd.load_u8(b.add(at)), simd.load_u8(b.add(next)));
                let first = cut(simd, simd.fma(a0, p, simd.fma(b0, q, offset)), low, high);
                let second = cut(simd, simd.fma(a1, p, simd.fma(b1, q, offset)), low, high);
                simd.store_u8_twice(output.add(at), first, second);
                at += 2 * S::LANES;
            }
            while at < count {
                let left = (count - at).min(S::LANES);
                let whole = left == S::LANES;
                let (from, to) = ((a.add(at), b.add(at)), output.add(at));
                let (x, y) = if whole {
                    (simd.load_u8(from.0), simd.load_u8(from.1))
                } else {
                    (simd.load_u8_partial(from.0, left), simd.load_u8_partial(from.1, left))
                };
                let result = cut(simd, simd.fma(x, p, simd.fma(y, q, offset)), low, high);
                if whole {
                    simd.store_u8(to, result);
                } else {
                    simd.store_u8_partial(to, left, result);
                }
                at += left;
            }
        }
    }
}

/// Clamps `x` to the bounds.
#[inline(always)]
fn cut<S: Simd>(simd: S, x: S::F32, low: S::F32, high: S::F32) -> S::F32 {
    simd.at_most(high, simd.at_least(low, x))
}

#[derive(Clone, Copy)]
struct Gate {
    /// Numbers of images, channels and pixels.
    size: [usize; 3],
    /// True for NCHW; false if the channels of a pixel are adjacent.
    planar: bool,
    arithmetic: Arithmetic,
    a: Quantization,
    output: Quantization,
    limits: [f32; 2],
}

impl Gate {
    /// Returns the factor and offset for elements combined with `b`.
    fn fold(&self, b: f32) -> [f32; 2] {
        let (step, zero) = (self.a.scale / self.output.scale, f32::from(self.a.zero_point));
        let (factor, more) = match self.arithmetic {
            Arithmetic::Mul => (step * b, 0.0),
            Arithmetic::Add => (step, b / self.output.scale),
        };
        [factor, f32::from(self.output.zero_point) + more - factor * zero]
    }
}

/// Rows of elements that share their factors and offsets.
struct GatePart {
    factors: [f32; ROW],
    offsets: [f32; ROW],
    limits: [f32; 2],
    input: *const u8,
    output: *mut u8,
    /// Elements per row, at most [`ROW`].
    width: usize,
    /// Distance in elements from one row to the next.
    stride: usize,
    rows: usize,
}

impl OperatorKernel for Prepared<Gate, GatePart> {
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let gate = self.work;
        let [images, channels, pixels] = gate.size;
        let b = io.inputs[1].cast::<f32>();
        let mut part = GatePart {
            factors: [0.0; ROW],
            offsets: [0.0; ROW],
            limits: gate.limits,
            input: std::ptr::null(),
            output: std::ptr::null_mut(),
            width: 0,
            stride: 0,
            rows: 0,
        };
        let run = |part: &mut GatePart, at: usize, [width, stride, rows]: [usize; 3]| {
            (part.width, part.stride, part.rows) = (width, stride, rows);
            (part.input, part.output) = (io.inputs[0].wrapping_add(at), io.output.wrapping_add(at));
            // SAFETY: all calls below pass rows that lie within the worker's planes or pixels, with
            // factors for `width <= ROW` elements.
            unsafe { (self.entry)(part) };
        };
        if gate.planar {
            for plane in worker.share(images * channels) {
                // SAFETY: there is a number of `b` for each plane.
                let [factor, offset] = gate.fold(unsafe { *b.add(plane) });
                (part.factors, part.offsets) = ([factor; ROW], [offset; ROW]);
                let whole = pixels / ROW;
                run(&mut part, plane * pixels, [ROW, ROW, whole]);
                run(&mut part, plane * pixels + whole * ROW, [pixels - whole * ROW, ROW, 1]);
            }
            return;
        }
        // If there are few channels, they are repeated so that several pixels make a row.
        let together = (ROW / channels.max(1)).max(1);
        let share = together * (SHARE / (channels * together).max(1)).max(1);
        let shares = pixels.div_ceil(share);
        let mine = worker.share(images * shares);
        for image in mine.start / shares.max(1)..mine.end.div_ceil(shares.max(1)) {
            let first = mine.start.saturating_sub(image * shares).min(shares) * share;
            let end = (mine.end.saturating_sub(image * shares).min(shares) * share).min(pixels);
            let start = image * pixels * channels;
            for channel in (0..channels).step_by(ROW) {
                let width = (channels - channel).min(ROW);
                for (at, (factor, offset)) in
                    part.factors.iter_mut().zip(&mut part.offsets).enumerate()
                {
                    // SAFETY: the remainder is below `width`, and `channel + width <= channels`.
                    let b = unsafe { *b.add(image * channels + channel + at % width) };
                    [*factor, *offset] = gate.fold(b);
                }
                let place = |pixel: usize| start + pixel * channels + channel;
                if together == 1 {
                    run(&mut part, place(first), [width, channels, end - first]);
                    continue;
                }
                let whole = (end - first) / together;
                let row = together * channels;
                run(&mut part, place(first), [row, row, whole]);
                let left = end - first - whole * together;
                run(&mut part, place(end - left), [left * channels, row, 1]);
            }
        }
    }
}

impl SimdFn for GatePart {
    type Args<'a> = &'a GatePart;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, part: &GatePart) {
        let width = part.width.min(ROW);
        let whole = width - width % S::LANES;
        // SAFETY: `at` and the lanes after it are less than `width`, which is at most `ROW`, the
        // length of factors and offsets; the caller has `width` bytes in every row. Each vector is
        // read before it is written, so the output may be the input.
        unsafe {
            let (low, high) = (simd.splat(part.limits[0]), simd.splat(part.limits[1]));
            let (factors, offsets) = (part.factors.as_ptr(), part.offsets.as_ptr());
            for row in 0..part.rows {
                let (from, to) =
                    (part.input.add(row * part.stride), part.output.add(row * part.stride));
                for at in (0..whole).step_by(S::LANES) {
                    let x = simd.load_u8(from.add(at));
                    let y = simd.fma(x, simd.load(factors.add(at)), simd.load(offsets.add(at)));
                    simd.store_u8(to.add(at), cut(simd, y, low, high));
                }
                if whole < width {
                    let left = width - whole;
                    let x = simd.load_u8_partial(from.add(whole), left);
                    let y =
                        simd.fma(x, simd.load(factors.add(whole)), simd.load(offsets.add(whole)));
                    simd.store_u8_partial(to.add(whole), left, cut(simd, y, low, high));
                }
            }
        }
    }
}
