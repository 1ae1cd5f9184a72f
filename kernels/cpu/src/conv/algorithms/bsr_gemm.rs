//! Block-sparse implicit GEMM in single precision over NHWC activations: weights are zero in blocks
//! of output channels, and each block of columns visits only its non-zero steps in k.

use crate::conv::algorithm::{Algorithm, Call, Kernel, Request};
use crate::conv::compressed::{
    CompressedGemm, F32, F32Store, GemmArgs, positions, reaches, tile_tunable,
};
use crate::conv::support::buffer::Buffer;
use crate::conv::support::epilogue::Epilogue;
use crate::conv::support::indirection::IndirectionBuffer;
use crate::conv::support::pad::pad_f32;
use crate::conv::support::request::{padded, sensible};
use crate::conv::support::split::{Split, panel_tunable, prefetch_tunable, split_tunable};
use crate::conv::support::tiles::Extent;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::plan::weights::{Pattern, WeightFormat};
use paretune_base::registry::AlgorithmInfo;
use paretune_base::threads::Worker;
use paretune_simd::Isa;

/// Implicit GEMM over BSR weights in single precision.
pub(crate) struct BsrGemm;

/// Number of input channels up to which a padded copy, which makes one run of each window, is the
/// default.
const FEW_CHANNELS: usize = 64;

/// Returns the elements per row and per pixel of the padded input.
fn strides(problem: &ConvProblem) -> [usize; 2] {
    [padded(problem)[1] * problem.in_channels, problem.in_channels]
}

impl AlgorithmInfo for BsrGemm {
    fn name(&self) -> &'static str {
        "bsr_gemm"
    }

    fn about(&self) -> &'static str {
        "matrix product over the blocks of output channels that are not zero"
    }

    fn executes(&self, format: WeightFormat) -> bool {
        format.numbers.is_real() && matches!(format.pattern, Pattern::Blocks { outputs: 4.., .. })
    }
}

impl Algorithm for BsrGemm {
    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        sensible(problem) && u16::try_from(problem.group_in()).is_ok()
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        let extent = Extent::of(problem);
        let taps = problem.taps();
        let whole = taps > 1 && reaches(problem, strides(problem));
        let free = problem.window.padding == [0; 4];
        // The tuner does not know the sparsity; half of the weights are assumed to be zero.
        let column = problem.group_in() * taps * size_of::<f32>() / 2;
        let [tile_m, tile_n] = tile_tunable::<F32>(extent, isa);
        let gathers = if whole { vec!["taps", "windows"] } else { vec!["taps"] };
        let gather =
            if whole && (free || problem.in_channels <= FEW_CHANNELS) { "windows" } else { "taps" };
        let about = "how the input is found: tap by tap, or whole windows, in a padded copy if \
             there is padding";
        vec![
            tile_m,
            tile_n,
            panel_tunable(extent, column, isa),
            prefetch_tunable(problem.out_channels * column),
            split_tunable(problem, extent, isa),
            Tunable::choice("gather", about, gathers, gather),
        ]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, token) = request.check()?;
        request.check_f32()?;
        let stored = request.f32_weights()?;
        let problem = request.problem;
        let tile = request.tile()?;
        let whole = match request.choice("gather")? {
            "taps" => None,
            "windows" if reaches(&problem, strides(&problem)) => Some(strides(&problem)),
            _ => return Err(request.bad_value("gather")),
        };
        let segments = positions(&problem, whole, 1);
        let (group_in, group_out) = (problem.group_in(), problem.group_out());
        let taps = problem.taps();
        let gemms = (0..problem.groups)
            .map(|group| {
                let first = group * group_out;
                let weight = |column: usize, tap: usize, channel: usize| {
                    stored[((first + column) * group_in + channel) * taps + tap]
                };
                let bias = |column| request.bias(first + column);
                CompressedGemm::new(
                    request,
                    token,
                    tile,
                    [group_out, group_in],
                    &segments,
                    weight,
                    bias,
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Box::new(Prepared {
            rows: match whole {
                Some(_) => IndirectionBuffer::windows(&problem, output, padded(&problem)),
                None => IndirectionBuffer::taps(&problem, output),
            },
            copies: whole.is_some() && problem.window.padding != [0; 4],
            zeros: Buffer::zeros(group_in),
            pixels: problem.batch * output[0] * output[1],
            panel: request.count("panel")?,
            split: Split::from_request(request)?,
            epilogue: Epilogue::new(request.activation),
            problem,
            gemms,
        }))
    }
}

struct Prepared {
    problem: ConvProblem,
    rows: IndirectionBuffer,
    /// Compressed weights of every group.
    gemms: Vec<CompressedGemm<F32>>,
    zeros: Buffer<f32>,
    pixels: usize,
    panel: usize,
    split: Split,
    /// Whether the input is first copied into the workspace together with its padding.
    copies: bool,
    epilogue: Epilogue,
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        if !self.copies {
            return 0;
        }
        self.problem.batch * padded(&self.problem)[0] * strides(&self.problem)[0] * size_of::<f32>()
    }

    fn weight_bytes(&self) -> usize {
        self.gemms.iter().map(CompressedGemm::bytes).sum()
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
        for (group, gemm) in self.gemms.iter().enumerate() {
            let column = group * self.problem.group_out();
            let residual = call.residual.cast::<f32>();
            // SAFETY: the caller vouches for the addresses; channels of a group lie within each
            // pixel, and workers have disjoint parts of the pixels or of the channels.
            unsafe {
                let args = GemmArgs {
                    rows: self.rows.view(),
                    input: input.add(group * self.problem.group_in()).cast(),
                    zeros: self.zeros.as_ptr().cast(),
                    store: F32Store {
                        output: call.output.cast::<f32>().add(column),
                        residual: if residual.is_null() { residual } else { residual.add(column) },
                        epilogue: self.epilogue,
                    },
                    stride: self.problem.out_channels,
                };
                for (pixels, blocks) in self.split.parts(worker, self.pixels, &gemm.part()) {
                    gemm.run(&args, pixels, blocks, self.panel);
                }
            }
        }
    }
}
