//! Convolution like a first implementation in C: plain loops, one sum at a time, over dense weights
//! or over the non-zero weights of a CSR row. It is no candidate of a search. The study of
//! techniques runs it to show how much a conclusion depends on the kernels.

use super::csr_naive::CsrMatrix;
use crate::conv::algorithm::{Algorithm, Call, Kernel, Request};
use crate::conv::support::buffer::Buffer;
use crate::conv::support::request::sensible;
use paretune_base::error::KernelError;
use paretune_base::plan::activation::Activation;
use paretune_base::plan::layout::Layout;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::{Schedule, Tunable};
use paretune_base::plan::weights::WeightFormat;
use paretune_base::registry::AlgorithmInfo;
use paretune_base::threads::Worker;
use paretune_simd::Isa;

/// Naive convolution over all weights, or over the non-zero ones only.
pub(crate) struct Naive {
    pub sparse: bool,
}

impl AlgorithmInfo for Naive {
    fn name(&self) -> &'static str {
        if self.sparse { "naive_csr" } else { "naive" }
    }

    fn about(&self) -> &'static str {
        if self.sparse {
            "plain loops over compressed rows"
        } else {
            "plain loops over all weights"
        }
    }

    fn executes(&self, format: WeightFormat) -> bool {
        format == WeightFormat::SPARSE_F32 || format == WeightFormat::F32 && !self.sparse
    }
}

impl Algorithm for Naive {
    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        sensible(problem)
    }

    fn tunables(&self, _problem: &ConvProblem, _isa: Isa) -> Vec<Tunable> {
        Vec::new()
    }

    fn layouts(&self, _schedule: &Schedule, _isa: Isa) -> [Layout; 2] {
        [Layout::Nchw; 2]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, _) = request.check()?;
        request.check_f32()?;
        let stored = request.f32_weights()?;
        let problem = request.problem;
        let [rows, columns] = problem.window.kernel;
        let depth = problem.group_in() * rows * columns;
        let entry = |k: usize, weight: f32| Entry {
            position: [k / (rows * columns), k / columns % rows, k % columns],
            weight,
        };
        let (weights, ends) = if self.sparse {
            let CsrMatrix { values, columns, ends } = CsrMatrix::of(request, stored)?;
            (
                columns
                    .iter()
                    .zip(values.iter())
                    .map(|(&k, &weight)| entry(k as usize, weight))
                    .collect(),
                ends,
            )
        } else {
            let count = problem.out_channels * depth;
            let weights =
                request.packing.numbers(count, |weights| weights.copy_from_slice(stored))?;
            let entries =
                weights.iter().enumerate().map(|(at, &weight)| entry(at % depth, weight)).collect();
            (entries, (1..=problem.out_channels).map(|channel| channel * depth).collect())
        };
        let bias = request.packed_biases()?;
        Ok(Box::new(Prepared {
            problem,
            output,
            weights,
            ends,
            bias,
            activation: request.activation,
        }))
    }
}

/// A weight with its input channel, tap row and tap column.
struct Entry {
    position: [usize; 3],
    weight: f32,
}

struct Prepared {
    problem: ConvProblem,
    output: [usize; 2],
    weights: Vec<Entry>,
    /// End of each output channel's weights.
    ends: Vec<usize>,
    bias: Buffer<f32>,
    activation: Activation,
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        0
    }

    fn weight_bytes(&self) -> usize {
        size_of_val(&self.weights[..]) + size_of_val(&self.ends[..]) + self.bias.bytes()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        let problem = &self.problem;
        let ([height, width], [out_height, out_width]) = (problem.input, self.output);
        let window = &problem.window;
        let input = call.input.cast::<f32>();
        // Returns the input position under a tap, or `None` for padding.
        let under = |axis: usize, at: usize, tap: usize| {
            (at * window.stride[axis] + tap * window.dilation[axis])
                .checked_sub(window.padding[axis])
                .filter(|&position| position < problem.input[axis])
        };
        for plane in worker.share(problem.batch * problem.out_channels) {
            let (image, channel) = (plane / problem.out_channels, plane % problem.out_channels);
            let first =
                image * problem.in_channels + channel / problem.group_out() * problem.group_in();
            let start = if channel == 0 { 0 } else { self.ends[channel - 1] };
            for y in 0..out_height {
                for x in 0..out_width {
                    let mut sum = self.bias[channel];
                    for Entry { position: [c, ky, kx], weight } in
                        &self.weights[start..self.ends[channel]]
                    {
                        if let (Some(row), Some(column)) = (under(0, y, *ky), under(1, x, *kx)) {
                            // SAFETY: channel, row and column lie inside the input.
                            sum += weight
                                * unsafe {
                                    *input.add(((first + c) * height + row) * width + column)
                                };
                        }
                    }
                    let at = (plane * out_height + y) * out_width + x;
                    // SAFETY: `at` lies inside the output, which the residual is as big as; workers
                    // have their own planes, and the caller vouches for the addresses.
                    unsafe {
                        if !call.residual.is_null() {
                            sum += *call.residual.cast::<f32>().add(at);
                        }
                        *call.output.cast::<f32>().add(at) = self.activation.apply(sum);
                    }
                }
            }
        }
    }
}
