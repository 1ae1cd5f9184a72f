//! `opencl_tensor_core`, `opencl_tensor_core_fp16` and `opencl_tensor_core_fp32`: see `kernels/tensor_core.cl`. Tensor
//! cores are reached by inline PTX, which NVIDIA's compiler alone understands: they are offered on its devices from compute capability 8.0 on.

use super::super::device::Limits;
use super::super::launch::{Launch, Prepared, bytes_of};
use super::half;
use super::{Algorithm, Chosen, Request, bias, powers, real, switch, unfit};
use crate::error::KernelError;
use crate::halves::{FP16_MAX, fp16_bits};
use crate::operator::ConvProblem;
use crate::schedule::Tunable;

/// How much of the operands takes part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TensorCore {
    /// 10 bits of mantissa.
    Tf32,
    /// The same, in half the space and at twice the speed, of numbers up to 65504; inputs that are larger become that.
    Fp16,
    /// All: three products of parts with 10 bits each.
    Fp32,
}

/// Lanes of a warp.
const WARP: usize = 32;

/// Registers of a multiprocessor of every device with such tensor cores; what a work-item needs besides sums and operands;
/// and how many it can have at all.
const REGISTERS: usize = 65536;
const OTHER_REGISTERS: usize = 28;
const MOST_REGISTERS: usize = 224;

/// Warps for each compute unit that a default schedule is to have at least: latency is hidden by company.
const COMPANY: usize = 12;

/// Tiles of a warp, registers allowing, from the one on which most is multiplied for what is fetched.
const TILES: [[usize; 2]; 5] = [[4, 4], [2, 4], [2, 2], [1, 2], [1, 1]];

/// Most slices of a default schedule, and the fewest steps of each.
const MOST_SLICES: usize = 16;
const LEAST_STEPS: usize = 4;

impl TensorCore {
    /// Inner steps of one instruction.
    fn depth(self) -> usize {
        if self == Self::Fp16 { 16 } else { 8 }
    }

    /// Steps along the inner dimension: every tap with its channels.
    fn steps(self, problem: &ConvProblem) -> usize {
        problem.window.kernel[0] * problem.window.kernel[1] * problem.in_channels.div_ceil(self.depth())
    }

    /// Registers of a work-item: sums, operands, addresses, parts of operands. In words for constraints.
    fn registers(self, [warp_m, warp_n, stage, ahead]: [usize; 4]) -> usize {
        let operands = (1 + ahead) * stage * (4 * warp_m + self.depth() / 4 * warp_n);
        let parts = if self == Self::Fp32 { 4 * warp_m + 4 } else { 0 };
        4 * warp_m * warp_n + operands + 3 * warp_n + parts + OTHER_REGISTERS
    }

    /// `[warp_m, warp_n, split]` to begin with: the largest tiles of which there are enough to keep the device busy.
    fn begin_with(self, problem: &ConvProblem, limits: &Limits, tiles: [usize; 2]) -> [usize; 3] {
        let wanted = COMPANY * limits.compute_units;
        let steps = self.steps(problem);
        let mut begin = [1, 1, 1];
        for [warp_m, warp_n] in TILES {
            let tiles = tiles[0].div_ceil(warp_m) * tiles[1].div_ceil(warp_n);
            let room = limits.local_memory / 4 / (128 * warp_m * warp_n);
            let most = MOST_SLICES.min(steps / LEAST_STEPS).min(room).min(limits.work_group / WARP).max(1);
            begin = [warp_m, warp_n, wanted.div_ceil(tiles.max(1)).min(most)];
            if tiles * most >= wanted {
                break;
            }
        }
        begin
    }
}

impl Algorithm for TensorCore {
    fn name(&self) -> &'static str {
        match self {
            Self::Tf32 => "opencl_tensor_core",
            Self::Fp16 => "opencl_tensor_core_fp16",
            Self::Fp32 => "opencl_tensor_core_fp32",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Self::Tf32 => {
                "matrix product on tensor cores, operands rounded to tf32: 10 bits of mantissa (OpenCL)"
            }
            Self::Fp16 => {
                "matrix product on tensor cores, operands rounded to fp16: 10 bits of mantissa, at most 65504 (OpenCL)"
            }
            Self::Fp32 => {
                "matrix product on tensor cores, three products of tf32 parts for one in fp32 (OpenCL)"
            }
        }
    }

    fn reduced(&self) -> bool {
        *self != Self::Fp32
    }

    fn largest_weight(&self) -> f32 {
        if *self == Self::Fp16 { FP16_MAX } else { f32::INFINITY }
    }

    fn supports(&self, problem: &ConvProblem, limits: &Limits) -> bool {
        // Tests run the same kernel without tensor cores.
        let capable = limits.compute_capability >= 80 || (cfg!(test) && limits.work_group >= WARP);
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
                "split",
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
        ]
    }

    fn constraints(&self, _: &ConvProblem, limits: &Limits) -> Vec<String> {
        let (group, floats) = (limits.work_group.min(1024) / WARP, limits.local_memory / 4);
        // As in `registers`.
        let parts = if *self == Self::Fp32 { "4 * warp_m + 4" } else { "0" };
        let registers = format!(
            "(4 * warp_m * warp_n + (1 + ahead) * stage * (4 * warp_m + {} * warp_n) + 3 * warp_n + {parts} + \
             {OTHER_REGISTERS})",
            self.depth() / 4
        );
        vec![
            format!("warps_m * warps_n * split <= {group}"),
            format!("split == 1 or split * warps_m * warp_m * warps_n * warp_n * 128 <= {floats}"),
            format!("{registers} <= {MOST_REGISTERS}"),
            format!("{registers} * warps_m * warps_n * split <= {}", REGISTERS / WARP),
        ]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Prepared, KernelError> {
        let Request { problem, limits, .. } = request;
        let chosen = Chosen(&request.schedule.tunables);
        let [warp_m, warp_n, warps_m, warps_n] =
            ["warp_m", "warp_n", "warps_m", "warps_n"].map(|name| chosen.get(name));
        let [split, stage] = ["split", "stage"].map(|name| chosen.get(name));
        let ahead = usize::from(chosen.is_on("ahead", false));
        let (tile_m, tile_n) = (16 * warps_m * warp_m, 8 * warps_n * warp_n);
        let threads = WARP * warps_m * warps_n * split;
        let reduced = if split > 1 { split * tile_m * tile_n } else { 0 };
        let native = limits.compute_capability >= 80;
        let exchanged =
            if native { 0 } else { threads / WARP * stage * self.depth() * (16 * warp_m + 8 * warp_n) };
        let registers = self.registers([warp_m, warp_n, stage, ahead]);
        let fits = threads <= limits.work_group.min(1024)
            && 4 * reduced.max(exchanged) <= limits.local_memory
            && registers <= MOST_REGISTERS
            && registers * threads <= REGISTERS;
        if !fits || !self.supports(problem, limits) {
            return Err(unfit(self.name(), "its tiles do not fit this device, or each other"));
        }
        let steps = self.steps(problem).next_multiple_of(split * stage);
        let weights = real(request.weights)?;
        if *self == Self::Fp16 {
            half::check(self.name(), weights)?;
        }
        let weights = self.fragments(weights, problem, tile_m, steps);
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
            .define("HALF", u8::from(*self == Self::Fp16))
            .define("TERMS", if *self == Self::Fp32 { 3 } else { 1 })
            .define("TENSOR_CORE", u8::from(native));
        let pixels = problem.batch * request.output[0] * request.output[1];
        Ok(Prepared {
            launches: vec![Launch {
                source: include_str!("../kernels/tensor_core.cl"),
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
    /// Weights `[out, in, taps]` as `[tile of 16 outputs][step][lane][4 words]`, as bytes: the order in which the lanes of a
    /// warp hold the left operand (PTX ISA, "Matrix Fragments for mma.m16n8k8" and "mma.m16n8k16"), but that a lane's
    /// channels are always 4 apart: the order of channels is free, as long as both operands have the same.
    fn fragments(self, weights: &[f32], problem: &ConvProblem, tile_m: usize, steps: usize) -> Vec<u8> {
        let (channels, taps) = (problem.in_channels, problem.window.kernel[0] * problem.window.kernel[1]);
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
                let step = tap * blocks + channel / depth;
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

/// The nearest number of tf32, ties away from zero; what is not finite stays.
fn rounded(x: f32) -> f32 {
    if x.is_finite() { f32::from_bits((x.to_bits() + 0x1000) & 0xffff_e000) } else { x }
}
