//! Implicit GEMM on tensor cores with operands in tf32, fp16 or split fp32; see
//! `kernels/tensor_core.cl`. Tensor cores are accessed by inline PTX, which only NVIDIA's compiler
//! understands. The algorithms are offered on its devices from compute capability 8.0 on.

mod patch;

use patch::Patch;

use super::half;
use super::{Algorithm, Chosen, Request, bias, powers, real, switch, unfit};
use crate::launch::{Launch, Prepared, bytes_of};
use crate::limits::Limits;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::registry::{AlgorithmInfo, BackendKind, Numerics};
use paretune_simd::half::{FP16_MAX, fp16_bits};

/// Number format of the operands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TensorCore {
    /// tf32 with 10 bits of mantissa.
    Tf32,
    /// fp16 with 10 bits of mantissa, half the space and twice the speed of tf32. Inputs beyond
    /// 65504 are clamped.
    Fp16,
    /// Single precision from three products of tf32 parts.
    Fp32,
}

const SOURCE: &str = concat!(
    include_str!("../kernels/tensor_core_product.cl"),
    include_str!("../kernels/tensor_core_patch.cl"),
    include_str!("../kernels/tensor_core.cl"),
);

/// Number of lanes of a warp.
const WARP: usize = 32;

/// Registers of a multiprocessor of every device with such tensor cores; registers that a work-item
/// needs beside sums and operands; and the maximum for a work-item.
const REGISTERS: usize = 65536;
const OTHER_REGISTERS: usize = 28;
const MAX_REGISTERS: usize = 224;

/// Minimum number of warps per compute unit for a default schedule: other warps hide latency.
const COMPANY: usize = 12;

/// Tiles of a warp that its registers allow, ordered by falling ratio of multiplications to fetched
/// operands.
const TILES: [[usize; 2]; 5] = [[4, 4], [2, 4], [2, 2], [1, 2], [1, 1]];

/// Maximum number of slices of a default schedule, and minimum number of steps of each.
const MAX_SLICES: usize = 16;
const MIN_STEPS: usize = 4;

impl TensorCore {
    /// Returns the inner dimension of one instruction.
    fn depth(self) -> usize {
        if self == Self::Fp16 { 16 } else { 8 }
    }

    /// Returns the number of steps along the inner dimension: all channel blocks of all taps.
    fn steps(self, problem: &ConvProblem) -> usize {
        problem.window.kernel[0] * problem.window.kernel[1] * self.blocks(problem)
    }

    /// Returns the number of channel blocks, each of one step per tap.
    fn blocks(self, problem: &ConvProblem) -> usize {
        problem.in_channels.div_ceil(self.depth())
    }

    /// Returns the registers of a work-item: sums, operands, addresses, parts of operands. The
    /// constraints repeat this as an expression.
    fn registers(self, [warp_m, warp_n, stage, ahead]: [usize; 4]) -> usize {
        let operands = (1 + ahead) * stage * (4 * warp_m + self.depth() / 4 * warp_n);
        let parts = if self == Self::Fp32 { 4 * warp_m + 4 } else { 0 };
        4 * warp_m * warp_n + operands + 3 * warp_n + parts + OTHER_REGISTERS
    }

    /// Returns the registers of a work-item that reads pixels from patches. A work-item copies
    /// `copies` elements of each patch; they wait in registers if there is only one patch.
    fn patch_registers(self, [warp_m, warp_n, patches, ahead]: [usize; 4], copies: usize) -> usize {
        let operands = (1 + ahead) * 4 * warp_m + (self.depth() / 4 + 1) * warp_n;
        let parts = if self == Self::Fp32 { 4 * warp_m + 4 } else { 0 };
        4 * warp_m * warp_n + operands + 2 * copies / patches.max(1) + parts + OTHER_REGISTERS
    }

    /// Returns the constraints between tunables for pixels that come from patches: local memory and
    /// registers depend on the number of pixels in a tile.
    fn patch_constraints(self, problem: &ConvProblem, limits: &Limits) -> Vec<String> {
        let (output, depth) =
            (problem.window.output(problem.input, false).unwrap_or([1, 1]), self.depth());
        let parts = if self == Self::Fp32 { "4 * warp_m + 4" } else { "0" };
        let tiles = [1, 2, 4, 8, 16, 32];
        let constraint = |tiles: usize| {
            let numbers = depth * Patch::of(problem, output, 8 * tiles).channel;
            // Repeats `patch_registers`; the warps of a slice share the copying.
            let registers = format!(
                "(4 * warp_m * warp_n + (1 + ahead) * 4 * warp_m + {} * warp_n + {parts} + \
                 {OTHER_REGISTERS})",
                depth / 4 + 1
            );
            let (copied, most) = (2 * numbers / WARP, limits.local_memory / 4 / numbers.max(1));
            format!(
                "patch == 0 or warps_n * warp_n != {tiles} or split_k * patch <= {most} and \
                 {copied} <= ({MAX_REGISTERS} - {registers}) * warps_m * warps_n * patch and \
                 {copied} * split_k + {registers} * warps_m * warps_n * split_k * patch <= {} * patch",
                REGISTERS / WARP
            )
        };
        tiles.into_iter().map(constraint).collect()
    }

    /// Returns the default `[warp_m, warp_n, split]`: the largest tiles of which there are enough
    /// to keep the device busy.
    fn begin_with(self, problem: &ConvProblem, limits: &Limits, tiles: [usize; 2]) -> [usize; 3] {
        let wanted = COMPANY * limits.compute_units;
        let steps = self.steps(problem);
        let mut begin = [1, 1, 1];
        for [warp_m, warp_n] in TILES {
            let tiles = tiles[0].div_ceil(warp_m) * tiles[1].div_ceil(warp_n);
            let room = limits.local_memory / 4 / (128 * warp_m * warp_n);
            let most =
                MAX_SLICES.min(steps / MIN_STEPS).min(room).min(limits.work_group / WARP).max(1);
            begin = [warp_m, warp_n, wanted.div_ceil(tiles.max(1)).min(most)];
            if tiles * most >= wanted {
                break;
            }
        }
        begin
    }
}

/// Returns whether tests asked for these kernels on a device without tensor cores.
fn emulated(limits: &Limits) -> bool {
    #[cfg(any(test, feature = "fault-injection"))]
    let asked = crate::fault::TENSOR_CORES_ANYWHERE.load(std::sync::atomic::Ordering::Relaxed);
    #[cfg(not(any(test, feature = "fault-injection")))]
    let asked = false;
    asked && limits.work_group >= WARP
}

impl AlgorithmInfo for TensorCore {
    fn name(&self) -> &'static str {
        match self {
            Self::Tf32 => "opencl_tensor_core_tf32",
            Self::Fp16 => "opencl_tensor_core_fp16",
            Self::Fp32 => "opencl_tensor_core_fp32",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Self::Tf32 => {
                "matrix product on tensor cores, operands rounded to tf32: 10 bits of mantissa \
                 (OpenCL)"
            }
            Self::Fp16 => {
                "matrix product on tensor cores, operands rounded to fp16: 10 bits of mantissa, \
                 at most 65504 (OpenCL)"
            }
            Self::Fp32 => {
                "matrix product on tensor cores, three products of tf32 parts for one in fp32 \
                 (OpenCL)"
            }
        }
    }

    fn numerics(&self) -> Numerics {
        if *self != Self::Fp32 { Numerics::Reduced } else { Numerics::Exact }
    }

    fn largest_weight(&self) -> f32 {
        if *self == Self::Fp16 { FP16_MAX } else { f32::INFINITY }
    }

    fn backend(&self) -> BackendKind {
        BackendKind::OpenCl
    }
}

impl Algorithm for TensorCore {
    fn supports(&self, problem: &ConvProblem, limits: &Limits) -> bool {
        let capable = limits.compute_capability >= 80 || emulated(limits);
        problem.groups == 1 && capable
    }

    fn tunables(&self, problem: &ConvProblem, limits: &Limits) -> Vec<Tunable> {
        let [height, width] = problem.window.output(problem.input, false).unwrap_or([1, 1]);
        let rows = problem.out_channels.div_ceil(16);
        let columns = (problem.batch * height * width).div_ceil(8);
        let steps = self.steps(problem);
        let [warp_m, warp_n, split] = self.begin_with(problem, limits, [rows, columns]);
        let most = limits.work_group / WARP;
        vec![
            powers("warp_m", "tiles of 16 outputs of a warp", 1, 4, rows, warp_m),
            powers("warp_n", "tiles of 8 pixels of a warp", 1, 8, columns, warp_n),
            powers("warps_m", "warps along outputs", 1, 4.min(most), rows, 1),
            powers("warps_n", "warps along pixels", 1, 4.min(most), columns, 1),
            powers(
                "split_k",
                "slices of a work-group that share the inner dimension",
                1,
                32.min(most),
                steps,
                split,
            ),
            powers(
                "stage",
                "inner steps fetched at once",
                1,
                8,
                steps,
                if warp_m * warp_n > 4 { 1 } else { 2 },
            ),
            switch(
                "ahead",
                "whether the next steps are fetched before the present ones are multiplied",
                false,
            ),
            Tunable::sizes(
                "patch",
                "patches of the input that a slice has in local memory; 2: one is filled while \
                 the other is used",
                0..=2,
                0,
            ),
        ]
    }

    fn constraints(&self, problem: &ConvProblem, limits: &Limits) -> Vec<String> {
        let (group, floats) = (limits.work_group.min(1024) / WARP, limits.local_memory / 4);
        // Repeats `registers` as an expression.
        let parts = if *self == Self::Fp32 { "4 * warp_m + 4" } else { "0" };
        let registers = format!(
            "(4 * warp_m * warp_n + (1 + ahead) * stage * (4 * warp_m + {} * warp_n) + 3 * warp_n \
             + {parts} + \
             {OTHER_REGISTERS})",
            self.depth() / 4
        );
        let mut constraints = vec![
            format!("warps_m * warps_n * split_k <= {group}"),
            format!(
                "split_k == 1 or split_k * warps_m * warp_m * warps_n * warp_n * 128 <= {floats}"
            ),
            format!("patch > 0 or {registers} <= {MAX_REGISTERS}"),
            format!(
                "patch > 0 or {registers} * warps_m * warps_n * split_k <= {}",
                REGISTERS / WARP
            ),
        ];
        constraints.extend(self.patch_constraints(problem, limits));
        constraints
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Prepared, KernelError> {
        let Request { problem, limits, .. } = request;
        let chosen = Chosen(&request.schedule.tunables);
        let [warp_m, warp_n, warps_m, warps_n] =
            ["warp_m", "warp_n", "warps_m", "warps_n"].map(|name| chosen.get(name));
        let [split, stage] = ["split_k", "stage"].map(|name| chosen.get(name));
        let ahead = usize::from(chosen.is_on("ahead", false));
        let (tile_m, tile_n) = (16 * warps_m * warp_m, 8 * warps_n * warp_n);
        let threads = WARP * warps_m * warps_n * split;
        let reduced = if split > 1 { split * tile_m * tile_n } else { 0 };
        let native = limits.compute_capability >= 80;
        let patches = if chosen.0.contains_key("patch") { chosen.get("patch") } else { 0 };
        let patch = Patch::of(problem, request.output, tile_n);
        let slots = self.depth() * patch.channel;
        let exchanged =
            if native { 0 } else { threads / WARP * self.depth() * (16 * warp_m + 8 * warp_n) };
        let registers = if patches > 0 {
            let copies = slots.div_ceil(WARP * warps_m * warps_n);
            self.patch_registers([warp_m, warp_n, patches, ahead], copies)
        } else {
            self.registers([warp_m, warp_n, stage, ahead])
        };
        let fits = threads <= limits.work_group.min(1024)
            && 4 * reduced.max(exchanged + split * patches * slots) <= limits.local_memory
            && registers <= MAX_REGISTERS
            && registers * threads <= REGISTERS;
        if !fits || !self.supports(problem, limits) {
            return Err(unfit(self.name(), "its tiles do not fit this device, or each other"));
        }
        let taps = problem.window.kernel[0] * problem.window.kernel[1];
        let steps = match patches {
            0 => self.steps(problem).next_multiple_of(split * stage),
            // Every slice has whole channel blocks.
            _ => self.blocks(problem).next_multiple_of(split) * taps,
        };
        let weights = real(request.weights)?;
        if *self == Self::Fp16 {
            half::check(self.name(), weights)?;
        }
        let weights = self.fragments(weights, problem, tile_m, steps, patches > 0);
        let mut macros = request.macros();
        macros
            .define("STEPS", steps)
            .define("WARP_M", warp_m)
            .define("WARP_N", warp_n)
            .define("WARPS_M", warps_m)
            .define("WARPS_N", warps_n)
            .define("SPLIT", split)
            .define("STAGE", stage)
            .define("AHEAD", ahead)
            .define("PATCH", patches)
            .define("PATCH_H", patch.height)
            .define("PATCH_W", patch.width)
            .define("PATCH_CHANNEL", patch.channel)
            .define("PATCH_IMAGE", patch.image)
            .define("HALF", u8::from(*self == Self::Fp16))
            .define("TERMS", if *self == Self::Fp32 { 3 } else { 1 })
            .define("TENSOR_CORE", u8::from(native));
        let pixels = problem.batch * request.output[0] * request.output[1];
        Ok(Prepared {
            launches: vec![Launch {
                source: SOURCE,
                kernel: "convolve",
                macros,
                groups: [pixels.div_ceil(tile_n), problem.out_channels.div_ceil(tile_m), 1],
                threads,
                arguments: request.arguments(2),
            }],
            constants: vec![weights, bytes_of(&bias(request.weights))],
        })
    }
}

impl TensorCore {
    /// Packs weights `[out, in, taps]` as `[tile of 16 outputs][step][lane][4 words]` in bytes.
    /// This is the order in which the lanes of a warp hold the left operand (PTX ISA, "Matrix
    /// Fragments for mma.m16n8k8" and "mma.m16n8k16"), except that a lane's channels are always 4
    /// apart: the order of channels is free, as long as both operands agree. Steps are the taps of
    /// each channel block if `by_block`, else the channel blocks of each tap.
    fn fragments(
        self,
        weights: &[f32],
        problem: &ConvProblem,
        tile_m: usize,
        steps: usize,
        by_block: bool,
    ) -> Vec<u8> {
        let (channels, taps) =
            (problem.in_channels, problem.window.kernel[0] * problem.window.kernel[1]);
        let (depth, blocks) = (self.depth(), channels.div_ceil(self.depth()));
        let tiles = problem.out_channels.next_multiple_of(tile_m) / 16;
        let size = if self == Self::Fp16 { 2 } else { 4 };
        let mut all = vec![0; tiles * steps * 16 * WARP];
        for (index, row) in weights.chunks_exact(taps.max(1)).enumerate() {
            let (output, channel) = (index / channels, index % channels);
            let (m, k) = (output % 16, channel % depth);
            let lane = m % 8 * 4 + k % 4;
            let place = match self {
                Self::Fp16 => (lane * 4 + k / 8 * 2 + m / 8) * 2 + k / 4 % 2,
                Self::Tf32 | Self::Fp32 => lane * 4 + k / 4 * 2 + m / 8,
            };
            for (tap, &weight) in row.iter().enumerate() {
                let block = channel / depth;
                let step = if by_block { block * taps + tap } else { tap * blocks + block };
                let at = (output / 16 * steps + step) * 16 * WARP + place * size;
                match self {
                    Self::Fp16 => all[at..at + 2].copy_from_slice(&fp16_bits(weight).to_ne_bytes()),
                    Self::Tf32 => all[at..at + 4].copy_from_slice(&rounded(weight).to_ne_bytes()),
                    Self::Fp32 => all[at..at + 4].copy_from_slice(&weight.to_ne_bytes()),
                }
            }
        }
        all
    }
}

/// Rounds to the nearest tf32 number, ties away from zero. NaN and infinities are unchanged.
fn rounded(x: f32) -> f32 {
    if x.is_finite() { f32::from_bits((x.to_bits() + 0x1000) & 0xffff_e000) } else { x }
}
