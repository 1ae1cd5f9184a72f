//! Sparse convolution as the study did it, with one compressed-row matrix for the whole layer instead
//! of one per 3x3 kernel: every non-zero adds a scaled row of the input to a row of the output.
//!
//! Sums live in memory, not in registers; [`super::sparse_planar`] is the answer to that.

use std::ops::Range;

use super::finish::Finish;
use super::request::sensible;
use super::{Algorithm, Call, Kernel, Layout, Request};
use crate::error::KernelError;
use crate::hardware::Isa;
use crate::operator::ConvProblem;
use crate::schedule::Tunable;
use crate::simd::{Build, Job, Simd, build};
use crate::team::Worker;
use crate::weights::WeightFormat;

/// The algorithm.
pub(super) struct Csr;

impl Algorithm for Csr {
    fn name(&self) -> &'static str {
        "csr"
    }

    fn about(&self) -> &'static str {
        "compressed rows: each non-zero weight scales rows of the input (the study's format)"
    }

    fn executes(&self, format: WeightFormat) -> bool {
        format == WeightFormat::SPARSE_F32
    }

    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        let depth = problem.window.kernel.iter().product::<usize>().checked_mul(problem.in_channels);
        sensible(problem) && depth.is_some_and(|depth| u32::try_from(depth).is_ok())
    }

    fn tunables(&self, _problem: &ConvProblem, _isa: Isa) -> Vec<Tunable> {
        Vec::new()
    }

    fn layout(&self) -> Layout {
        Layout::Planar
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        struct Select;
        impl Build for Select {
            type Output = Entry;
            fn build<S: Simd>(self) -> Entry {
                entry::<S>
            }
        }
        let (output, usable) = request.check()?;
        request.check_f32()?;
        let stored = request.f32_weights()?;
        let problem = request.problem;
        let depth = stored.len() / problem.out_channels;
        let (mut values, mut columns, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for channel in 0..problem.out_channels {
            for (k, &weight) in stored[channel * depth..][..depth].iter().enumerate() {
                if weight != 0.0 {
                    values.push(weight);
                    columns.push(u32::try_from(k).map_err(|_| {
                        KernelError::Data(format!("{problem:?} has too many weights per channel"))
                    })?);
                }
            }
            ends.push(values.len());
        }
        let taps = problem.window.kernel[0] * problem.window.kernel[1];
        let place = |k: usize| {
            let tap = k % taps;
            [k / taps, tap / problem.window.kernel[1], tap % problem.window.kernel[1]]
        };
        Ok(Box::new(Prepared {
            places: (0..depth).map(place).collect(),
            bias: (0..problem.out_channels).map(|channel| request.bias(channel)).collect(),
            finish: Finish::new(request.activation),
            entry: build(usable, Select),
            problem,
            output,
            values,
            columns,
            ends,
        }))
    }
}

struct Prepared {
    problem: ConvProblem,
    output: [usize; 2],
    values: Vec<f32>,
    /// Input channel of the group and tap, as in the stored weights.
    columns: Vec<u32>,
    /// Of every column: input channel of the group, row and column of the tap. Found once, not at every use.
    places: Vec<[usize; 3]>,
    /// Where each output channel's end.
    ends: Vec<usize>,
    bias: Vec<f32>,
    finish: Finish,
    entry: Entry,
}

/// Computes planes (counted through images).
///
/// # Safety
/// The call's addresses are valid and nobody else writes these planes.
type Entry = unsafe fn(&Prepared, &Call, Range<usize>);

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        0
    }

    fn weight_bytes(&self) -> usize {
        size_of_val(&self.values[..])
            + size_of_val(&self.columns[..])
            + size_of_val(&self.places[..])
            + size_of_val(&self.ends[..])
            + size_of_val(&self.bias[..])
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        let planes = worker.share(self.problem.batch * self.problem.out_channels);
        // SAFETY: the caller vouches for the addresses; workers have their own planes.
        unsafe { (self.entry)(self, call, planes) }
    }
}

/// # Safety
/// As for [`Entry`], and the processor executes `S`.
unsafe fn entry<S: Simd>(kernel: &Prepared, call: &Call, planes: Range<usize>) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Run { kernel, call, planes }) }
}

struct Run<'a> {
    kernel: &'a Prepared,
    call: &'a Call,
    planes: Range<usize>,
}

impl Job for Run<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let kernel = self.kernel;
        let problem = &kernel.problem;
        let [height, width] = problem.input;
        let [out_height, out_width] = kernel.output;
        for plane in self.planes {
            let (image, channel) = (plane / problem.out_channels, plane % problem.out_channels);
            let first = image * problem.in_channels + channel / problem.group_out() * problem.group_in();
            let start = if channel == 0 { 0 } else { kernel.ends[channel - 1] };
            for y in 0..out_height {
                // SAFETY: rows and columns are checked against the sizes of input and output.
                unsafe {
                    let at = (plane * out_height + y) * out_width;
                    let row = self.call.output.cast::<f32>().add(at);
                    for x in 0..out_width {
                        *row.add(x) = kernel.bias[channel];
                    }
                    for i in start..kernel.ends[channel] {
                        let [c, ky, kx] = kernel.places[kernel.columns[i] as usize];
                        let Some(input_y) = (y * problem.window.stride[0] + ky * problem.window.dilation[0])
                            .checked_sub(problem.window.padding[0])
                            .filter(|&y| y < height)
                        else {
                            continue;
                        };
                        let input =
                            self.call.input.cast::<f32>().add(((first + c) * height + input_y) * width);
                        kernel.add_row::<S>(input, kx, kernel.values[i], row);
                    }
                    let mut x = 0;
                    let residual = self.call.residual.cast::<f32>();
                    while x < out_width {
                        let count = S::LANES.min(out_width - x);
                        let load = |from: *const f32| {
                            if count < S::LANES { S::load_first(from, count) } else { S::load(from) }
                        };
                        let mut sum = load(row.add(x).cast_const());
                        if !residual.is_null() {
                            sum = S::add(sum, load(residual.add(at + x)));
                        }
                        let sum = kernel.finish.apply::<S>(sum);
                        if count < S::LANES {
                            S::store_first(row.add(x), count, sum);
                        } else {
                            S::store(row.add(x), sum);
                        }
                        x += count;
                    }
                }
            }
        }
    }
}

impl Prepared {
    /// Adds `weight` times what tap column `kx` sees of a row of the input to a row of the output.
    ///
    /// # Safety
    /// Both rows are valid, and the processor executes `S`.
    #[inline(always)]
    unsafe fn add_row<S: Simd>(&self, input: *const f32, kx: usize, weight: f32, output: *mut f32) {
        let stride = self.problem.window.stride[1];
        let left = self.problem.window.padding[1];
        let tap = kx * self.problem.window.dilation[1];
        // The output columns whose input under this tap is no padding.
        let start = left.saturating_sub(tap).div_ceil(stride);
        let end = (left + self.problem.input[1]).saturating_sub(tap).div_ceil(stride).min(self.output[1]);
        // SAFETY: `x * stride + tap - left` is below the input's width for every `x` of `start..end`.
        unsafe {
            let mut x = start;
            if stride == 1 {
                let splat = S::splat(weight);
                while x + S::LANES <= end {
                    let sum = S::fma(splat, S::load(input.add(x + tap - left)), S::load(output.add(x)));
                    S::store(output.add(x), sum);
                    x += S::LANES;
                }
            }
            while x < end {
                *output.add(x) += weight * *input.add(x * stride + tap - left);
                x += 1;
            }
        }
    }
}
