//! Convolution as a first implementation in C has it: plain loops, one sum at a time, dense or over the non-zeros of a
//! compressed row. No search wants it; the study of techniques runs it to show how much a conclusion depends on kernels.

use super::request::sensible;
use super::{Algorithm, Call, Kernel, Layout, Request};
use crate::activation::Activation;
use crate::error::KernelError;
use crate::hardware::Isa;
use crate::operator::ConvProblem;
use crate::schedule::Tunable;
use crate::team::Worker;
use crate::weights::WeightFormat;

/// Every weight, or only those that are not zero.
pub(super) struct Naive {
    pub sparse: bool,
}

impl Algorithm for Naive {
    fn name(&self) -> &'static str {
        if self.sparse { "naive_csr" } else { "naive" }
    }

    fn about(&self) -> &'static str {
        if self.sparse { "plain loops over compressed rows" } else { "plain loops over all weights" }
    }

    fn executes(&self, format: WeightFormat) -> bool {
        format == WeightFormat::SPARSE_F32 || format == WeightFormat::F32 && !self.sparse
    }

    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        sensible(problem)
    }

    fn tunables(&self, _problem: &ConvProblem, _isa: Isa) -> Vec<Tunable> {
        Vec::new()
    }

    fn layout(&self) -> Layout {
        Layout::Planar
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, _) = request.check()?;
        request.check_f32()?;
        let stored = request.f32_weights()?;
        let problem = request.problem;
        let depth = stored.len() / problem.out_channels;
        let [rows, columns] = problem.window.kernel;
        let (mut weights, mut ends) = (Vec::new(), Vec::with_capacity(problem.out_channels));
        for row in stored.chunks_exact(depth.max(1)) {
            for (k, &weight) in row.iter().enumerate() {
                if !self.sparse || weight != 0.0 {
                    let position = [k / (rows * columns), k / columns % rows, k % columns];
                    weights.push(Entry { position, weight });
                }
            }
            ends.push(weights.len());
        }
        let bias = (0..problem.out_channels).map(|channel| request.bias(channel)).collect();
        Ok(Box::new(Prepared { problem, output, weights, ends, bias, activation: request.activation }))
    }
}

/// A weight with its input channel, row and column.
struct Entry {
    position: [usize; 3],
    weight: f32,
}

struct Prepared {
    problem: ConvProblem,
    output: [usize; 2],
    weights: Vec<Entry>,
    /// Where each output channel's weights end.
    ends: Vec<usize>,
    bias: Vec<f32>,
    activation: Activation,
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        0
    }

    fn weight_bytes(&self) -> usize {
        size_of_val(&self.weights[..]) + size_of_val(&self.ends[..]) + size_of_val(&self.bias[..])
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        let problem = &self.problem;
        let ([height, width], [out_height, out_width]) = (problem.input, self.output);
        let window = &problem.window;
        let input = call.input.cast::<f32>();
        // The position under a tap, unless that is padding.
        let under = |axis: usize, at: usize, tap: usize| {
            (at * window.stride[axis] + tap * window.dilation[axis])
                .checked_sub(window.padding[axis])
                .filter(|&position| position < problem.input[axis])
        };
        for plane in worker.share(problem.batch * problem.out_channels) {
            let (image, channel) = (plane / problem.out_channels, plane % problem.out_channels);
            let first = image * problem.in_channels + channel / problem.group_out() * problem.group_in();
            let start = if channel == 0 { 0 } else { self.ends[channel - 1] };
            for y in 0..out_height {
                for x in 0..out_width {
                    let mut sum = self.bias[channel];
                    for Entry { position: [c, ky, kx], weight } in &self.weights[start..self.ends[channel]] {
                        if let (Some(row), Some(column)) = (under(0, y, *ky), under(1, x, *kx)) {
                            // SAFETY: channel, row and column lie inside the input.
                            sum +=
                                weight * unsafe { *input.add(((first + c) * height + row) * width + column) };
                        }
                    }
                    let at = (plane * out_height + y) * out_width + x;
                    // SAFETY: `at` lies inside the output, which the residual is as big as; workers have their own
                    // planes, and the caller vouches for the addresses.
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
