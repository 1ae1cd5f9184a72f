//! Host side of depthwise convolution; see `kernels/depthwise.cl`.

use super::{Algorithm, Chosen, Request, bias, powers, real, unfit};
use crate::launch::{Launch, Prepared, bytes_of};
use crate::limits::Limits;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::registry::{AlgorithmInfo, BackendKind};

pub(super) struct Depthwise;

const NAME: &str = "opencl_depthwise";

/// Maximum number of taps, because the loops over them are unrolled.
const MAX_TAPS: usize = 49;

impl AlgorithmInfo for Depthwise {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "depthwise convolution, patches of one channel in registers (OpenCL)"
    }

    fn backend(&self) -> BackendKind {
        BackendKind::OpenCl
    }
}

impl Algorithm for Depthwise {
    fn supports(&self, problem: &ConvProblem, _: &Limits) -> bool {
        problem.is_depthwise() && problem.window.kernel[0] * problem.window.kernel[1] <= MAX_TAPS
    }

    fn tunables(&self, problem: &ConvProblem, limits: &Limits) -> Vec<Tunable> {
        let [height, width] = problem.window.output(problem.input, false).unwrap_or([1, 1]);
        let pixels = problem.batch * problem.in_channels * height * width;
        vec![
            powers("tile_x", "neighboring pixels of a work-item", 1, 8, width, 2),
            powers("tile_y", "rows of a work-item", 1, 4, height, 1),
            powers("threads", "work-items of a group", 8, 512.min(limits.work_group), pixels, 64),
        ]
    }

    fn constraints(&self, _: &ConvProblem, _: &Limits) -> Vec<String> {
        Vec::new()
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Prepared, KernelError> {
        let Request { problem, limits, .. } = request;
        let chosen = Chosen(&request.schedule.tunables);
        let [tile_x, tile_y, threads] =
            ["tile_x", "tile_y", "threads"].map(|name| chosen.get(name));
        if !self.supports(problem, limits) || threads > limits.work_group {
            return Err(unfit(
                NAME,
                "the step is not depthwise, or the device's work-groups are too small",
            ));
        }
        let mut macros = request.macros();
        macros.define("TILE_X", tile_x).define("TILE_Y", tile_y).define("THREADS", threads);
        let [height, width] = request.output;
        let items =
            problem.batch * problem.in_channels * height.div_ceil(tile_y) * width.div_ceil(tile_x);
        Ok(Prepared {
            launches: vec![Launch {
                source: include_str!("../kernels/depthwise.cl"),
                kernel: "convolve",
                macros,
                groups: [items.div_ceil(threads), 1, 1],
                threads,
                arguments: request.arguments(2),
            }],
            constants: vec![bytes_of(real(request.weights)?), bytes_of(&bias(request.weights))],
        })
    }
}
