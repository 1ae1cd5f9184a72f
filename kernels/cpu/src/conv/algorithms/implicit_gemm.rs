//! Implicit GEMM over NHWC activations, the main algorithm for dense layers.
//!
//! No patch matrix is written: microkernels read runs of input channels at the addresses of an
//! indirection buffer, [`IndirectionBuffer`]. If adjacent taps touch (one group, no horizontal
//! dilation), an input that carries its padding makes each row of taps one run; this matters for
//! few channels and is the tunable `gather`. On small images, of whose windows much is padding,
//! taps can be the outer loop, the tunable `order`: every tap then visits only the pixels that find
//! it in the input, sums wait in the output, and weights are read once.

use std::ops::Range;

use crate::conv::algorithm::{Algorithm, Call, Kernel, Request};
use crate::conv::gemm_f32::{GemmArgs, PackedGemm, WeightStorage};
use crate::conv::support::buffer::{Buffer, whole_lines};
use crate::conv::support::epilogue::Epilogue;
use crate::conv::support::indirection::IndirectionBuffer;
use crate::conv::support::pad::{PadBf16, PadBf16Entry, pad_f32};
use crate::conv::support::request::{padded, sensible};
use crate::conv::support::split::{PartWork, Prefetch, Split, panel_tunable, split_tunable};
use crate::conv::support::taps::{PIXELS_OUTER, TAPS_OUTER, Tap, by_tap, order_tunable, useful};
use crate::conv::support::tiles::{Extent, real_tile_tunable};
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::registry::AlgorithmInfo;
use paretune_base::threads::Worker;
use paretune_simd::Isa;
use paretune_simd::lanes;

/// Implicit GEMM in single precision.
pub(crate) struct ImplicitGemm;

/// Length in bytes below which a run is short enough for a padded copy of the input to pay.
const SHORT_RUN: usize = 64;

/// Returns whether the taps of a row can be read as one run.
pub(crate) fn rows_of_taps_touch(problem: &ConvProblem) -> bool {
    problem.groups == 1 && problem.window.dilation[1] == 1 && problem.window.kernel[1] > 1
}

/// Fraction of useful products above which pixels are the default outer loop.
const MOSTLY_INSIDE: f64 = 0.85;

/// Channels per run below which taps are never the outer loop, because sums travel to the output
/// and back too often.
const SHORTEST_RUN: usize = 8;
/// Channels per run from which on that traffic hardly matters.
const LONG_RUN: usize = 32;

/// Returns the tunable `order`, the outer loop.
fn order(problem: &ConvProblem) -> Tunable {
    let output = problem.output().unwrap_or([1, 1]);
    let skips = problem.group_in() >= SHORTEST_RUN && by_tap(problem, output).is_some();
    order_tunable(skips, problem.group_in() >= LONG_RUN && useful(problem, output) < MOSTLY_INSIDE)
}

/// Returns the tunable `gather`; copying is the default below `short` channels.
pub(crate) fn gather_tunable(problem: &ConvProblem, short: usize) -> Tunable {
    let touch = rows_of_taps_touch(problem);
    let free = problem.window.padding == [0; 4];
    let names = if touch { vec!["taps", "rows"] } else { vec!["taps"] };
    let default = if touch && (free || problem.in_channels < short) { "rows" } else { "taps" };
    let about = "how the input is found: tap by tap, or whole rows of taps, in a padded copy if \
         there is padding";
    Tunable::choice("gather", about, names, default)
}

/// Runs of elements that a window consists of in a padded NHWC input: rows of taps if they touch,
/// else single taps.
pub(crate) struct Runs {
    /// Whether the runs are rows of taps.
    pub(crate) merge: bool,
    pub(crate) count: usize,
    /// Number of elements per run.
    pub(crate) len: usize,
}

impl Runs {
    pub(crate) fn of(problem: &ConvProblem) -> Self {
        let merge = rows_of_taps_touch(problem);
        let [rows, columns] = problem.window.kernel;
        let (count, taps) = if merge { (rows, columns) } else { (rows * columns, 1) };
        Self { merge, count, len: taps * problem.group_in() }
    }
}

impl AlgorithmInfo for ImplicitGemm {
    fn name(&self) -> &'static str {
        "implicit_gemm"
    }

    fn about(&self) -> &'static str {
        "matrix product over the taps of a channels-last input, in registers"
    }
}

impl Algorithm for ImplicitGemm {
    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        sensible(problem)
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        tunables(problem, isa, WeightStorage::F32)
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        prepare(request, WeightStorage::F32)
    }
}

/// Returns the tunables for weights in storage format `held`.
pub(crate) fn tunables(problem: &ConvProblem, isa: Isa, held: WeightStorage) -> Vec<Tunable> {
    let extent = Extent::of(problem);
    let depth = problem.depth();
    let order = order(problem);
    let mut prefetch = Prefetch::tunable(problem.out_channels * depth * held.bytes(), extent.rows);
    if order.default == TAPS_OUTER.into() {
        prefetch.default = prefetch.values().get(1).copied().unwrap_or(prefetch.default);
    }
    let [tile_m, tile_n] = real_tile_tunable(extent, isa);
    vec![
        tile_m,
        tile_n,
        panel_tunable(extent, depth * held.bytes(), isa),
        split_tunable(problem, extent, isa),
        prefetch,
        gather_tunable(problem, SHORT_RUN / size_of::<f32>()),
        order,
    ]
}

/// Builds the kernel, as [`Algorithm::prepare`] does, with weights in storage format `held`.
pub(crate) fn prepare(
    request: &Request<'_>,
    held: WeightStorage,
) -> Result<Box<dyn Kernel>, KernelError> {
    let (output, token) = request.check()?;
    request.check_f32()?;
    let problem = request.problem;
    let tile = request.tile()?;
    let group_in = problem.group_in();
    let taps = match request.choice("order")? {
        PIXELS_OUTER => None,
        TAPS_OUTER => Some(by_tap(&problem, output).ok_or_else(|| request.bad_value("order"))?),
        _ => return Err(request.bad_value("order")),
    };
    let window_taps = problem.taps();
    let merge = match request.choice("gather")? {
        "taps" => false,
        "rows" if rows_of_taps_touch(&problem) => true,
        _ => return Err(request.bad_value("gather")),
    };
    let merge = merge && taps.is_none();
    // Weights are packed in the order of use; taps that no pixel finds in the input come last.
    let mut order: Vec<usize> = taps.iter().flatten().map(|tap| tap.number).collect();
    order.extend(
        (0..window_taps).filter(|tap| !taps.iter().flatten().any(|met| met.number == *tap)),
    );
    let gemms = PackedGemm::of_groups(request, token, tile, held, |tap| order[tap])?;
    let rows = if merge {
        IndirectionBuffer::runs(&problem, output, padded(&problem))
    } else {
        IndirectionBuffer::taps(&problem, output)
    };
    Ok(Box::new(Prepared {
        copied: if merge && problem.window.padding != [0; 4] {
            Copied::Singles
        } else {
            Copied::No
        },
        run: if merge { problem.window.kernel[1] * group_in } else { group_in },
        zeros: Buffer::zeros(group_in.max(tile.vectors * lanes(request.isa))),
        output,
        taps,
        pixels: problem.batch * output[0] * output[1],
        panel: request.count("panel")?,
        ahead: Prefetch::from_request(request)?,
        split: Split::from_request(request)?,
        epilogue: Epilogue::new(request.activation),
        problem,
        rows,
        gemms,
    }))
}

/// Element type of the padded copy of the input in the workspace.
#[derive(Clone, Copy)]
pub(crate) enum Copied {
    /// The input is read in place.
    No,
    /// The copy is in single precision.
    Singles,
    /// The copy is rounded to bfloat16 by this function.
    Bf16(PadBf16Entry),
}

impl Copied {
    /// Returns the bytes per element of the input that the microkernels read.
    fn number_bytes(self) -> usize {
        if matches!(self, Self::Bf16(_)) { size_of::<u16>() } else { size_of::<f32>() }
    }
}

/// One packed GEMM per group over the runs of an input.
pub(crate) struct Prepared {
    pub(crate) problem: ConvProblem,
    pub(crate) rows: IndirectionBuffer,
    /// Height and width of the output.
    pub(crate) output: [usize; 2],
    /// Taps in order, if they are the outer loop.
    pub(crate) taps: Option<Vec<Tap>>,
    /// Packed GEMM of every group.
    pub(crate) gemms: Vec<PackedGemm>,
    /// Zeros of the length of a run.
    pub(crate) zeros: Buffer<f32>,
    /// Steps in k per run.
    pub(crate) run: usize,
    pub(crate) pixels: usize,
    pub(crate) panel: usize,
    /// Weights to prefetch during the multiplication.
    pub(crate) ahead: Prefetch,
    pub(crate) split: Split,
    pub(crate) copied: Copied,
    pub(crate) epilogue: Epilogue,
}

impl Prepared {
    /// Returns the number of elements of the padded input.
    fn padded_numbers(&self) -> usize {
        let [height, width] = padded(&self.problem);
        self.problem.batch * height * width * self.problem.in_channels
    }
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        match self.copied {
            Copied::No => 0,
            Copied::Singles => self.padded_numbers() * size_of::<f32>(),
            // The last pair of the last run may reach one element further.
            Copied::Bf16(_) => whole_lines((self.padded_numbers() + 1) * size_of::<u16>()),
        }
    }

    fn weight_bytes(&self) -> usize {
        self.gemms.iter().map(PackedGemm::bytes).sum()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        if let Some(taps) = &self.taps {
            // SAFETY: the caller keeps to the contract of `run`.
            unsafe { self.run_by_tap(taps, call, worker) };
            return;
        }
        let mut input = call.input;
        if !matches!(self.copied, Copied::No) {
            let rows = worker.share(self.problem.batch * padded(&self.problem)[0]);
            // SAFETY: the workspace has room for the padded input and one number more, and each row
            // has one writer. The additional number belongs to the first worker.
            unsafe {
                if let Copied::Bf16(pad) = self.copied {
                    let copy = call.workspace.cast::<u16>();
                    pad(PadBf16 {
                        problem: &self.problem,
                        rows,
                        input: input.cast(),
                        output: copy,
                    });
                    if worker.index == 0 {
                        *copy.add(self.padded_numbers()) = 0;
                    }
                } else {
                    pad_f32(&self.problem, rows, input.cast(), call.workspace.cast());
                }
            }
            worker.wait();
            input = call.workspace.cast_const();
        }
        let (group_in, group_out) = (self.problem.group_in(), self.problem.group_out());
        for (group, gemm) in self.gemms.iter().enumerate() {
            let column = group * group_out;
            let residual = call.residual.cast::<f32>();
            // SAFETY: the caller vouches for the addresses; channels of a group lie within each
            // pixel, and workers have disjoint parts of the pixels or of the channels.
            unsafe {
                let args = GemmArgs {
                    rows: self.rows.view(),
                    input: input.add(group * group_in * self.copied.number_bytes()).cast(),
                    zeros: self.zeros.as_ptr(),
                    run: self.run,
                    output: call.output.cast::<f32>().add(column),
                    residual: if residual.is_null() { residual } else { residual.add(column) },
                    stride: self.problem.out_channels,
                    gap: 0,
                    ahead: self.ahead,
                    epilogue: self.epilogue,
                };
                for (pixels, blocks) in self.split.parts(worker, self.pixels, &gemm.part()) {
                    gemm.run(&args, pixels, blocks, self.panel);
                }
            }
        }
    }
}

impl Prepared {
    /// Runs the kernel with taps as the outer loop.
    ///
    /// # Safety
    /// The requirements of [`Kernel::run`] must be met.
    unsafe fn run_by_tap(&self, taps: &[Tap], call: &Call, worker: &Worker<'_>) {
        let ConvProblem { batch, in_channels, out_channels, input: [in_height, in_width], .. } =
            self.problem;
        let (group_in, group_out) = (self.problem.group_in(), self.problem.group_out());
        let [height, width] = self.output;
        let line = width * out_channels;
        for (group, gemm) in self.gemms.iter().enumerate() {
            // Threads partition whole rows of pixels, so that a thread's part of a tap's pixels is
            // a rectangle too.
            let of_pixel = gemm.part();
            let work =
                PartWork { multiply_adds: of_pixel.multiply_adds * width, rows: 1, ..of_pixel };
            let parts = self.split.parts(worker, batch * height, &work);
            for (lines, block) in
                parts.flat_map(|(lines, blocks)| blocks.map(move |block| (lines.clone(), block)))
            {
                let images = lines.start / height..lines.end.div_ceil(height);
                let columns = gemm.block(block);
                // SAFETY: the caller vouches for the addresses; workers have disjoint rows or
                // channels.
                unsafe {
                    let first = group * group_out + columns.start;
                    self.begin(call, lines.start * width..lines.end * width, first, columns.len());
                    for (number, tap) in taps.iter().enumerate() {
                        for image in images.clone() {
                            let [rows, columns] = tap.within.clone();
                            // The thread's rows of this image that find the tap in the input.
                            let start = lines.start.saturating_sub(image * height).max(rows.start);
                            let end = (lines.end - image * height).min(rows.end);
                            if start >= end {
                                continue;
                            }
                            let corner =
                                (image * height + rows.start) * line + columns.start * out_channels;
                            let args = GemmArgs {
                                rows: tap.rows.view(),
                                input: call.input.cast::<f32>().add(
                                    image * in_height * in_width * in_channels + group * group_in,
                                ),
                                zeros: self.zeros.as_ptr(),
                                run: group_in,
                                output: call.output.cast::<f32>().add(corner + group * group_out),
                                residual: std::ptr::null(),
                                stride: out_channels,
                                gap: (width - columns.len()) * out_channels,
                                ahead: self.ahead,
                                epilogue: self.epilogue,
                            };
                            let pixels = (start - rows.start) * columns.len()
                                ..(end - rows.start) * columns.len();
                            let last = number + 1 == taps.len();
                            gemm.add_tap(&args, pixels, block, number * group_in, last);
                        }
                    }
                }
            }
        }
    }

    /// Initializes the sums of `count` channels from `first` on with the residual or zero, for a
    /// range of pixels counted through images.
    ///
    /// # Safety
    /// The addresses must be valid, and no other thread may write the elements.
    unsafe fn begin(&self, call: &Call, pixels: Range<usize>, first: usize, count: usize) {
        for pixel in pixels {
            let at = pixel * self.problem.out_channels + first;
            // SAFETY: the pixel is one of the output's, with these channels.
            unsafe {
                let output = call.output.cast::<f32>().add(at);
                if call.residual.is_null() {
                    output.write_bytes(0, count);
                } else {
                    std::ptr::copy_nonoverlapping(
                        call.residual.cast::<f32>().add(at),
                        output,
                        count,
                    );
                }
            }
        }
    }
}
