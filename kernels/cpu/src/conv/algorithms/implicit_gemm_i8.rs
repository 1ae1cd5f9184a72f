//! Implicit GEMM in 8 bits over NHWC activations, the main algorithm for integer layers.
//!
//! Sums are exact. If the processor multiplies bytes without saturation (VNNI), activations are
//! read unchanged. Elsewhere they are widened once per layer to 16 bits minus their zero point,
//! together with their padding, which is cheap because every tap and output channel reads the
//! widened elements. On small images taps can be the outer loop, without those in the padding: see
//! `by_tap`.

use std::ops::Range;

use super::implicit_gemm::Runs;
use crate::conv::algorithm::{Algorithm, Call, Kernel, Request};
use crate::conv::gemm_i8::{DotForm, GemmArgs, PackedGemm, input_grid, widens};
use crate::conv::support::buffer::whole_lines;
use crate::conv::support::epilogue_i8::{EpilogueI8, Target};
use crate::conv::support::indirection::IndirectionBuffer;
use crate::conv::support::pad::{PadBytes, PadBytesEntry, pad_bytes};
use crate::conv::support::request::{padded, sensible};
use crate::conv::support::split::{
    PartWork, Split, ahead, grain, panel_tunable, prefetch_tunable, split_tunable,
};
use crate::conv::support::taps::{PIXELS_OUTER, TAPS_OUTER};
use crate::conv::support::tiles::{Extent, tile_tunable};
use paretune_base::error::KernelError;
use paretune_base::plan::operator::{ConvProblem, Window};
use paretune_base::plan::schedule::Tunable;
use paretune_base::registry::AlgorithmInfo;
use paretune_base::threads::{Worker, share};
use paretune_simd::Isa;

mod by_tap;

use by_tap::ByTap;

/// Implicit GEMM in 8 bits.
pub(crate) struct ImplicitGemmI8;

/// Largest number of weights per output channel whose sum cannot overflow.
pub(crate) const MAX_TERMS: usize = i32::MAX as usize / (255 * 127) / 2;

impl AlgorithmInfo for ImplicitGemmI8 {
    fn name(&self) -> &'static str {
        "implicit_gemm_i8"
    }

    fn about(&self) -> &'static str {
        "8-bit matrix product over the taps of a channels-last input, in registers"
    }

    fn is_integer(&self) -> bool {
        true
    }
}

impl Algorithm for ImplicitGemmI8 {
    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        sensible(problem) && problem.depth() <= MAX_TERMS
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        let extent = Extent::of(problem);
        let depth = problem.depth();
        let ([mut tile_m, mut tile_n], order) = (tile_tunable(extent, isa), by_tap::order(problem));
        if order.default == TAPS_OUTER.into() {
            by_tap::choose_low_tile(&mut tile_m, &mut tile_n);
        }
        vec![
            tile_m,
            tile_n,
            panel_tunable(extent, depth, isa),
            split_tunable(problem, extent, isa),
            prefetch_tunable(problem.out_channels * depth),
            widened_tunable(problem.out_channels * depth, isa),
            order,
        ]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, token) = request.check_for(self)?;
        let problem = request.problem;
        let tile = request.tile()?;
        let widened = request.switch("widened")?;
        match request.choice("order")? {
            PIXELS_OUTER => {}
            TAPS_OUTER => return Ok(Box::new(ByTap::new(request, token, tile, widened)?)),
            _ => return Err(request.bad_value("order")),
        }
        let form = DotForm::of(token);
        let runs = Runs::of(&problem);
        // Reading whole dot-product groups is safe in whole runs, and in a copy, which has room
        // behind it.
        let copies = form.centered
            || problem.window.padding != [0; 4]
            || !runs.len.is_multiple_of(form.group);
        let input = if copies { padded(&problem) } else { problem.input };
        Ok(Box::new(Prepared {
            gemms: PackedGemm::of_groups(
                request,
                token,
                tile,
                [runs.count, runs.len],
                widened,
                None,
            )?,
            zero_point: input_grid(request)?.zero_point,
            pixels: problem.batch * output[0] * output[1],
            panel: request.count("panel")?,
            ahead: ahead::<i8>(request)?,
            split: Split::from_request(request)?,
            epilogue: EpilogueI8::new(request),
            groups: runs.len.div_ceil(form.group),
            runs: run_offsets(&problem, input, runs.merge),
            rows: IndirectionBuffer::windows(&problem, output, input),
            pad: copies.then(|| pad_bytes(token)),
            threads: request.threads,
            form,
            output,
            problem,
        }))
    }
}

/// Returns the offsets of a window's runs in an input of this `[height, width]`: rows of taps if
/// `merge`, else taps.
fn run_offsets(problem: &ConvProblem, [_, width]: [usize; 2], merge: bool) -> Vec<usize> {
    let Window { kernel: [tap_rows, tap_columns], dilation, .. } = problem.window;
    let columns = if merge { 1 } else { tap_columns };
    let offset =
        |ky: usize, kx: usize| (ky * dilation[0] * width + kx * dilation[1]) * problem.in_channels;
    (0..tap_rows).flat_map(|ky| (0..columns).map(move |kx| offset(ky, kx))).collect()
}

/// Bytes of widened weights that stay in a second-level cache beside the other data.
const L2_RESIDENT_BYTES: usize = 256 << 10;

/// Returns the tunable `widened` for a layer of `weights` weights.
fn widened_tunable(weights: usize, isa: Isa) -> Tunable {
    let near = weights * size_of::<i16>() <= L2_RESIDENT_BYTES;
    let about = "whether weights are held in 16 bits, which products take as they are: less work, \
         more memory";
    Tunable::switch("widened", about, widens(isa), near)
}

struct Prepared {
    problem: ConvProblem,
    output: [usize; 2],
    threads: usize,
    rows: IndirectionBuffer,
    /// Offsets of a window's runs in the input, padding included.
    runs: Vec<usize>,
    /// Packed GEMM of every group.
    gemms: Vec<PackedGemm>,
    /// Number of dot-product groups per run.
    groups: usize,
    pixels: usize,
    panel: usize,
    /// Prefetch distance of the weights in bytes.
    ahead: usize,
    split: Split,
    form: DotForm,
    zero_point: u8,
    /// Function that copies the input with its padding into the workspace, if a copy is needed.
    pad: Option<PadBytesEntry>,
    epilogue: EpilogueI8,
}

impl Prepared {
    /// Returns the bytes per row of the padded input.
    fn row_bytes(&self) -> usize {
        padded(&self.problem)[1] * self.problem.in_channels * self.form.bytes
    }

    /// Returns the rows of the padded input, counted through images, that the output pixels read.
    fn rows_read(&self, pixels: &Range<usize>) -> Range<usize> {
        if pixels.is_empty() {
            return 0..0;
        }
        let window = &self.problem.window;
        let height = padded(&self.problem)[0];
        let first = |pixel: usize| {
            let row = pixel / self.output[1];
            row / self.output[0] * height + row % self.output[0] * window.stride[0]
        };
        first(pixels.start)..first(pixels.end - 1) + (window.kernel[0] - 1) * window.dilation[0] + 1
    }

    /// Returns the workspace bytes for a copy of `rows`, in whole cache lines so that threads do
    /// not share one, with room for the dot-product group that reaches beyond the last run.
    fn region(&self, rows: &Range<usize>) -> usize {
        whole_lines(rows.len() * self.row_bytes() + self.form.group * self.form.bytes)
    }

    /// Returns the rows of the padded input that thread `index` reads for its static chunk of the
    /// pixels, and the address that row 0 would have in the thread's copy, which may start later.
    fn own_copy(&self, call: &Call, index: usize) -> (Range<usize>, *mut u8) {
        let rows_of = |index| self.rows_read(&share(index, self.threads, self.pixels));
        let before: usize = (0..index).map(|index| self.region(&rows_of(index))).sum();
        let rows = rows_of(index);
        let base = call.workspace.wrapping_add(before).wrapping_sub(rows.start * self.row_bytes());
        (rows, base)
    }

    /// Runs the kernel with a separate copy of the input for each thread, so that no thread waits
    /// for another.
    ///
    /// # Safety
    /// The requirements of [`Kernel::run`] must be met.
    unsafe fn run_on_copies(&self, pad: PadBytesEntry, call: &Call, worker: &Worker<'_>) {
        let (rows, base) = self.own_copy(call, worker.index);
        let problem = &self.problem;
        let args = PadBytes {
            problem,
            zero_point: self.zero_point,
            rows,
            input: call.input,
            output: base,
        };
        // SAFETY: the workspace has room for all regions, and the rows of this one belong to this
        // worker.
        unsafe { pad(args) };
        for (group, gemm) in self.gemms.iter().enumerate() {
            let PartWork { multiply_adds, rows, blocks } = gemm.part();
            let grain = grain(multiply_adds * blocks, rows);
            for part in worker.parts(self.pixels, grain) {
                let (_, base) = self.own_copy(call, part.owner);
                // SAFETY: the owner of the part has written its copy before the last barrier, and
                // parts of the output are disjoint.
                unsafe {
                    let args = self.args(group, base.cast_const(), call);
                    gemm.run(&args, part.units, 0..blocks, self.panel);
                }
            }
        }
    }

    /// Returns the GEMM arguments of a group for an input whose row 0, padded or not, is at
    /// `input`.
    fn args(&self, group: usize, input: *const u8, call: &Call) -> GemmArgs<'_> {
        let input = input.wrapping_add(group * self.problem.group_in() * self.form.bytes);
        GemmArgs {
            rows: self.rows.view(),
            input,
            runs: &self.runs,
            run: self.groups,
            target: Target { output: call.output, residual: call.residual },
            at: group * self.problem.group_out(),
            stride: self.problem.out_channels,
            ahead: self.ahead,
            epilogue: self.epilogue,
        }
    }
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        if self.pad.is_none() {
            return 0;
        }
        let whole = self.region(&(0..self.problem.batch * padded(&self.problem)[0]));
        let shares = (0..self.threads).map(|index| share(index, self.threads, self.pixels));
        let own: usize = shares.map(|pixels| self.region(&self.rows_read(&pixels))).sum();
        match self.split {
            Split::Pixels => own.max(whole),
            Split::Channels => whole,
        }
    }

    fn weight_bytes(&self) -> usize {
        self.gemms.iter().map(PackedGemm::bytes).sum()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        let mut input = call.input;
        if let Some(pad) = self.pad
            && self.split == Split::Pixels
            && worker.count == self.threads
        {
            // SAFETY: the caller keeps to the contract of `run`, and there are as many workers as
            // regions.
            unsafe { self.run_on_copies(pad, call, worker) };
            return;
        }
        if let Some(pad) = self.pad {
            // SAFETY: the caller vouches for the addresses, and the workspace has room for the
            // padded input.
            input = unsafe { PadBytes::share(pad, &self.problem, self.zero_point, call, worker) };
        }
        for (group, gemm) in self.gemms.iter().enumerate() {
            let args = self.args(group, input, call);
            for (pixels, blocks) in self.split.parts(worker, self.pixels, &gemm.part()) {
                // SAFETY: the caller vouches for the addresses; channels of a group lie within each
                // pixel, and workers have disjoint parts of the pixels or of the channels.
                unsafe { gemm.run(&args, pixels, blocks, self.panel) };
            }
        }
    }
}
