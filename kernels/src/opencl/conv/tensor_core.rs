//! `opencl_tensor_core` and `opencl_tensor_core_fp32`: see `kernels/tensor_core.cl`. Tensor cores are reached by
//! inline PTX, which NVIDIA's compiler alone understands: they are offered on its devices from compute capability 8.0 on.

use super::super::device::Limits;
use super::super::launch::{Launch, Prepared, bytes_of};
use super::super::source::Macros;
use super::implicit_gemm::convolution_arguments;
use super::{Algorithm, Chosen, Request, bias, powers, real, unfit};
use crate::error::KernelError;
use crate::operator::ConvProblem;
use crate::schedule::Tunable;

/// How much of the operands takes part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TensorCore {
    /// 10 bits of mantissa.
    Tf32,
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

impl TensorCore {
    /// Registers of a work-item by the expressions for its tiles; in words for constraints.
    fn registers(self, [warp_m, warp_n, stage]: [usize; 3]) -> usize {
        let operands = 4 * warp_m + 2 * warp_n;
        let parts = if self == Self::Fp32 { 4 * warp_m + 4 } else { 0 };
        4 * warp_m * warp_n + stage * operands + 3 * warp_n + parts + OTHER_REGISTERS
    }
}

impl Algorithm for TensorCore {
    fn name(&self) -> &'static str {
        match self {
            Self::Tf32 => "opencl_tensor_core",
            Self::Fp32 => "opencl_tensor_core_fp32",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Self::Tf32 => {
                "matrix product on tensor cores, operands rounded to tf32: 10 bits of mantissa (OpenCL)"
            }
            Self::Fp32 => {
                "matrix product on tensor cores, three products of tf32 parts for one in fp32 (OpenCL)"
            }
        }
    }

    fn reduced(&self) -> bool {
        *self == Self::Tf32
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
        let steps = steps(problem);
        // A few warps for each scheduler, of which a unit has four.
        let split = (8 * limits.compute_units).div_ceil((rows * columns).max(1)).min(8);
        let most = limits.work_group / WARP;
        vec![
            powers("warp_m", "tiles of 16 outputs of a warp", 1, 4, rows, 1),
            powers("warp_n", "tiles of 8 pixels of a warp", 1, 8, columns, 1),
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
            powers("stage", "inner steps fetched at once", 1, 8, steps, 2),
        ]
    }

    fn constraints(&self, _: &ConvProblem, limits: &Limits) -> Vec<String> {
        let (group, floats) = (limits.work_group.min(1024) / WARP, limits.local_memory / 4);
        // As in `registers`.
        let parts = if *self == Self::Fp32 { "4 * warp_m + 4" } else { "0" };
        let registers = format!(
            "(4 * warp_m * warp_n + stage * (4 * warp_m + 2 * warp_n) + 3 * warp_n + {parts} + {OTHER_REGISTERS})"
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
        let (tile_m, tile_n) = (16 * warps_m * warp_m, 8 * warps_n * warp_n);
        let threads = WARP * warps_m * warps_n * split;
        let reduced = if split > 1 { split * tile_m * tile_n } else { 0 };
        let native = limits.compute_capability >= 80;
        let exchanged = if native { 0 } else { threads / WARP * stage * (128 * warp_m + 64 * warp_n) };
        let registers = self.registers([warp_m, warp_n, stage]);
        let fits = threads <= limits.work_group.min(1024)
            && 4 * reduced.max(exchanged) <= limits.local_memory
            && registers <= MOST_REGISTERS
            && registers * threads <= REGISTERS;
        if !fits || !self.supports(problem, limits) {
            return Err(unfit(self.name(), "its tiles do not fit this device, or each other"));
        }
        let steps = steps(problem).next_multiple_of(split * stage);
        let mut weights = fragments(real(request.weights)?, problem, tile_m, steps);
        if *self == Self::Tf32 {
            weights.iter_mut().for_each(|weight| *weight = rounded(*weight));
        }
        let mut macros = Macros::default();
        macros
            .problem(problem, request.output)
            .activation(request.activation)
            .define("RESIDUAL", u8::from(request.residual))
            .define("STEPS", steps)
            .define("WARP_M", warp_m)
            .define("WARP_N", warp_n)
            .define("WARPS_M", warps_m)
            .define("WARPS_N", warps_n)
            .define("SPLIT", split)
            .define("STAGE", stage)
            .define("TERMS", if *self == Self::Tf32 { 1 } else { 3 })
            .define("TENSOR_CORE", u8::from(native));
        let pixels = problem.batch * request.output[0] * request.output[1];
        Ok(Prepared {
            launches: vec![Launch {
                source: include_str!("../kernels/tensor_core.cl"),
                kernel: "convolve",
                macros,
                groups: [pixels.div_ceil(tile_n), problem.out_channels.div_ceil(tile_m), 1],
                threads,
                arguments: convolution_arguments(),
            }],
            constants: vec![bytes_of(&weights), bytes_of(&bias(request.weights))],
        })
    }
}

/// Steps of 8 along the inner dimension: every tap with its channels.
fn steps(problem: &ConvProblem) -> usize {
    problem.window.kernel[0] * problem.window.kernel[1] * problem.in_channels.div_ceil(8)
}

/// Weights `[out, in, taps]` as `[tile of 16 outputs][step][lane][4]`: the order in which the lanes of a warp hold
/// the left operand (PTX ISA, "Matrix Fragments for mma.m16n8k8").
fn fragments(weights: &[f32], problem: &ConvProblem, tile_m: usize, steps: usize) -> Vec<f32> {
    let (channels, taps) = (problem.in_channels, problem.window.kernel[0] * problem.window.kernel[1]);
    let blocks = channels.div_ceil(8);
    let tiles = problem.out_channels.next_multiple_of(tile_m) / 16;
    let mut all = vec![0.0; tiles * steps * 4 * WARP];
    for (index, row) in weights.chunks_exact(taps.max(1)).enumerate() {
        let (output, channel) = (index / channels, index % channels);
        let (m, k) = (output % 16, channel % 8);
        let place = (m % 8 * 4 + k % 4) * 4 + k / 4 * 2 + m / 8;
        for (tap, &weight) in row.iter().enumerate() {
            let step = tap * blocks + channel / 8;
            all[(output / 16 * steps + step) * 4 * WARP + place] = weight;
        }
    }
    all
}

/// The nearest number of tf32, ties away from zero; what is not finite stays.
fn rounded(x: f32) -> f32 {
    if x.is_finite() { f32::from_bits((x.to_bits() + 0x1000) & 0xffff_e000) } else { x }
}
