//! Direct convolution with weights in single or half precision; see `kernels/direct.cl`.

use super::{Algorithm, Chosen, Request, bias, half, packed, powers, real, switch, unfit};
use crate::launch::{Launch, Prepared, bytes_of};
use crate::limits::Limits;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::registry::{AlgorithmInfo, BackendKind, Numerics};
use paretune_simd::half::FP16_MAX;

/// Weight type of the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direct {
    /// Weights are stored in single precision.
    Fp32,
    /// Weights are stored in half precision and widened when they are read.
    Fp16,
}

/// Maximum number of taps, because the loops over them are unrolled.
const MAX_TAPS: usize = 49;

/// Maximum number of sums that a work-item can hold in registers beside a row of inputs and the
/// weights of a tap.
const MAX_SUMS: usize = 32;

impl AlgorithmInfo for Direct {
    fn name(&self) -> &'static str {
        match self {
            Self::Fp32 => "opencl_direct",
            Self::Fp16 => "opencl_direct_wfp16",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Self::Fp32 => {
                "tiles of outputs by neighboring pixels in registers, every input row read once \
                 (OpenCL)"
            }
            Self::Fp16 => "the same tiles with weights in fp16: 10 bits of mantissa (OpenCL)",
        }
    }

    fn numerics(&self) -> Numerics {
        if *self == Self::Fp16 { Numerics::Reduced } else { Numerics::Exact }
    }

    fn largest_weight(&self) -> f32 {
        if *self == Self::Fp16 { FP16_MAX } else { f32::INFINITY }
    }

    fn backend(&self) -> BackendKind {
        BackendKind::OpenCl
    }
}

impl Algorithm for Direct {
    fn supports(&self, problem: &ConvProblem, _: &Limits) -> bool {
        problem.window.kernel[0] * problem.window.kernel[1] <= MAX_TAPS
    }

    fn tunables(&self, problem: &ConvProblem, limits: &Limits) -> Vec<Tunable> {
        let [height, width] = problem.window.output(problem.input, false).unwrap_or([1, 1]);
        let rows = problem.batch * height * width;
        let group = limits.work_group;
        vec![
            powers("tile_o", "outputs of a work-item", 1, 8, problem.group_out(), 4),
            powers("tile_x", "neighboring pixels of a work-item", 1, 8, width, 4),
            powers("group_o", "work-items along outputs", 1, 16, problem.group_out(), 4),
            powers("group_p", "work-items along pixels", 1, 128.min(group), rows, 16),
            powers(
                "split_k",
                "slices of a work-group that share the channels",
                1,
                32,
                problem.group_in(),
                1,
            ),
            powers("stage", "channels at a time", 1, 16, problem.group_in(), 2),
            powers("unroll", "channels unrolled", 1, 4, problem.group_in(), 1),
            switch("local", "whether weights are staged in local memory", false),
        ]
    }

    fn constraints(&self, problem: &ConvProblem, limits: &Limits) -> Vec<String> {
        let (group, floats) = (limits.work_group.min(1024), limits.local_memory / 4);
        let taps = problem.window.kernel[0] * problem.window.kernel[1];
        vec![
            format!("group_o * group_p * split_k <= {group}"),
            format!("tile_o * tile_x <= {MAX_SUMS}"),
            "unroll <= stage".to_owned(),
            format!("local == 0 or split_k * stage * group_o * tile_o * {taps} <= {floats}"),
            format!("split_k == 1 or split_k * group_o * group_p * tile_o * tile_x <= {floats}"),
        ]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Prepared, KernelError> {
        let Request { problem, limits, .. } = request;
        let chosen = Chosen(&request.schedule.tunables);
        let [tile_o, tile_x, group_o, group_p] =
            ["tile_o", "tile_x", "group_o", "group_p"].map(|name| chosen.get(name));
        let [split, stage, unroll] = ["split_k", "stage", "unroll"].map(|name| chosen.get(name));
        let local = chosen.is_on("local", false);
        let taps = problem.window.kernel[0] * problem.window.kernel[1];
        let threads = group_o * group_p * split;
        let tile_out = group_o * tile_o;
        let staged = if local { split * stage * taps * tile_out } else { 0 };
        let reduced = if split > 1 { threads * tile_o * tile_x } else { 0 };
        let fits = threads <= limits.work_group.min(1024)
            && 4 * staged.max(reduced) <= limits.local_memory
            && tile_o * tile_x <= MAX_SUMS
            && unroll <= stage;
        if !fits || taps > MAX_TAPS {
            return Err(unfit(self.name(), "its tiles do not fit this device, or each other"));
        }
        let inner = problem.group_in() * taps;
        let columns = problem.group_out().next_multiple_of(tile_out);
        let weights = packed(
            real(request.weights)?,
            problem.groups,
            problem.group_out(),
            inner,
            inner,
            columns,
        );
        let mut macros = request.macros();
        macros
            .define("O_PAD", columns)
            .define("TILE_O", tile_o)
            .define("TILE_X", tile_x)
            .define("GROUP_O", group_o)
            .define("GROUP_P", group_p)
            .define("SPLIT", split)
            .define("STAGE", stage)
            .define("LOCAL", u8::from(local))
            .define("UNROLL", unroll);
        let weights = if *self == Self::Fp16 {
            macros.define("HALF_WEIGHTS", 1);
            half::bytes_of_halves(self.name(), &weights)?
        } else {
            bytes_of(&weights)
        };
        let [height, width] = request.output;
        let runs = problem.batch * height * width.div_ceil(tile_x);
        Ok(Prepared {
            launches: vec![Launch {
                source: include_str!("../kernels/direct.cl"),
                kernel: "convolve",
                macros,
                groups: [
                    runs.div_ceil(group_p),
                    problem.group_out().div_ceil(tile_out),
                    problem.groups,
                ],
                threads,
                arguments: request.arguments(2),
            }],
            constants: vec![weights, bytes_of(&bias(request.weights))],
        })
    }
}
