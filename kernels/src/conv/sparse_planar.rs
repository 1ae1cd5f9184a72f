//! Unstructured sparsity over planar activations: per output channel, the non-zero weights alone, each
//! applied to a register tile of many output pixels.
//!
//! A non-zero is a weight and the distance of its input, so the inner loop does not know what a window
//! is. With enough pixels in registers it runs at the rate of the dense one, per non-zero. (Elsen et
//! al., "Fast Sparse ConvNets", 2020, do so for 1x1 windows.)

use super::finish::Finish;
use super::planar::{Phases, StorePixels};
use super::request::sensible;
use super::{Algorithm, Call, Kernel, Layout, Request};
use crate::error::KernelError;
use crate::hardware::Isa;
use crate::operator::ConvProblem;
use crate::schedule::Tunable;
use crate::simd::{Build, Job, Simd, build, lanes};
use crate::team::Worker;
use crate::weights::WeightFormat;

/// The algorithm.
pub(super) struct SparsePlanar;

/// Vectors of pixels that compiled tiles have.
const VECTORS: [usize; 6] = [1, 2, 4, 6, 8, 12];

impl Algorithm for SparsePlanar {
    fn name(&self) -> &'static str {
        "sparse_planar"
    }

    fn about(&self) -> &'static str {
        "non-zero weights alone, each over a register tile of pixels"
    }

    fn executes(&self, format: WeightFormat) -> bool {
        format == WeightFormat::SPARSE_F32
    }

    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        // Distances are kept in 32 bits, in numbers; generously, with all phases of a strided input.
        let [height, width] = super::request::padded(problem);
        let stride = problem.window.stride;
        sensible(problem)
            && (height + stride[0])
                .checked_mul(width + stride[1])
                .and_then(|plane| plane.checked_mul(problem.in_channels))
                .is_some_and(|numbers| u32::try_from(numbers).is_ok())
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        let pixels = problem.output().map_or(1, |[height, width]| height * width);
        let values: Vec<i64> = VECTORS
            .iter()
            .filter(|&&vectors| vectors == 1 || (vectors - 1) * lanes(isa) < pixels)
            .map(|&vectors| (vectors * lanes(isa)) as i64)
            .collect();
        Vec::from([Tunable {
            name: "pixels",
            about: "output pixels whose sums are held in registers",
            default: values
                .iter()
                .copied()
                .filter(|&value| value <= 8 * lanes(isa) as i64)
                .max()
                .unwrap_or(values[0]),
            values,
        }])
    }

    fn layout(&self) -> Layout {
        Layout::Planar
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, usable) = request.check()?;
        request.check_f32()?;
        let stored = request.f32_weights()?;
        let problem = request.problem;
        if !self.supports(&problem, request.isa) {
            return Err(KernelError::Data(format!("{problem:?} is too large for `sparse_planar`")));
        }
        let width = request.count("pixels")?;
        let lanes = lanes(request.isa);
        let entry = build(usable, Select { vectors: width / lanes })
            .filter(|_| width % lanes == 0)
            .ok_or_else(|| request.bad_value("pixels"))?;
        let phases = Phases::new(&problem, output, width);
        let [tap_rows, tap_columns] = problem.window.kernel;
        let group_in = problem.group_in();
        let depth = group_in * tap_rows * tap_columns;
        let mut non_zeros = Vec::new();
        let mut ends = Vec::with_capacity(problem.out_channels);
        for channel in 0..problem.out_channels {
            let first = channel / problem.group_out() * group_in;
            for (k, &weight) in stored[channel * depth..][..depth].iter().enumerate() {
                if weight != 0.0 {
                    let tap = k % (tap_rows * tap_columns);
                    let distance = (first + k / (tap_rows * tap_columns)) * phases.channel()
                        + phases.tap(tap / tap_columns, tap % tap_columns);
                    let distance = u32::try_from(distance)
                        .map_err(|_| KernelError::Data(format!("{problem:?} is too large")))?;
                    non_zeros.push(NonZero { weight, distance });
                }
            }
            ends.push(non_zeros.len());
        }
        Ok(Box::new(Prepared {
            bias: (0..problem.out_channels).map(|channel| request.bias(channel)).collect(),
            finish: Finish::new(request.activation),
            pixels: output[0] * output[1],
            problem,
            phases,
            non_zeros,
            ends,
            entry,
            width,
        }))
    }
}

/// A weight and how far its input is from the output's flat pixel number.
#[derive(Clone, Copy)]
struct NonZero {
    weight: f32,
    distance: u32,
}

struct Prepared {
    problem: ConvProblem,
    phases: Phases,
    /// Output pixels of a plane.
    pixels: usize,
    non_zeros: Vec<NonZero>,
    /// Where each output channel's end.
    ends: Vec<usize>,
    bias: Vec<f32>,
    entry: Entry,
    /// Flat pixels of a tile.
    width: usize,
    finish: Finish,
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        self.phases.bytes(self.width)
    }

    fn weight_bytes(&self) -> usize {
        size_of_val(&self.non_zeros[..]) + size_of_val(&self.ends[..]) + size_of_val(&self.bias[..])
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        let mut input = call.input.cast::<f32>();
        if !self.phases.reads_input() {
            // SAFETY: the workspace has room for the copy, and each channel has one writer.
            unsafe { self.phases.copy(worker.share(self.phases.planes()), input, call.workspace.cast()) };
            worker.wait();
            input = call.workspace.cast_const().cast();
        }
        // A tile of pixels meets all channels before the next one is loaded. Channels differ in their
        // non-zeros, tiles do not: workers share the tiles, and channels only where tiles are too few.
        let columns = self.phases.pixels().div_ceil(self.width);
        let tiles = self.problem.batch * columns;
        let parts = if tiles >= worker.count { 1 } else { worker.count };
        for task in worker.share(tiles * parts) {
            let (tile, part) = (task / parts, task % parts);
            let image = tile / columns;
            let channels = self.part(part, parts);
            // SAFETY: distances were made for this input; each task has its own channels and pixels.
            unsafe {
                let input = input.add(image * self.phases.image());
                let start = tile % columns * self.width;
                (self.entry)(&Tile { kernel: self, call, input, image, start, channels });
            }
        }
    }
}

impl Prepared {
    /// The channels of part `part` of `parts` with about equally many non-zeros.
    fn part(&self, part: usize, parts: usize) -> std::ops::Range<usize> {
        // Every channel counts a little without any.
        let weight = |channel: usize| self.ends[channel] + 8 * channel;
        let total = weight(self.ends.len() - 1) + 1;
        let channel_at = |share: usize| {
            let bound = total * share / parts;
            let (mut low, mut high) = (0, self.ends.len());
            while low < high {
                let middle = low.midpoint(high);
                if weight(middle) < bound { low = middle + 1 } else { high = middle }
            }
            low
        };
        let end = if part + 1 == parts { self.ends.len() } else { channel_at(part + 1) };
        if part == 0 { 0..end } else { channel_at(part)..end }
    }
}

/// Some channels of one tile of flat pixels.
struct Tile<'a> {
    kernel: &'a Prepared,
    call: &'a Call,
    /// The image in the split input.
    input: *const f32,
    image: usize,
    /// First flat pixel.
    start: usize,
    channels: std::ops::Range<usize>,
}

/// Computes a [`Tile`].
///
/// # Safety
/// Its addresses are valid, and nobody else writes its part of the output.
type Entry = unsafe fn(&Tile<'_>);

/// Chooses the compiled function.
struct Select {
    vectors: usize,
}

impl Build for Select {
    type Output = Option<Entry>;

    fn build<S: Simd>(self) -> Option<Entry> {
        Some(match self.vectors {
            1 => entry::<S, 1>,
            2 => entry::<S, 2>,
            4 => entry::<S, 4>,
            6 => entry::<S, 6>,
            8 => entry::<S, 8>,
            12 => entry::<S, 12>,
            _ => return None,
        })
    }
}

/// # Safety
/// As for [`Entry`], and the processor executes `S`.
unsafe fn entry<S: Simd, const VECTORS: usize>(tile: &Tile<'_>) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Run::<VECTORS>(tile)) }
}

struct Run<'a, const VECTORS: usize>(&'a Tile<'a>);

impl<const VECTORS: usize> Job for Run<'_, VECTORS> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let tile = self.0;
        let kernel = tile.kernel;
        let (pixels, from) = kernel.phases.window(tile.start, kernel.width);
        for channel in tile.channels.clone() {
            let start = if channel == 0 { 0 } else { kernel.ends[channel - 1] };
            // SAFETY: `width` numbers from `from` on may be read at every distance; outputs are stored by
            // the pixels that exist.
            unsafe {
                let input = tile.input.add(from);
                let mut sums = [S::splat(kernel.bias[channel]); VECTORS];
                for non_zero in &kernel.non_zeros[start..kernel.ends[channel]] {
                    let input = input.add(non_zero.distance as usize);
                    let weight = S::splat(non_zero.weight);
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = S::fma(weight, S::load(input.add(v * S::LANES)), *sum);
                    }
                }
                let sums = sums;
                let at = (tile.image * kernel.problem.out_channels + channel) * kernel.pixels;
                let residual = tile.call.residual.cast::<f32>();
                S::vectorize(StorePixels {
                    phases: &kernel.phases,
                    pixels: pixels.clone(),
                    sums: sums.as_ptr().cast::<f32>().add(pixels.start - from),
                    output: tile.call.output.cast::<f32>().add(at),
                    residual: if residual.is_null() { residual } else { residual.add(at) },
                    finish: &kernel.finish,
                });
            }
        }
    }
}
