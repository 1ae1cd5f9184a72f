//! Implicit matrix product in bfloat16 over channels-last activations: twice the multiply-adds of single precision per
//! instruction, and half of its weights.
//!
//! Activations stay in single precision between layers. They are rounded once per layer, together with their padding, into
//! pairs that follow each other along the depth of the product; sums and everything after them are single precision.

use std::ops::Range;

use super::buffer::{Buffer, whole_lines};
use super::finish::Finish;
use super::gemm::{Place, Product};
use super::implicit_gemm::rows_of_taps_touch;
use super::pad::pad_bf16;
use super::request::{padded, sensible};
use super::rows::Rows;
use super::split::{Ahead, Split, panel_tunable, split_tunable};
use super::tiles::{Extent, Tile, real_tile_tunable};
use super::{Algorithm, Call, Kernel, Layout, Request};
use crate::error::KernelError;
use crate::hardware::Isa;
use crate::operator::{ConvProblem, Window};
use crate::schedule::Tunable;
use crate::team::Worker;
use crate::weights::{Numbers, WeightFormat};

/// The algorithm.
pub(super) struct ImplicitGemmBf16;

/// Products per step in depth.
const PAIR: usize = 2;

/// Steps in depth and their order: runs of numbers that lie together in the padded input, each padded to whole pairs.
struct Depth {
    /// Whether a run is a row of taps, else a tap.
    merge: bool,
    runs: usize,
    /// Numbers per run.
    run: usize,
}

impl Depth {
    fn of(problem: &ConvProblem) -> Self {
        let merge = rows_of_taps_touch(problem);
        let [rows, columns] = problem.window.kernel;
        if merge {
            Self { merge, runs: rows, run: columns * problem.group_in() }
        } else {
            Self { merge, runs: rows * columns, run: problem.group_in() }
        }
    }

    fn pairs(&self) -> usize {
        self.run.div_ceil(PAIR)
    }

    fn steps(&self) -> usize {
        self.runs * self.pairs()
    }
}

impl Algorithm for ImplicitGemmBf16 {
    fn name(&self) -> &'static str {
        "implicit_gemm_bf16"
    }

    fn about(&self) -> &'static str {
        "matrix product in bfloat16 over the taps of a channels-last input, in registers"
    }

    fn executes(&self, format: WeightFormat) -> bool {
        format.numbers == Numbers::Bf16
    }

    fn supports(&self, problem: &ConvProblem, isa: Isa) -> bool {
        // A channel by itself has nothing to pair.
        sensible(problem) && isa == Isa::Avx512Bf16 && !problem.is_depthwise()
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        let extent = Extent::of(problem);
        let column = Depth::of(problem).steps() * size_of::<f32>();
        vec![
            real_tile_tunable(extent, isa),
            panel_tunable(extent, column, isa),
            split_tunable(problem, extent, isa),
            Ahead::tunable(problem.out_channels * column, extent.rows),
        ]
    }

    fn layout(&self) -> Layout {
        Layout::ChannelsLast
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, usable) = request.check()?;
        request.check_f32()?;
        let problem = request.problem;
        let tile = Tile::from_value(request.tunable("tile")?, request.isa)
            .ok_or_else(|| request.bad_value("tile"))?;
        let stored = request.f32_weights()?;
        let (group_in, group_out) = (problem.group_in(), problem.group_out());
        let taps: usize = problem.window.kernel.iter().product();
        let depth = Depth::of(&problem);
        let padded_run = depth.pairs() * PAIR;
        let weight = |group: usize, k: usize, column: usize| {
            let (run, number) = (k / padded_run, k % padded_run);
            if number >= depth.run {
                return 0.0;
            }
            let k = run * depth.run + number;
            stored[((group * group_out + column) * group_in + k % group_in) * taps + k / group_in]
        };
        let bias = |group: usize, column: usize| request.bias(group * group_out + column);
        let sizes = [problem.groups, depth.steps(), group_out];
        let products = Product::of_pairs(usable, tile, sizes, weight, bias)
            .ok_or_else(|| KernelError::Data("this processor does not multiply bfloat16".into()))?;
        let size = padded(&problem);
        let unpadded =
            ConvProblem { input: size, window: Window { padding: [0; 4], ..problem.window }, ..problem };
        Ok(Box::new(Prepared {
            rows: if depth.merge {
                Rows::runs(&problem, output, size)
            } else {
                Rows::taps(&unpadded, output)
            },
            steps: depth.pairs(),
            pixels: problem.batch * output[0] * output[1],
            panel: request.count("panel")?,
            ahead: Ahead::from_request(request)?,
            split: Split::from_request(request)?,
            finish: Finish::new(request.activation),
            zeros: Buffer::zeros(padded_run),
            problem,
            products,
        }))
    }
}

struct Prepared {
    problem: ConvProblem,
    rows: Rows,
    /// One per group.
    products: Vec<Product>,
    /// Pairs per run.
    steps: usize,
    pixels: usize,
    panel: usize,
    ahead: Ahead,
    split: Split,
    finish: Finish,
    /// A run; the input carries its padding, so none is ever looked for.
    zeros: Buffer<f32>,
}

impl Prepared {
    fn rows(&self) -> Range<usize> {
        0..self.problem.batch * padded(&self.problem)[0]
    }
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        let numbers = self.rows().len() * padded(&self.problem)[1] * self.problem.in_channels;
        // The last pair of the last run may reach a number further.
        whole_lines((numbers + 1) * size_of::<u16>())
    }

    fn weight_bytes(&self) -> usize {
        self.products.iter().map(Product::bytes).sum()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        let copy = call.workspace.cast::<u16>();
        // SAFETY: the workspace has room for the padded input, and each row has one writer; there are products of pairs
        // only where the processor has BF16.
        unsafe {
            pad_bf16(&self.problem, worker.share(self.rows().len()), call.input.cast(), copy);
            if worker.index == 0 {
                let numbers = self.rows().len() * padded(&self.problem)[1] * self.problem.in_channels;
                *copy.add(numbers) = 0;
            }
        }
        worker.wait();
        let (group_in, group_out) = (self.problem.group_in(), self.problem.group_out());
        for (group, product) in self.products.iter().enumerate() {
            let column = group * group_out;
            let residual = call.residual.cast::<f32>();
            // SAFETY: the caller vouches for the addresses; channels of a group lie within each pixel,
            // and workers have disjoint parts of the pixels or of the channels.
            unsafe {
                let place = Place {
                    rows: self.rows.view(),
                    input: copy.cast_const().add(group * group_in).cast(),
                    zeros: self.zeros.as_ptr(),
                    run: self.steps,
                    output: call.output.cast::<f32>().add(column),
                    residual: if residual.is_null() { residual } else { residual.add(column) },
                    stride: self.problem.out_channels,
                    gap: 0,
                    ahead: self.ahead,
                    finish: self.finish,
                };
                for (pixels, blocks) in self.split.parts(worker, self.pixels, &product.part()) {
                    product.run(&place, pixels, blocks, self.panel);
                }
            }
        }
    }
}
