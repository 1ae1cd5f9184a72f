//! Packed 8-bit GEMM, the integer counterpart of [`crate::conv::gemm_f32`].

use std::ops::Range;

use crate::conv::algorithm::Request;
use crate::conv::support::buffer::Buffer;
use crate::conv::support::epilogue_i8::{EpilogueI8, Target};
use crate::conv::support::indirection::IndirectionView;
use crate::conv::support::split::PartWork;
use crate::conv::support::tiles::{Tile, cover, with_smaller};
use paretune_base::error::KernelError;
use paretune_base::plan::Quantization;
use paretune_base::plan::layout::Element;
use paretune_simd::{Activate, Dispatch, IsaToken, Simd, SimdOp, lanes};

mod by_tap;
mod kernel;
mod tap_kernel;

pub(crate) use by_tap::{PackedTapGemm, TapGemmArgs};
pub(crate) use kernel::{Microkernel, MicrokernelArgs, widens};

/// Requirements of an instruction set's dot product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DotForm {
    /// Number of products that are summed per lane.
    pub(crate) group: usize,
    /// Bytes per activation element in memory.
    pub(crate) bytes: usize,
    /// Whether the zero point has been subtracted from the activations.
    pub(crate) centered: bool,
    /// Amount by which dot products reduce activations, [`Simd::SHIFT`].
    pub(crate) shift: i32,
}

/// Returns the initial value of a sum of `weights` times activations minus `shift`, so that the
/// result is the sum for activations minus `zero_point`.
pub(crate) fn start_of(weights: &[i8], shift: i32, zero_point: u8) -> i32 {
    (shift - i32::from(zero_point)) * weights.iter().map(|&weight| i32::from(weight)).sum::<i32>()
}

impl DotForm {
    /// Returns the initial value of the sum over all `weights` of a channel, so that the result is
    /// the sum for activations minus `zero_point`.
    pub(crate) fn start(&self, zero_point: u8, weights: &[i8]) -> i32 {
        if self.centered { 0 } else { start_of(weights, self.shift, zero_point) }
    }

    pub(crate) fn of(token: IsaToken) -> Self {
        struct TensorFormat;
        impl SimdOp for TensorFormat {
            type Output = DotForm;
            fn eval<S: Simd>(self, _: S) -> DotForm {
                DotForm {
                    group: S::GROUP,
                    bytes: size_of::<S::Act>(),
                    centered: <S::Act as Activate>::CENTERED,
                    shift: S::SHIFT,
                }
            }
        }
        token.dispatch(TensorFormat)
    }
}

/// Returns the quantization of an 8-bit input.
///
/// # Errors
/// Fails if the input is single precision, which the caller must convert.
pub(crate) fn input_grid(request: &Request<'_>) -> Result<Quantization, KernelError> {
    match request.input {
        Element::U8(grid) => Ok(grid),
        Element::F32 => {
            Err(KernelError::Data(format!("`{}` needs an 8-bit input", request.schedule.algorithm)))
        }
    }
}

/// Number of 8-bit multiply-adds that take at most the time of one in single precision.
const FASTER: usize = 2;

/// Packed GEMM: the weights of one group, packed for a tile.
pub(crate) struct PackedGemm {
    /// Microkernels of the tile and of all smaller ones for edges, `[rows - 1][vectors - 1]`.
    kernels: Vec<Vec<Microkernel>>,
    tile: Tile,
    lanes: usize,
    columns: usize,
    /// Number of weights per output channel, k.
    depth: usize,
    /// Number of products per lane of the dot product.
    group: usize,
    /// Size of a packed weight in bytes.
    bytes: usize,
    weights: Buffer<u8>,
    start: Buffer<i32>,
    scale: Buffer<f32>,
    bias: Buffer<f32>,
}

/// GEMM arguments: addresses and strides of one run of a [`PackedGemm`].
#[derive(Clone, Copy)]
pub(crate) struct GemmArgs<'a> {
    pub(crate) rows: IndirectionView,
    /// Address of the input, which carries its padding.
    pub(crate) input: *const u8,
    /// Offsets in elements of a window's runs in the input.
    pub(crate) runs: &'a [usize],
    /// Number of dot-product groups per run.
    pub(crate) run: usize,
    pub(crate) target: Target,
    /// Offset in elements of column 0 of row 0 in the output.
    pub(crate) at: usize,
    /// Distance in elements between rows of the output.
    pub(crate) stride: usize,
    /// Prefetch distance of the weights in bytes.
    pub(crate) ahead: usize,
    pub(crate) epilogue: EpilogueI8,
}

impl PackedGemm {
    /// Packs the products of a convolution, one per group. Their k dimension is `runs` runs of
    /// `run` elements: taps in the order of `taps`, or all taps in window order, then input
    /// channels. `widened` weights are stored in 16 bits. If `taps` are given, each has its own
    /// initial values.
    ///
    /// # Errors
    /// Fails if weights or input have another format or the tile has no microkernel.
    pub(crate) fn of_groups(
        request: &Request<'_>,
        token: IsaToken,
        tile: Tile,
        [runs, run]: [usize; 2],
        widened: bool,
        taps: Option<&[usize]>,
    ) -> Result<Vec<Self>, KernelError> {
        let dense = request.integer_weights()?;
        let grid = input_grid(request)?;
        let problem = &request.problem;
        let epilogue = EpilogueI8::new(request);
        let lanes = lanes(token.isa());
        let form = DotForm::of(token);
        let kernels = with_smaller(tile, |tile| Microkernel::new(token, tile, widened))
            .ok_or_else(|| request.bad_value("tile"))?;
        let (group_in, columns) = (problem.group_in(), problem.group_out());
        let window = problem.taps();
        let order: Vec<usize> = taps.map_or_else(|| (0..window).collect(), <[usize]>::to_vec);
        let padded_run = run.next_multiple_of(form.group);
        let depth = runs * padded_run;
        let padded = columns.next_multiple_of(lanes);
        let width = tile.vectors * lanes;
        let bytes = if widened { size_of::<i16>() } else { 1 };
        let packing = request.packing;
        let pack = |group: usize| {
            let of_channel = |column: usize| {
                &dense.values[(group * columns + column) * window * group_in..][..window * group_in]
            };
            let weights = packing.numbers::<u8>(padded * depth * bytes, |weights| {
                for column in 0..columns {
                    let stored = of_channel(column);
                    let first = column / width * width;
                    let block = width.min(padded - first);
                    for number in 0..runs * run {
                        // Index along k with padded runs, and the value in the stored order, in
                        // which taps vary fastest.
                        let k = number / run * padded_run + number % run;
                        let value = stored[number % group_in * window + order[number / group_in]];
                        let at = first * depth
                            + (k / form.group * block + column - first) * form.group
                            + k % form.group;
                        let to = &mut weights[at * bytes..][..bytes];
                        if widened {
                            to.copy_from_slice(&i16::from(value).to_ne_bytes());
                        } else {
                            to.copy_from_slice(&value.to_ne_bytes());
                        }
                    }
                }
            })?;
            let start = packing.numbers(
                if taps.is_some() { order.len() * padded } else { padded },
                |start| {
                    for column in 0..columns {
                        let stored = of_channel(column);
                        if taps.is_none() {
                            start[column] = form.start(grid.zero_point, stored);
                            continue;
                        }
                        for (number, &tap) in order.iter().enumerate() {
                            let of_tap: Vec<i8> =
                                stored[tap..].iter().step_by(window).copied().collect();
                            start[number * padded + column] = form.start(grid.zero_point, &of_tap);
                        }
                    }
                },
            )?;
            let channels = group * columns..(group + 1) * columns;
            let [scale, bias] =
                epilogue.packed(request, &dense.scales, grid.scale, channels, padded)?;
            let kernels = kernels.clone();
            Ok(Self {
                kernels,
                tile,
                lanes,
                columns,
                depth,
                group: form.group,
                bytes,
                weights,
                start,
                scale,
                bias,
            })
        };
        (0..problem.groups).map(pack).collect()
    }

    /// Returns the number of column blocks of the tile's width.
    pub(crate) fn blocks(&self) -> usize {
        self.columns.div_ceil(self.tile.vectors * self.lanes)
    }

    /// Returns the cost that determines the size of parts.
    pub(crate) fn part(&self) -> PartWork {
        let width = self.tile.vectors * self.lanes;
        PartWork {
            multiply_adds: self.depth * width / FASTER,
            rows: self.tile.rows,
            blocks: self.blocks(),
        }
    }

    /// Returns the bytes of packed weights, initial values, scales and biases.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.bytes() + self.start.bytes() + self.scale.bytes() + self.bias.bytes()
    }

    /// Computes `rows` times the columns of `blocks`, `panel` blocks at a time. Within a panel each
    /// tile of rows visits every block before the next tile is touched.
    ///
    /// # Safety
    /// `args` must be valid for these rows and columns, and no other thread may write there.
    pub(crate) unsafe fn run(
        &self,
        args: &GemmArgs<'_>,
        rows: Range<usize>,
        blocks: Range<usize>,
        panel: usize,
    ) {
        cover(self.tile, self.lanes, self.columns, rows, blocks, panel, |span| {
            // SAFETY: `cover` names blocks of `blocks` and rows of `rows`. Weights, starts, scales
            // and biases have all blocks, and the caller's addresses are valid for these rows and
            // columns.
            unsafe {
                let kernel_args = MicrokernelArgs {
                    rows: args.rows,
                    input: args.input,
                    runs: args.runs.as_ptr(),
                    run_count: args.runs.len(),
                    run: args.run,
                    weights: self.weights.as_ptr().add(span.column * self.depth * self.bytes),
                    start: self.start.as_ptr().add(span.column),
                    scale: self.scale.as_ptr().add(span.column),
                    bias: self.bias.as_ptr().add(span.column),
                    target: args.target,
                    at: args.at + span.column,
                    pixel: args.stride,
                    first: span.first,
                    tiles: span.tiles,
                    blocks: span.blocks,
                    ahead: args.ahead,
                    channels: span.channels,
                    epilogue: args.epilogue,
                };
                (self.kernels[span.tile.rows - 1][span.tile.vectors - 1].run)(&kernel_args);
            }
        });
    }
}
