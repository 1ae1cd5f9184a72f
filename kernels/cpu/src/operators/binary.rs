//! Functions of two operands with NumPy broadcasting, in place on an operand of the output's
//! shape if asked to.
//!
//! Adjacent axes with equal access patterns in both operands are merged first: equal shapes become
//! one long loop and per-channel factors one loop per row, in either layout.

use super::activation::CHUNK;
use super::elementary::power;
use super::reduce::{larger, smaller};
use super::{Context, Io, Loops, OperatorKernel, Physical, activate, on};
use paretune_base::plan::activation::Activation;
use paretune_base::plan::layout::Layout;
use paretune_base::plan::tensor::Binary;
use paretune_base::threads::Worker;

/// Arithmetic operation of a binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Sum, `a + b`
    Add,
    /// Product, `a * b`
    Mul,
}

/// Function of two operands that [`prepare`] accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Addition or multiplication of two numbers.
    Arithmetic(Arithmetic),
    /// Any other function of two numbers.
    Other(Binary),
}

/// Builds `activation(a op b)`. Operands and output are in `layout`, as far as it applies to their
/// shapes. The output may be an operand of the output's shape. The shapes must broadcast.
pub fn prepare(
    context: Context,
    function: Function,
    operands: [&[usize]; 2],
    output: &[usize],
    layout: Layout,
    activation: Activation,
) -> Box<dyn OperatorKernel> {
    let out = Physical::new(context.batch, output, layout);
    let strides =
        operands.map(|dims| broadcast_strides(context.batch, dims, output.len(), &out, layout));
    let axes = merge(&out.dims, &strides);
    let sizes = operands.map(|dims| context.batch * dims.iter().product::<usize>());
    on(context.isa, Broadcast { axes, len: out.len(), sizes, function, activation })
}

/// Size of a merged axis, and the stride of each operand along it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Number of positions along the axis.
    pub size: usize,
    /// Stride of each operand in elements.
    pub strides: [usize; 2],
}

struct Broadcast {
    /// Merged axes, outermost first; never empty.
    axes: Vec<Axis>,
    len: usize,
    sizes: [usize; 2],
    function: Function,
    activation: Activation,
}

/// Returns the strides of an operand along the memory axes of the output; 0 where it is broadcast.
pub fn broadcast_strides(
    batch: usize,
    dims: &[usize],
    rank: usize,
    out: &Physical,
    layout: Layout,
) -> Vec<usize> {
    // Missing leading axes have size 1 and do not change the order of elements.
    let mut aligned = vec![1; rank - dims.len()];
    aligned.extend_from_slice(dims);
    let physical = Physical::new(batch, &aligned, layout);
    let strides = physical.strides();
    let repeated = |at: usize| physical.dims[at] == 1 && out.dims[at] != 1;
    (0..out.dims.len()).map(|at| if repeated(at) { 0 } else { strides[at] }).collect()
}

/// Drops axes of size 1, and merges adjacent axes that are contiguous in both operands.
pub fn merge(dims: &[usize], strides: &[Vec<usize>; 2]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::new();
    for (at, &size) in dims.iter().enumerate() {
        if size == 1 {
            continue;
        }
        let here = Axis { size, strides: [strides[0][at], strides[1][at]] };
        match axes.last_mut() {
            Some(outer) if (0..2).all(|i| outer.strides[i] == here.strides[i] * size) => {
                *outer = Axis { size: outer.size * size, strides: here.strides };
            }
            _ => axes.push(here),
        }
    }
    if axes.is_empty() {
        axes.push(Axis { size: 1, strides: [0, 0] });
    }
    axes
}

impl Loops for Broadcast {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let Some((inner, outer)) = self.axes.split_last() else { return };
        let (a, b) = (io.inputs[0].cast::<f32>(), io.inputs[1].cast::<f32>());
        let output = io.output.cast::<f32>();
        // Contiguous parts of the output, split at chunk boundaries so that threads do not write
        // the same cache line.
        let chunks = worker.share(self.len.div_ceil(CHUNK));
        let (mut at, end) = (chunks.start * CHUNK, (chunks.end * CHUNK).min(self.len));
        while at < end {
            let column = at % inner.size;
            let [row_a, row_b] = offsets(outer, at / inner.size);
            let row_end = (at - column + inner.size).min(end);
            let mut column = column;
            while at < row_end {
                let len = CHUNK.min(row_end - at);
                let from = [row_a + column * inner.strides[0], row_b + column * inner.strides[1]];
                debug_assert!(from[0] + (len - 1) * inner.strides[0] < self.sizes[0]);
                debug_assert!(from[1] + (len - 1) * inner.strides[1] < self.sizes[1]);
                let mut numbers = [0.0_f32; CHUNK];
                // SAFETY: strides never lead beyond the operands they were derived from (asserted
                // above in debug builds), and `at + len` is within the output. `numbers` is our
                // own, so an operand may be the output: its numbers are read before they are
                // written.
                unsafe {
                    let (a, b) = (a.add(from[0]), b.add(from[1]));
                    match self.function {
                        Function::Arithmetic(Arithmetic::Add) => {
                            combine(&mut numbers[..len], a, b, inner.strides, |x, y| x + y)
                        }
                        Function::Arithmetic(Arithmetic::Mul) => {
                            combine(&mut numbers[..len], a, b, inner.strides, |x, y| x * y)
                        }
                        Function::Other(function) => {
                            other(&mut numbers[..len], a, b, inner.strides, function);
                        }
                    }
                    activate(self.activation, &mut numbers[..len]);
                    std::ptr::copy_nonoverlapping(numbers.as_ptr(), output.add(at), len);
                }
                at += len;
                column += len;
            }
        }
    }
}

/// Combines `numbers.len()` elements of `a` and `b` with `function`.
///
/// # Safety
/// The requirements of [`combine`].
#[inline(always)]
unsafe fn other(
    numbers: &mut [f32],
    a: *const f32,
    b: *const f32,
    strides: [usize; 2],
    function: Binary,
) {
    let truth = |holds: bool| if holds { 1.0 } else { 0.0 };
    // SAFETY: the requirements are those of `combine`.
    unsafe {
        match function {
            Binary::Subtract => combine(numbers, a, b, strides, |x, y| x - y),
            Binary::Divide => combine(numbers, a, b, strides, |x, y| x / y),
            Binary::Maximum => combine(numbers, a, b, strides, larger),
            Binary::Minimum => combine(numbers, a, b, strides, smaller),
            Binary::Power => combine(numbers, a, b, strides, power),
            Binary::PRelu => {
                combine(numbers, a, b, strides, |x, y| if x > 0.0 { x } else { x * y });
            }
            Binary::Remainder => combine(numbers, a, b, strides, |x, y| x % y),
            Binary::Less => combine(numbers, a, b, strides, |x, y| truth(x < y)),
            Binary::LessOrEqual => combine(numbers, a, b, strides, |x, y| truth(x <= y)),
            Binary::Equal => combine(numbers, a, b, strides, |x, y| truth(x == y)),
            Binary::And => combine(numbers, a, b, strides, |x, y| truth(x != 0.0 && y != 0.0)),
            Binary::Or => combine(numbers, a, b, strides, |x, y| truth(x != 0.0 || y != 0.0)),
            Binary::Xor => combine(numbers, a, b, strides, |x, y| truth((x != 0.0) != (y != 0.0))),
        }
    }
}

/// Returns the offset in each operand at which row `row` of the outer axes begins.
#[inline(always)]
fn offsets(outer: &[Axis], mut row: usize) -> [usize; 2] {
    let mut offsets = [0; 2];
    for axis in outer.iter().rev() {
        let index = row % axis.size;
        row /= axis.size;
        offsets[0] += index * axis.strides[0];
        offsets[1] += index * axis.strides[1];
    }
    offsets
}

/// Combines `numbers.len()` elements of `a` and `b` with `f`.
///
/// # Safety
/// `a` and `b` must be readable at the first `numbers.len()` multiples of their strides.
#[inline(always)]
unsafe fn combine(
    numbers: &mut [f32],
    a: *const f32,
    b: *const f32,
    strides: [usize; 2],
    f: impl Fn(f32, f32) -> f32,
) {
    // SAFETY: `i` is less than `numbers.len()`, and the caller has an element at each of the first
    // `numbers.len()` multiples of both strides. A stride of 0 always names the first element.
    unsafe {
        match strides {
            [1, 1] => {
                numbers.iter_mut().enumerate().for_each(|(i, out)| *out = f(*a.add(i), *b.add(i)))
            }
            [1, 0] => {
                let b = *b;
                numbers.iter_mut().enumerate().for_each(|(i, out)| *out = f(*a.add(i), b));
            }
            [0, 1] => {
                let a = *a;
                numbers.iter_mut().enumerate().for_each(|(i, out)| *out = f(a, *b.add(i)));
            }
            [s, t] => numbers
                .iter_mut()
                .enumerate()
                .for_each(|(i, out)| *out = f(*a.add(i * s), *b.add(i * t))),
        }
    }
}
