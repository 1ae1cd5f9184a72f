//! 8-bit GEMM with taps as the outer loop, like that of [`crate::conv::algorithms::implicit_gemm`]
//! in single precision: on small images much of a window is padding, and every tap visits only the
//! pixels that find it in the input. Threads partition images and output channels.

use crate::conv::algorithm::{Call, Kernel, Request};
use crate::conv::gemm_i8::{DotForm, PackedTapGemm, TapGemmArgs, input_grid};
use crate::conv::support::buffer::whole_lines;
use crate::conv::support::epilogue_i8::{EpilogueI8, Target};
use crate::conv::support::pad::{PadBytes, PadBytesEntry, pad_bytes};
use crate::conv::support::split::ahead;
use crate::conv::support::taps::{Tap, by_tap, order_tunable, useful};
use crate::conv::support::tiles::Tile;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::{ConvProblem, Window};
use paretune_base::plan::schedule::{Tunable, TunableValue};
use paretune_base::threads::Worker;
use paretune_simd::{IsaToken, lanes};

/// Largest number of output pixels whose sums stay in the nearest cache beside the other data.
const MAX_PIXELS: usize = 128;

/// Channels per tap below which taps are never the outer loop, because sums travel to memory and
/// back too often.
const SHORTEST_RUN: usize = 16;
/// Channels per tap from which on that traffic hardly matters.
const LONG_RUN: usize = 128;

/// Fraction of useful products above which pixels are the default outer loop.
const MOSTLY_INSIDE: f64 = 0.75;

/// Returns the tunable `order`, the outer loop.
pub(super) fn order(problem: &ConvProblem) -> Tunable {
    let output = problem.output().unwrap_or([1, 1]);
    let small = output[0] * output[1] <= MAX_PIXELS && problem.group_in() >= SHORTEST_RUN;
    let skips = small && by_tap(problem, output).is_some();
    order_tunable(skips, problem.group_in() >= LONG_RUN && useful(problem, output) < MOSTLY_INSIDE)
}

/// Largest number of rows of the default tile. Few pixels find a tap, and taller tiles would leave
/// most of them to smaller microkernels.
const TILE_ROWS: u64 = 4;

/// Makes the largest of the tiles with few rows the default.
pub(super) fn choose_low_tile(tile_m: &mut Tunable, tile_n: &mut Tunable) {
    let mut best: Option<((u64, u64), TunableValue, TunableValue)> = None;
    for rows in tile_m.values() {
        let chosen = [(tile_m.name.to_owned(), rows)].into();
        for columns in tile_n.values_beside(&chosen) {
            let (Some(m), Some(n)) = (rows.size(), columns.size()) else { continue };
            if m <= TILE_ROWS && best.is_none_or(|(size, ..)| (m * n, n) > size) {
                best = Some(((m * n, n), rows, columns));
            }
        }
    }
    if let Some((_, rows, columns)) = best {
        (tile_m.default, tile_n.default) = (rows, columns);
    }
}

/// Kernel with taps as the outer loop.
pub(super) struct ByTap {
    /// The problem. Padding is never read; only sizes count.
    problem: ConvProblem,
    output: [usize; 2],
    taps: Vec<Tap>,
    /// Packed GEMM of every group.
    gemms: Vec<PackedTapGemm>,
    /// Number of sums that one thread needs room for.
    sums: usize,
    threads: usize,
    ahead: usize,
    form: DotForm,
    zero_point: u8,
    /// Function that copies the input into the workspace, if a copy is needed.
    copy: Option<PadBytesEntry>,
    epilogue: EpilogueI8,
}

impl ByTap {
    /// Builds the kernel for a request whose tunable `order` asks for it.
    ///
    /// # Errors
    /// Fails if taps cannot be the outer loop, or if the packed GEMM cannot be built.
    pub(super) fn new(
        request: &Request<'_>,
        token: IsaToken,
        tile: Tile,
        widened: bool,
    ) -> Result<Self, KernelError> {
        let problem = request.problem;
        let output = problem.output()?;
        let taps = by_tap(&problem, output).ok_or_else(|| request.bad_value("order"))?;
        let order: Vec<usize> = taps.iter().map(|tap| tap.number).collect();
        let form = DotForm::of(token);
        // Reading whole dot-product groups is safe in a copy, which has room behind it.
        let copies = form.centered || !problem.group_in().is_multiple_of(form.group);
        let width = tile.vectors * lanes(token.isa());
        Ok(Self {
            gemms: PackedTapGemm::of_groups(request, token, tile, &order, widened)?,
            zero_point: input_grid(request)?.zero_point,
            sums: output[0] * output[1] * width,
            ahead: ahead::<i8>(request)?,
            epilogue: EpilogueI8::new(request),
            copy: copies.then(|| pad_bytes(token)),
            threads: request.threads,
            problem,
            output,
            taps,
            form,
        })
    }

    /// Returns the bytes of the copy of the input.
    fn copied(&self) -> usize {
        let ConvProblem { batch, in_channels, input: [height, width], .. } = self.problem;
        let bytes = (batch * height * width * in_channels + self.form.group) * self.form.bytes;
        if self.copy.is_some() { whole_lines(bytes) } else { 0 }
    }

    /// Returns the bytes of one thread's sums.
    fn room(&self) -> usize {
        whole_lines(self.sums * size_of::<i32>())
    }

    /// Computes one block of channels of one image.
    ///
    /// # Safety
    /// The requirements of [`Kernel::run`] must be met. `input` must be that of the image, in the
    /// format of the dot product, and `sums` must have room for the block.
    unsafe fn block(
        &self,
        call: &Call,
        group: usize,
        [image, block]: [usize; 2],
        input: *const u8,
        sums: *mut i32,
    ) {
        let gemm = &self.gemms[group];
        let [height, width] = self.output;
        let pixels = height * width;
        // SAFETY: sums of a block are no more than those of a whole tile, for each pixel; taps lie
        // within the input under the pixels that they name.
        unsafe {
            sums.write_bytes(0, self.sums);
            for (number, tap) in self.taps.iter().enumerate() {
                let [rows, columns] = tap.within.clone();
                let corner = rows.start * width + columns.start;
                let args = TapGemmArgs {
                    rows: tap.rows.view(),
                    input,
                    sums: sums.add(corner * gemm.width(block)),
                    skipped: width - columns.len(),
                    ahead: self.ahead,
                };
                gemm.add_tap(&args, rows.len() * columns.len(), block, number);
            }
            let target = Target { output: call.output, residual: call.residual };
            let at = image * pixels * self.problem.out_channels + group * self.problem.group_out();
            let place = [at, self.problem.out_channels];
            gemm.store(sums, pixels, block, target, &self.epilogue, place);
        }
    }
}

impl Kernel for ByTap {
    fn workspace_bytes(&self) -> usize {
        self.copied() + self.threads * self.room()
    }

    fn weight_bytes(&self) -> usize {
        self.gemms.iter().map(PackedTapGemm::bytes).sum()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        let ConvProblem { batch, in_channels, input: [height, width], .. } = self.problem;
        let mut input = call.input;
        let mut bytes = 1;
        if let Some(copy) = self.copy {
            let free = Window { padding: [0; 4], ..self.problem.window };
            let rows = worker.share(batch * height);
            let problem = ConvProblem { window: free, ..self.problem };
            let (problem, output) = (&problem, call.workspace);
            // SAFETY: the workspace has room for the copy, and each row has one writer.
            unsafe { copy(PadBytes { problem, zero_point: self.zero_point, rows, input, output }) };
            worker.wait();
            input = call.workspace.cast_const();
            bytes = self.form.bytes;
        }
        let sums =
            call.workspace.wrapping_add(self.copied() + worker.index * self.room()).cast::<i32>();
        for (group, gemm) in self.gemms.iter().enumerate() {
            let blocks = gemm.blocks();
            for part in worker.parts(batch * blocks, 1) {
                for unit in part.units {
                    let (image, block) = (unit / blocks, unit % blocks);
                    let place =
                        image * height * width * in_channels + group * self.problem.group_in();
                    // SAFETY: the caller vouches for the addresses; workers have different blocks
                    // and sums of their own.
                    unsafe {
                        self.block(
                            call,
                            group,
                            [image, block],
                            input.wrapping_add(place * bytes),
                            sums,
                        );
                    }
                }
            }
        }
    }
}
