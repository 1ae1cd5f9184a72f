//! Compressed integer weights over 8-bit NHWC activations: block-sparse (BSR) weights, and low-bit
//! weights that are unpacked in registers. Sums are exact.
//!
//! Low-bit weights take 4 or 2 bits in memory (3 bits are stored as 4, ternary weights as 2). They
//! pay if reading weights takes most of the time: few pixels per weight. Zero blocks are skipped in
//! both formats.

use super::implicit_gemm_i8::MAX_TERMS;
use crate::conv::algorithm::{Algorithm, Call, Kernel, Request};
use crate::conv::compressed;
use crate::conv::compressed::{
    CompressedGemm, GemmArgs, I8, I8Store, Kind, LowBit, positions, reaches, tile_tunable,
};
use crate::conv::gemm_i8::{DotForm, input_grid};
use crate::conv::support::buffer::{Buffer, whole_lines};
use crate::conv::support::epilogue_i8::{EpilogueI8, Target};
use crate::conv::support::indirection::IndirectionBuffer;
use crate::conv::support::pad::{PadBytes, PadBytesEntry, pad_bytes, pad_low_bit};
use crate::conv::support::request::{padded, sensible};
use crate::conv::support::split::{Split, panel_tunable, prefetch_tunable, split_tunable};
use crate::conv::support::tiles::Extent;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::plan::weights::{Grid, Numbers, Pattern, WeightFormat};
use paretune_base::registry::AlgorithmInfo;
use paretune_base::threads::Worker;
use paretune_simd::Isa;
use paretune_simd::lanes;

/// Implicit GEMM over 8-bit BSR weights.
pub(crate) struct BsrGemmI8;

/// Implicit GEMM over weights of at most 4 bits.
pub(crate) struct GemmLowBitI8;

impl AlgorithmInfo for BsrGemmI8 {
    fn name(&self) -> &'static str {
        "bsr_gemm_i8"
    }

    fn about(&self) -> &'static str {
        "8-bit matrix product over the blocks of weights that are not zero"
    }

    fn is_integer(&self) -> bool {
        true
    }

    fn executes(&self, format: WeightFormat) -> bool {
        format.numbers.is_integer()
            && matches!(format.pattern, Pattern::Blocks { outputs: 4.., .. })
    }
}

impl Algorithm for BsrGemmI8 {
    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        supports(problem)
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        // The tuner does not know the sparsity; half of the weights are assumed to be zero.
        tunables::<I8>(problem, isa, 4.0)
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        prepare::<I8>(request)
    }
}

impl AlgorithmInfo for GemmLowBitI8 {
    fn name(&self) -> &'static str {
        "gemm_low_bit_i8"
    }

    fn about(&self) -> &'static str {
        "matrix product with weights of 2 or 4 bits in memory, unpacked in registers"
    }

    fn is_integer(&self) -> bool {
        true
    }

    fn executes(&self, format: WeightFormat) -> bool {
        matches!(
            format.numbers,
            Numbers::Integer(Grid::Ternary | Grid::Bits2 | Grid::Bits3 | Grid::Bits4)
        )
    }
}

impl Algorithm for GemmLowBitI8 {
    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        supports(problem)
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        tunables::<LowBit<4>>(problem, isa, 4.0)
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        match request.integer_weights()?.grid {
            Grid::Ternary | Grid::Bits2 => prepare::<LowBit<2>>(request),
            Grid::Bits3 | Grid::Bits4 => prepare::<LowBit<4>>(request),
            grid => Err(KernelError::Data(format!(
                "`gemm_low_bit_i8` has no room for weights of {grid:?}"
            ))),
        }
    }
}

/// Returns the elements per row and per pixel of the padded input.
fn strides(problem: &ConvProblem) -> [usize; 2] {
    [padded(problem)[1] * problem.in_channels, problem.in_channels]
}

fn supports(problem: &ConvProblem) -> bool {
    sensible(problem) && problem.depth() <= MAX_TERMS && reaches(problem, strides(problem))
}

/// Returns the tunables; `bits` is the assumed number of bits per weight.
fn tunables<K: Kind>(problem: &ConvProblem, isa: Isa, bits: f64) -> Vec<Tunable> {
    let extent = Extent::of(problem);
    let depth = problem.depth();
    let column = (depth as f64 * bits / 8.0) as usize;
    let [tile_m, tile_n] = tile_tunable::<K>(extent, isa);
    vec![
        tile_m,
        tile_n,
        panel_tunable(extent, column, isa),
        split_tunable(problem, extent, isa),
        prefetch_tunable(problem.out_channels * column),
    ]
}

fn prepare<K>(request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError>
where
    K: Kind<Source = i8, Sum = i32, Store = I8Store>,
{
    let (output, token) = request.check()?;
    let problem = request.problem;
    if !supports(&problem) {
        let algorithm = &request.schedule.algorithm;
        return Err(KernelError::Data(format!("{problem:?} is too large for `{algorithm}`")));
    }
    let stored = request.integer_weights()?;
    let (lowest, highest) = stored.grid.levels();
    if stored.values.iter().any(|value| !(lowest..=highest).contains(value)) {
        return Err(KernelError::Data(format!(
            "weights are not all of the grid {:?}",
            stored.grid
        )));
    }
    let grid = input_grid(request)?;
    let tile = request.tile()?;
    let (form, step) = compressed::form::<K>(token);
    let epilogue = EpilogueI8::new(request);
    let (group_in, group_out) = (problem.group_in(), problem.group_out());
    // Reading whole steps is safe in a copy, which has room behind it.
    let copies =
        form.centered || problem.window.padding != [0; 4] || !group_in.is_multiple_of(step);
    let segments = positions(&problem, Some(strides(&problem)), step);
    let taps = problem.taps();
    let depth = taps * group_in;
    let width = group_out.next_multiple_of(lanes(request.isa));
    let groups = (0..problem.groups)
        .map(|group| {
            let first = group * group_out;
            let weight = |column: usize, tap: usize, channel: usize| {
                stored.values[(first + column) * depth + channel * taps + tap]
            };
            let start = |column: usize| {
                form.start(grid.zero_point, &stored.values[(first + column) * depth..][..depth])
            };
            let sizes = [group_out, group_in];
            let gemm =
                CompressedGemm::<K>::new(request, token, tile, sizes, &segments, weight, start)?;
            let channels = first..first + group_out;
            let [scale, bias] =
                epilogue.packed(request, &stored.scales, grid.scale, channels, width)?;
            Ok(Group { gemm, scale, bias })
        })
        .collect::<Result<Vec<_>, KernelError>>()?;
    Ok(Box::new(Prepared {
        rows: IndirectionBuffer::windows(&problem, output, padded(&problem)),
        zero_point: grid.zero_point,
        pixels: problem.batch * output[0] * output[1],
        panel: request.count("panel")?,
        split: Split::from_request(request)?,
        pad: copies.then(|| if K::FEW_ROWS { pad_low_bit(token) } else { pad_bytes(token) }),
        form,
        step,
        epilogue,
        problem,
        groups,
    }))
}

struct Group<K: Kind> {
    gemm: CompressedGemm<K>,
    scale: Buffer<f32>,
    bias: Buffer<f32>,
}

struct Prepared<K: Kind> {
    problem: ConvProblem,
    rows: IndirectionBuffer,
    groups: Vec<Group<K>>,
    pixels: usize,
    panel: usize,
    split: Split,
    form: DotForm,
    /// Input channels per step in k.
    step: usize,
    zero_point: u8,
    /// Function that copies the input with its padding into the workspace, if a copy is needed.
    pad: Option<PadBytesEntry>,
    epilogue: EpilogueI8,
}

impl<K: Kind<Store = I8Store>> Kernel for Prepared<K> {
    fn workspace_bytes(&self) -> usize {
        if self.pad.is_none() {
            return 0;
        }
        let rows = self.problem.batch * padded(&self.problem)[0];
        // Includes room for the step that reads beyond the last channel.
        whole_lines((rows * strides(&self.problem)[0] + self.step) * self.form.bytes)
    }

    fn weight_bytes(&self) -> usize {
        let bytes =
            |group: &Group<K>| group.gemm.bytes() + group.scale.bytes() + group.bias.bytes();
        self.groups.iter().map(bytes).sum()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        let mut input = call.input;
        if let Some(pad) = self.pad {
            // SAFETY: the caller vouches for the addresses, and the workspace has room for the
            // padded input.
            input = unsafe { PadBytes::share(pad, &self.problem, self.zero_point, call, worker) };
        }
        for (number, group) in self.groups.iter().enumerate() {
            let input = input.wrapping_add(number * self.problem.group_in() * self.form.bytes);
            let args = GemmArgs {
                rows: self.rows.view(),
                input,
                // The input carries its padding, so no run is replaced by zeros.
                zeros: input,
                store: I8Store {
                    target: Target { output: call.output, residual: call.residual },
                    first: number * self.problem.group_out(),
                    scale: group.scale.as_ptr(),
                    bias: group.bias.as_ptr(),
                    epilogue: self.epilogue,
                },
                stride: self.problem.out_channels,
            };
            let gemm = &group.gemm;
            for (pixels, blocks) in self.split.parts(worker, self.pixels, &gemm.part()) {
                // SAFETY: the caller vouches for the addresses; channels of a group lie within each
                // pixel, and workers have disjoint parts of the pixels or of the channels.
                unsafe { gemm.run(&args, pixels, blocks, self.panel) };
            }
        }
    }
}
