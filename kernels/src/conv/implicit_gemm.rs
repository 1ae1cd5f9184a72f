//! Implicit matrix product over channels-last activations: the workhorse.
//!
//! No patch matrix is ever written: microkernels read runs of input channels where [`Rows`] says that
//! they are. Where neighboring taps touch (one group, no horizontal dilation) an input that carries its
//! padding makes whole rows of taps one run, which matters for few channels: the tunable `gather`.

use super::buffer::Buffer;
use super::finish::Finish;
use super::gemm::{Place, Product};
use super::pad::pad_f32;
use super::request::{padded, sensible};
use super::rows::Rows;
use super::split::{Split, ahead, panel_tunable, prefetch_tunable, split_tunable};
use super::tiles::{Extent, Tile, tile_tunable};
use super::{Algorithm, Call, Kernel, Layout, Request};
use crate::error::KernelError;
use crate::hardware::Isa;
use crate::operator::ConvProblem;
use crate::schedule::Tunable;
use crate::team::Worker;
use crate::weights::{Numbers, WeightFormat};

/// The algorithm.
pub(super) struct ImplicitGemm;

/// Bytes of a run below which whole rows of taps are worth a copy of the input.
const SHORT_RUN: usize = 64;

/// Whether a row of taps can be one run.
pub(super) fn rows_of_taps_touch(problem: &ConvProblem) -> bool {
    problem.groups == 1 && problem.window.dilation[1] == 1 && problem.window.kernel[1] > 1
}

/// The tunable `gather`; `short` is the number of channels below which copying is the better guess.
pub(super) fn gather_tunable(problem: &ConvProblem, short: usize) -> Tunable {
    let touch = rows_of_taps_touch(problem);
    let free = problem.window.padding == [0; 4];
    Tunable {
        name: "gather",
        about: "0: find the input tap by tap; 1: whole rows of taps, in a padded copy if there is padding",
        values: if touch { vec![0, 1] } else { vec![0] },
        default: i64::from(touch && (free || problem.in_channels < short)),
    }
}

impl Algorithm for ImplicitGemm {
    fn name(&self) -> &'static str {
        "implicit_gemm"
    }

    fn about(&self) -> &'static str {
        "matrix product over the taps of a channels-last input, in registers"
    }

    fn executes(&self, format: WeightFormat) -> bool {
        format.numbers == Numbers::F32
    }

    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        sensible(problem)
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        let extent = Extent::of(problem);
        let depth = problem.group_in() * problem.window.kernel.iter().product::<usize>();
        vec![
            tile_tunable(extent, isa),
            panel_tunable(extent, depth * size_of::<f32>(), isa),
            split_tunable(problem, extent, isa),
            prefetch_tunable(problem.out_channels * depth * size_of::<f32>()),
            gather_tunable(problem, SHORT_RUN / size_of::<f32>()),
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
        let products = Product::of_groups(request, usable, tile)?;
        let group_in = problem.group_in();
        let merge = match request.tunable("gather")? {
            0 => false,
            1 if rows_of_taps_touch(&problem) => true,
            _ => return Err(request.bad_value("gather")),
        };
        let rows =
            if merge { Rows::runs(&problem, output, padded(&problem)) } else { Rows::taps(&problem, output) };
        Ok(Box::new(Prepared {
            copies: merge && problem.window.padding != [0; 4],
            run: if merge { problem.window.kernel[1] * group_in } else { group_in },
            zeros: Buffer::zeros(group_in),
            pixels: problem.batch * output[0] * output[1],
            panel: request.count("panel")?,
            ahead: ahead::<f32>(request)?,
            split: Split::from_request(request)?,
            finish: Finish::new(request.activation),
            problem,
            rows,
            products,
        }))
    }
}

struct Prepared {
    problem: ConvProblem,
    rows: Rows,
    /// One per group.
    products: Vec<Product>,
    zeros: Buffer<f32>,
    run: usize,
    pixels: usize,
    panel: usize,
    /// How many numbers ahead weights are fetched.
    ahead: usize,
    split: Split,
    /// Whether the input is first copied into the workspace, with its padding.
    copies: bool,
    finish: Finish,
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        if !self.copies {
            return 0;
        }
        let [height, width] = padded(&self.problem);
        self.problem.batch * height * width * self.problem.in_channels * size_of::<f32>()
    }

    fn weight_bytes(&self) -> usize {
        self.products.iter().map(Product::bytes).sum()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        let mut input = call.input.cast::<f32>();
        if self.copies {
            let rows = worker.share(self.problem.batch * padded(&self.problem)[0]);
            // SAFETY: the workspace has room for the padded input, and each row has one writer.
            unsafe { pad_f32(&self.problem, rows, input, call.workspace.cast()) };
            worker.wait();
            input = call.workspace.cast_const().cast();
        }
        let (group_in, group_out) = (self.problem.group_in(), self.problem.group_out());
        for (group, product) in self.products.iter().enumerate() {
            let (pixels, blocks) = self.split.of(worker, self.pixels, product.blocks());
            let column = group * group_out;
            let residual = call.residual.cast::<f32>();
            // SAFETY: the caller vouches for the addresses; channels of a group lie within each pixel,
            // and workers have disjoint parts of the pixels or of the channels.
            unsafe {
                let place = Place {
                    rows: self.rows.view(),
                    input: input.add(group * group_in),
                    zeros: self.zeros.as_ptr(),
                    run: self.run,
                    output: call.output.cast::<f32>().add(column),
                    residual: if residual.is_null() { residual } else { residual.add(column) },
                    stride: self.problem.out_channels,
                    ahead: self.ahead,
                    finish: self.finish,
                };
                product.run(&place, pixels, blocks, self.panel);
            }
        }
    }
}
