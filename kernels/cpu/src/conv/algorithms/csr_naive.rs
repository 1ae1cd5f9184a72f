//! Sparse convolution in the format of the study that this project follows, with one CSR matrix per
//! layer instead of one per 3x3 kernel. Every non-zero weight adds a scaled row of the input to a
//! row of the output.
//!
//! The sums live in memory and not in registers; [`super::spmm_nchw`] avoids that.

use std::ops::Range;

use crate::conv::algorithm::{Algorithm, Call, Kernel, Request};
use crate::conv::support::buffer::Buffer;
use crate::conv::support::epilogue::Epilogue;
use crate::conv::support::packing::corrupt_index;
use crate::conv::support::request::sensible;
use paretune_base::error::KernelError;
use paretune_base::plan::layout::Layout;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::{Schedule, Tunable};
use paretune_base::plan::weights::WeightFormat;
use paretune_base::registry::AlgorithmInfo;
use paretune_base::threads::Worker;
use paretune_simd::Isa;
use paretune_simd::{Dispatch, Simd, SimdFn};

/// CSR convolution over NCHW activations.
pub(crate) struct CsrNaive;

impl AlgorithmInfo for CsrNaive {
    fn name(&self) -> &'static str {
        "csr_naive"
    }

    fn about(&self) -> &'static str {
        "compressed rows: each non-zero weight scales rows of the input (the study's format)"
    }

    fn executes(&self, format: WeightFormat) -> bool {
        format == WeightFormat::SPARSE_F32
    }
}

impl Algorithm for CsrNaive {
    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        let depth = problem.taps().checked_mul(problem.in_channels);
        sensible(problem) && depth.is_some_and(|depth| u32::try_from(depth).is_ok())
    }

    fn tunables(&self, _problem: &ConvProblem, _isa: Isa) -> Vec<Tunable> {
        Vec::new()
    }

    fn layouts(&self, _schedule: &Schedule, _isa: Isa) -> [Layout; 2] {
        [Layout::Nchw; 2]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, token) = request.check()?;
        request.check_f32()?;
        let stored = request.f32_weights()?;
        let problem = request.problem;
        let rows = CsrMatrix::of(request, stored)?;
        let depth = problem.depth();
        let taps = problem.window.kernel[0] * problem.window.kernel[1];
        let place = |k: usize| {
            let tap = k % taps;
            [k / taps, tap / problem.window.kernel[1], tap % problem.window.kernel[1]]
        };
        Ok(Box::new(Prepared {
            places: (0..depth).map(place).collect(),
            bias: request.packed_biases()?,
            epilogue: Epilogue::new(request.activation),
            entry: token.f32().pointer::<Run<'_>>(),
            problem,
            output,
            rows,
        }))
    }
}

/// Non-zero weights, grouped by output channel.
pub(crate) struct CsrMatrix {
    pub(crate) values: Buffer<f32>,
    /// Flat index of each weight in its output channel's `[input channel of the group][tap]`.
    pub(crate) columns: Vec<u32>,
    /// End of each output channel's weights.
    pub(crate) ends: Vec<usize>,
}

impl CsrMatrix {
    /// Collects the non-zero weights of `stored`, or takes them from the request's packing.
    ///
    /// # Errors
    /// Fails if a channel has too many weights, or if packed weights do not belong to the problem.
    pub(crate) fn of(request: &Request<'_>, stored: &[f32]) -> Result<Self, KernelError> {
        let problem = &request.problem;
        let depth = problem.depth();
        let many = |_| KernelError::Data(format!("{problem:?} has too many weights per channel"));
        let packing = request.packing;
        let (values, columns, counts) = packing.make(|| {
            let (mut values, mut columns, mut counts) = (Vec::new(), Vec::new(), Vec::new());
            for row in stored.chunks_exact(depth) {
                let before = values.len();
                for (k, &weight) in row.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
                    values.push(weight);
                    columns.push(u32::try_from(k).map_err(many)?);
                }
                counts.push(u32::try_from(values.len() - before).map_err(many)?);
            }
            Ok((values, columns, counts))
        })?;
        let (values, columns) = (packing.list(values)?, packing.table::<u32>(columns)?);
        let ends = ends(&packing.table(counts)?).ok_or_else(corrupt_index)?;
        let sound = ends.len() == problem.out_channels
            && ends.last() == Some(&columns.len())
            && values.len() == columns.len()
            && columns.iter().all(|&column| (column as usize) < depth);
        if sound { Ok(Self { values, columns, ends }) } else { Err(corrupt_index()) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.values.bytes() + size_of_val(&self.columns[..]) + size_of_val(&self.ends[..])
    }
}

/// Returns the running totals of `counts`, which are the ends of consecutive ranges; `None` on
/// overflow.
pub(crate) fn ends(counts: &[u32]) -> Option<Vec<usize>> {
    let mut end = 0_usize;
    counts
        .iter()
        .map(|&count| {
            end = end.checked_add(count as usize)?;
            Some(end)
        })
        .collect()
}

struct Prepared {
    problem: ConvProblem,
    output: [usize; 2],
    rows: CsrMatrix,
    /// `[input channel of the group, tap row, tap column]` of every column of the matrix, computed
    /// once in advance.
    places: Vec<[usize; 3]>,
    bias: Buffer<f32>,
    epilogue: Epilogue,
    entry: Entry,
}

/// Computes a range of output planes, counted through images.
///
/// # Safety
/// The call's addresses must be valid, and no other thread may write the planes.
type Entry = unsafe fn(Run<'_>);

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        0
    }

    fn weight_bytes(&self) -> usize {
        self.rows.bytes() + size_of_val(&self.places[..]) + self.bias.bytes()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        let planes = worker.share(self.problem.batch * self.problem.out_channels);
        // SAFETY: the caller vouches for the addresses; workers have their own planes.
        unsafe { (self.entry)(Run { kernel: self, call, planes }) }
    }
}

struct Run<'a> {
    kernel: &'a Prepared,
    call: &'a Call,
    planes: Range<usize>,
}

impl SimdFn for Run<'_> {
    type Args<'a> = Run<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, run: Run<'_>) {
        let kernel = run.kernel;
        let problem = &kernel.problem;
        let CsrMatrix { values, columns, ends } = &kernel.rows;
        let [height, width] = problem.input;
        let [out_height, out_width] = kernel.output;
        for plane in run.planes {
            let (image, channel) = (plane / problem.out_channels, plane % problem.out_channels);
            let first =
                image * problem.in_channels + channel / problem.group_out() * problem.group_in();
            let start = if channel == 0 { 0 } else { ends[channel - 1] };
            for y in 0..out_height {
                // SAFETY: `y` and `x` are less than the output's height and width, `input_y` is
                // less than the input's height, and partial vectors end with the row.
                unsafe {
                    let at = (plane * out_height + y) * out_width;
                    let row = run.call.output.cast::<f32>().add(at);
                    for x in 0..out_width {
                        *row.add(x) = kernel.bias[channel];
                    }
                    for i in start..ends[channel] {
                        let [c, ky, kx] = kernel.places[columns[i] as usize];
                        let Some(input_y) = (y * problem.window.stride[0]
                            + ky * problem.window.dilation[0])
                            .checked_sub(problem.window.padding[0])
                            .filter(|&y| y < height)
                        else {
                            continue;
                        };
                        let input = run
                            .call
                            .input
                            .cast::<f32>()
                            .add(((first + c) * height + input_y) * width);
                        kernel.add_row(simd, input, kx, values[i], row);
                    }
                    let mut x = 0;
                    let residual = run.call.residual.cast::<f32>();
                    while x < out_width {
                        let count = S::LANES.min(out_width - x);
                        let load = |from: *const f32| {
                            if count < S::LANES {
                                simd.load_partial(from, count)
                            } else {
                                simd.load(from)
                            }
                        };
                        let mut sum = load(row.add(x).cast_const());
                        if !residual.is_null() {
                            sum = simd.add(sum, load(residual.add(at + x)));
                        }
                        let sum = kernel.epilogue.apply(simd, sum);
                        if count < S::LANES {
                            simd.store_partial(row.add(x), count, sum);
                        } else {
                            simd.store(row.add(x), sum);
                        }
                        x += count;
                    }
                }
            }
        }
    }
}

impl Prepared {
    /// Adds `weight` times the input elements under tap column `kx` to a row of the output.
    ///
    /// # Safety
    /// `input` must be the row of the input under tap row `ky`, and `output` a row of the output.
    #[inline(always)]
    unsafe fn add_row<S: Simd>(
        &self,
        simd: S,
        input: *const f32,
        kx: usize,
        weight: f32,
        output: *mut f32,
    ) {
        let stride = self.problem.window.stride[1];
        let left = self.problem.window.padding[1];
        let tap = kx * self.problem.window.dilation[1];
        // Output columns for which this tap lies inside the input.
        let start = left.saturating_sub(tap).div_ceil(stride);
        let end =
            (left + self.problem.input[1]).saturating_sub(tap).div_ceil(stride).min(self.output[1]);
        // SAFETY: `x * stride + tap - left` is below the input's width for every `x` of
        // `start..end`.
        unsafe {
            let mut x = start;
            if stride == 1 {
                let splat = simd.splat(weight);
                while x + S::LANES <= end {
                    let sum = simd.fma(
                        splat,
                        simd.load(input.add(x + tap - left)),
                        simd.load(output.add(x)),
                    );
                    simd.store(output.add(x), sum);
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
