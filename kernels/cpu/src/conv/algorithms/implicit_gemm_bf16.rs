//! Implicit GEMM in bfloat16 over NHWC activations: twice the multiply-adds of single precision per
//! instruction, and half of the weight bytes.
//!
//! Activations stay in single precision between layers. They are rounded once per layer, together
//! with their padding, to pairs that are adjacent along k; sums and the epilogue are in single
//! precision.

use super::implicit_gemm::{Copied, Prepared, Runs};
use crate::conv::algorithm::{Algorithm, Kernel, Request};
use crate::conv::gemm_f32::PackedGemm;
use crate::conv::support::buffer::Buffer;
use crate::conv::support::epilogue::Epilogue;
use crate::conv::support::indirection::IndirectionBuffer;
use crate::conv::support::pad::pad_bf16;
use crate::conv::support::request::{padded, sensible};
use crate::conv::support::split::{Prefetch, Split, panel_tunable, split_tunable};
use crate::conv::support::tiles::{Extent, real_tile_tunable};
use paretune_base::error::KernelError;
use paretune_base::plan::operator::{ConvProblem, Window};
use paretune_base::plan::schedule::Tunable;
use paretune_base::plan::weights::{Numbers, WeightFormat};
use paretune_base::registry::AlgorithmInfo;
use paretune_simd::Isa;

/// Implicit GEMM that multiplies pairs of bfloat16.
pub(crate) struct ImplicitGemmBf16;

/// Products per step in k.
const PAIR: usize = 2;

/// Returns the steps per run; the last one may be half a pair.
fn steps(run: &Runs) -> usize {
    run.len.div_ceil(PAIR)
}

impl AlgorithmInfo for ImplicitGemmBf16 {
    fn name(&self) -> &'static str {
        "implicit_gemm_bf16"
    }

    fn about(&self) -> &'static str {
        "matrix product in bfloat16 over the taps of a channels-last input, in registers"
    }

    fn executes(&self, format: WeightFormat) -> bool {
        format.numbers == Numbers::Bf16
    }
}

impl Algorithm for ImplicitGemmBf16 {
    fn supports(&self, problem: &ConvProblem, isa: Isa) -> bool {
        // A depthwise channel has no second channel to pair with.
        sensible(problem) && isa == Isa::Avx512Bf16 && !problem.is_depthwise()
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        let extent = Extent::of(problem);
        let runs = Runs::of(problem);
        let column = runs.count * steps(&runs) * size_of::<f32>();
        let [tile_m, tile_n] = real_tile_tunable(extent, isa);
        vec![
            tile_m,
            tile_n,
            panel_tunable(extent, column, isa),
            split_tunable(problem, extent, isa),
            Prefetch::tunable(problem.out_channels * column, extent.rows),
        ]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, token) = request.check()?;
        request.check_f32()?;
        let problem = request.problem;
        let tile = request.tile()?;
        let stored = request.f32_weights()?;
        let (group_in, group_out) = (problem.group_in(), problem.group_out());
        let taps = problem.taps();
        let runs = Runs::of(&problem);
        let padded_run = steps(&runs) * PAIR;
        let weight = |group: usize, k: usize, column: usize| {
            let (run, number) = (k / padded_run, k % padded_run);
            if number >= runs.len {
                return 0.0;
            }
            let k = run * runs.len + number;
            stored[((group * group_out + column) * group_in + k % group_in) * taps + k / group_in]
        };
        let bias = |group: usize, column: usize| request.bias(group * group_out + column);
        let sizes = [problem.groups, runs.count * steps(&runs), group_out];
        let bf16 = token
            .bf16()
            .ok_or_else(|| KernelError::Data("this processor does not multiply bfloat16".into()))?;
        let gemms = PackedGemm::of_pairs(request, token, tile, sizes, weight, bias)?;
        let size = padded(&problem);
        let unpadded = ConvProblem {
            input: size,
            window: Window { padding: [0; 4], ..problem.window },
            ..problem
        };
        Ok(Box::new(Prepared {
            rows: if runs.merge {
                IndirectionBuffer::runs(&problem, output, size)
            } else {
                IndirectionBuffer::taps(&unpadded, output)
            },
            run: steps(&runs),
            taps: None,
            copied: Copied::Bf16(pad_bf16(bf16)),
            output,
            pixels: problem.batch * output[0] * output[1],
            panel: request.count("panel")?,
            ahead: Prefetch::from_request(request)?,
            split: Split::from_request(request)?,
            epilogue: Epilogue::new(request.activation),
            // Never read, because the copy carries its padding.
            zeros: Buffer::zeros(padded_run),
            problem,
            gemms,
        }))
    }
}
