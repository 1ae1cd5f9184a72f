//! Explicit GEMM: the patches under all output pixels are written as a matrix (im2col) and
//! multiplied.
//!
//! Most early frameworks and the study that this project follows work this way. It costs memory and
//! bandwidth that [`super::implicit_gemm`] saves. It is kept as the baseline, and because long rows
//! sometimes win.

use crate::conv::algorithm::{Algorithm, Call, Kernel, Request};
use crate::conv::gemm_f32::{GemmArgs, PackedGemm, WeightStorage};
use crate::conv::support::buffer::Buffer;
use crate::conv::support::epilogue::Epilogue;
use crate::conv::support::indirection::IndirectionBuffer;
use crate::conv::support::request::sensible;
use crate::conv::support::split::{Prefetch, Split, panel_tunable, split_tunable};
use crate::conv::support::tiles::{Extent, real_tile_tunable};
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::registry::AlgorithmInfo;
use paretune_base::threads::Worker;
use paretune_simd::Isa;

/// GEMM over an explicit patch matrix.
pub(crate) struct Im2colGemm;

impl AlgorithmInfo for Im2colGemm {
    fn name(&self) -> &'static str {
        "im2col_gemm"
    }

    fn about(&self) -> &'static str {
        "writes all patches as a matrix, then multiplies"
    }
}

impl Algorithm for Im2colGemm {
    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        // The patch matrix repeats the input once per tap.
        let patches = matrix(problem).and_then(|[rows, depth]| rows.checked_mul(depth));
        sensible(problem)
            && patches
                .and_then(|numbers| numbers.checked_mul(problem.groups))
                .is_some_and(|numbers| numbers < isize::MAX as usize / 8)
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        let extent = Extent::of(problem);
        let depth = problem.depth();
        let [tile_m, tile_n] = real_tile_tunable(extent, isa);
        vec![
            tile_m,
            tile_n,
            panel_tunable(extent, depth * size_of::<f32>(), isa),
            split_tunable(problem, extent, isa),
        ]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, token) = request.check_for(self)?;
        request.check_f32()?;
        let problem = request.problem;
        let tile = request.tile()?;
        let gemms = PackedGemm::of_groups(request, token, tile, WeightStorage::F32, |tap| tap)?;
        let taps = problem.taps();
        let depth = taps * problem.group_in();
        Ok(Box::new(Prepared {
            taps: IndirectionBuffer::taps(&problem, output),
            patches: IndirectionBuffer::matrix(depth),
            depth,
            zeros: Buffer::zeros(problem.group_in()),
            pixels: problem.batch * output[0] * output[1],
            panel: request.count("panel")?,
            split: Split::from_request(request)?,
            epilogue: Epilogue::new(request.activation),
            problem,
            gemms,
        }))
    }
}

/// Returns `[pixels, taps * channels]`, the shape of one group's patch matrix.
fn matrix(problem: &ConvProblem) -> Option<[usize; 2]> {
    let [height, width] = problem.window.output(problem.input, false)?;
    let [kernel_height, kernel_width] = problem.window.kernel;
    let rows = problem.batch.checked_mul(height)?.checked_mul(width)?;
    let channels = problem.in_channels.checked_div(problem.groups)?;
    Some([rows, channels.checked_mul(kernel_height)?.checked_mul(kernel_width)?])
}

struct Prepared {
    problem: ConvProblem,
    /// Indirection buffer from a patch to its input.
    taps: IndirectionBuffer,
    /// Indirection buffer from a pixel to its patch.
    patches: IndirectionBuffer,
    gemms: Vec<PackedGemm>,
    zeros: Buffer<f32>,
    depth: usize,
    pixels: usize,
    panel: usize,
    split: Split,
    epilogue: Epilogue,
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        self.problem.groups * self.pixels * self.depth * size_of::<f32>()
    }

    fn weight_bytes(&self) -> usize {
        self.gemms.iter().map(PackedGemm::bytes).sum()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        let channels = self.problem.group_in();
        let patches = call.workspace.cast::<f32>();
        let view = self.taps.view();
        for group in 0..self.problem.groups {
            let pixels = worker.share(self.pixels);
            let mut pixel = view.pixel(pixels.start);
            for number in pixels {
                // SAFETY: the pixel is one of the output's, runs have the group's channels, and the
                // workspace has a patch for each pixel of each group, which this worker alone
                // writes.
                unsafe {
                    let input = call.input.cast::<f32>().add(group * channels);
                    let mut to = patches.add((group * self.pixels + number) * self.depth);
                    let site = view.site(pixel);
                    for ky in 0..view.taps[0] {
                        for kx in 0..view.taps[1] {
                            let run = site.run(ky, kx, input, self.zeros.as_ptr());
                            std::ptr::copy_nonoverlapping(run, to, channels);
                            to = to.add(channels);
                        }
                    }
                }
                pixel = view.next(pixel);
            }
        }
        worker.wait();
        for (group, gemm) in self.gemms.iter().enumerate() {
            let column = group * self.problem.group_out();
            let residual = call.residual.cast::<f32>();
            // SAFETY: the caller vouches for the addresses; workers have disjoint parts of the
            // pixels or of the channels, and all patches are written.
            unsafe {
                let args = GemmArgs {
                    rows: self.patches.view(),
                    input: patches.add(group * self.pixels * self.depth).cast_const(),
                    zeros: self.zeros.as_ptr(),
                    run: self.depth,
                    output: call.output.cast::<f32>().add(column),
                    residual: if residual.is_null() { residual } else { residual.add(column) },
                    stride: self.problem.out_channels,
                    gap: 0,
                    ahead: Prefetch::Nothing,
                    epilogue: self.epilogue,
                };
                for (pixels, blocks) in self.split.parts(worker, self.pixels, &gemm.part()) {
                    gemm.run(&args, pixels, blocks, self.panel);
                }
            }
        }
    }
}
