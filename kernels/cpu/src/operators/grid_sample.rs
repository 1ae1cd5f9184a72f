//! Elements of images at computed places, with interpolation (ONNX `GridSample`). Row-major.

use super::{Context, Io, Loops, OperatorKernel, on};
use paretune_base::plan::tensor::{Border, Interpolation};
use paretune_base::threads::Worker;

/// Attributes of the operator, see [`paretune_base::plan::tensor::TensorOperator::GridSample`].
#[derive(Clone, Copy)]
pub struct Attributes {
    /// Interpolation between the elements of the input.
    pub mode: Interpolation,
    /// Value of places outside of the image.
    pub border: Border,
    /// Whether -1 and 1 are the centers of the outermost elements.
    pub align_corners: bool,
}

/// Builds the sampling of images of shape `image`, `[c, h, w]`, at `[height, width]` places.
pub fn prepare(
    context: Context,
    image: [usize; 3],
    places: [usize; 2],
    attributes: Attributes,
) -> Box<dyn OperatorKernel> {
    on(context.isa, Sample { batch: context.batch, image, places, attributes })
}

struct Sample {
    batch: usize,
    image: [usize; 3],
    places: [usize; 2],
    attributes: Attributes,
}

/// Most elements that one place is interpolated from along one axis.
const TAPS: usize = 4;

/// Positions and weights along one axis; no position where the border is zero.
type Taps = [(Option<usize>, f32); TAPS];

impl Sample {
    /// Returns the taps for coordinate `at` from -1 to 1 on an axis of `size` elements.
    #[inline(always)]
    fn taps(&self, at: f32, size: usize) -> Taps {
        let Attributes { mode, border, align_corners } = self.attributes;
        let extent = size as f32;
        let mut x = if align_corners {
            (at + 1.0) / 2.0 * (extent - 1.0)
        } else {
            ((at + 1.0) * extent - 1.0) / 2.0
        };
        // Cubic interpolation treats the border element by element.
        let bounds = if align_corners { (0.0, extent - 1.0) } else { (-0.5, extent - 0.5) };
        if mode != Interpolation::Cubic {
            x = match border {
                Border::Zeros => x,
                Border::Edge => x.clamp(0.0, extent - 1.0),
                Border::Mirror => mirrored(x, bounds).clamp(0.0, extent - 1.0),
            };
        }
        let base = x.floor();
        let t = x - base;
        let position = |offset: f32| {
            let place = base + offset;
            let place = match border {
                Border::Zeros => place,
                Border::Edge => place.clamp(0.0, extent - 1.0),
                Border::Mirror => mirrored(place, bounds).clamp(0.0, extent - 1.0),
            };
            (place >= 0.0 && place < extent).then_some(place as usize)
        };
        match mode {
            Interpolation::Nearest => {
                let place = x.round_ties_even();
                let inside = (place >= 0.0 && place < extent).then_some(place as usize);
                [(inside, 1.0), (None, 0.0), (None, 0.0), (None, 0.0)]
            }
            Interpolation::Linear => {
                [(position(0.0), 1.0 - t), (position(1.0), t), (None, 0.0), (None, 0.0)]
            }
            Interpolation::Cubic => {
                let weights = cubic(t);
                std::array::from_fn(|tap| (position(tap as f32 - 1.0), weights[tap]))
            }
        }
    }
}

/// Returns the weights of four neighbors at distance `t` from the second, for coefficient -0.75.
#[inline(always)]
fn cubic(t: f32) -> [f32; TAPS] {
    const A: f32 = -0.75;
    let near = |d: f32| ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0;
    let far = |d: f32| ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

/// Mirrors `x` at both bounds until it is between them.
#[inline(always)]
fn mirrored(x: f32, (low, high): (f32, f32)) -> f32 {
    let span = high - low;
    if span <= 0.0 {
        return 0.0;
    }
    let distance = (x - low).abs() % (2.0 * span);
    low + if distance > span { 2.0 * span - distance } else { distance }
}

impl Loops for Sample {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let [channels, height, width] = self.image;
        let places: usize = self.places.iter().product();
        // SAFETY: input 0 holds `batch` images and input 1 as many grids of places, and no thread
        // writes an input during the run.
        let (images, grids) = unsafe {
            (
                io.input::<f32>(0, self.batch * channels * height * width),
                io.input::<f32>(1, self.batch * places * 2),
            )
        };
        for unit in worker.share(self.batch * places) {
            let (image, place) = (unit / places, unit % places);
            let columns = self.taps(grids[unit * 2], width);
            let rows = self.taps(grids[unit * 2 + 1], height);
            for channel in 0..channels {
                let plane = image * channels + channel;
                let pixels = &images[plane * height * width..(plane + 1) * height * width];
                let mut sum = 0.0;
                for (row, down) in rows {
                    for (column, along) in columns {
                        if let (Some(row), Some(column)) = (row, column) {
                            sum += pixels[row * width + column] * down * along;
                        }
                    }
                }
                // SAFETY: every element of the output is one worker's.
                let output = unsafe { io.output::<f32>(plane * places + place, 1) };
                output[0] = sum;
            }
        }
    }
}
