//! Addition and multiplication for simple shapes, possibly of 8-bit values: both operands have the
//! output's shape, or the second has one value per channel (the gates of squeeze-and-excitation).
//!
//! 8-bit elements are converted to single precision in registers. If all elements have 8 bits,
//! `folded` usually takes over. Other broadcasting, in single precision only, is left to
//! [`super::binary`].

use super::activation::CHUNK;
use super::binary::Arithmetic;
use super::convert::{Dequantize, Map, Quantize, Same};
use super::{Context, Io, Loops, OperatorKernel, activate, as_images, folded, on};
use paretune_base::plan::activation::Activation;
use paretune_base::plan::layout::{Element, Layout};
use paretune_base::threads::Worker;

/// Channels processed together in registers.
const LANES: usize = 16;

/// Pixels processed before the next group of channels: few enough that their cache lines are still
/// in the first-level cache.
const PIXELS: usize = 32;

/// Builds `activation(a op b)` of `len` elements each, in one order; `elements` are the element
/// types of a, b and the output. The output may be an operand of the same type.
pub fn equal(
    context: Context,
    arithmetic: Arithmetic,
    len: usize,
    elements: [Element; 3],
    activation: Activation,
) -> Box<dyn OperatorKernel> {
    if let ([Element::U8(a), Element::U8(b), Element::U8(output)], Arithmetic::Add) =
        (elements, arithmetic)
        && let Some(kernel) = folded::sum(context, len, [a, b, output], activation)
    {
        return kernel;
    }
    dispatch(elements, Equal { context, arithmetic, len, activation })
}

/// Builds `activation(a op b)`, where b has one single-precision value per image and channel. `a`
/// and the output are `[channels, pixels]` per image in `layout`, with the given element types. The
/// output may be `a` if both have the same type.
pub fn per_channel(
    context: Context,
    arithmetic: Arithmetic,
    [channels, pixels]: [usize; 2],
    layout: Layout,
    [a, output]: [Element; 2],
    activation: Activation,
) -> Box<dyn OperatorKernel> {
    if let (Element::U8(a), Element::U8(output)) = (a, output)
        && let Some(kernel) = folded::per_channel(
            context,
            arithmetic,
            [channels, pixels],
            layout,
            [a, output],
            activation,
        )
    {
        return kernel;
    }
    // In NCHW a row is a plane of pixels that share a channel; in NHWC a row is a pixel.
    let (context, channels, layout) = as_images(context, channels, layout);
    let size = [context.batch, channels, pixels];
    dispatch(
        [a, Element::F32, output],
        PerChannel { context, arithmetic, size, layout, activation },
    )
}

/// Operator to compile once the element types are known as Rust types.
trait Typed {
    fn with<A, B, O>(self, a: A, b: B, output: O) -> Box<dyn OperatorKernel>
    where
        A: Map<Out = f32> + 'static,
        B: Map<Out = f32> + 'static,
        O: Map<In = f32> + 'static;
}

fn dispatch(elements: [Element; 3], typed: impl Typed) -> Box<dyn OperatorKernel> {
    fn output<A, B>(a: A, b: B, element: Element, typed: impl Typed) -> Box<dyn OperatorKernel>
    where
        A: Map<Out = f32> + 'static,
        B: Map<Out = f32> + 'static,
    {
        match element {
            Element::F32 => typed.with(a, b, Same),
            Element::U8(grid) => typed.with(a, b, Quantize::new(grid)),
        }
    }
    let [a, b, to] = elements;
    match (a, b) {
        (Element::F32, Element::F32) => output(Same, Same, to, typed),
        (Element::F32, Element::U8(grid)) => output(Same, Dequantize { grid }, to, typed),
        (Element::U8(grid), Element::F32) => output(Dequantize { grid }, Same, to, typed),
        (Element::U8(a), Element::U8(b)) => {
            output(Dequantize { grid: a }, Dequantize { grid: b }, to, typed)
        }
    }
}

struct Equal {
    context: Context,
    arithmetic: Arithmetic,
    len: usize,
    activation: Activation,
}

impl Typed for Equal {
    fn with<A, B, O>(self, a: A, b: B, output: O) -> Box<dyn OperatorKernel>
    where
        A: Map<Out = f32> + 'static,
        B: Map<Out = f32> + 'static,
        O: Map<In = f32> + 'static,
    {
        on(self.context.isa, EqualLoops { shape: self, a, b, output })
    }
}

struct EqualLoops<A, B, O> {
    shape: Equal,
    a: A,
    b: B,
    output: O,
}

impl<A: Map<Out = f32>, B: Map<Out = f32>, O: Map<In = f32>> Loops for EqualLoops<A, B, O> {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let Equal { arithmetic, len, activation, .. } = self.shape;
        let (a, b) = (io.inputs[0].cast::<A::In>(), io.inputs[1].cast::<B::In>());
        let output = io.output.cast::<O::Out>();
        for chunk in worker.share(len.div_ceil(CHUNK)) {
            let start = chunk * CHUNK;
            let count = CHUNK.min(len - start);
            // SAFETY: `start + count <= len`, which all three hold; workers have different chunks;
            // numbers of a chunk are read before they are written, so the output may be an operand.
            unsafe {
                let (a, b, output) = (a.add(start), b.add(start), output.add(start));
                if count == CHUNK {
                    row::<CHUNK, _, _, _>(self, arithmetic, activation, a, b, output);
                } else {
                    for i in 0..count {
                        row::<1, _, _, _>(
                            self,
                            arithmetic,
                            activation,
                            a.add(i),
                            b.add(i),
                            output.add(i),
                        );
                    }
                }
            }
        }
    }
}

/// Computes `N` adjacent elements.
///
/// # Safety
/// All addresses must be valid for `N` elements.
#[inline(always)]
unsafe fn row<const N: usize, A: Map<Out = f32>, B: Map<Out = f32>, O: Map<In = f32>>(
    loops: &EqualLoops<A, B, O>,
    arithmetic: Arithmetic,
    activation: Activation,
    a: *const A::In,
    b: *const B::In,
    output: *mut O::Out,
) {
    let mut numbers = [0.0_f32; N];
    // SAFETY: the caller has `N` elements at all three addresses, and `i` is less than `N`.
    unsafe {
        match arithmetic {
            Arithmetic::Add => {
                for i in 0..N {
                    numbers[i] = loops.a.map(*a.add(i)) + loops.b.map(*b.add(i));
                }
            }
            Arithmetic::Mul => {
                for i in 0..N {
                    numbers[i] = loops.a.map(*a.add(i)) * loops.b.map(*b.add(i));
                }
            }
        }
        activate(activation, &mut numbers);
        for i in 0..N {
            *output.add(i) = loops.output.map(numbers[i]);
        }
    }
}

struct PerChannel {
    context: Context,
    arithmetic: Arithmetic,
    /// Numbers of images, channels and pixels.
    size: [usize; 3],
    layout: Layout,
    activation: Activation,
}

impl Typed for PerChannel {
    fn with<A, B, O>(self, a: A, _b: B, output: O) -> Box<dyn OperatorKernel>
    where
        A: Map<Out = f32> + 'static,
        B: Map<Out = f32> + 'static,
        O: Map<In = f32> + 'static,
    {
        on(self.context.isa, PerChannelLoops { shape: self, a, output })
    }
}

struct PerChannelLoops<A, O> {
    shape: PerChannel,
    a: A,
    output: O,
}

impl<A: Map<Out = f32>, O: Map<In = f32>> Loops for PerChannelLoops<A, O> {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let [batch, channels, pixels] = self.shape.size;
        let a = io.inputs[0].cast::<A::In>();
        let b = io.inputs[1].cast::<f32>();
        let output = io.output.cast::<O::Out>();
        match self.shape.layout {
            Layout::Nchw => {
                for plane in worker.share(batch * channels) {
                    // SAFETY: there are as many planes, and as many numbers of `b`.
                    unsafe {
                        let factors = [*b.add(plane); LANES];
                        let from = plane * pixels;
                        self.along(a.add(from), &factors, output.add(from), pixels, 0);
                    }
                }
            }
            Layout::Nhwc | Layout::Nchwc(_) => {
                let parts = pixels.div_ceil(PIXELS);
                for part in worker.share(batch * parts) {
                    let (image, first) = (part / parts, part % parts * PIXELS);
                    let count = PIXELS.min(pixels - first);
                    for channel in (0..channels).step_by(LANES) {
                        let width = LANES.min(channels - channel);
                        let mut factors = [0.0; LANES];
                        // SAFETY: `channel + width <= channels` and `first + count <= pixels`;
                        // workers have different pixels.
                        unsafe {
                            let b = b.add(image * channels + channel);
                            for i in 0..width {
                                factors[i] = *b.add(i);
                            }
                            for pixel in first..first + count {
                                let at = (image * pixels + pixel) * channels + channel;
                                self.along(a.add(at), &factors, output.add(at), width, 1);
                            }
                        }
                    }
                }
            }
        }
    }
}

impl<A: Map<Out = f32>, O: Map<In = f32>> PerChannelLoops<A, O> {
    /// Computes `count` adjacent elements. All use the first factor if `step` is 0, else each uses
    /// its own.
    ///
    /// # Safety
    /// All addresses must be valid for `count` elements; if `step` is 1, `count` must be at most
    /// [`LANES`].
    #[inline(always)]
    unsafe fn along(
        &self,
        a: *const A::In,
        factors: &[f32; LANES],
        output: *mut O::Out,
        count: usize,
        step: usize,
    ) {
        let mut at = 0;
        while at + LANES <= count {
            // SAFETY: `at + LANES` is at most `count`, and the caller has `count` elements at both
            // addresses.
            unsafe { self.vector::<LANES>(a.add(at), factors, output.add(at)) };
            at += LANES;
        }
        for at in at..count {
            // SAFETY: `at` is less than `count`, and the caller has `count` elements at both
            // addresses.
            unsafe {
                self.vector::<1>(a.add(at), &[factors[at * step % LANES]; LANES], output.add(at))
            };
        }
    }

    /// Computes `N` adjacent elements with one factor each.
    ///
    /// # Safety
    /// All addresses must be valid for `N` elements.
    #[inline(always)]
    unsafe fn vector<const N: usize>(
        &self,
        a: *const A::In,
        factors: &[f32; LANES],
        output: *mut O::Out,
    ) {
        let mut numbers = [0.0_f32; N];
        // SAFETY: the caller has `N` elements at both addresses, and `i` is less than `N`.
        unsafe {
            match self.shape.arithmetic {
                Arithmetic::Add => {
                    for i in 0..N {
                        numbers[i] = self.a.map(*a.add(i)) + factors[i];
                    }
                }
                Arithmetic::Mul => {
                    for i in 0..N {
                        numbers[i] = self.a.map(*a.add(i)) * factors[i];
                    }
                }
            }
            activate(self.shape.activation, &mut numbers);
            for i in 0..N {
                *output.add(i) = self.output.map(numbers[i]);
            }
        }
    }
}
